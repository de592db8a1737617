/* SPDX-License-Identifier: MIT
 *
 * What the last persist of a segment made of it, and what is there now: by its undo file, which is
 * kept under another name until the next one. See "Kept files" in chromashim_undo.h.
 */
#include "core/undo/rollback_last.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/names.h"
#include "core/base/sys.h"
#include "core/base/text.h"
#include "core/undo/rollback_internal.h"

#define PICKLE_LEAST 1024u /* one of a few ids may come out the same by chance */

/* The change counter of the database, as it is on the disk. */
static bool change_counter(int rootfd, uint32_t *counter)
{
	unsigned char p[4];
	int fd = sys_openat(rootfd, CHROMA_DATABASE, O_RDONLY | O_CLOEXEC, 0);
	ssize_t n;

	if (fd < 0)
		return false;
	n = sys_pread(fd, p, sizeof(p), 24);
	sys_close(fd);
	*counter = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	return n == (ssize_t)sizeof(p);
}

/* Something was committed since the persist; it was not, or cannot be told. */
static bool has_gone_on(const struct undo_header *h, uint32_t counter)
{
	return h->counter && (int32_t)(counter - (uint32_t)(h->counter - 1)) > 0;
}

/* ---- judging ---- */

static void reckon(struct rollback_last *out, uint64_t pickle_size, bool gone_on)
{
	out->result = LAST_OTHERS;
	if (out->pickle == LAST_PICKLE_NOW) {
		out->result = LAST_AS_LEFT;
		if (out->before || out->shorter)
			out->result = LAST_MIXED;
		else if (out->others && pickle_size >= PICKLE_LEAST)
			out->result = LAST_WITHOUT_PICKLE;
	} else if (out->pickle == LAST_PICKLE_BEFORE && out->now) {
		out->result = LAST_MIXED;
	} else if (out->pickle == LAST_PICKLE_BEFORE && out->before && !out->others && gone_on) {
		out->result = LAST_BEFORE;
	}
}

static int rollback_last_judge(int rootfd, struct work *w, struct rollback_last *out)
{
	uint64_t pickle_size = 0;
	uint32_t counter = 0;
	bool known = change_counter(rootfd, &counter);
	int r = rollback_compare(w, out, &pickle_size);

	if (r == 0)
		reckon(out, pickle_size, known && has_gone_on(&w->reader.header, counter));
	return r;
}

static bool begins_with(const char *name, const char *segment)
{
	size_t n = strlen(segment);

	return strncmp(name, segment, n) == 0 && name[n] == '-';
}

/* A persist is under way, or waits to be undone: that is told elsewhere. */
static bool has_group(int undofd, const char *segment)
{
	char buf[2048] __attribute__((aligned(8)));
	int fd = sys_openat(undofd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	bool found = false;
	ssize_t n, at;

	while (fd >= 0 && !found && (n = sys_getdents(fd, buf, sizeof(buf))) > 0) {
		const struct linux_dirent64 *d;

		for (at = 0; at < n; at += d->length) {
			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			found |=
			    begins_with(d->name, segment) && text_ends_with(d->name, UNDO_SUFFIX);
		}
	}
	if (fd >= 0)
		sys_close(fd);
	return found;
}

int rollback_last(int rootfd, int undofd, const char *segment, struct rollback_last *out)
{
	struct work w = {.segmentfd = -1};
	char name[UNDO_NAME_MAX];
	int fd, r;

	memset(out, 0, sizeof(*out));
	undo_last_name(name, segment);
	fd = sys_openat(undofd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	if (fd < 0)
		return fd;
	r = has_group(undofd, segment) ? -EBUSY : undo_open(&w.reader, fd);
	if (r == 0 && (w.reader.header.version <= 2 || strcmp(w.reader.header.segment, segment)))
		r = -EBADMSG;
	w.data =
	    sys_mmap(UNDO_LENGTH_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r == 0)
		r = sys_map_failed(w.data) ? -ENOMEM : 0;
	if (r == 0)
		r = w.segmentfd =
		    sys_openat(rootfd, segment, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (r >= 0)
		r = rollback_last_judge(rootfd, &w, out);
	if (w.segmentfd >= 0)
		sys_close(w.segmentfd);
	if (!sys_map_failed(w.data))
		sys_munmap(w.data, UNDO_LENGTH_MAX);
	sys_close(fd);
	return r;
}

/* ---- at a start ---- */

/* The segment is gone; or the database has gone back to before, and then the segment may have. */
static bool is_outdated(int rootfd, int undofd, const char *name, const uint32_t *counter)
{
	struct undo_reader reader;
	struct stat st;
	int fd = sys_openat(undofd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	bool outdated;

	if (fd < 0)
		return false;
	outdated = undo_open(&reader, fd) < 0 ||
		   sys_fstatat(rootfd, reader.header.segment, &st, 0) == -ENOENT ||
		   (reader.header.counter && counter && !has_gone_on(&reader.header, *counter));
	sys_close(fd);
	return outdated;
}

void rollback_forget_last(int rootfd, int undofd)
{
	char buf[2048] __attribute__((aligned(8)));
	int fd = sys_openat(undofd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	bool asked = false, known = false;
	uint32_t counter = 0;
	ssize_t n, at;

	while (fd >= 0 && (n = sys_getdents(fd, buf, sizeof(buf))) > 0) {
		const struct linux_dirent64 *d;

		for (at = 0; at < n; at += d->length) {
			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			if (!text_ends_with(d->name, UNDO_LAST_SUFFIX))
				continue;
			known = asked ? known : change_counter(rootfd, &counter);
			asked = true;
			if (is_outdated(rootfd, undofd, d->name, known ? &counter : NULL))
				sys_unlinkat(undofd, d->name, 0);
		}
	}
	if (fd >= 0)
		sys_close(fd);
}
