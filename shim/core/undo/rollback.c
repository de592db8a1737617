/* SPDX-License-Identifier: MIT
 *
 * Rolling back persist groups: which, whether, how.
 */
#include "core/sqlite/journal.h"
#include "core/undo/rollback_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "core/base/names.h"
#include "core/base/sys.h"
#include "core/base/text.h"

#define LOCK_NAME "rollback.lock"
#define JOURNAL CHROMA_DATABASE "-journal"

static void step(const struct work *w)
{
	if (w->rb->step)
		w->rb->step(w->rb->context);
}

/* ---- whether ---- */

/* Nothing is allocated: this runs inside the backend as well. */
static bool journal_is_whole(int rootfd)
{
	unsigned char start[SQLITE_JOURNAL_MAGIC_SIZE];
	int fd = sys_openat(rootfd, JOURNAL, O_RDONLY | O_CLOEXEC, 0);
	ssize_t n;

	if (fd < 0)
		return false;
	n = sys_pread(fd, start, sizeof(start), 0);
	sys_close(fd);
	return n == (ssize_t)sizeof(start) &&
	       memcmp(start, sqlite_journal_magic, sizeof(start)) == 0;
}

/* Was the transaction committed that a tentative group belongs to? */
static bool transaction_committed(int rootfd, uint32_t counter)
{
	unsigned char start[28];
	ssize_t n;
	int fd;

	if (journal_is_whole(rootfd))
		return false;
	fd = sys_openat(rootfd, CHROMA_DATABASE, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	n = sys_pread(fd, start, sizeof(start), 0);
	sys_close(fd);
	return n == (ssize_t)sizeof(start) &&
	       ((uint32_t)start[24] << 24 | (uint32_t)start[25] << 16 | (uint32_t)start[26] << 8 |
		start[27]) != counter;
}

/* ---- how ---- */

/* From now on an emptied file's content is ours; another death must not make it look foreign. */
static int begin_undoing(const struct work *w)
{
	static const uint64_t yes = 1;
	ssize_t n = w->reader.header.version <= 2
			? 0
			: sys_pwrite(w->reader.fd, &yes, sizeof(yes),
				     (off_t)offsetof(struct undo_header, undoing));

	return n < 0 ? (int)n : 0;
}

/* For reading alone, if it may not be written: perhaps it need not be. */
static int open_file(struct work *w, unsigned file)
{
	const char *name = undo_file_names[file];
	int *fd = &w->files[file];

	if (*fd < 0)
		*fd = sys_openat(w->segmentfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	if (*fd == -EACCES || *fd == -EPERM)
		*fd = sys_openat(w->segmentfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	return *fd;
}

static bool is_there(int fd, const unsigned char *data, uint64_t length, uint64_t offset)
{
	unsigned char found[1024]; /* the stack is the host's */
	uint64_t at, part;

	for (at = 0; at < length; at += part) {
		part = length - at < sizeof(found) ? length - at : sizeof(found);
		if (sys_pread_all(fd, found, part, offset + at) != (ssize_t)part ||
		    memcmp(found, data + at, part) != 0)
			return false;
	}
	return true;
}

static int put_block(struct work *w, int fd, const struct undo_record *record)
{
	int r;

	w->outcome->bytes += record->length;
	if (is_there(fd, w->data, record->length, record->offset))
		return 0;
	step(w);
	r = sys_pwrite_all(fd, w->data, record->length, record->offset);
	return r == -EBADF ? -EACCES : r;
}

/* The old inode back to its place. */
static int put_moved(struct work *w, unsigned file)
{
	char name[UNDO_NAME_MAX];
	int r;

	undo_moved_name(name, &w->reader.header, file);
	step(w);
	r = sys_renameat(w->rb->undofd, name, w->segmentfd, undo_file_names[file]);
	if (r == 0) {
		step(w);
		sys_unlinkat(w->rb->undofd, name, 0); /* two names of one inode: both stay */
	}
	return r == -ENOENT ? 0 : r;
}

/* It was said that it would be; it may not have come to that, or be back already. */
static bool is_aside(const struct work *w, unsigned file)
{
	char name[UNDO_NAME_MAX];
	struct stat st;

	undo_moved_name(name, &w->reader.header, file);
	return sys_fstatat(w->rb->undofd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static int first_pass(struct work *w)
{
	struct undo_record record;
	int r;

	while ((r = undo_next(&w->reader, &record, w->data)) == 0) {
		if (record.kind == UNDO_MOVED)
			w->moved[record.file] = is_aside(w, record.file);
		w->changes |= record.kind == UNDO_BLOCK_IMAGE || record.kind == UNDO_MOVED ||
			      record.kind == UNDO_LENGTH;
		if (record.kind != UNDO_TENTATIVE)
			continue;
		w->tentative = w->reader.header.version <= 2 || w->reader.header.complete;
		w->counter = (uint32_t)record.offset;
	}
	w->outcome->skipped = w->reader.skipped - (rollback_power_cut(w) ? w->reader.torn : 0);
	w->reader.at = w->reader.start;
	return r == -ENODATA ? 0 : r;
}

static int put_blocks(struct work *w)
{
	struct undo_record record;
	int r;

	while ((r = undo_next(&w->reader, &record, w->data)) == 0) {
		int fd;

		if (record.kind != UNDO_BLOCK_IMAGE || w->moved[record.file])
			continue;
		fd = open_file(w, record.file);
		if (fd < 0)
			return fd;
		r = put_block(w, fd, &record);
		if (r < 0)
			return r;
	}
	return r == -ENODATA ? 0 : r;
}

static int put_file(struct work *w, unsigned file)
{
	const struct undo_file *was = &w->reader.header.files[file];
	struct stat st;
	int fd, r;

	if (was->size < 0) {
		step(w);
		r = sys_unlinkat(w->segmentfd, undo_file_names[file], 0);
		return r == -ENOENT ? 0 : r;
	}
	if (w->moved[file])
		return put_moved(w, file);
	fd = open_file(w, file);
	if (fd < 0)
		return fd;
	r = sys_fstat(fd, &st);
	if (r == 0 && st.st_size != was->size) {
		step(w);
		r = sys_ftruncate(fd, was->size);
	}
	return r < 0 ? r : sys_fdatasync(fd);
}

static bool is_creation(const struct undo_header *h)
{
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++)
		if (h->files[i].size >= 0)
			return false;
	return true;
}

static int put_back(struct work *w)
{
	int r = begin_undoing(w);
	unsigned i;

	if (r == 0)
		r = put_blocks(w);
	/* The pickle last: without it the rest is not believed. */
	for (i = 0; i < UNDO_FILES && r == 0; i++)
		r = put_file(w, i);
	if (r == 0)
		r = sys_fsync(w->segmentfd);
	w->outcome->result = is_creation(&w->reader.header) ? ROLLBACK_CREATION : ROLLBACK_DONE;
	return r;
}

/* The undo file goes first: without it what was moved is only rubbish. */
static int forget(struct work *w, const char *name)
{
	char moved[UNDO_NAME_MAX];
	unsigned i;
	int r;

	step(w);
	r = sys_unlinkat(w->rb->undofd, name, 0);
	if (r < 0 && r != -ENOENT)
		return r;
	for (i = 0; i < UNDO_FILES; i++) {
		if (!w->moved[i])
			continue;
		undo_moved_name(moved, &w->reader.header, i);
		sys_unlinkat(w->rb->undofd, moved, 0);
	}
	return sys_fsync(w->rb->undofd);
}

static int put_aside(const struct rollback *rb, const char *name, const char *suffix)
{
	char aside[UNDO_NAME_MAX + 16];
	size_t n = strlen(name);

	if (n >= UNDO_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(aside, name, n);
	strcpy(aside + n, suffix);
	return sys_renameat(rb->undofd, name, rb->undofd, aside);
}

/* With what it moved, or that would be swept away. */
static int put_foreign_aside(const struct work *w, const char *name)
{
	char moved[UNDO_NAME_MAX];
	int r = put_aside(w->rb, name, ".foreign");
	unsigned i;

	for (i = 0; i < UNDO_FILES && r == 0; i++) {
		if (!w->moved[i])
			continue;
		undo_moved_name(moved, &w->reader.header, i);
		put_aside(w->rb, moved, ".foreign");
	}
	return r;
}

static bool segment_is_open(struct work *w)
{
	/* A segment may be a link to another disk: its content tells whether it is the one. */
	w->segmentfd = sys_openat(w->rb->rootfd, w->reader.header.segment,
				  O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	return w->segmentfd >= 0;
}

/* It is not what the undo file was saved from. */
static int rollback_leave(struct work *w, const char *name)
{
	const struct undo_header *h = &w->reader.header;

	w->outcome->result = w->changes || is_creation(h) || h->version <= 2
				 ? ROLLBACK_FOREIGN
				 : ROLLBACK_GONE; /* nothing had been changed yet */
	if (w->rb->dry)
		return 0;
	return w->outcome->result == ROLLBACK_GONE ? forget(w, name) : put_foreign_aside(w, name);
}

/* Decides what is to be done with an undo file, and does it. */
static int undo_group(struct work *w, const char *name, bool own)
{
	struct rollback_outcome *o = w->outcome;
	int r = first_pass(w);

	if (r < 0)
		return r;
	if (!segment_is_open(w)) {
		o->result = ROLLBACK_GONE;
		if (w->segmentfd != -ENOENT && w->segmentfd != -ENOTDIR)
			return w->segmentfd;
		return w->rb->dry ? 0 : forget(w, name);
	}
	if (!own && w->reader.header.ended) {
		o->result = ROLLBACK_COMMITTED;
		return w->rb->dry ? 0 : forget(w, name);
	}
	if (!own && w->tentative && transaction_committed(w->rb->rootfd, w->counter)) {
		o->result = ROLLBACK_COMMITTED;
		return w->rb->dry ? 0 : forget(w, name);
	}
	r = own ? 0 : rollback_judge(w);
	if (r < 0)
		return r;
	if (r > 0)
		return rollback_leave(w, name);
	if (w->rb->dry) {
		o->result = is_creation(&w->reader.header) ? ROLLBACK_CREATION : ROLLBACK_DONE;
		return 0;
	}
	r = put_back(w);
	if (r == -ENOENT) { /* its deletion was under way */
		o->result = ROLLBACK_GONE;
		r = 0;
	}
	return r < 0 ? r : forget(w, name);
}

static void work_on(const struct rollback *rb, struct work *w, const char *name, bool own)
{
	unsigned i;
	int r;

	for (i = 0; i < UNDO_FILES; i++)
		w->files[i] = -1;
	w->segmentfd = -1;
	w->rb = rb;
	w->data =
	    sys_mmap(UNDO_LENGTH_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	r = sys_map_failed(w->data) ? (int)(long)w->data : undo_group(w, name, own);
	if (r < 0) {
		w->outcome->result = ROLLBACK_FAILED;
		w->outcome->error = r;
	}
	for (i = 0; i < UNDO_FILES; i++)
		if (w->files[i] >= 0)
			sys_close(w->files[i]);
	if (w->segmentfd >= 0)
		sys_close(w->segmentfd);
	if (!sys_map_failed(w->data))
		sys_munmap(w->data, UNDO_LENGTH_MAX);
}

/* ---- one file ---- */

/* What a file that cannot be read as an undo file means. */
static void unreadable(const struct rollback *rb, struct rollback_outcome *o, const char *name,
		       int error)
{
	o->error = error;
	/* Torn at its birth: nothing is changed before the header is there. */
	if (error == -ENODATA) {
		o->result = ROLLBACK_GONE;
		if (!rb->dry)
			sys_unlinkat(rb->undofd, name, 0);
		return;
	}
	if (error == -EPROTONOSUPPORT) {
		o->result = ROLLBACK_NEWER;
		return;
	}
	o->result = error == -EBADMSG ? ROLLBACK_DAMAGED : ROLLBACK_FAILED;
	if (o->result == ROLLBACK_DAMAGED && !rb->dry)
		put_aside(rb, name, ".damaged");
}

/* Its segment is here: UUIDs are given once. */
static bool is_of_here(const struct rollback *rb, const struct undo_header *h)
{
	struct stat st;

	return sys_fstatat(rb->rootfd, h->segment, &st, 0) == 0;
}

static void rollback_take(const struct rollback *rb, const char *name)
{
	struct rollback_outcome o = {.name = name};
	struct work w = {.outcome = &o};
	char expected[UNDO_NAME_MAX];
	int fd = sys_openat(rb->undofd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	int r;

	if (fd == -ENOENT)
		return;
	r = fd < 0 ? fd : undo_open(&w.reader, fd);
	if (r == 0) {
		undo_name(expected, &w.reader.header, UNDO_SUFFIX);
		if (strcmp(expected, name) != 0)
			r = -EBADMSG;
	}
	if (rb->shared && (r < 0 || !is_of_here(rb, &w.reader.header))) {
		if (fd >= 0)
			sys_close(fd);
		return;
	}
	if (r < 0) {
		unreadable(rb, &o, name, r);
	} else {
		o.header = w.reader.header;
		if (rollback_lives(rb->undofd, &o.header))
			o.result = ROLLBACK_LIVE;
		else
			work_on(rb, &w, name, false);
	}
	if (fd >= 0)
		sys_close(fd);
	if (rb->report)
		rb->report(rb->context, &o);
}

int rollback_own(const struct rollback *rb, int fd, struct rollback_outcome *outcome)
{
	struct work w = {.outcome = outcome};
	char name[UNDO_NAME_MAX];
	int r;

	memset(outcome, 0, sizeof(*outcome));
	r = undo_open(&w.reader, fd);
	if (r < 0) {
		outcome->result = ROLLBACK_FAILED;
		return outcome->error = r;
	}
	outcome->header = w.reader.header;
	undo_name(name, &w.reader.header, UNDO_SUFFIX);
	work_on(rb, &w, name, true);
	return outcome->error;
}

/* ---- the directory ---- */

/* Calls each with the names that end with suffix. Returns how many there were, or -errno. */
static int for_each(const struct rollback *rb, const char *suffix,
		    void (*each)(const struct rollback *, const char *))
{
	char buf[1024] __attribute__((aligned(8)));
	int fd = sys_openat(rb->undofd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	ssize_t n, at;
	int found = 0;

	if (fd < 0)
		return fd;
	while ((n = sys_getdents(fd, buf, sizeof(buf))) > 0) {
		const struct linux_dirent64 *d;

		for (at = 0; at < n; at += d->length) {
			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			if (!text_ends_with(d->name, suffix))
				continue;
			found++;
			if (each)
				each(rb, d->name);
		}
	}
	sys_close(fd);
	return n < 0 ? (int)n : found;
}

/* What a commit or a roll-back left when it was cut off after its undo file was gone. */
static void sweep_moved(const struct rollback *rb, const char *name)
{
	char undo[UNDO_NAME_MAX];
	size_t n = strlen(name) - strlen(".0.moved");
	struct stat st;

	if (n + sizeof(UNDO_SUFFIX) > sizeof(undo))
		return;
	memcpy(undo, name, n);
	strcpy(undo + n, UNDO_SUFFIX);
	if (sys_fstatat(rb->undofd, undo, &st, AT_SYMLINK_NOFOLLOW) == -ENOENT)
		sys_unlinkat(rb->undofd, name, 0);
}

/* A creation of the segment that rb->context says, by another process. */
static void undo_rollback_supersede(const struct rollback *rb, const char *name)
{
	const struct undo_header *new = rb->context;
	char own[UNDO_NAME_MAX];
	struct undo_reader reader;
	int fd;

	undo_name(own, new, UNDO_SUFFIX);
	if (strncmp(name, own, strlen(new->segment)) != 0 || strcmp(name, own) == 0)
		return;
	fd = sys_openat(rb->undofd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd < 0)
		return;
	if (undo_open(&reader, fd) == 0 && is_creation(&reader.header) &&
	    strcmp(reader.header.segment, new->segment) == 0)
		sys_unlinkat(rb->undofd, name, 0);
	sys_close(fd);
}

void rollback_supersede(int undofd, struct undo_header *h)
{
	struct rollback rb = {.undofd = undofd, .context = h};

	for_each(&rb, UNDO_SUFFIX, undo_rollback_supersede);
}

static void sweep_alive(const struct rollback *rb, const char *name)
{
	int fd = sys_openat(rb->undofd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);

	if (fd < 0)
		return;
	if (rollback_lock_state(fd) == 0)
		sys_unlinkat(rb->undofd, name, 0);
	sys_close(fd);
}

static int open_lock(int undofd)
{
	const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW;
	int fd = sys_openat(undofd, LOCK_NAME, flags, 0600);

	/* Somebody else's, who forgot to give it away: nobody could roll back any more. */
	if ((fd == -EACCES || fd == -EPERM) && sys_unlinkat(undofd, LOCK_NAME, 0) == 0)
		fd = sys_openat(undofd, LOCK_NAME, flags, 0600);
	return fd;
}

int rollback_directory(const struct rollback *rb)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int found = for_each(rb, UNDO_SUFFIX, NULL);
	int lockfd = -1;

	if (found < 0 ||
	    (found == 0 && for_each(rb, ".moved", NULL) <= 0 && for_each(rb, ".alive", NULL) <= 0))
		return found;
	if (!rb->dry) {
		lockfd = open_lock(rb->undofd);
		if (lockfd < 0)
			return lockfd;
		while (sys_fcntl(lockfd, F_OFD_SETLKW, (unsigned long)&lock) == -EINTR)
			;
	}
	found = for_each(rb, UNDO_SUFFIX, rollback_take);
	if (rb->shared && lockfd >= 0)
		sys_close(lockfd);
	if (!rb->dry && !rb->shared) {
		for_each(rb, ".moved", sweep_moved);
		for_each(rb, ".fresh", sweep_moved);
		if (for_each(rb, UNDO_SUFFIX, NULL) == 0)
			for_each(rb, ".alive", sweep_alive);
		sys_close(lockfd);
	}
	return found < 0 ? found : 0;
}
