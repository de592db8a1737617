/* SPDX-License-Identifier: MIT
 *
 * A transaction that is refused at its commit, or in WAL mode at its lock for writing.
 */
#include "preload/refuse/commits.h"

#include <string.h>

#include "core/base/clock.h"
#include "core/sqlite/page.h"
#include "core/sqlite/wal.h"
#include "preload/base/shim.h"
#include "preload/sqlite/copies.h"
#include "preload/sqlite/transactions.h"

#define PAUSE (SECOND / 100)	   /* a sleep so soon after a refusal is SQLite's */
#define LONGEST_SLEEP (SECOND / 5) /* SQLite's own are half of it at most */
#define WAL_INDEX_HEADER 48
#define PATIENCE (2 * SECOND) /* a SQLite whose sleeps cannot be cut is not kept waiting longer */

__thread bool commits_refused __attribute__((tls_model("initial-exec")));
THREAD_LOCAL uint64_t refused_at; /* ns, CLOCK_MONOTONIC */
THREAD_LOCAL uint64_t
    asks_since; /* that it begins in WAL mode, and could not be made to ask faster */

static struct {
	_Atomic uint64_t number; /* of the transaction, 0: none */
	_Atomic uint64_t since;	 /* of its first refusal; ns, CLOCK_MONOTONIC, 0: not yet */
} put_off[PROTECTIONS];

/* Through SQLite's own entry points its users see that it has rolled back. */
bool commits_refuse(unsigned protection)
{
	return !sqlite_is_above(transaction_object(protection));
}

void commits_put_off(unsigned protection)
{
	atomic_store(&put_off[protection].since, 0);
	atomic_store(&put_off[protection].number, transaction_number(protection));
}

bool commits_come(const struct change *c)
{
	unsigned protection = c->slot.protection;
	uint64_t number = atomic_load_explicit(&put_off[protection].number, memory_order_relaxed);

	return number && c->slot.role == ROLE_DATABASE && c->op == OP_LOCK &&
	       (c->arg & 0xff) == OPLOG_LOCK_WRITE && c->offset == SQLITE_PENDING_BYTE &&
	       transaction_open(protection) && transaction_number(protection) == number;
}

bool commits_refuse_now(const struct change *c, bool *first_out)
{
	_Atomic uint64_t *since = &put_off[c->slot.protection].since;
	uint64_t now = oplog_now(), none = 0;

	*first_out = atomic_compare_exchange_strong(since, &none, now);
	if (!*first_out && now > none + PATIENCE)
		return false;
	commits_refused = true;
	refused_at = now;
	return true;
}

/* The header of SQLite's index of its log, twice: else the lock is taken to make it. */
static bool has_index(int fd)
{
	static const char none[WAL_INDEX_HEADER];
	char headers[2][WAL_INDEX_HEADER];

	return sys_pread(fd, headers, sizeof(headers), 0) == sizeof(headers) &&
	       memcmp(headers[0], headers[1], WAL_INDEX_HEADER) == 0 &&
	       memcmp(headers[0], none, WAL_INDEX_HEADER) != 0;
}

bool commits_wal_begins(const struct change *c)
{
	return c->slot.role == ROLE_SHM && c->op == OP_LOCK &&
	       (c->arg & 0xff) == OPLOG_LOCK_WRITE && c->offset == SQLITE_WAL_WRITE_BYTE &&
	       c->length == 1 && !sqlite_is_above(c->slot.object) && has_index(c->fd);
}

bool commits_refuse_wal(bool *first_out)
{
	uint64_t now = oplog_now();

	*first_out = now > refused_at + PAUSE;
	if (now > refused_at + LONGEST_SLEEP)
		asks_since = now;
	if (now > asks_since + PATIENCE)
		return false;
	commits_refused = true;
	refused_at = now;
	return true;
}

bool commits_cut_sleep_slow(void)
{
	uint64_t now = oplog_now();

	commits_refused = false;
	if (now >= refused_at + PAUSE)
		return false;
	asks_since = now;
	return true;
}
