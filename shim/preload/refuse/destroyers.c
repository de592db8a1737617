/* SPDX-License-Identifier: MIT
 *
 * Known destroyers: calls that have been seen to destroy people's data, refused by what they are
 * about to do, whoever makes them.
 */
#include <string.h>

#include "preload/base/shim.h"
#include "preload/persist/persists.h"
#include "preload/persist/segment_header.h"
#include "preload/pin/pins.h"
#include "preload/refuse/graphs.h"
#include "preload/refuse/refuse.h"
#include "preload/sqlite/transactions.h"

#define FROZEN 256
#define SLACK (INT64_C(16) << 20) /* bytes that a write may lie beyond the end without a look */
#define LEVELS 64

/*
 * Segments that must not be written any more: hnswlib looks at no error, and would go on in place
 * with what it has in memory.
 */
static _Atomic uint32_t frozen[FROZEN];

static bool is_frozen(uint32_t directory)
{
	int i;

	for (i = 0; i < FROZEN; i++)
		if (directory && atomic_load(&frozen[i]) == directory)
			return true;
	return false;
}

static void freeze(uint32_t directory)
{
	int i;

	if (!directory || is_frozen(directory))
		return;
	for (i = 0; i < FROZEN; i++) {
		uint32_t empty = 0;

		if (atomic_compare_exchange_strong(&frozen[i], &empty, directory))
			return;
	}
}

/* ---- a segment's header ---- */

static bool segment_path(const struct change *c, const char *file, char out[PLACE_MAX])
{
	uint32_t number = name_get(c->slot.name)->directory;
	const struct name *directory = name_get(number);
	size_t n = directory->length, k = strlen(file);

	if (!out || !number || n + 1 + k + 1 > PLACE_MAX)
		return false;
	memcpy(out, name_text(directory), n);
	out[n] = '/';
	memcpy(out + n + 1, file, k + 1);
	return true;
}

static bool read_header(const struct change *c, struct segment_header *h)
{
	SCRATCH(path);

	return segment_path(c, "header.bin", path) &&
	       segment_header_read(protections[c->slot.protection].root_fd, path, h);
}

bool segment_pickle_is_missing(const struct change *c)
{
	SCRATCH(path);
	struct stat st;

	return segment_path(c, "index_metadata.pickle", path) &&
	       sys_fstatat(protections[c->slot.protection].root_fd, path, &st,
			   AT_SYMLINK_NOFOLLOW) == -ENOENT;
}

/* ---- truncation of an index whose pickle is lost ---- */

static bool loses_vectors(const struct change *c)
{
	struct segment_header h;

	return change_truncates(c) && segment_pickle_is_missing(c) && read_header(c, &h) &&
	       h.count > 0;
}

/* ---- writes far beyond the end ---- */

static uint64_t times(uint64_t a, uint64_t b)
{
	uint64_t product;

	return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

/* The largest size that the header allows the file. */
static uint64_t bound_of(const struct change *c, const struct segment_header *h)
{
	uint64_t elements = (h->capacity > h->count ? h->capacity : h->count) + 1;
	uint64_t levels = h->levels > 0 && h->levels <= LEVELS ? (uint64_t)h->levels : LEVELS;

	switch (c->slot.role) {
	case ROLE_LEVEL0:
		return times(elements, h->stride);
	case ROLE_LENGTH:
		return times(elements, 4);
	default:
		return times(elements, 4 + times(levels, 4 + times(4, h->links)));
	}
}

static bool runs_away(const struct change *c)
{
	struct segment_header h;
	struct stat st;
	uint64_t bound;

	if (!c->iov || c->fd < 0 || c->offset < SLACK || sys_fstat(c->fd, &st) < 0 ||
	    c->offset <= st.st_size + SLACK)
		return false;
	bound = read_header(c, &h) && h.links <= 4096 ? bound_of(c, &h) : 0;
	return (uint64_t)c->offset + c->length > bound;
}

static bool changes_bytes(const struct change *c)
{
	switch (c->op) {
	case OP_OPEN:
	case OP_OPENAT:
	case OP_CREAT:
		return (c->flags & O_ACCMODE) != O_RDONLY;
	case OP_TRUNCATE:
	case OP_FTRUNCATE:
	case OP_FALLOCATE:
		return true;
	default:
		return c->iov != NULL;
	}
}

/*
 * Before 1.0 a persist is part of a SQLite transaction, and its error is not heard: the records
 * would be acknowledged, and be in no index. So that transaction is not let into the database,
 * while that is clean: at its first page, in the thread that it belongs to. Nor are later ones of
 * that connection, since its client has lost its way and persists no more.
 */
static _Atomic uint64_t void_transactions[PROTECTIONS];

static bool is_void(const struct change *c)
{
	uint64_t number =
	    atomic_load_explicit(&void_transactions[c->slot.protection], memory_order_relaxed);
	bool known = c->slot.writable & SLOT_VOID;
	union slot s = c->slot;

	if (__builtin_expect(number == 0, 1) || !c->iov || s.role != ROLE_DATABASE ||
	    (!known && transaction_number(s.protection) != number) ||
	    transaction_thread(s.protection) != thread_id() ||
	    !transaction_database_starts(s, c->length, c->offset))
		return false;
	s.writable |= SLOT_VOID;
	slot_set(c->fd, s);
	return true;
}

/* A second graph on files that another one of this process has written, or one of a reader that has
 * become the writer: what it has in memory lacks what the other wrote, and nobody can make Chroma
 * load it anew. */
static int refuse_old(const struct change *c)
{
	static const char second[] =
	    ": writing is refused: another client in this process, or another process, has written "
	    "this collection since this one loaded it, and would be overwritten. Use one client "
	    "for a directory: close this one and go on with the other, or restart. Reading is "
	    "fine, and other collections go on.";
	static const char reader[] =
	    ": writing is refused: this process loaded the collection's index while another one "
	    "was writing it, and would overwrite what that one has written since. Nothing is lost: "
	    "what is added here waits in the queue, although the call that added it may fail. "
	    "Restart this process, which is the writer then and loads all of it.";
	const struct protection *a = protection_of(c->slot);

	if (transaction_thread(c->slot.protection) == thread_id())
		atomic_store(&void_transactions[c->slot.protection],
			     transaction_number(c->slot.protection));
	refuse_say(c, OP_REFUSE_WRITER, -EBUSY,
		   (const char *const[]){a->spelling[0], "/", name_text(name_get(c->slot.name)),
					 a->read_beside ? reader : second, NULL});
	return -EBUSY;
}

/* The index in memory is damaged. What is on the disk, queue and all, is kept as it is now. */
static int refuse_runaway(const struct change *c)
{
	const struct protection *a = protection_of(c->slot);

	freeze(name_get(c->slot.name)->directory);
	persist_fail(c, EFBIG);
	pin_take_waiting(c->slot.protection, "damage", "before a damaged index was written", 0,
			 false);
	refuse_say(c, OP_REFUSE_DESTROYER, -EFBIG,
		   (const char *const[]){
		       a->spelling[0], "/", name_text(name_get(c->slot.name)),
		       ": a write far beyond its end is refused: it would be larger than its index "
		       "can be; the index in memory is damaged. Nothing was lost: its records wait "
		       "in the queue",
		       atomic_load(&a->persist_lost) ? "" : ", and other collections go on",
		       ". Stop the backend and run: chromashim recover ", a->spelling[0], NULL});
	return -EFBIG;
}

static int check_segment(const struct change *c)
{
	const struct protection *a = protection_of(c->slot);
	const char *name = name_text(name_get(c->slot.name));
	uint32_t directory = name_get(c->slot.name)->directory;

	if (is_frozen(directory) && changes_bytes(c))
		return -EPERM;
	if (graph_is_old(c) && settings.single_writer != SINGLE_WRITER_OFF)
		return refuse_old(c);
	if (c->slot.role != ROLE_PICKLE && loses_vectors(c)) {
		freeze(directory);
		refuse_say(c, OP_REFUSE_DESTROYER, -EPERM,
			   (const char *const[]){
			       a->spelling[0], "/", name,
			       ": emptying is refused: it holds vectors, and only its "
			       "index_metadata.pickle is missing. Put that file back from a copy, "
			       "or from a snapshot; what is left is told by: chromashim check ",
			       a->spelling[0], NULL});
		return -EPERM;
	}
	return graph_outgrows(c) || (c->slot.role != ROLE_PICKLE && runs_away(c))
		   ? refuse_runaway(c)
		   : 0;
}

int destroyer_check(const struct change *c)
{
	if (role_in_segment(c->slot.role))
		return check_segment(c);
	return is_void(c) ? -EBUSY : 0;
}
