/* SPDX-License-Identifier: MIT
 *
 * Taking a snapshot: the lock, the database, and the order of it all.
 */
#include "core/snapshot/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/background.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/tree.h"
#include "core/oplog/oplog.h"
#include "core/snapshot/content.h"
#include "core/snapshot/internal.h"
#include "core/sqlite/database.h"
#include "core/sqlite/journal.h"
#include "core/sqlite/page.h"
#include "core/sqlite/wal.h"

#define JOURNAL_FILE CHROMA_DATABASE "-journal"
#define WAL_FILE CHROMA_DATABASE "-wal"
#define STAGE "take"
#define ATTEMPTS_NS UINT64_C(30000000000)

/* ---- shared parts ---- */

struct errand {
	int (*run)(struct taking *k);
	struct taking *k;
};

static int run_errand(void *context)
{
	const struct errand *e = context;

	return e->run(e->k);
}

/* This is not done while a lock is held; where nobody else is there is nobody to give way to. */
static int run_quietly(int (*run)(struct taking *), struct taking *k)
{
	if (k->options->idle)
		return run(k);
	return background_wait_for(run_errand, &(struct errand){run, k});
}

/* ---- the lock ---- */

struct hold {
	sqlite3 *db; /* NULL: only the raw lock */
	int fd;	     /* of the database: closed last, since closing drops SQLite's locks */
	bool rolled_back, wal, raw;
};

static void let_go(struct hold *h)
{
	sqlite3_close(h->db);
	if (h->fd >= 0)
		close(h->fd);
	*h = (struct hold){.fd = -1};
}

/* A database that SQLite cannot open: at least nobody who could writes to it meanwhile. */
static int hold_raw(struct hold *h)
{
	struct flock lock = {.l_type = F_RDLCK,
			     .l_whence = SEEK_SET,
			     .l_start = SQLITE_SHARED_FIRST,
			     .l_len = SQLITE_SHARED_SIZE};

	sqlite3_close(h->db);
	h->db = NULL;
	h->raw = true;
	return fcntl(h->fd, F_OFD_SETLK, &lock) < 0 ? -EBUSY : 0;
}

static int begin_read(struct hold *h)
{
	int64_t ignored;
	int r = database_error(sqlite3_exec(h->db, "BEGIN", NULL, NULL, NULL));

	return r < 0 ? r
		     : database_number(h->db, "SELECT count(*) FROM sqlite_master", NULL, &ignored);
}

static int hold_database(struct taking *k, struct hold *h)
{
	const struct snapshot_options *o = k->options;
	struct file_source source;
	int r;

	*h = (struct hold){.fd = file_open_at(o->dirfd, CHROMA_DATABASE)};
	if (h->fd < 0)
		return taking_fail(k, h->fd, CHROMA_DATABASE, "");
	r = database_open(o->path, &h->db);
	if (r == 0)
		r = begin_read(h);
	if (r == -EROFS) {
		sqlite3_close(h->db);
		r = database_open_rolled_back(o->dirfd, &h->db);
		h->rolled_back = r == 0;
		if (r == 0)
			r = begin_read(h);
	}
	if (r < 0 && r != -EBUSY && o->accept_broken) {
		taking_fail(k, r, CHROMA_DATABASE, "it cannot be opened");
		r = hold_raw(h);
	} else if (r < 0) {
		taking_fail(k, r, CHROMA_DATABASE, h->db ? sqlite3_errmsg(h->db) : "");
	}
	h->wal = r == 0 && file_source_open(&source, h->fd) == 0 && sqlite_is_wal(&source);
	if (r < 0)
		let_go(h);
	return r;
}

static bool is_older_than_1_0(sqlite3 *db)
{
	int64_t newer = 1;

	return db &&
	       database_number(
		   db, "SELECT count(*) FROM migrations WHERE dir = 'metadb' AND version >= 5",
		   NULL, &newer) == 0 &&
	       newer == 0;
}

static bool has_open_transaction(const struct taking *k)
{
	int fd = file_open_at(k->options->dirfd, JOURNAL_FILE);
	struct file_source source;
	bool open_one;

	if (fd < 0)
		return false;
	open_one = file_source_open(&source, fd) == 0 && source.size > 0;
	close(fd);
	return open_one;
}

/* ---- the database ---- */

static int stage_beside(struct taking *k, const char *name)
{
	int fd = file_open_at(k->options->dirfd, name), r;

	if (fd == -ENOENT)
		return 0;
	if (fd < 0)
		return taking_fail(k, fd, name, "");
	r = tree_copy_file(fd, k->stagefd, name);
	close(fd);
	return r < 0 ? taking_fail(k, r, name, "") : 0;
}

static void note_moment(struct taking *k)
{
	k->out->header.time = clock_read(CLOCK_REALTIME);
	oplog_boot_id(k->out->header.boot_id);
}

/*
 * A reader of a log keeps no writer out: what is committed from this moment on is left out. One
 * that had nothing to read there does not even keep it from starting anew, which its header tells.
 */
static int copy_log(struct taking *k, int fd)
{
	unsigned char before[SQLITE_WAL_HEADER_SIZE] = {0}, after[SQLITE_WAL_HEADER_SIZE] = {0};
	struct stat st;
	int to, r;

	file_read_at(fd, before, sizeof(before), 0);
	note_moment(k);
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size == 0)
		return 0;
	r = tree_copy_file(fd, k->stagefd, WAL_FILE);
	if (r < 0)
		return r;
	to = openat(k->stagefd, WAL_FILE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (to < 0)
		return -errno;
	file_read_at(to, after, sizeof(after), 0);
	if (memcmp(before, after, sizeof(before)) != 0)
		r = -EAGAIN;
	else if (ftruncate(to, st.st_size) < 0)
		r = -errno;
	close(to);
	return r;
}

static int stage_log(struct taking *k)
{
	int fd = file_open_at(k->options->dirfd, WAL_FILE), r;

	if (fd == -ENOENT)
		return 0;
	r = fd < 0 ? fd : copy_log(k, fd);
	if (fd >= 0)
		close(fd);
	return r < 0 && r != -EAGAIN ? taking_fail(k, r, WAL_FILE, "") : r;
}

static int stage_database(struct taking *k, const struct hold *h)
{
	int r = tree_remove(k->stagefd, JOURNAL_FILE);

	if (r == 0)
		r = tree_remove(k->stagefd, WAL_FILE);
	if (r == 0)
		r = tree_copy_file(h->fd, k->stagefd, CHROMA_DATABASE);
	if (r < 0)
		return taking_fail(k, r, CHROMA_DATABASE, "");
	if (h->rolled_back || h->raw)
		r = stage_beside(k, JOURNAL_FILE);
	if (r == 0 && h->raw)
		r = stage_beside(k, WAL_FILE);
	else if (r == 0 && h->wal)
		r = stage_log(k);
	return r;
}

static int copy_under_lock(struct taking *k, struct hold *h)
{
	bool older = is_older_than_1_0(h->db);
	int r;

	note_moment(k);
	k->strict = older || h->wal;
	r = segments_look(k);
	if (r == 0 && older && !h->rolled_back && has_open_transaction(k))
		return -EAGAIN;
	if (r == 0)
		r = stage_database(k, h);
	return r == 0 ? segments_stage(k) : r;
}

/* Plays the journal or WAL into the copy. */
static int settle_database(struct taking *k)
{
	char why[sizeof(k->trouble->detail)];
	int r = content_settle(k->stagefd, why, sizeof(why));

	return r < 0 ? taking_fail(k, r, CHROMA_DATABASE, why) : 0;
}

/* ---- what it says ---- */

/* What cannot be read is left out: whether it is damage is for the verification to say. */
static int note_database(struct taking *k)
{
	struct file_source source;
	char path[64];
	sqlite3 *db = NULL;
	int fd = file_open_at(k->stagefd, CHROMA_DATABASE), r = 0;

	if (fd < 0)
		return 0;
	if (file_source_open(&source, fd) == 0)
		content_note_header(k->out, &source);
	close(fd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", k->stagefd);
	if (database_open(path, &db) == 0)
		r = content_note_database(k->out, db, NULL);
	sqlite3_close(db);
	return r;
}

static int add_database_file(struct taking *k, const char *name)
{
	int fd = file_open_at(k->stagefd, name), r;
	struct manifest_file *f;
	struct stat st, live;

	if (fd == -ENOENT)
		return 0;
	r = fd < 0 ? fd : fstat(fd, &st) < 0 ? -errno : 0;
	f = r == 0 ? manifest_add_file(k->out, name) : NULL;
	if (r == 0 && !f)
		r = -ENOMEM;
	if (r == 0) {
		struct chunk_name *chunks = NULL;
		struct content_known room;

		if (fstatat(k->options->dirfd, name, &live, AT_SYMLINK_NOFOLLOW) == 0)
			st.st_mode = live.st_mode;
		f->mode = (uint32_t)st.st_mode & 07777;
		f->mtime = st.st_mtim.tv_sec;
		f->mtime_ns = (uint32_t)st.st_mtim.tv_nsec;
		r = taking_chunk(k, fd, (uint64_t)st.st_size, taking_know(k, name, &room), &chunks,
				 &f->sums);
		if (r == 0) {
			f->size = (uint64_t)st.st_size;
			f->chunks = chunks;
		}
	}
	if (fd >= 0)
		close(fd);
	return r < 0 ? taking_fail(k, r, name, "") : 0;
}

static int chunk_all(struct taking *k)
{
	static const char *const names[] = {CHROMA_DATABASE, JOURNAL_FILE, WAL_FILE};
	unsigned i;
	int r = note_database(k);

	/* Else there is nothing in them any more. */
	for (i = 0; i < (k->raw ? 3 : 1) && r == 0; i++)
		r = add_database_file(k, names[i]);
	return r == 0 ? segments_finish(k) : r;
}

/* ---- the whole ---- */

/* The lock is asked for again until a moment comes at which all is quiet. */
static int copy_all(struct taking *k, struct hold *how)
{
	uint64_t deadline = oplog_now() + ATTEMPTS_NS;
	struct timespec step = {0, 5000000};
	struct hold h;
	int r;

	for (;;) {
		*k->trouble = (struct snapshot_trouble){{0}, {0}};
		r = hold_database(k, &h);
		if (r == 0) {
			*how = h;
			r = copy_under_lock(k, &h);
			let_go(&h);
		}
		if (r == -EAGAIN)
			r = taking_fail(k, -EBUSY, CHROMA_DATABASE,
					"one transaction followed the other");
		/* A segment has had its time already. */
		if (r != -EBUSY || strcmp(k->trouble->file, CHROMA_DATABASE) != 0 ||
		    oplog_now() > deadline)
			return r;
		nanosleep(&step, NULL);
		if (step.tv_nsec < 100000000)
			step.tv_nsec += step.tv_nsec / 2;
	}
}

static int copy_without_database(struct taking *k)
{
	int r;

	note_moment(k);
	r = segments_look(k);
	return r == 0 ? segments_stage(k) : r;
}

static int snapshot_judge(struct taking *k, const struct hold *how, bool missing)
{
	char text[sizeof(k->trouble->file) + sizeof(k->trouble->detail) + 4] = "";
	bool torn = false;
	size_t i;

	for (i = 0; i < k->segment_count; i++)
		torn = torn || k->segments[i].torn;
	if (missing)
		snprintf(text, sizeof(text), "there was no %s", CHROMA_DATABASE);
	else if (how->raw || torn)
		snprintf(text, sizeof(text), "%s: %s", k->trouble->file, k->trouble->detail);
	k->out->header.state = text[0] ? SNAPSHOT_BROKEN : SNAPSHOT_COMPLETE;
	return manifest_set_text(&k->out->trouble, text);
}

static uint64_t database_size(const struct taking *k)
{
	struct stat st;

	return fstatat(k->options->dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) == 0
		   ? (uint64_t)st.st_size
		   : 0;
}

static int take(struct taking *k)
{
	struct hold how = {.fd = -1};
	bool missing = false;
	int r;

	k->total = database_size(k);
	known_open(&k->known, k->store);
	r = run_quietly(segments_read_ahead, k);
	if (r == 0)
		r = copy_all(k, &how);
	if (r == -ENOENT && k->options->accept_broken) {
		missing = true;
		r = copy_without_database(k);
	}
	if (r == 0 && !missing && !how.raw && (how.rolled_back || how.wal))
		r = settle_database(k);
	k->raw = how.raw;
	if (r == 0)
		r = run_quietly(chunk_all, k);
	if (r == 0)
		r = snapshot_judge(k, &how, missing);
	if (r == 0)
		r = snapshot_add(k->store, k->out);
	if (r == 0 && k->out->header.state == SNAPSHOT_COMPLETE)
		known_write(k->store, k->out, &k->notes);
	return r;
}

int snapshot_take(struct snapshot_store *s, const struct snapshot_options *options,
		  struct manifest *out, struct snapshot_trouble *t)
{
	struct taking k = {.store = s, .options = options, .out = out, .trouble = t};
	uint64_t ignored;
	int r;

	*out = (struct manifest){0};
	*t = (struct snapshot_trouble){0};
	r = manifest_set_text(&out->reason, options->reason);
	if (r == 0)
		r = manifest_set_text(&out->description,
				      options->description ? options->description : "");
	k.stagefd = r == 0 ? snapshot_scratch(s, STAGE) : r;
	if (k.stagefd < 0)
		return taking_fail(&k, k.stagefd, SCRATCH_DIR, "");
	r = take(&k);
	segments_free(&k);
	known_close(&k.known);
	known_notes_free(&k.notes);
	close(k.stagefd);
	snapshot_scratch_remove(s, STAGE);
	/* What was put for nothing. While others read, it is left to the next prune. */
	if (r < 0 && snapshot_store_claim(s) == 0)
		snapshot_collect(s, false, &ignored);
	return r;
}
