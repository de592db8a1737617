/* SPDX-License-Identifier: MIT
 *
 * What is held back goes to its files, once the undo file is on the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "preload/base/settings.h"
#include "preload/base/shim.h"
#include "preload/persist/state.h"
#include "preload/pin/pins.h"
#include "preload/place/faults.h"
#include "preload/base/limits.h"

#define KEPT_MOST (UINT64_C(64) << 20)

static int write_all(int fd, const unsigned char *p, size_t n, uint64_t offset)
{
	while (n) {
		/* The host's write, not one of the shim's own: fault_of_held() is asked. */
		ssize_t done = SYS4(SYS_pwrite64, fd, p, n, offset);

		if (done == -EINTR)
			continue;
		if (done <= 0)
			return done < 0 ? (int)done : -EIO;
		p += done;
		offset += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

/* undo/ and the store may have been made just now: their names have to reach the disk, too. */
static int sync_names(unsigned protection)
{
	static const char *const above[] = {".", ".."};
	unsigned i;
	int r = 0;

	for (i = 0; i < 2 && r == 0; i++) {
		int fd = sys_openat(protections[protection].store_fd, above[i],
				    O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);

		if (fd < 0)
			continue; /* not ours to read */
		r = sys_fsync(fd);
		sys_close(fd);
	}
	return r;
}

static int sync_folder(const struct group *g)
{
	int r, undofd = group_undo_folder(g);

	if (undofd < 0)
		return undofd;
	r = sys_fsync(undofd);
	sys_close(undofd);
	return r;
}

int withheld_sync_undo(struct group *g)
{
	uint64_t since;
	int r = announce_flush(g);

	if (r == 0)
		r = undo_flush(&g->undo);
	if (r < 0 || !g->power)
		return r;
	since = oplog_now();
	if (!g->undo_synced)
		r = sys_fdatasync(g->undo.fd);
	if (r == 0 && !g->undo_known)
		r = sync_folder(g);
	if (r == 0 && !persist_stores[g->protection].known)
		r = sync_names(g->protection);
	if (r == 0)
		persist_stores[g->protection].known = true;
	if (r == 0)
		g->undo_synced = g->undo_known = true;
	group_synced(g, since);
	return r;
}

static int write_held(struct group *g)
{
	struct pin_writer *writer;
	uint64_t pinned;
	uint32_t i, name;
	int r = 0;

	writer = pin_enter(g->protection);
	for (i = 0; i < g->withheld_count && r == 0; i++) {
		const struct held *h = &g->held[i];

		name = group_file_name(g, h->file);
		pinned = pin_save(g->protection, name, h->offset, h->length);
		fault_point();
		r = fault_of_held(h->file);
		window_drop(g, h->file);
		if (r == 0)
			r = write_all(g->files[h->file].fd, g->withheld_bytes + h->at, h->length,
				      h->offset);
		pin_saved(g->protection, name, pinned);
	}
	pin_leave(writer);
	for (i = 0; i < UNDO_FILES && r == 0 && g->power; i++)
		if (g->files[i].withheld_last)
			sys_start_writing(g->files[i].fd, 0, 0);
	return r;
}

int withheld_release(struct group *g)
{
	int r;

	if (!g->power && !g->withheld_used)
		return g->undo.fd >= 0 ? withheld_sync_undo(g) : 0;
	if (g->state == GROUP_OPEN || g->state == GROUP_TENTATIVE) {
		r = group_equip(g);
		if (r == 0)
			r = withheld_sync_undo(g);
		if (r < 0)
			return r;
	}
	r = write_held(g);
	withheld_drop(g);
	if (r < 0)
		group_fail(g, r);
	return 0;
}

/* The undo file under the name of the last one, for `check`: it knows what its persist made of the
 * segment. Nothing is played back from it. */
static bool keep_undo(const struct group *g, int undofd, const char *name, const char *last)
{
	if (!g->page || g->undo.at > KEPT_MOST)
		return false;
	g->page->ended = 1;
	return !group_page_lost(g) && sys_renameat(undofd, name, undofd, last) == 0;
}

void group_remove_undo(const struct group *g, bool persisted)
{
	char name[UNDO_NAME_MAX], last[UNDO_NAME_MAX];
	int undofd = group_undo_folder(g), r = undofd < 0 ? undofd : 0;
	unsigned i;

	undo_name(name, &g->header, UNDO_SUFFIX);
	undo_last_name(last, g->header.segment);
	fault_point();
	if (undofd >= 0 && (!persisted || !keep_undo(g, undofd, name, last))) {
		r = sys_unlinkat(undofd, name, 0);
		sys_unlinkat(undofd, last, 0);
	}
	/* It would be undone at the next start. */
	if (r < 0 && r != -ENOENT && g->page)
		g->page->ended = 1;
	fault_point();
	if (g->power && g->undo_known && undofd >= 0)
		sys_fsync(undofd);
	for (i = 0; i < UNDO_FILES && undofd >= 0; i++) {
		if (!g->files[i].moved)
			continue;
		undo_moved_name(name, &g->header, i);
		sys_unlinkat(undofd, name, 0);
	}
	if (undofd >= 0)
		sys_close(undofd);
}

static const char *advice(int error)
{
	switch (error) {
	case -EUSERS:
		return "Write fewer indexes at once, or in several processes.";
	case -EMFILE:
	case -ENFILE:
		return "Allow the process more open files (ulimit -n), and restart.";
	case -ELOOP:
		return "Put the file itself in the place of the link, and restart.";
	default:
		return "Make the store writable, or make room.";
	}
}

void group_unprotect(struct group *g, int error)
{
	if (settings.closed) {
		group_fail(g, error);
		return;
	}
	if (error == -EUSERS)
		limit_reached(LIMIT_DESCRIPTORS);
	shim_say(protections[g->protection].spelling[0], "/", g->header.segment,
		 ": cannot save what a persist overwrites (", persist_error_text(-error),
		 "); it goes on UNPROTECTED: a crash before its end may break this collection. ",
		 advice(error), NULL);
	group_set_state(g, GROUP_UNPROTECTED); /* before: whoever pins sees the one or the other */
	group_remove_undo(g, false);
	withheld_release(g);
	group_release(g);
}
