/* SPDX-License-Identifier: MIT
 *
 * The beginning of a persist group.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/base/shared_map.h"
#include "core/undo/rollback.h"
#include "preload/place/guard_maps.h"
#include "preload/base/bounds.h"
#include "preload/base/settings.h"
#include "preload/base/shim.h"
#include "preload/persist/state.h"
#include "preload/base/limits.h"
#include "preload/place/lives.h"
#include "preload/place/loads.h"
#include "preload/place/turn.h"

static void raise_top(unsigned to)
{
	unsigned top = atomic_load(&groups_top);

	while (top < to && !atomic_compare_exchange_strong(&groups_top, &top, to))
		;
}

/* Locked, and known as the directory's. NULL: another thread was quicker, or the table is full. */
static struct group *take_place(unsigned protection, uint32_t directory)
{
	unsigned at, k;
	uint32_t none = 0;

	for (at = 0; at < bound_of("groups", GROUPS); at++) {
		struct group *g = &groups[at];

		if (g->state != GROUP_FREE || !turn_take_whole(&g->owner))
			continue;
		if (g->state != GROUP_FREE) {
			group_unlock(g);
			continue;
		}
		memset((char *)g + offsetof(struct group, protection), 0,
		       sizeof(*g) - offsetof(struct group, protection));
		g->protection = (uint8_t)protection;
		g->directory = directory;
		g->undo.fd = -1;
		for (k = 0; k < UNDO_FILES; k++)
			g->files[k].fd = -1;
		if (!atomic_compare_exchange_strong(&name_get(directory)->group, &none, at + 1)) {
			group_unlock(g);
			return NULL;
		}
		raise_top(at + 1);
		atomic_fetch_add(&persist_stores[protection].groups, 1);
		atomic_store(&g->state, GROUP_OPEN);
		return g;
	}
	return NULL;
}

static void identify(struct undo_header *h)
{
	static struct {
		int pid;
		uint64_t ticks;
		uint8_t boot[16];
	} self;

	if (self.pid != shim_pid) {
		self.ticks = oplog_start_ticks("/proc/self/stat");
		oplog_boot_id(self.boot);
		self.pid = shim_pid;
	}
	h->pid = (uint32_t)shim_pid;
	h->start_ticks = self.ticks;
	memcpy(h->boot_id, self.boot, sizeof(h->boot_id));
}

/* 0 where it cannot be read: then it tells nothing. */
static uint64_t pickle_check(struct group *g)
{
	uint64_t sum = 0;
	int fd;

	if (g->header.files[UNDO_PICKLE].size < 0 || group_make_memory(g) < 0)
		return 0;
	fd = group_open_in(g, UNDO_PICKLE, O_RDONLY);
	if (fd < 0)
		return 0;
	if (undo_sum_pickle(fd, g->old, &sum) < 0)
		sum = 0;
	sys_close(fd);
	return sum;
}

static bool name_segment(struct group *g)
{
	const struct name *n = name_get(g->directory);

	if (n->length >= sizeof(g->header.segment))
		return false;
	memset(g->header.segment, 0, sizeof(g->header.segment));
	memcpy(g->header.segment, name_text(n), n->length);
	return true;
}

/*
 * Made by a process that never persisted it: without a pickle, and there is nothing in it. Chroma
 * makes it anew, and what is the same as nothing is not saved.
 */
static bool holds_nothing(const struct group *g)
{
	uint64_t elements;

	return g->header.files[UNDO_PICKLE].size < 0 && group_elements(g, &elements) &&
	       elements == 0;
}

/* The files as they are. False: there is no such directory, hence nothing to protect. */
static bool look_at_files(struct group *g)
{
	char path[sizeof(g->header.segment) + 32];
	int root = protections[g->protection].root_fd;
	struct stat st;
	unsigned i;
	size_t n;

	if (!name_segment(g))
		return false;
	n = strlen(g->header.segment);
	if (sys_fstatat(root, g->header.segment, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	memcpy(path, g->header.segment, n);
	path[n] = '/';
	g->creation = true;
	for (i = 0; i < UNDO_FILES; i++) {
		struct undo_file *f = &g->header.files[i];

		strcpy(path + n + 1, undo_file_names[i]);
		f->size = -1;
		if (sys_fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		g->creation = false;
		f->size = st.st_size;
		f->mode = st.st_mode;
		f->uid = st.st_uid;
		f->gid = st.st_gid;
	}
	if (!g->creation && holds_nothing(g)) {
		g->creation = g->remade = true;
		for (i = 0; i < UNDO_FILES; i++)
			g->header.files[i].size = -1;
	}
	return true;
}

static bool are_open_together(const struct group *g)
{
	int fd, top = atomic_load(&slots_top);
	uint32_t first = 0;

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (s.role < ROLE_HEADER || s.role > ROLE_LINKS || s.protection != g->protection ||
		    !(s.writable & SLOT_WRITABLE) || name_get(s.name)->directory != g->directory)
			continue;
		if (first && first != s.name)
			return true;
		first = s.name;
	}
	return false;
}

static int map_page(struct group *g, int fd)
{
	g->page = shared_map(UNDO_HEADER_SIZE, PROT_READ | PROT_WRITE, fd);
	return g->page ? 0 : -ENOMEM;
}

static void supersede(struct group *g)
{
	int undofd = group_undo_folder(g);

	if (undofd < 0)
		return;
	rollback_supersede(undofd, &g->header);
	sys_close(undofd);
}

/* No link is followed when a persist is undone: what it leads to may be anybody's. */
static bool has_link(const struct group *g)
{
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++)
		if (g->header.files[i].size >= 0 && S_ISLNK(g->header.files[i].mode))
			return true;
	return false;
}

static int begin_undo(struct group *g)
{
	struct persist_store *store = &persist_stores[g->protection];
	int fd, r, undofd;

	if (has_link(g))
		return -ELOOP;
	undofd = group_undo_folder(g);
	if (undofd < 0)
		return undofd;
	identify(&g->header);
	g->header.number = ++store->number;
	g->header.time = clock_read(CLOCK_REALTIME);
	g->header.life = protection_life(&protections[g->protection]);
	g->header.pickle_check = pickle_check(g);
	r = undo_create(&g->undo, undofd, &g->header, g->power);
	sys_close(undofd);
	if (r < 0)
		return r;
	store->number = g->header.number;
	fd = g->undo.fd;
	r = map_page(g, fd);
	if (r < 0) {
		sys_close(fd);
		g->undo.fd = -1;
		return r;
	}
	/* One that only creates has nothing to save, and may stay open for days. It is on the disk
	 * before there are elements (group_sync_parked), or what it takes the place of goes. */
	if (g->creation) {
		r = g->power && g->remade ? withheld_sync_undo(g) : 0;
		sys_close(fd);
		g->undo.fd = -1;
		if (r == 0 && g->remade)
			supersede(g);
		return r;
	}
	r = hidden_adopt(fd, &g->undo.fd);
	return r < 0 ? r : 0;
}

/* Goes on with the undo file of a segment that was parked. 0, or -errno: it is gone. */
static int resume(struct group *g)
{
	uint64_t ticket = atomic_exchange(&name_get(g->directory)->parked, 0);
	struct undo_reader reader;
	int fd, r;

	if (!ticket || ticket >> 32 != group_ticket(g->protection, 0) >> 32 || !name_segment(g))
		return -ENOENT;
	g->header.pid = (uint32_t)shim_pid;
	g->header.number = (uint32_t)(ticket & ~PARKED_UNSYNCED);
	fd = group_open_undo(g);
	if (fd < 0)
		return fd;
	r = undo_open(&reader, fd);
	if (r == 0)
		r = map_page(g, fd);
	if (r == 0)
		r = hidden_adopt(fd, &g->undo.fd);
	else
		sys_close(fd);
	if (r < 0)
		return r;
	g->header = reader.header;
	g->creation = g->changed = true;
	g->undo_known = g->undo_synced = g->power && !(ticket & PARKED_UNSYNCED);
	g->undo.at = reader.size;
	g->undo.seed = reader.header.check;
	g->undo.durable = g->power;
	return 0;
}

/*
 * That it was under way must be known for certain: files that hold vectors and have no pickle look
 * like a loss, and are not emptied.
 */
static int sync_resumed(struct group *g)
{
	return g->power && !(g->undo_synced && g->undo_known) ? withheld_sync_undo(g) : 0;
}

void group_sync_parked(unsigned protection, uint32_t directory)
{
	struct group *g = take_place(protection, directory);
	int r;

	if (!g)
		return; /* another thread is in it; or it will be said when the pickle comes */
	g->power = settings.power;
	r = resume(g);
	if (r < 0) {
		group_release(g);
	} else {
		r = sync_resumed(g);
		if (r < 0)
			group_unprotect(g, r);
		else
			group_park(g);
	}
	group_unlock(g);
}

static struct group *no_place(uint32_t directory)
{
	if (atomic_load(&name_get(directory)->group))
		return group_lock(directory);
	limit_reached(LIMIT_GROUPS);
	return NULL;
}

struct group *group_begin(unsigned protection, uint32_t directory)
{
	struct group *g = take_place(protection, directory);
	bool resumed;
	int r;

	if (!g)
		return no_place(directory);
	guard_maps(); /* after SIGBUS of the host's own it is its handler that stands */
	g->power = settings.power;
	g->since = oplog_now();
	resumed = resume(g) == 0;
	if (!resumed && !look_at_files(g)) {
		group_release(g);
		group_unlock(g);
		return NULL;
	}
	r = resumed ? sync_resumed(g) : begin_undo(g);
	if (!resumed && r == 0 && g->creation)
		return g; /* it is no persist yet, and may never be one */
	if (!g->creation) {
		loads_keep_out(&g->loads_kept_out, protection, directory);
		group_elements(g, &g->elements);
		g->together = are_open_together(g);
	}
	group_record(g, OP_PERSIST_BEGIN, 0, r);
	if (r < 0)
		group_unprotect(g, r);
	return g;
}
