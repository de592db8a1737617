/* SPDX-License-Identifier: MIT
 *
 * The table of persist groups: finding, locking, beginning and letting go of one.
 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "preload/persist_state.h"
#include "preload/settings.h"
#include "preload/shim.h"
#include "preload/turn.h"

struct group groups[GROUPS];
struct persist_store persist_stores[AREAS];

/* ---- the lock ---- */

void group_unlock(struct group *g)
{
	turn_give(&g->owner);
}

struct group *group_lock(uint32_t directory)
{
	for (;;) {
		uint32_t number = atomic_load(&name_get(directory)->group);
		struct group *g;

		if (!number)
			return NULL;
		g = &groups[number - 1];
		if (!turn_take(&g->owner))
			return NULL;
		if (g->directory == directory && g->state != GROUP_FREE)
			return g;
		group_unlock(g); /* it ended while we waited */
	}
}

/* ---- beginning and being gone ---- */

void group_release(struct group *g)
{
	unsigned i;

	held_drop(g);
	for (i = 0; i < UNDO_FILES; i++)
		hidden_release(&g->files[i].fd);
	hidden_release(&g->undo.fd);
	if (g->page)
		sys_munmap(g->page, UNDO_HEADER_SIZE);
	if (g->memory)
		sys_munmap(g->memory, g->memory_size);
	g->page = NULL;
	g->memory = NULL;
	if (g->state == GROUP_FROZEN || g->state == GROUP_UNPROTECTED)
		return;
	atomic_store(&name_get(g->directory)->group, 0);
	atomic_store(&g->state, GROUP_FREE);
}

/* Locked, and known as the directory's. NULL: another thread was quicker, or the table is full. */
static struct group *take_place(unsigned area, uint32_t directory)
{
	static _Atomic unsigned next;
	unsigned i, from = atomic_load(&next);
	uint32_t none = 0;

	for (i = 0; i < GROUPS; i++) {
		unsigned at = (from + i) % GROUPS;
		struct group *g = &groups[at];
		unsigned k;

		if (g->state != GROUP_FREE || !turn_take(&g->owner))
			continue;
		if (g->state != GROUP_FREE) {
			group_unlock(g);
			continue;
		}
		memset((char *)g + offsetof(struct group, area), 0,
		       sizeof(*g) - offsetof(struct group, area));
		g->area = (uint8_t)area;
		g->directory = directory;
		g->undo.fd = -1;
		for (k = 0; k < UNDO_FILES; k++)
			g->files[k].fd = -1;
		if (!atomic_compare_exchange_strong(&name_get(directory)->group, &none, at + 1)) {
			group_unlock(g);
			return NULL;
		}
		atomic_store(&g->state, GROUP_OPEN);
		atomic_store(&next, at + 1);
		return g;
	}
	return NULL;
}

/* The lock that says that this process lives. */
static int be_alive(struct persist_store *store, const struct undo_header *h)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char name[UNDO_NAME_MAX];
	struct stat st;
	int fd, r, tries;

	if (store->alive_fd > 0)
		return 0;
	undo_alive_name(name, h);
	for (tries = 0; tries < 100; tries++) {
		fd = sys_openat(store->undo_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
				0600);
		if (fd < 0)
			return fd;
		r = sys_fcntl(fd, F_OFD_SETLK, (unsigned long)&whole);
		/* Somebody who sweeps up may have removed it in between. */
		if (r < 0 || sys_fstat(fd, &st) < 0 || st.st_nlink)
			break;
		sys_close(fd);
	}
	/* Where there are no such locks, the pid has to do. */
	r = hidden_adopt(fd, &store->alive_fd);
	return r < 0 ? r : 0;
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

uint64_t clock_now(clockid_t clock)
{
	struct timespec t = {0, 0};

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* The files as they are. False: there is no such directory, hence nothing to protect. */
static bool look_at_files(struct group *g)
{
	char path[sizeof(g->header.segment) + 32];
	const struct name *n = name_get(g->directory);
	int root = areas[g->area].root_fd;
	struct stat st;
	unsigned i;

	if (n->length >= sizeof(g->header.segment))
		return false;
	memcpy(g->header.segment, name_text(n), n->length);
	if (sys_fstatat(root, g->header.segment, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return false;
	memcpy(path, g->header.segment, n->length);
	path[n->length] = '/';
	g->creation = true;
	for (i = 0; i < UNDO_FILES; i++) {
		struct undo_file *f = &g->header.files[i];

		strcpy(path + n->length + 1, undo_file_names[i]);
		f->size = -1;
		if (sys_fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		g->creation = false;
		f->size = st.st_size;
		f->mode = st.st_mode;
		f->uid = st.st_uid;
		f->gid = st.st_gid;
	}
	return true;
}

static int begin_undo(struct group *g)
{
	struct persist_store *store = &persist_stores[g->area];
	int fd, r;

	identify(&g->header);
	g->header.number = ++store->number;
	g->header.time = g->header.touched = clock_now(CLOCK_REALTIME);
	r = be_alive(store, &g->header);
	if (r < 0)
		return r;
	r = undo_create(&g->undo, store->undo_fd, &g->header, g->power);
	if (r < 0)
		return r;
	store->number = g->header.number;
	fd = g->undo.fd;
	g->page = sys_mmap(UNDO_HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (sys_map_failed(g->page)) {
		g->page = NULL;
		sys_close(fd);
		g->undo.fd = -1;
		return -ENOMEM;
	}
	/* One that only creates has nothing to save, and may stay open for days. That it was under
	 * way must be known for certain: files that hold vectors and have no pickle look like a
	 * loss, and are not emptied. */
	if (g->creation) {
		r = g->power ? held_sync_undo(g) : 0;
		sys_close(fd);
		g->undo.fd = -1;
		return r;
	}
	r = hidden_adopt(fd, &g->undo.fd);
	return r < 0 ? r : 0;
}

struct group *group_begin(union slot s)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;
	uint32_t directory = name_get(s.name)->directory;
	struct group *g = take_place(s.area, directory);
	int r;

	if (!g) {
		if (atomic_load(&name_get(directory)->group))
			return group_lock(directory);
		if (!atomic_flag_test_and_set(&said))
			shim_say("more segments are being written at once than can be followed; "
				 "persists of further ones are UNPROTECTED",
				 NULL);
		return NULL;
	}
	g->power = settings.power;
	g->since = oplog_now();
	if (!look_at_files(g)) {
		group_release(g);
		group_unlock(g);
		return NULL;
	}
	r = begin_undo(g);
	group_record(g, OP_PERSIST_BEGIN, 0, r);
	if (r < 0)
		group_unprotect(g, r);
	return g;
}
