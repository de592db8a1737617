/* SPDX-License-Identifier: MIT
 *
 * A transaction that is refused at its commit.
 */
#include "preload/refuse/commits.h"

#include "core/base/clock.h"
#include "core/sqlite/page.h"
#include "preload/base/shim.h"
#include "preload/sqlite/copies.h"
#include "preload/sqlite/transactions.h"

#define PAUSE (SECOND / 100)  /* a sleep so soon after a refusal is SQLite's */
#define PATIENCE (2 * SECOND) /* a SQLite whose sleeps cannot be cut is not kept waiting longer */

__thread bool commits_refused __attribute__((tls_model("initial-exec")));
THREAD_LOCAL uint64_t refused_at; /* ns, CLOCK_MONOTONIC */

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

bool commits_cut_sleep_slow(void)
{
	commits_refused = false;
	return oplog_now() < refused_at + PAUSE;
}
