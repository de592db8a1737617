/* SPDX-License-Identifier: MIT */
#include "preload/refuse/opening.h"

#include "core/sqlite/page.h"
#include "preload/base/shim.h"
#include "preload/refuse/intent.h"
#include "preload/refuse/touched.h"
#include "preload/sqlite/copies.h"

/* The connection that has RESERVED: descriptor + 1. */
static _Atomic int connections[PROTECTIONS];

bool opening_begins(const struct protection *a, const struct change *c)
{
	return settings.single_writer == SINGLE_WRITER_DENY && !a->right && c->op == OP_LOCK &&
	       c->slot.role == ROLE_DATABASE && c->slot.object && !sqlite_is_above(c->slot.object);
}

/* It has read the root of that table, and of no other. */
static bool is_row(unsigned protection)
{
	int fd = atomic_load(&connections[protection]) - 1;
	union slot s = fd < 0 ? (union slot){.all = 0} : slot_of(fd);

	return s.protection == protection && s.role == ROLE_DATABASE &&
	       s.touched == (TOUCHED_KNOWN | TABLE_ACQUIRE);
}

static enum opening next_of_database(const struct change *c, enum opening now)
{
	if (c->op == OP_LOCK && c->offset == SQLITE_RESERVED_BYTE)
		atomic_store(&connections[c->slot.protection], c->fd + 1);
	return c->op == OP_LOCK || (change_writes(c) && now == OPENING_WRITES) ? now : OPENING_NOT;
}

static enum opening next_of_journal(const struct change *c)
{
	if (intent_opens(c->op) || change_writes(c))
		return OPENING_WRITES;
	if (c->op == OP_UNLINK || c->op == OP_UNLINKAT)
		return is_row(c->slot.protection) ? OPENING_ROW : OPENING_NOT;
	return OPENING_NOT;
}

bool opening_ends_slow(const struct change *c)
{
	struct protection *a = protection_of(c->slot);
	uint8_t now = atomic_load(&a->opening);
	enum opening next = OPENING_NOT;

	if (!now || intent_of(c) != WRITES)
		return false;
	if (c->slot.role == ROLE_DATABASE)
		next = next_of_database(c, now);
	else if (c->slot.role == ROLE_JOURNAL)
		next = next_of_journal(c);
	return !next || (next != now && !atomic_compare_exchange_strong(&a->opening, &now, next));
}

bool opening_is_all(const struct protection *a)
{
	uint8_t now = atomic_load(&a->opening);

	return now == OPENING || now == OPENING_ROW;
}
