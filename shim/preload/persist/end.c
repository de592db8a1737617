/* SPDX-License-Identifier: MIT
 *
 * How a persist group ends: committed, rolled back, given up; and what is done at the start.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "core/undo/rollback.h"
#include "preload/base/settings.h"
#include "preload/base/shim.h"
#include "preload/persist/state.h"
#include "preload/pin/pins.h"
#include "preload/place/faults.h"
#include "preload/sqlite/transactions.h"

void group_reopen(struct group *g)
{
	group_set_state(g, GROUP_OPEN);
	g->page->complete = 0;
	if (group_page_lost(g))
		group_unprotect(g, -EIO);
}

/* ---- commit ---- */

void group_abandon(struct group *g)
{
	if (g->holding && withheld_release(g) < 0) {
		group_unprotect(g, -EIO);
		return;
	}
	if (g->state == GROUP_FROZEN)
		return;
	group_remove_undo(g, false);
	group_set_state(g, GROUP_OPEN);
	group_release(g);
}

static int sync_path(const struct group *g, const char *path, int (*sync)(int))
{
	int fd = sys_openat(protections[g->protection].root_fd, path,
			    O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	int r;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	r = sync(fd);
	sys_close(fd);
	return r;
}

void group_commit(struct group *g)
{
	uint64_t since = oplog_now();

	/*
	 * SQLite leaves it to the disk when its journal's name is gone. If the undo file's went
	 * first and the power then, the transaction would be rolled back and the persist would
	 * stand.
	 */
	if (g->state == GROUP_TENTATIVE && g->power)
		sync_path(g, ".", sys_fsync);
	group_remove_undo(g, true);
	if (g->power)
		group_synced(g, since);
	group_record_commit(g);
	group_set_state(g, GROUP_OPEN);
	group_release(g);
}

/* All of the segment's files. The first error. */
static int sync_files(const struct group *g, int (*sync)(int))
{
	char path[sizeof(g->header.segment) + 32];
	size_t n = strlen(g->header.segment);
	int r = 0, error;
	unsigned i;

	memcpy(path, g->header.segment, n);
	path[n] = '/';
	for (i = 0; i < UNDO_FILES; i++) {
		strcpy(path + n + 1, undo_file_names[i]);
		error = sync_path(g, path, sync);
		r = r < 0 ? r : error;
	}
	return r;
}

static int start_writing(int fd)
{
	sys_start_writing(fd, 0, 0);
	return 0;
}

/*
 * Before SQLite may commit past the persist, it is on the disk. All files are on their way there
 * when the first is waited for: the others share its commit of the file system's journal.
 */
static int sync_segment(struct group *g)
{
	char itself[sizeof(g->header.segment) + 2];
	uint64_t since = oplog_now();
	int r, error;

	sync_files(g, start_writing);
	r = sync_files(g, sys_fdatasync);
	strcpy(itself, g->header.segment);
	strcat(itself, "/."); /* also where a link leads to it */
	error = sync_path(g, itself, sys_fsync);
	if (r == 0 && error == 0 && g->creation) /* and the name of the directory itself */
		error = sync_path(g, ".", sys_fsync);
	group_synced(g, since);
	return r < 0 ? r : error;
}

/* Every pickle ends with STOP; one that does not was given up by an exception. */
static bool pickle_is_whole(const struct group *g)
{
	char path[sizeof(g->header.segment) + 32];
	char last = 0;
	struct stat st;
	int fd;

	strcpy(path, g->header.segment);
	strcat(path, "/");
	strcat(path, undo_file_names[UNDO_PICKLE]);
	fd = sys_openat(protections[g->protection].root_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW,
			0);
	if (fd == -ENOENT)
		return false;
	if (fd < 0) /* cannot be read, for whatever reason: nothing speaks against it */
		return true;
	if (sys_fstat(fd, &st) == 0 && st.st_size > 0)
		sys_pread(fd, &last, 1, st.st_size - 1);
	sys_close(fd);
	return last == '.';
}

/* The change counter of the database as it is on the disk, through a descriptor of the host. */
static bool change_counter(unsigned protection, uint32_t *counter)
{
	unsigned char p[4];
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (s.role != ROLE_DATABASE || s.protection != protection ||
		    sys_pread(fd, p, sizeof(p), 24) != (ssize_t)sizeof(p))
			continue;
		*counter = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
		return true;
	}
	return false;
}

/* Within a transaction of this thread? In WAL mode nothing on the disk tells that it ended. */
static bool in_transaction(const struct group *g)
{
	return !atomic_load(&protections[g->protection].wal_mode) &&
	       transaction_thread(g->protection) == thread_id();
}

int group_expect(struct group *g)
{
	uint32_t counter;
	int r;

	if (g->expected || !in_transaction(g) || !change_counter(g->protection, &counter))
		return 0;
	r = group_equip(g);
	if (r == 0)
		r = undo_put(&g->undo, UNDO_TENTATIVE, 0, counter);
	g->undo_synced = false;
	g->expected = r == 0;
	return r;
}

/* By which it is told later that the database has gone on. */
static void note_counter(const struct group *g)
{
	uint32_t counter;

	if (g->page && !atomic_load(&protections[g->protection].wal_mode) &&
	    change_counter(g->protection, &counter))
		g->page->counter = (uint64_t)counter + 1;
}

/* The undo file knows the transaction since the pickle's open: now it counts. */
static bool waits(struct group *g, int *error)
{
	uint64_t since = oplog_now();

	*error = 0;
	if (!in_transaction(g) || !g->expected)
		return false;
	/* By a call, not through the map: what the sync below brings to the disk is seen to be
	 * there before, by whoever records calls. */
	if (undo_complete(&g->undo) < 0 || group_page_lost(g))
		return false; /* the next start would undo what Chroma has been told */
	if (g->power)
		*error = sys_fdatasync(g->undo.fd);
	group_synced(g, since);
	g->thread = thread_id();
	group_set_state(g, GROUP_TENTATIVE);
	return true;
}

static void say_not_synced(const struct group *g, int error)
{
	shim_say(protections[g->protection].spelling[0], "/", g->header.segment, ": ",
		 persist_error_text(-error),
		 " on syncing a persist; a power cut now may lose it. Look at the disk.", NULL);
}

/*
 * What is on its way to the disk gets there while Chroma still heeds an error: a disk that cannot
 * take it is found out at the pickle's open. The sync at its close has little left to do.
 */
void group_write_out(struct group *g)
{
	uint64_t since = oplog_now();
	int r;

	if (!g->power)
		return;
	sync_files(g, start_writing);
	r = sync_files(g, sys_wait_written);
	group_synced(g, since);
	if (r == -EIO || r == -ENOSPC || r == -EDQUOT)
		group_fail(g, r);
}

void group_complete(struct group *g)
{
	int r;

	if (g->state == GROUP_UNPROTECTED) {
		group_set_state(g, GROUP_OPEN);
		group_release(g);
		return;
	}
	if (g->state != GROUP_OPEN)
		return;
	g->pickle_opened = false;
	/* Of this thread nothing is; what others have written meanwhile belongs to it. */
	r = withheld_release(g);
	if (r < 0 || g->state != GROUP_OPEN) {
		if (r < 0)
			group_unprotect(g, r);
		return;
	}
	/* Chroma knows: whatever kept it from ending its pickle was an error of its own. */
	if (!pickle_is_whole(g)) {
		group_fail_as(g, EIO, "its pickle has no end");
		return;
	}
	note_counter(g);
	if (g->power && (r = sync_segment(g)) < 0)
		say_not_synced(g, r);
	if (!waits(g, &r))
		group_commit(g);
	else if (r < 0)
		say_not_synced(g, r);
}

void persists_transaction_ended(unsigned protection, bool committed)
{
	uint32_t me;
	unsigned i;
	MAPS_GUARDED;

	if (!persists_tentative())
		return;
	me = thread_id();
	for (i = 0; i < atomic_load(&groups_top); i++) {
		struct group *g = &groups[i];

		if (g->state != GROUP_TENTATIVE || g->protection != protection || g->thread != me ||
		    group_lock(g->directory) != g)
			continue;
		if (g->state == GROUP_TENTATIVE && committed)
			group_commit(g);
		else if (g->state == GROUP_TENTATIVE)
			group_fail_as(g, EIO, "its transaction was rolled back");
		group_unlock(g);
	}
}

/* ---- letting go ---- */

void group_let_go(struct group *g)
{
	if (!g->creation)
		group_record_commit(g);
	group_abandon(g);
}

bool persists_none(unsigned protection)
{
	_Atomic unsigned *count = &persist_stores[protection].groups;
	unsigned i;

	for (i = 0; atomic_load(count) && i < atomic_load(&groups_top); i++) {
		struct group *g = &groups[i];

		if (g->state != GROUP_OPEN || g->protection != protection ||
		    group_lock(g->directory) != g)
			continue;
		if (g->state == GROUP_OPEN && !g->pickle_opened && (g->creation || !g->together))
			group_let_go(g);
		group_unlock(g);
	}
	return atomic_load(count) == 0;
}

bool persists_idle(unsigned protection)
{
	return atomic_load(&persist_stores[protection].groups) == 0;
}

void persists_stop(unsigned protection)
{
	unsigned i;

	for (i = 0; i < atomic_load(&groups_top); i++)
		if (groups[i].state != GROUP_FREE && groups[i].protection == protection) {
			group_set_state(&groups[i], GROUP_OPEN);
			group_release(&groups[i]);
		}
	protections[protection].undo_usable = false;
	persist_stores[protection].known = false;
	persist_stores[protection].round++;
}

/* A child has none of its parent's groups: what it closes or writes is no end of theirs. */
void persists_fork(void)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < atomic_load(&groups_top); i++)
		if (groups[i].state != GROUP_FREE) {
			/* Not group_set_state(): its parent counts, and the child has counted
			 * nothing. */
			atomic_store(&groups[i].state, GROUP_OPEN);
			atomic_store(&groups[i].owner, 0);
			hold_fork(&groups[i].loads_kept_out); /* letting go would be for both */
			group_release(&groups[i]);
		}
	atomic_store(&persists_holding, 0);
	persists_forget_tentative();
	atomic_store(&groups_top, 0);
	for (i = 0; i < used; i++)
		persist_stores[i].number = 0;
}
