/* SPDX-License-Identifier: MIT
 *
 * The state of a transaction: its begin, its end, and what is recorded and told of them.
 */
#include "preload/sqlite/transaction_state.h"

#include <errno.h>
#include <string.h>

#include "preload/place/record.h"
#include "preload/sqlite/acts.h"

struct transaction transactions[PROTECTIONS];
static struct transaction_listener listener;

void transactions_hand_in(struct transaction_listener handed)
{
	listener = handed;
}

/* ---- records ---- */

static uint32_t database_name(unsigned protection)
{
	static const char name[] = "chroma.sqlite3";
	uint32_t file = GET(transactions[protection].file);

	return file ? file : name_intern(protection, name, sizeof(name) - 1);
}

void transaction_tell(unsigned protection)
{
	struct transaction *t = &transactions[protection];
	struct oplog_record r = {.op = OP_TXN_BEGIN, .time = t->since, .offset = -1};

	if (t->told)
		return;
	t->told = true;
	t->number++;
	r.file = database_name(protection);
	r.arg = t->number;
	record_put(protection, &r, NULL, 0);
}

static uint32_t new_cookie(const struct transaction *t, enum oplog_op op)
{
	bool changed = op == OP_TXN_COMMIT && t->before.known && t->after.known &&
		       t->before.cookie != t->after.cookie;

	return changed ? t->after.cookie : 0;
}

static void tell_end(unsigned protection, enum oplog_op op)
{
	const struct transaction *t = &transactions[protection];
	uint64_t now = oplog_now();
	struct oplog_record r = {
	    .op = (uint16_t)op,
	    .time = now,
	    .duration = now - t->since,
	    .file = database_name(protection),
	    .offset = (int64_t)t->pages,
	    .length = t->bytes,
	    .result = t->failed ? -(int64_t)EIO : (int64_t)new_cookie(t, op),
	    .arg = t->number,
	};

	record_put(protection, &r, NULL, 0);
}

/* ---- begin and end ---- */

void transaction_remember(struct transaction *t, const struct page_one *one)
{
	SET(t->last, (uint64_t)one->counter << 32 | one->cookie);
	SET(t->last_known, true);
}

static void forget_pages(struct transaction *t)
{
	if (t->pages)
		memset(t->seen, 0, sizeof(t->seen));
	t->pages = t->bytes = 0;
	t->highest = 0;
}

void transaction_begin(union slot s, enum transaction_kind kind)
{
	struct transaction *t = transaction_of(s);
	uint64_t last = GET(t->last);

	forget_pages(t);
	t->object = s.object;
	t->since = oplog_now();
	t->told = t->kept = t->played_back = t->cut = t->housekeeping = false;
	t->committed = t->failed = false;
	t->before = (struct page_one){
	    .known = GET(t->last_known),
	    .counter = (uint32_t)(last >> 32),
	    .cookie = (uint32_t)last,
	};
	t->after = (struct page_one){0};
	if (kind != TRANSACTION_WAL) /* the WAL's page size stays */
		t->page_size = 0;
	t->initial_pages = t->journal_page = t->witness = 0;
	t->record = NOWHERE;
	t->first_at = t->commit_at = NOWHERE;
	SET(t->journaled, 0);
	SET(t->thread, thread_id());
	atomic_store_explicit(&t->kind, kind, memory_order_release);
	if (kind == TRANSACTION_JOURNAL)
		transaction_tell(s.protection);
	if (kind == TRANSACTION_JOURNAL || kind == TRANSACTION_WAL)
		acts_begin(s.protection, t);
}

void transaction_end(unsigned protection, enum oplog_op op)
{
	struct transaction *t = &transactions[protection];

	if (op == OP_TXN_COMMIT && t->after.known)
		transaction_remember(t, &t->after);
	if (op == OP_TXN_ROLLBACK && t->before.known)
		transaction_remember(t, &t->before);
	tell_end(protection, op);
	acts_end(protection, t, op == OP_TXN_COMMIT);
	SET(t->thread, 0);
	SET(t->journaled, 0);
	atomic_store_explicit(&t->kind, TRANSACTION_NONE, memory_order_release);
	if (op == OP_TXN_COMMIT && t->pages)
		listener.committed(protection, t->number);
	listener.ended(protection, op == OP_TXN_COMMIT);
}

void transaction_count_page(struct transaction *t, uint32_t page)
{
	uint64_t *word = &t->seen[page % SEEN_PAGES / 64];
	uint64_t bit = UINT64_C(1) << (page % 64);

	/* A commit writes its pages in ascending order, so most are above all before. */
	if (page > t->highest || !(*word & bit))
		t->pages++;
	if (page > t->highest)
		t->highest = page;
	*word |= bit;
}
