/* SPDX-License-Identifier: MIT
 *
 * One file as a pin holds it, put together from what was saved and what is untouched.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/pin/groups.h"

#define PRE ".pre"
#define WHOLE ".whole"
#define TRIES 1000
#define JUDGE_TRIES 200
#define JUDGE_QUIET 20

static int reader_trouble(const struct pin_reader *r, int error, const char *name,
			  const char *detail)
{
	snprintf(r->view->trouble->file, sizeof(r->view->trouble->file), "%s", name);
	snprintf(r->view->trouble->detail, sizeof(r->view->trouble->detail), "%s", detail);
	return error;
}

/* ---- layers ---- */

static void close_layer(struct pin_layer *l)
{
	if (l->pre.header)
		pin_file_close(&l->pre);
	if (l->whole >= 0)
		close(l->whole);
}

static void close_layers(struct pin_reader *r)
{
	size_t i;

	for (i = 0; i < r->layer_count; i++)
		close_layer(&r->layers[i]);
	free(r->layers);
	r->layers = NULL;
	r->layer_count = 0;
}

static struct pin_layer *layer_of(struct pin_reader *r, uint64_t id)
{
	struct pin_layer *more;
	size_t i;

	for (i = 0; i < r->layer_count; i++)
		if (r->layers[i].id == id)
			return &r->layers[i];
	more = reallocarray(r->layers, r->layer_count + 1, sizeof(*more));
	if (!more)
		return NULL;
	r->layers = more;
	more += r->layer_count++;
	*more = (struct pin_layer){.id = id, .pre = {.fd = -1}, .whole = -1};
	return more;
}

static int open_pre(struct pin_reader *r, struct pin_layer *l, const char *name)
{
	int e = pin_file_read_open(&l->pre, r->view->pins, l->id, r->file.path);

	if (e == 0 && strcmp(l->pre.header->path, r->file.path) != 0)
		e = -EBADMSG;
	if (e == 0)
		return 0;
	return reader_trouble(r, e, name,
			      e == -EBADMSG	      ? "its header is damaged"
			      : e == -EPROTONOSUPPORT ? "of a newer version"
						      : "it cannot be read");
}

static int compare_layers(const void *a, const void *b)
{
	const struct pin_layer *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* Its removal failed, or has not been made yet. */
static bool is_live(const struct pin_reader *r, int whole)
{
	struct pin_identity live;
	struct stat st;

	return pin_identify(r->view->rootfd, r->file.path, &live) == 0 && fstat(whole, &st) == 0 &&
	       live.ino == st.st_ino && live.dev == st.st_dev;
}

/* "<id>-<key>.pre" or ".whole" of this file, of an epoch that counts. */
static int note_name(struct pin_reader *r, const char *name, const char *key)
{
	char *end;
	uint64_t id = strtoull(name, &end, 10);
	size_t n = strlen(key);
	struct pin_layer *l;

	if (end == name || *end != '-' || id < r->view->id || strncmp(end + 1, key, n) != 0)
		return 0;
	end += 1 + n;
	if (strcmp(end, PRE) != 0 && strcmp(end, WHOLE) != 0)
		return 0;
	l = layer_of(r, id);
	if (!l)
		return -ENOMEM;
	if (!strcmp(end, PRE))
		return open_pre(r, l, name);
	l->whole = file_open_at(r->view->pins->dirfd, name);
	if (l->whole >= 0 && is_live(r, l->whole)) {
		close(l->whole);
		l->whole = -1;
		return 0;
	}
	return l->whole < 0 ? l->whole : 0;
}

/* Behind the epoch in which the file was removed, its name is another file's. */
static void cut_layers(struct pin_reader *r)
{
	size_t i, keep = r->layer_count;

	if (r->layer_count)
		qsort(r->layers, r->layer_count, sizeof(*r->layers), compare_layers);
	for (i = 0; i < r->layer_count && keep == r->layer_count; i++)
		if (r->layers[i].whole >= 0)
			keep = i + 1;
	for (i = keep; i < r->layer_count; i++)
		close_layer(&r->layers[i]);
	r->layer_count = keep;
}

static int load_layers(struct pin_reader *r)
{
	char key[PIN_PATH], *p;
	const struct dirent *entry;
	DIR *dir;
	int e = file_names_at(r->view->pins->dirfd, NULL, &dir);

	if (e < 0)
		return e;
	close_layers(r);
	r->generation = __atomic_load_n(&r->view->pins->state->generation, __ATOMIC_SEQ_CST);
	snprintf(key, sizeof(key), "%s", r->file.path);
	for (p = key; *p; p++)
		*p = *p == '/' ? '.' : *p;
	while (e == 0 && (entry = readdir(dir)))
		e = note_name(r, entry->d_name, key);
	closedir(dir);
	cut_layers(r);
	return e;
}

static bool is_changed(const struct pin_reader *r)
{
	return __atomic_load_n(&r->view->pins->state->generation, __ATOMIC_SEQ_CST) !=
	       r->generation;
}

/* ---- what it was ---- */

static int base_of(const struct pin_reader *r)
{
	if (r->layer_count && r->layers[r->layer_count - 1].whole >= 0)
		return r->layers[r->layer_count - 1].whole;
	return r->live;
}

static const struct pin_file_header *first_header(const struct pin_reader *r)
{
	size_t i;

	for (i = 0; i < r->layer_count; i++)
		if (r->layers[i].pre.header)
			return r->layers[i].pre.header;
	return NULL;
}

/* -ENOENT: there was none. */
static int find_size(struct pin_reader *r)
{
	const struct undo_header *group =
	    r->segment >= 0 ? pin_groups_header(r->view, r->id) : NULL;
	const struct pin_file_header *h = first_header(r);
	int base = base_of(r);
	struct stat st;
	int64_t size = -1;

	if (base >= 0 && fstat(base, &st) == 0) {
		size = st.st_size;
		r->file.mode = (uint32_t)st.st_mode & 07777;
		r->file.mtime = st.st_mtim.tv_sec;
		r->file.mtime_ns = (uint32_t)st.st_mtim.tv_nsec;
	}
	if (h) {
		size = h->size;
		if (h->size >= 0) {
			r->file.mode = h->mode & 07777;
			r->file.mtime = h->mtime;
			r->file.mtime_ns = h->mtime_ns;
		}
	}
	if (group) {
		size = group->files[r->segment].size;
		if (size >= 0)
			r->file.mode = group->files[r->segment].mode & 07777;
	}
	if (size < 0)
		return -ENOENT;
	r->file.size = r->source.size = (uint64_t)size;
	return 0;
}

/* ---- reading ---- */

/* 1: the block was saved, and is in buf. */
static int read_saved(const struct pin_reader *r, const struct pin_layer *l, uint64_t block,
		      unsigned char buf[PIN_BLOCK])
{
	char name[PIN_NAME_MAX];
	int e = l->pre.header ? pin_file_read(&l->pre, block, buf) : 0;

	if (e != -EBADMSG)
		return e;
	if (pin_file_name(name, l->id, r->file.path, PRE) < 0)
		name[0] = '\0';
	return reader_trouble(r, e, name, "what was saved of it is damaged");
}

static int overlay_groups(const struct pin_reader *r, unsigned char *out, size_t n, uint64_t offset)
{
	return r->segment < 0
		   ? 0
		   : pin_groups_lay_over(r->view, r->id, (unsigned)r->segment, offset, out, n);
}

/* n bytes of one block. `there`: they are what the file holds now. */
static int overlay_block(const struct pin_reader *r, unsigned char *out, size_t n, bool there,
			 uint64_t offset)
{
	unsigned char block[PIN_BLOCK] = {0};
	size_t i;
	int e = overlay_groups(r, out, n, offset);

	if (e != 0)
		return e < 0 ? e : 0;
	for (i = 0; i < r->layer_count && e == 0; i++)
		e = read_saved(r, &r->layers[i], offset / PIN_BLOCK, block);
	if (e == 0 && !there)
		return reader_trouble(r, -ESTALE, r->file.path, "it was cut off without the shim");
	if (e <= 0)
		return e;
	memcpy(out, block + offset % PIN_BLOCK, n);
	e = overlay_groups(r, out, n, offset);
	return e < 0 ? e : 0;
}

/* The bytes of `out` as they were; `have` of them are what the file holds now. */
static int overlay(const struct pin_reader *r, unsigned char *out, size_t n, size_t have,
		   uint64_t offset)
{
	size_t at = 0;

	while (at < n) {
		uint64_t in = (offset + at) % PIN_BLOCK;
		size_t want = PIN_BLOCK - in < n - at ? (size_t)(PIN_BLOCK - in) : n - at;
		int e = overlay_block(r, out + at, want, at + want <= have, offset + at);

		if (e < 0)
			return e;
		at += want;
	}
	return 0;
}

static ssize_t read_pinned(const struct file_source *source, void *buf, size_t n, uint64_t offset)
{
	struct pin_reader *r = (struct pin_reader *)(uintptr_t)source->data;
	ssize_t have;
	int tries, e;

	if (offset >= source->size)
		return 0;
	n = n < source->size - offset ? n : (size_t)(source->size - offset);
	if (r->moved >= 0)
		return file_read_at(r->moved, buf, n, offset);
	for (tries = 0; tries < TRIES; tries++) {
		int base = base_of(r);

		have = base < 0 ? 0 : file_read_at(base, buf, n, offset);
		if (have < 0)
			return have;
		/* Only now what was saved: whatever was overwritten by then is in it. */
		if (is_changed(r)) {
			e = load_layers(r);
			if (e < 0)
				return e;
			continue;
		}
		e = r->segment >= 0 ? pin_groups_refresh(r->view, r->id) : 0;
		if (e == 0)
			e = overlay(r, buf, n, (size_t)have, offset);
		return e < 0 ? e : (ssize_t)n;
	}
	return -EBUSY;
}

/* ---- is it still worth something? ---- */

/* Nothing of it has to be read from a file that is live. */
static bool is_all_saved(const struct pin_reader *r)
{
	uint64_t block, count = (r->file.size + PIN_BLOCK - 1) / PIN_BLOCK;
	size_t i;

	for (block = 0; block < count; block++) {
		for (i = 0; i < r->layer_count; i++)
			if (r->layers[i].pre.header && pin_file_has(&r->layers[i].pre, block))
				break;
		if (i == r->layer_count)
			return false;
	}
	return true;
}

/* What a file was when it was looked at last. */
struct link {
	struct pin_identity is;
	bool any, exact; /* known at all; its change time, too */
};

/* 1: the next one is what the last one became, else 0. */
static int follows(const struct link *last, const struct pin_identity *next, bool exact)
{
	return !last->any || (pin_identity_same(&last->is, next) &&
			      (!last->exact || !exact || last->is.changed == next->changed));
}

/* From the list over the epochs: 0 if somebody else has been at the file. */
static int follow_layers(const struct pin_reader *r, struct link *last)
{
	const struct pin_list_entry *e = pin_view_listed(r->view, r->file.path);
	size_t i;

	*last = (struct link){.any = e != NULL,
			      .exact = r->segment < 0 || !pin_groups_header(r->view, r->id)};
	if (e)
		last->is = (struct pin_identity){
		    .dev = e->dev, .ino = e->ino, .birth = e->birth, .changed = e->changed};
	for (i = 0; i < r->layer_count; i++) {
		const struct pin_file_header *h = r->layers[i].pre.header;
		const struct pin_file_life *life = r->layers[i].pre.life;
		struct pin_identity is;

		if (!h || h->size < 0)
			continue;
		is = (struct pin_identity){
		    .dev = h->dev, .ino = h->ino, .birth = h->birth, .changed = h->changed};
		if (!follows(last, &is, !__atomic_load_n(&life->late, __ATOMIC_SEQ_CST)))
			return 0;
		is.changed = __atomic_load_n(&life->seen, __ATOMIC_SEQ_CST);
		*last =
		    (struct link){is, true, __atomic_load_n(&life->busy, __ATOMIC_SEQ_CST) == 0};
	}
	return 1;
}

static int judge_once(const struct pin_reader *r)
{
	struct pin_identity live;
	struct link last;
	struct stat st;
	int base = base_of(r);

	if (!follow_layers(r, &last))
		return 0;
	if (base >= 0 && base != r->live) /* in pins/, out of reach */
		return fstat(base, &st) == 0 &&
		       (!last.any || (st.st_ino == last.is.ino && st.st_dev == last.is.dev));
	return pin_identify(r->view->rootfd, r->file.path, &live) == 0 &&
	       follows(&last, &live, true);
}

/* A write that is under way may be seen before its end is told: it is looked at again. -EBUSY: it
 * does not end. */
int pin_reader_judge(struct pin_reader *r)
{
	static const struct timespec step = {0, 1000000};
	int tries, quiet = 0, e = 0;

	for (tries = 0; tries < JUDGE_TRIES && quiet < JUDGE_QUIET && e == 0; tries++) {
		bool written = pins_is_written(r->view->pins);

		if (r->moved >= 0 || judge_once(r) == 1 || is_all_saved(r))
			return 0;
		if (is_changed(r))
			e = load_layers(r);
		else if (written)
			nanosleep(&step, NULL);
		quiet = written ? 0 : quiet + 1;
	}
	if (e < 0)
		return e;
	/* A thread in a write may be held up for long, by the disk or a debugger: that tells
	 * nothing of who has changed the file. */
	if (quiet < JUDGE_QUIET)
		return reader_trouble(r, -EBUSY, r->file.path,
				      "a write in the directory has been under way all the time");
	return reader_trouble(r, -ESTALE, r->file.path,
			      "it was changed or replaced without the shim");
}

/* ---- opening ---- */

/* It came into being after the pin, or is somebody else's. */
static bool is_pinned(const struct pin_reader *r)
{
	return first_header(r) || (r->segment >= 0 && pin_groups_header(r->view, r->id)) ||
	       pin_view_listed(r->view, r->file.path);
}

/* It was there, and before anybody saved of it, it was not; nobody who did keeps it. Made while the
 * pin was being taken, the first .pre may be older than the list. */
static bool is_lost(const struct pin_reader *r)
{
	size_t i;

	if (!pin_view_listed(r->view, r->file.path) ||
	    (r->segment >= 0 && pin_groups_header(r->view, r->id)))
		return false;
	for (i = 0; i < r->layer_count; i++)
		if (r->layers[i].pre.header)
			return r->layers[i].id != r->view->id ||
			       !__atomic_load_n(&r->layers[i].pre.life->late, __ATOMIC_SEQ_CST);
	return true;
}

static int open_live(const struct pin_reader *r)
{
	int dirfd, fd;

	if (!r->id[0])
		return file_open_at(r->view->rootfd, r->file.path);
	dirfd = file_follow_directory_at(r->view->rootfd, r->id);
	if (dirfd < 0)
		return dirfd;
	fd = file_open_at(dirfd, strchr(r->file.path, '/') + 1);
	close(dirfd);
	return fd;
}

static void note_segment(struct pin_reader *r)
{
	const char *slash = strchr(r->file.path, '/');
	int i;

	r->segment = -1;
	if (!slash || (size_t)(slash - r->file.path) >= sizeof(r->id))
		return;
	memcpy(r->id, r->file.path, (size_t)(slash - r->file.path));
	for (i = 0; i < (int)UNDO_FILES; i++)
		if (!strcmp(slash + 1, undo_file_names[i]))
			r->segment = i;
}

static int open_moved(struct pin_reader *r)
{
	int fd =
	    r->segment == UNDO_PICKLE ? pin_groups_moved(r->view, r->id, UNDO_PICKLE) : -ENOENT;

	r->moved = fd < 0 ? -1 : fd;
	return fd < 0 && fd != -ENOENT ? fd : 0;
}

int pin_reader_open(struct pin_reader *r, struct pin_view *v, const char *path)
{
	int tries, e;

	*r = (struct pin_reader){.view = v, .live = -1, .moved = -1};
	r->source = (struct file_source){.read = read_pinned, .data = r, .fd = -1};
	snprintf(r->file.path, sizeof(r->file.path), "%s", path);
	note_segment(r);
	/* Before the layers: what it is replaced by later does not matter then. */
	e = open_live(r);
	r->live = e < 0 ? -1 : e;
	if (e < 0 && e != -ENOENT && e != -ENOTDIR)
		return reader_trouble(r, e, path, "it cannot be opened");
	e = open_moved(r);
	/* A size counts if it was asked for before the first change of it was told. */
	for (tries = 0; e == 0 && tries < TRIES; tries++) {
		e = load_layers(r);
		if (e == 0)
			e = find_size(r);
		if (e == 0 && !is_pinned(r))
			e = -ENOENT;
		else if (e == -ENOENT && is_lost(r) && !is_changed(r))
			return reader_trouble(r, -ESTALE, path, "it was removed without the shim");
		if ((e == 0 || e == -ENOENT) && !is_changed(r))
			return e;
		e = e == -ENOENT ? 0 : e;
	}
	return e < 0 ? e : -EBUSY;
}

void pin_reader_close(struct pin_reader *r)
{
	close_layers(r);
	if (r->live >= 0)
		close(r->live);
	if (r->moved >= 0)
		close(r->moved);
	r->live = r->moved = -1;
}
