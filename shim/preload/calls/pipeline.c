/* SPDX-License-Identifier: MIT
 *
 * The order in which the rooms are asked about a change, and told of it.
 */
#include "preload/calls/pipeline.h"

#include <sys/uio.h>

#include "preload/base/readable.h"
#include "preload/base/shim.h"
#include "preload/persist/persists.h"
#include "preload/pin/pins.h"
#include "preload/place/faults.h"
#include "preload/place/stores.h"
#include "preload/refuse/opening.h"
#include "preload/refuse/readers.h"
#include "preload/refuse/refuse.h"
#include "preload/sqlite/transactions.h"

static void leave(struct change *c)
{
	if (c->entered)
		protection_leave(c->slot.protection);
	c->entered = false;
}

static bool of_sqlite(union slot s)
{
	return s.role >= ROLE_DATABASE && s.role <= ROLE_SHM;
}

/* The rooms that may say no, the cheapest first. */
static int refusal_of(const struct change *c)
{
	int r;

	if (__builtin_expect(store_concerns(c), 0))
		return store_refusal(c);
	r = failure_check(c);
	if (r == 0 && !writer_is_ours(protection_of(c->slot)) && !reader_may_open(c))
		r = writer_check(c);
	if (r == 0 && opening_ends(c))
		writer_stays(c->slot.protection);
	if (c->iov && c->slot.role == ROLE_OTHER)
		return r; /* bytes of a file that is none of Chroma's */
	if (r == 0 && !c->iov)
		r = removal_check(c);
	if (r == 0)
		r = destroyer_check(c);
	return r == 0 ? space_check(c) : r;
}

/* Saves what the change would destroy; or keeps it back, or says no. */
static enum change_verdict persist_begin(struct change *c)
{
	if (change_renames(c)) {
		persist_rename_begin(c);
		return CHANGE_GO;
	}
	return role_in_segment(c->slot.role) ? persist_change_begin(c) : CHANGE_GO;
}

static void persist_end(struct change *c, int64_t ret)
{
	if (change_renames(c))
		persist_rename_end(c, ret);
	else if (role_in_segment(c->slot.role))
		persist_change_end(c, ret);
}

/* In tests. */
static bool change_fails(struct change *c)
{
	int error = fault_of_change(c);

	if (!error)
		return false;
	errno = error;
	c->result = -1;
	change_end(c, -1);
	return true;
}

static enum change_verdict begin(struct change *c)
{
	int saved = errno, refused;
	MAPS_GUARDED;

	if (c->slot.role == ROLE_HIDDEN && shim_borrowed())
		return CHANGE_GO; /* a vfork child has descriptors of its own */
	if (reader_answers(c))
		return CHANGE_ANSWERED;
	refused = refusal_of(c);
	if (refused < 0) {
		errno = -refused;
		c->result = -1;
		return CHANGE_ANSWERED;
	}
	c->claim = record_begin_two(c->slot, c->target ? c->target->slot.name : 0, c->op, c->offset,
				    c->length, c->arg);
	errno = saved;
	fault_point();
	c->writer = pin_alters(c) ? pin_enter(c->slot.protection) : NULL;
	pin_trigger(c);
	if (c->slot.role == ROLE_DATABASE && c->iov)
		transaction_writes(c->slot, c->length, c->offset);
	if (persist_begin(c) == CHANGE_ANSWERED) {
		oplog_end(c->claim, c->result < 0 ? -(int64_t)errno : c->result);
		pin_leave(c->writer); /* it was not made */
		return CHANGE_ANSWERED;
	}
	pin_change(c); /* after its group is known: whoever pins sees one or the other */
	fault_point();
	return change_fails(c) ? CHANGE_ANSWERED : CHANGE_GO;
}

enum change_verdict change_begin(struct change *c)
{
	enum change_verdict verdict;

	if (c->iov && !vector_is_readable(c->iov, c->iov_count)) {
		c->iov = NULL; /* as if the kernel brought the bytes: it says what is wrong */
		c->iov_count = 0;
	}
	if (c->place && slot_protected(c->slot) &&
	    !(c->entered = protection_enter(c->slot.protection))) {
		c->slot.all = 0; /* another thread has let go of it: it is protected no more */
		return CHANGE_GO;
	}
	verdict = begin(c);
	if (verdict == CHANGE_ANSWERED)
		leave(c);
	return verdict;
}

bool change_retry(struct change *c)
{
	if (!c->slot.all || (errno != ENOSPC && errno != EDQUOT))
		return false;
	if (errno == EDQUOT)
		space_quota_hit(c->slot.protection);
	return c->tries++ < 3 && space_make(c->slot.protection);
}

/* With O_APPEND the place of a write is known only afterwards. */
static void fix_offset(struct change *c, int64_t ret)
{
	off_t at;

	if (!(c->slot.writable & SLOT_APPEND) || ret <= 0 || !c->iov ||
	    (c->op != OP_WRITE && c->op != OP_WRITEV))
		return;
	at = sys_lseek(c->fd, 0, SEEK_CUR);
	if (at < ret)
		return;
	c->offset = at - ret;
	oplog_moved(c->claim, c->offset);
}

static void tell_written(const struct change *c, int64_t n)
{
	off_t offset = c->offset;
	int i;

	for (i = 0; i < c->iov_count && n > 0; i++) {
		size_t length = c->iov[i].iov_len < (size_t)n ? c->iov[i].iov_len : (size_t)n;

		if (length)
			transaction_written(c->slot, c->iov[i].iov_base, length, offset);
		offset += (off_t)length;
		n -= (int64_t)length;
	}
}

static void tell_transactions(const struct change *c, int64_t ret)
{
	switch (c->op) {
	case OP_WRITE:
	case OP_PWRITE:
	case OP_WRITEV:
	case OP_PWRITEV:
		tell_written(c, ret);
		break;
	case OP_FTRUNCATE:
	case OP_TRUNCATE:
		transaction_truncated(c->slot, (off_t)c->length);
		break;
	case OP_UNLINK:
	case OP_UNLINKAT:
		transaction_unlinked(c->slot);
		break;
	case OP_RENAME:
	case OP_RENAMEAT:
	case OP_RENAMEAT2:
		transaction_unlinked(c->place ? c->place->slot : c->slot);
		break;
	default:
		break;
	}
}

void change_end(struct change *c, int64_t ret)
{
	int saved = errno;
	MAPS_GUARDED;

	if (!c->slot.all || c->slot.role == ROLE_HIDDEN)
		return;
	fault_point();
	fix_offset(c, ret);
	oplog_end(c->claim, ret < 0 ? -(int64_t)saved : ret);
	if (ret >= 0 && of_sqlite(c->slot))
		tell_transactions(c, ret);
	errno = saved;
	persist_end(c, ret);
	pin_change_end(c);
	leave(c);
	/* What was done by name, with no file open: another may write from now on. */
	if (c->place && (ret < 0 || !change_opens(c)))
		writer_give_back(c->slot.protection);
}
