/* SPDX-License-Identifier: MIT
 *
 * Segments in a snapshot: read ahead, waited for until they are quiet, copied.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/text.h"
#include "core/base/tree.h"
#include "core/segment/hnsw.h"
#include "core/segment/pickle.h"
#include "core/snapshot/internal.h"
#include "core/undo/undo.h"

#define YOUNG (SECOND / 50) /* times come in steps of up to 10 ms: younger may change unseen */
#define PERSIST_MAX (10 * SECOND) /* none pauses so long between two files */
#define WAIT_MAX (10 * SECOND)
#define WAIT_STEP (SECOND / 100)

static uint64_t age(struct timespec t)
{
	uint64_t at = nanoseconds(t), clock = clock_read(CLOCK_REALTIME_COARSE);

	return at < clock ? clock - at : 0;
}

static void pause_a_step(void)
{
	struct timespec step = {0, WAIT_STEP};

	nanosleep(&step, NULL);
}

/* ---- finding ---- */

static int compare_names(const void *a, const void *b)
{
	return strcmp(((const struct segment_file *)a)->name,
		      ((const struct segment_file *)b)->name);
}

static void free_files(struct segment *s)
{
	size_t i;

	for (i = 0; i < s->count; i++) {
		free(s->files[i].chunks);
		free(s->files[i].sums);
	}
	free(s->files);
	s->files = NULL;
	s->count = 0;
}

static int add_entry(struct segment *s, int fd, const char *name)
{
	struct segment_file *more;
	struct stat st;

	if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISREG(st.st_mode))
		return 0;
	more = reallocarray(s->files, s->count + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	s->files = more;
	more[s->count] = (struct segment_file){.st = st};
	snprintf(more[s->count++].name, sizeof(more->name), "%s", name);
	return 0;
}

/* The files as they are now, by name. */
static int list_files(const struct taking *k, struct segment *s)
{
	DIR *dir = NULL;
	int fd = file_follow_directory_at(k->options->dirfd, s->id);
	int r = fd < 0 ? fd : file_names_of(fd, &dir);
	const struct dirent *entry;

	s->files = NULL;
	s->count = 0;
	s->gone = r == -ENOENT || r == -ENOTDIR || r == -ELOOP; /* a link to nothing */
	if (s->gone)
		return 0;
	if (r < 0)
		return r;
	while (r == 0 && (entry = readdir(dir)))
		r = add_entry(s, dirfd(dir), entry->d_name);
	closedir(dir);
	if (r == 0 && s->count)
		qsort(s->files, s->count, sizeof(*s->files), compare_names);
	return r;
}

static int add_segment(struct taking *k, const char *id)
{
	struct segment *more = reallocarray(k->segments, k->segment_count + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	k->segments = more;
	memset(&more[k->segment_count], 0, sizeof(*more));
	snprintf(more[k->segment_count++].id, sizeof(more->id), "%.36s", id);
	return 0;
}

static bool is_known(const struct taking *k, const char *id)
{
	size_t i;

	for (i = 0; i < k->segment_count; i++)
		if (!strcmp(k->segments[i].id, id))
			return true;
	return false;
}

int segments_find(struct taking *k)
{
	DIR *dir;
	int r = file_names_at(k->options->dirfd, NULL, &dir);
	const struct dirent *entry;

	if (r < 0)
		return r;
	while (r == 0 && (entry = readdir(dir)))
		if (chroma_is_uuid(entry->d_name) && !is_known(k, entry->d_name))
			r = add_segment(k, entry->d_name);
	closedir(dir);
	return r;
}

void segments_free(struct taking *k)
{
	size_t i;

	for (i = 0; i < k->segment_count; i++)
		free_files(&k->segments[i]);
	free(k->segments);
	k->segments = NULL;
	k->segment_count = 0;
}

/* ---- reading ahead ---- */

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool same_state(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       same_time(a->st_mtim, b->st_mtim) && same_time(a->st_ctim, b->st_ctim);
}

static int open_file(const struct taking *k, const struct segment *s, const char *name)
{
	int dirfd = file_follow_directory_at(k->options->dirfd, s->id), fd;

	if (dirfd < 0)
		return dirfd;
	fd = file_open_at(dirfd, name);
	close(dirfd);
	return fd;
}

static bool is_not_tried(void *context, uint64_t i)
{
	const struct taking *k = context;

	return !known_is_tried(&k->known, k->same, i);
}

/* Which file it is, before it is read; what is known of it by that. NULL: nothing. */
static const struct content_known *look_up(struct taking *k, const char *path,
					   struct segment_file *f, struct content_known *out)
{
	uint64_t at = clock_read(CLOCK_REALTIME_COARSE);

	k->same = NULL;
	f->settled = pin_identify(k->options->dirfd, path, &f->identity) == 0 &&
		     known_settle(k->options->dirfd, path, &f->identity, at);
	if (f->settled)
		k->same = known_find(&k->known, path, &f->identity);
	f->believed = k->same;
	if (!taking_know(k, path, out))
		return NULL;
	out->is_same = k->same ? is_not_tried : NULL;
	out->context = k;
	return out;
}

/* What was looked up is what is open. */
static bool is_identified(const struct segment_file *f)
{
	return f->identity.ino == f->st.st_ino && f->identity.size == f->st.st_size &&
	       f->identity.changed == (int64_t)nanoseconds(f->st.st_ctim);
}

static int read_file(struct taking *k, int fd, const char *path, struct segment_file *f)
{
	struct stat before, after;
	struct content_known room;
	const struct content_known *known;
	int r;

	if (fstat(fd, &before) < 0 || age(before.st_ctim) <= YOUNG)
		return 0;
	known = look_up(k, path, f, &room);
	f->st = before;
	r = taking_chunk(k, fd, (uint64_t)before.st_size, known, &f->chunks, &f->sums);
	f->chunked = r == 0 && fstat(fd, &after) == 0 && same_state(&before, &after);
	f->settled = f->settled && is_identified(f);
	if (!f->settled)
		f->chunked = f->chunked && !f->believed;
	else if (f->chunked && f->believed &&
		 !content_is_as_known(known, f->chunks, (uint64_t)before.st_size))
		k->is_doubtful = true;
	return r == -ENODATA ? 0 : r; /* cut meanwhile */
}

static int read_ahead(struct taking *k, const struct segment *s, struct segment_file *f)
{
	char path[CHROMA_ID_SIZE + sizeof(f->name)];
	int fd = open_file(k, s, f->name), r;

	if (fd < 0)
		return fd == -ENOENT || fd == -ENOTDIR ? 0 : taking_fail(k, fd, f->name, "");
	snprintf(path, sizeof(path), "%s/%s", s->id, f->name);
	r = read_file(k, fd, path, f);
	close(fd);
	return r;
}

static int read_ahead_all(struct taking *k, bool believed)
{
	size_t i, j;
	int r = 0;

	for (i = 0; i < k->segment_count && r == 0; i++) {
		for (j = 0; j < k->segments[i].count && r == 0; j++) {
			struct segment_file *f = &k->segments[i].files[j];

			if (!believed || f->believed)
				r = read_ahead(k, &k->segments[i], f);
		}
	}
	return r;
}

int segments_read_ahead(struct taking *k)
{
	size_t i, j;
	int r = segments_find(k);

	for (i = 0; i < k->segment_count && r == 0; i++) {
		r = list_files(k, &k->segments[i]);
		for (j = 0; j < k->segments[i].count; j++)
			k->total += (uint64_t)k->segments[i].files[j].st.st_size;
	}
	if (r == 0)
		r = read_ahead_all(k, false);
	if (r < 0 || !k->is_doubtful)
		return r;
	known_forget(&k->known, k->store);
	k->done = 0;
	return read_ahead_all(k, true);
}

/* ---- is it quiet? ---- */

static const struct segment_file *find_file(const struct segment *s, const char *name)
{
	size_t i;

	for (i = 0; i < s->count; i++)
		if (!strcmp(s->files[i].name, name))
			return &s->files[i];
	return NULL;
}

static uint64_t newest_change(const struct segment *s)
{
	uint64_t newest = 0, at;
	size_t i;

	for (i = 0; i < s->count; i++) {
		at = nanoseconds(s->files[i].st.st_ctim);
		newest = at > newest ? at : newest;
	}
	return newest;
}

static bool has_open_group(const struct taking *k, const struct segment *s)
{
	DIR *dir;
	const struct dirent *entry;
	bool found = false;

	file_names_at(k->store->storefd, UNDO_DIR, &dir);
	while (dir && !found && (entry = readdir(dir))) {
		found = !strncmp(entry->d_name, s->id, strlen(s->id)) &&
			text_ends_with(entry->d_name, UNDO_SUFFIX);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* As made, before its first persist: all vectors are in the queue. */
static bool is_untouched(const struct taking *k, const struct segment *s)
{
	unsigned char data[HNSW_HEADER_SIZE];
	struct hnsw_header h;
	int fd = open_file(k, s, HNSW_HEADER_FILE);
	ssize_t n = fd < 0 ? 0 : file_read_at(fd, data, sizeof(data), 0);

	if (fd >= 0)
		close(fd);
	return n <= 0 || (hnsw_header_parse(&h, data, (size_t)n) == 0 && h.count == 0);
}

enum quiet { QUIET, BUSY, TORN };

static enum quiet segment_judge(const struct taking *k, const struct segment *s)
{
	static const char *const bins[] = {HNSW_HEADER_FILE, HNSW_LEVEL0_FILE, HNSW_LENGTH_FILE,
					   HNSW_LINKS_FILE};
	const struct segment_file *pickle = find_file(s, PICKLE_FILE), *bin;
	uint64_t newest = newest_change(s), clock = clock_read(CLOCK_REALTIME_COARSE);
	bool in_order = true, old = k->options->idle || newest + PERSIST_MAX < clock;
	unsigned i;

	if (newest + YOUNG > clock && newest < clock + SECOND)
		return BUSY;
	if (!pickle)
		return old || is_untouched(k, s) ? QUIET : BUSY;
	if (has_open_group(k, s))
		return old ? TORN : BUSY;
	for (i = 0; i < 4 && in_order; i++) {
		bin = find_file(s, bins[i]);
		in_order = !bin || nanoseconds(bin->st.st_mtim) <= nanoseconds(pickle->st.st_mtim);
	}
	/* A copy made by other tools has its times in any order. */
	return in_order || old ? QUIET : BUSY;
}

/* ---- under the lock ---- */

/* What was read ahead of the file, if it is still so. */
static void segment_adopt(struct segment_file *f, struct segment *old)
{
	size_t i;

	for (i = 0; i < old->count; i++) {
		struct segment_file *o = &old->files[i];

		if (strcmp(o->name, f->name) != 0 || !(o->chunked || o->staged) ||
		    !same_state(&o->st, &f->st))
			continue;
		f->chunked = o->chunked;
		f->staged = o->staged;
		f->settled = o->settled;
		f->identity = o->identity;
		f->chunks = o->chunks;
		f->sums = o->sums;
		o->chunks = NULL;
		o->sums = NULL;
	}
}

/* The segment as it is now, with what is known of it already. *same_out: nothing has changed. */
static int refresh(const struct taking *k, struct segment *s, bool *same_out)
{
	struct segment fresh = *s;
	size_t i;
	int r = list_files(k, &fresh);

	if (r < 0) {
		free_files(&fresh);
		return r;
	}
	*same_out = fresh.count == s->count && fresh.gone == s->gone;
	for (i = 0; i < fresh.count; i++) {
		const struct segment_file *o = find_file(s, fresh.files[i].name);

		*same_out = *same_out && o && same_state(&o->st, &fresh.files[i].st);
		segment_adopt(&fresh.files[i], s);
	}
	free_files(s);
	*s = fresh;
	return 0;
}

int segments_look(struct taking *k)
{
	bool ignored;
	size_t i;
	int r = segments_find(k);

	for (i = 0; i < k->segment_count && r == 0; i++) {
		k->segments[i].torn = false;
		r = refresh(k, &k->segments[i], &ignored);
	}
	return r;
}

static int stage_file(struct taking *k, const struct segment *s, struct segment_file *f)
{
	int from = open_file(k, s, f->name), to, r;
	struct stat st;

	if (from < 0)
		return from == -ENOENT || from == -ENOTDIR ? 0 : from;
	if (fstat(from, &st) < 0 || !same_state(&st, &f->st)) {
		close(from);
		return 0; /* the next look finds out */
	}
	to = tree_make_directory(k->stagefd, s->id);
	r = to < 0 ? to : tree_copy_file(from, to, f->name);
	if (to >= 0)
		close(to);
	close(from);
	f->staged = r == 0;
	return r;
}

static int stage_files(struct taking *k, struct segment *s)
{
	size_t i;
	int r = 0;

	for (i = 0; i < s->count && r == 0; i++) {
		if (s->files[i].chunked || s->files[i].staged)
			continue;
		r = stage_file(k, s, &s->files[i]);
		if (r < 0)
			taking_fail(k, r, s->files[i].name, s->id);
	}
	return r;
}

static int give_up(struct taking *k, struct segment *s, const char *why)
{
	s->torn = true;
	taking_fail(k, 0, s->id, why);
	return k->options->accept_broken ? 0 : -EBUSY;
}

static int stage_segment(struct taking *k, struct segment *s)
{
	uint64_t deadline = clock_read(CLOCK_MONOTONIC) + WAIT_MAX;
	bool same;
	int r;

	for (;;) {
		enum quiet quiet = segment_judge(k, s);

		if (quiet == QUIET || quiet == TORN || clock_read(CLOCK_MONOTONIC) > deadline) {
			r = stage_files(k, s);
			if (r == 0)
				r = refresh(k, s, &same);
			if (r < 0 || (same && quiet == QUIET))
				return r;
			if (quiet == TORN)
				return give_up(
				    k, s, "a persist was cut off, and waits to be rolled back");
			if (clock_read(CLOCK_MONOTONIC) > deadline)
				return give_up(k, s, "it was being written to all the time");
		} else {
			pause_a_step();
			r = refresh(k, s, &same);
			if (r < 0)
				return r;
		}
		if (k->strict && !same)
			return -EAGAIN;
	}
}

int segments_stage(struct taking *k)
{
	size_t i;
	int r = 0;

	for (i = 0; i < k->segment_count && r == 0; i++)
		r = stage_segment(k, &k->segments[i]);
	for (i = 0; k->strict && i < k->segment_count && r == 0; i++) {
		bool same;

		r = refresh(k, &k->segments[i], &same);
		if (r == 0 && !same)
			r = -EAGAIN;
	}
	return r;
}

/* ---- into the manifest ---- */

static int finish_file(struct taking *k, const struct segment *s, struct segment_file *f)
{
	char path[CHROMA_ID_SIZE + 256];
	struct manifest_file *m;
	struct content_known room;
	int dirfd, fd, r = 0;

	snprintf(path, sizeof(path), "%s/%s", s->id, f->name);
	if (!f->chunked) {
		dirfd = file_open_directory_at(k->stagefd, s->id);
		fd = dirfd < 0 ? dirfd : file_open_at(dirfd, f->name);
		r = fd < 0 ? fd
			   : taking_chunk(k, fd, (uint64_t)f->st.st_size,
					  taking_know(k, path, &room), &f->chunks, &f->sums);
		if (fd >= 0)
			close(fd);
		if (dirfd >= 0)
			close(dirfd);
	}
	if (r < 0)
		return taking_fail(k, r, path, "");
	m = manifest_add_file(k->out, path);
	if (!m)
		return -ENOMEM;
	m->mode = (uint32_t)f->st.st_mode & 07777;
	m->mtime = f->st.st_mtim.tv_sec;
	m->mtime_ns = (uint32_t)f->st.st_mtim.tv_nsec;
	m->size = (uint64_t)f->st.st_size;
	m->chunks = f->chunks;
	m->sums = f->sums;
	f->chunks = NULL;
	f->sums = NULL;
	return f->settled && f->chunked ? known_note(&k->notes, path, &f->identity) : 0;
}

int segments_finish(struct taking *k)
{
	size_t i, j;
	int r = 0;

	for (i = 0; i < k->segment_count && r == 0; i++)
		for (j = 0; j < k->segments[i].count && r == 0; j++)
			if (k->segments[i].files[j].chunked || k->segments[i].files[j].staged)
				r = finish_file(k, &k->segments[i], &k->segments[i].files[j]);
	return r;
}
