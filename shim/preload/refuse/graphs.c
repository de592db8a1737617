/* SPDX-License-Identifier: MIT
 *
 * The graphs of a segment, and their bounds. All of it is kept at the name of its directory.
 */
#include "preload/refuse/graphs.h"

#include <string.h>

#include "preload/base/shim.h"
#include "preload/persist/persists.h"
#include "preload/persist/segment_header.h"
#include "preload/place/record.h"
#include "preload/refuse/refuse.h"

#define IDS 255	   /* numbers of graphs, from 0, used again in turn; kept with 1 added */
#define LEVELS 64  /* more than any graph has: their number falls by M from one to the next */
#define LINKS 4096 /* M, at most */
#define SPARE 16   /* elements more than the header tells */

/* The thread that loads a graph opens all its files, and writes its pickle. */
THREAD_LOCAL struct {
	uint32_t directory;
	uint8_t id;
	uint8_t roles;	   /* which of them it has opened */
	uint32_t persists; /* of which segment it has written the header, and no pickle yet */
} loading;

/* ---- which graph ---- */

union graphs {
	uint32_t all;
	struct {
		uint8_t latest; /* the last one that was loaded */
		uint8_t fresh;	/* those after it know all that was written */
		uint8_t owner;	/* the one that wrote last */
		uint8_t refused;
	};
};

static unsigned distance(uint8_t from, uint8_t to)
{
	return ((unsigned)to + IDS - from) % IDS;
}

static _Atomic uint32_t *graphs_of(union slot s)
{
	uint32_t directory = name_get(s.name)->directory;

	return directory ? &name_get(directory)->graphs : NULL;
}

static uint8_t load_one(_Atomic uint32_t *at)
{
	union graphs old, new;

	old.all = atomic_load(at);
	do {
		new = old;
		new.latest = (uint8_t)(old.all ? old.latest % IDS + 1 : 2);
		if (!old.all)
			new.fresh = 1;
		if (new.latest == new.fresh) /* once around without a write: the oldest is gone */
			new.fresh = (uint8_t)(new.fresh % IDS + 1);
	} while (!atomic_compare_exchange_weak(at, &old.all, new.all));
	return new.latest;
}

/* False: it is old. */
static bool write_by(_Atomic uint32_t *at, uint8_t id)
{
	union graphs old, new;

	old.all = atomic_load(at);
	do {
		unsigned age = distance(old.fresh, id);

		if (old.owner == id && old.fresh == old.latest)
			return true;
		if (old.owner != id && (!age || age > distance(old.fresh, old.latest)))
			return false;
		new = old;
		new.owner = id;
		new.fresh = old.latest;
	} while (!atomic_compare_exchange_weak(at, &old.all, new.all));
	return true;
}

void graphs_forget(unsigned protection)
{
	uint32_t i, used = names_count();

	for (i = 1; i < used; i++) {
		struct name *n = name_get(i);
		union graphs old, new;

		old.all = n->protection == protection ? atomic_load(&n->graphs) : 0;
		do {
			new = old;
			new.fresh = old.latest;
			new.owner = 0;
		} while (old.all && !atomic_compare_exchange_weak(&n->graphs, &old.all, new.all));
	}
}

bool graph_loads(union slot s)
{
	uint8_t bit = (uint8_t)(1u << (s.role - ROLE_HEADER));

	return graphs_of(s) &&
	       (loading.directory != name_get(s.name)->directory || (loading.roles & bit));
}

static bool is_index(unsigned role)
{
	return role >= ROLE_HEADER && role <= ROLE_LINKS;
}

/* What it may still open of that graph is as old as what it may not. */
void graph_refused(union slot s)
{
	_Atomic uint32_t *at = is_index(s.role) ? graphs_of(s) : NULL;
	union graphs old, new;

	if (!at)
		return;
	old.all = atomic_load(at);
	do {
		new = old;
		if (!new.latest)
			new.latest = 1;
		new.fresh = new.latest;
		new.owner = 0;
		new.refused = 1;
	} while (!atomic_compare_exchange_weak(at, &old.all, new.all));
	if (graph_loads(s))
		loading.roles = 0;
	loading.directory = name_get(s.name)->directory;
	loading.roles |= (uint8_t)(1u << (s.role - ROLE_HEADER));
	loading.id = new.fresh;
}

uint8_t graph_opened(union slot s, int flags)
{
	_Atomic uint32_t *at = graphs_of(s);
	uint32_t directory = name_get(s.name)->directory;
	uint8_t bit = (uint8_t)(1u << (s.role - ROLE_HEADER));

	if (!at)
		return 0;
	if (graph_loads(s)) {
		loading.directory = directory;
		loading.roles = 0;
		loading.id = load_one(at);
	}
	loading.roles |= bit;
	if (flags & O_TRUNC)
		write_by(at, loading.id);
	return loading.id;
}

bool graph_is_persisted(const struct change *c)
{
	return loading.persists == name_get(c->slot.name)->directory;
}

/*
 * The streams of a graph that was refused write nothing any more, and hnswlib does not look; its
 * persists consist of the pickle alone.
 */
static bool is_old_pickle(const struct change *c, _Atomic uint32_t *at)
{
	union graphs g = {.all = atomic_load(at)};
	bool old;

	if (!change_opens(c) || (c->flags & O_ACCMODE) == O_RDONLY)
		return false;
	old = g.refused && !graph_is_persisted(c);
	loading.persists = 0;
	return old;
}

bool graph_is_old(const struct change *c)
{
	_Atomic uint32_t *at = graphs_of(c->slot);
	union graphs refused = {.refused = 1};

	if (!at)
		return false;
	if (c->slot.role == ROLE_PICKLE)
		return is_old_pickle(c, at);
	if (!is_index(c->slot.role) || c->fd < 0 || !c->slot.object)
		return false;
	if (!write_by(at, c->slot.object)) {
		atomic_fetch_or(at, refused.all);
		return true;
	}
	if (c->slot.role == ROLE_HEADER)
		loading.persists = name_get(c->slot.name)->directory;
	return false;
}

/* ---- how large ---- */

static bool is_plausible(const struct segment_header *h)
{
	return h->links && h->links <= LINKS && h->levels < LEVELS && h->stride < UINT32_MAX &&
	       h->count < UINT32_MAX && h->capacity < UINT32_MAX;
}

static void announce(const struct change *c)
{
	struct name *directory = name_get(name_get(c->slot.name)->directory);
	struct segment_header h;

	if (c->offset != 0 || c->iov_count < 1 ||
	    !segment_header_parse(c->iov[0].iov_base, c->iov[0].iov_len, &h) || !is_plausible(&h)) {
		atomic_store(&directory->elements, 0); /* not known any more */
		return;
	}
	atomic_store(&directory->stride, (uint32_t)h.stride);
	atomic_store(&directory->list, (uint32_t)(4 + (unsigned)(h.levels > 0 ? h.levels + 1 : 1) *
							  (4 + 4 * h.links)));
	atomic_store(&directory->elements,
		     (uint32_t)(h.capacity > h.count ? h.capacity : h.count) + SPARE);
}

/*
 * Ids are as long as people make them, but Chroma has each of them in its database before it is in
 * a pickle, which names it twice. What the database does not have any more, the last pickle had.
 */
#define PER_ELEMENT 64u		/* of what is no id: opcodes, two labels, a number of the queue */
#define SLACK (64u << 20)	/* what SQLite keeps in memory (2 MiB), and more */
#define PICKLE_UNIT (64u << 10) /* of struct name's `pickle` */
#define LAST_PIECE (64u << 10)	/* more, for one whose refusal Chroma may not hear */

static uint64_t size_of(unsigned protection, const char *name)
{
	struct stat st;

	return sys_fstatat(protections[protection].root_fd, name, &st, 0) == 0
		   ? (uint64_t)st.st_size
		   : 0;
}

static void announce_pickle(const struct change *c)
{
	struct name *directory = name_get(name_get(c->slot.name)->directory);
	uint64_t elements = atomic_load(&directory->elements), ids, most;

	ids = size_of(c->slot.protection, "chroma.sqlite3") +
	      size_of(c->slot.protection, "chroma.sqlite3-wal") +
	      size_of(c->slot.protection, name_text(name_get(c->slot.name)));
	most = (2 * ids + elements * PER_ELEMENT + SLACK) / PICKLE_UNIT;
	atomic_store(&directory->pickle, elements && most < UINT32_MAX ? (uint32_t)most : 0);
}

/* By what a file of these elements has at most; 0: not known. */
static uint64_t bound_of(const struct change *c)
{
	const struct name *directory = name_get(name_get(c->slot.name)->directory);
	uint64_t elements = atomic_load(&directory->elements);

	switch (c->slot.role) {
	case ROLE_LEVEL0:
		return elements * atomic_load(&directory->stride);
	case ROLE_LENGTH:
		return elements * 4;
	case ROLE_LINKS:
		return elements * atomic_load(&directory->list);
	case ROLE_PICKLE:
		return (uint64_t)atomic_load(&directory->pickle) * PICKLE_UNIT;
	default:
		return 0;
	}
}

static bool grows_by(const struct change *c, uint64_t *end)
{
	struct stat st;

	if (c->op == OP_FTRUNCATE || c->op == OP_TRUNCATE) {
		*end = c->length;
		return true;
	}
	if (!change_writes(c) || c->op == OP_IOCTL || c->fd < 0)
		return false;
	*end = (uint64_t)(c->offset > 0 ? c->offset : 0) + c->length;
	if (c->offset < 0 || (c->slot.writable & SLOT_APPEND))
		*end = sys_fstat(c->fd, &st) == 0 ? (uint64_t)st.st_size + c->length : c->length;
	return true;
}

bool graph_outgrows(const struct change *c)
{
	uint64_t bound, end;

	if (c->slot.role == ROLE_HEADER && c->iov)
		announce(c);
	if (c->slot.role == ROLE_PICKLE && change_opens(c)) {
		if ((c->flags & O_ACCMODE) != O_RDONLY)
			announce_pickle(c);
		return false;
	}
	bound = bound_of(c);
	if (bound && c->slot.role == ROLE_PICKLE && persist_is_unheard(c))
		bound += LAST_PIECE;
	return bound && grows_by(c, &end) && end > bound;
}
