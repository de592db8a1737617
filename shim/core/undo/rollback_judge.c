/* SPDX-License-Identifier: MIT
 *
 * Whether a segment is what the undo file of a persist was saved from: by its content, whatever its
 * inodes and times. See "Foreign files" in chromashim_undo.h.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/base/checksum.h"
#include "core/base/clock.h"
#include "core/base/sys.h"
#include "core/base/text.h"
#include "core/oplog/oplog.h"
#include "core/undo/rollback_internal.h"

#define WINDOW 4096u
#define FOREIGN 1

/* One file of the segment as it is now, and what was said of it. */
struct view {
	int fd;		   /* -1: there is none */
	uint64_t size;	   /* now */
	uint64_t start;	   /* its size at the group's start, 0 if there was none */
	uint64_t *known;   /* a bit for each grain that is as announced */
	uint64_t *spoken;  /* a bit for each of which anything was announced */
	size_t known_size; /* of each */
	bool emptied, unknown, imaged, cut;
	bool copy; /* made by somebody, of files or of a disk, on a machine that has not stopped */
	uint64_t least;		      /* length that it was cut to */
	bool fits, differs;	      /* what was written into it since it was emptied last */
	bool fitted;		      /* the same before that: it may not have come to it */
	bool torn;		      /* some of that lacks sectors, as in the image of a disk */
	uint64_t end;		      /* of what was written into it */
	uint64_t now, before, others; /* altered grains, as the last persist left them, and so on */
	uint64_t window_at, window_length;
	unsigned char window[WINDOW];
};

struct judge {
	struct work *w;
	struct view files[UNDO_FILES];
};

bool rollback_same_boot(const struct undo_header *h)
{
	uint8_t boot[16];

	oplog_boot_id(boot);
	return memcmp(boot, h->boot_id, sizeof(boot)) == 0;
}

static bool is_original(const struct work *w)
{
	const struct undo_header *h = &w->reader.header;
	struct stat st;

	return sys_fstat(w->reader.fd, &st) == 0 && st.st_dev == h->dev && st.st_ino == h->ino;
}

bool rollback_power_cut(const struct work *w)
{
	return !rollback_same_boot(&w->reader.header) || !is_original(w);
}

/* ---- up to version 2, when nothing was announced ---- */

/* How much later than `touched` a file's time may be: the clocks' grain; and, where the power went
 * or this is a copy, what was still in the memory. */
#define SLACK_KILLED (2 * SECOND)
#define SLACK_POWER (60 * SECOND)

static int judge_version_2(const struct work *w)
{
	uint64_t booted = clock_read(CLOCK_REALTIME) - clock_read(CLOCK_BOOTTIME);
	uint64_t touched = w->reader.touched_2, modified;
	uint64_t latest = touched + (rollback_power_cut(w) ? SLACK_POWER : SLACK_KILLED);
	struct stat st;
	unsigned i;

	if (!rollback_same_boot(&w->reader.header) && booted > touched && booted < latest)
		latest = booted;
	for (i = 0; i < UNDO_FILES; i++) {
		if (sys_fstatat(w->segmentfd, undo_file_names[i], &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		modified = nanoseconds(st.st_mtim);
		if (modified > latest)
			return FOREIGN;
	}
	return 0;
}

/* ---- reading the files ---- */

static int open_view(struct judge *j, unsigned file)
{
	struct view *v = &j->files[file];
	int64_t start = j->w->reader.header.files[file].size;
	uint64_t grains;
	struct stat st;

	v->start = start > 0 ? (uint64_t)start : 0;
	v->copy = rollback_same_boot(&j->w->reader.header) && !is_original(j->w);
	v->fd = sys_openat(j->w->segmentfd, undo_file_names[file],
			   O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	if (v->fd < 0)
		return v->fd == -ENOENT ? 0 : v->fd;
	if (sys_fstat(v->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EBADMSG;
	v->size = (uint64_t)st.st_size;
	grains = ((v->start < v->size ? v->start : v->size) + UNDO_GRAIN - 1) / UNDO_GRAIN;
	if (!grains)
		return 0;
	v->known_size = (grains + 63) / 64 * 8;
	v->known = sys_mmap(2 * v->known_size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_map_failed(v->known)) {
		v->known = NULL;
		return -ENOMEM;
	}
	v->spoken = v->known + v->known_size / sizeof(*v->known);
	return 0;
}

static void close_view(struct view *v)
{
	if (v->fd >= 0)
		sys_close(v->fd);
	if (v->known)
		sys_munmap(v->known, 2 * v->known_size);
}

/* The grain as it is now, as far as the file went at the start. n: how much of it is there. */
static int look_at_grain(struct view *v, uint64_t grain, const unsigned char **out, uint64_t *n)
{
	uint64_t at = grain * UNDO_GRAIN, end = v->start < v->size ? v->start : v->size;
	ssize_t got;

	*n = 0;
	if (v->fd < 0 || grain >= (end + UNDO_GRAIN - 1) / UNDO_GRAIN)
		return 0;
	end = end - at < UNDO_GRAIN ? end : at + UNDO_GRAIN;
	if (at < v->window_at || end > v->window_at + v->window_length) {
		got = sys_pread_all(v->fd, v->window, WINDOW, at);
		if (got < 0)
			return (int)got;
		v->window_at = at;
		v->window_length = (uint64_t)got;
		end = end < at + v->window_length ? end : at + v->window_length;
	}
	*out = v->window + (at - v->window_at);
	*n = end - at;
	return 0;
}

static bool has_bit(const uint64_t *bits, uint64_t grain)
{
	return bits[grain / 64] >> (grain % 64) & 1;
}

static void set_bit(uint64_t *bits, uint64_t grain)
{
	bits[grain / 64] |= UINT64_C(1) << (grain % 64);
}

/* ---- what was announced ---- */

/* last_counts: of several announcements of a grain; else one that fits is enough. */
static int note_becomes(struct view *v, const struct undo_record *record, const void *data,
			bool last_counts)
{
	const struct undo_becomes *b = data;
	uint32_t i, count = record->length / sizeof(*b);

	for (i = 0; i < count; i++) {
		uint64_t grain = record->offset / UNDO_GRAIN + b[i].grain, n;
		const unsigned char *p;
		int r = look_at_grain(v, grain, &p, &n);

		if (r < 0)
			return r;
		if (!n)
			continue;
		if (last_counts) {
			set_bit(v->spoken, grain);
			v->known[grain / 64] &= ~(UINT64_C(1) << grain % 64);
		}
		if (checksum32_nonzero(p, n, 0) == b[i].check)
			set_bit(v->known, grain);
	}
	return 0;
}

static void note_unknown(struct view *v, const struct undo_record *record, const void *data)
{
	uint64_t length, at = record->offset / UNDO_GRAIN * UNDO_GRAIN;
	uint64_t end = v->size < v->start ? v->size : v->start;

	memcpy(&length, data, sizeof(length));
	v->unknown = true;
	if (!v->known || record->offset >= end)
		return;
	end = length < end - record->offset ? record->offset + length : end;
	for (; at < end; at += UNDO_GRAIN)
		set_bit(v->known, at / UNDO_GRAIN);
}

static void note_length(struct view *v, uint64_t length)
{
	if (length == 0) {
		v->fitted |= v->fits && !v->differs;
		v->fits = v->differs = v->torn = false;
		v->emptied = true;
		v->end = 0;
	}
	v->least = v->cut && v->least < length ? v->least : length;
	v->cut = true;
}

/* What was written and is there must be as it was written; what is not there yet says nothing. */
static int note_written(struct view *v, const struct undo_record *record, const void *data)
{
	struct undo_written written;
	ssize_t n;

	memcpy(&written, data, sizeof(written));
	v->end = record->offset + written.length;
	if (v->fd < 0 || !written.length || written.length > WINDOW || record->offset >= v->size)
		return 0;
	if (record->offset + written.length > v->size) {
		/* A death leaves each whole, or nothing of it; the image of a disk as many blocks
		 * as were on their way there. */
		v->torn |= v->copy && v->size % UNDO_SECTOR == 0;
		v->differs |= v->copy && v->size % UNDO_SECTOR != 0;
		return 0;
	}
	v->window_length = 0;
	n = sys_pread_all(v->fd, v->window, written.length, record->offset);
	if (n < 0)
		return (int)n;
	if (n == (ssize_t)written.length &&
	    checksum32_nonzero(v->window, (size_t)n, 0) == written.check)
		v->fits = true;
	else if (v->copy && undo_lacks_a_sector(v->window, (uint64_t)n, record->offset))
		v->torn = true;
	else
		v->differs = true;
	return 0;
}

static int rollback_judge_note(struct view *v, const struct undo_record *record, const void *data)
{
	switch (record->kind) {
	case UNDO_BECOMES:
		return note_becomes(v, record, data, false);
	case UNDO_UNKNOWN:
		note_unknown(v, record, data);
		return 0;
	case UNDO_LENGTH:
		note_length(v, record->offset);
		return 0;
	case UNDO_MOVED:
		note_length(v, 0);
		return 0;
	case UNDO_WRITTEN:
		return note_written(v, record, data);
	default:
		return 0;
	}
}

static int for_all(struct judge *j,
		   int (*each)(struct view *v, const struct undo_record *record, const void *data))
{
	struct undo_reader *reader = &j->w->reader;
	struct undo_record record;
	int r = 0;

	reader->at = reader->start;
	while (r == 0 && (r = undo_next(reader, &record, j->w->data)) == 0)
		if (record.kind != UNDO_TENTATIVE)
			r = each(&j->files[record.file], &record, j->w->data);
	reader->at = reader->start;
	return r == -ENODATA ? 0 : r;
}

/* ---- what is there ---- */

/* Each grain that was saved is as it was, or as was announced, or zeros behind a cut. */
static int judge_image(struct view *v, const struct undo_record *record, const void *data)
{
	uint64_t at = record->offset, end = at + record->length;

	if (record->kind != UNDO_BLOCK_IMAGE || v->emptied || v->fd < 0)
		return 0;
	v->imaged = true;
	for (; at < end; at = (at / UNDO_GRAIN + 1) * UNDO_GRAIN) {
		const unsigned char *p, *old = (const unsigned char *)data + (at - record->offset);
		uint64_t n;
		int r = look_at_grain(v, at / UNDO_GRAIN, &p, &n);

		if (r < 0)
			return r;
		n = n < end - at ? n : end - at;
		if (n && !has_bit(v->known, at / UNDO_GRAIN) && memcmp(p, old, n) != 0 &&
		    !(v->cut && bytes_are_zero(p, n)))
			return FOREIGN;
	}
	return 0;
}

/* Whoever deletes a segment under the shim has ended its group before. */
static bool is_missing(const struct judge *j, unsigned file)
{
	return j->files[file].fd < 0 && j->w->reader.header.files[file].size >= 0 &&
	       !j->w->moved[file];
}

/* After a power cut how far it got is not known for certain: the header is not synced for it. */
static bool length_is_right(const struct judge *j, unsigned file)
{
	const struct view *v = &j->files[file];
	uint64_t reach = j->w->reader.header.reach[file];
	uint64_t most = reach > v->start ? reach : v->start;

	return v->size >= (v->cut && v->least < v->start ? v->least : v->start) &&
	       (v->size <= most || rollback_power_cut(j->w));
}

/* 1: it is that of the start; 0: it is not; -errno. */
static int is_old_pickle(const struct judge *j)
{
	const struct undo_header *h = &j->w->reader.header;
	const struct view *v = &j->files[UNDO_PICKLE];
	uint64_t sum;
	int r;

	if (v->fd < 0)
		return h->files[UNDO_PICKLE].size < 0;
	if (h->files[UNDO_PICKLE].size < 0 || v->size != v->start)
		return 0;
	r = undo_sum_pickle(v->fd, j->w->data, &sum);
	return r < 0 ? r : sum == h->pickle_check;
}

/* Nobody writes a persist without a new pickle: it tells those of others best. */
static int judge_pickle(const struct judge *j)
{
	const struct view *v = &j->files[UNDO_PICKLE];
	int r;

	if (v->unknown || v->fd < 0 || (v->imaged && !v->emptied))
		return 0;
	r = is_old_pickle(j);
	if (r != 0)
		return r < 0 ? r : 0;
	if (!v->emptied)
		return FOREIGN;
	if (j->w->reader.header.undoing || v->size == 0)
		return 0;
	if (rollback_power_cut(j->w))
		return v->copy && v->differs && !v->fitted ? FOREIGN : 0;
	return (v->fitted || (v->fits && !v->differs)) && length_is_right(j, UNDO_PICKLE) ? 0
											  : FOREIGN;
}

static int judge_files(struct judge *j)
{
	unsigned i;
	int r = for_all(j, rollback_judge_note);

	if (r == 0)
		r = for_all(j, judge_image);
	for (i = 0; i < UNDO_FILES && r == 0; i++)
		if (is_missing(j, i) ||
		    (j->files[i].fd >= 0 && !j->files[i].emptied &&
		     j->w->reader.header.files[i].size >= 0 && !length_is_right(j, i)))
			r = FOREIGN;
	return r == 0 ? judge_pickle(j) : r;
}

/* ---- the last persist ---- */

static int note_last(struct view *v, const struct undo_record *record, const void *data)
{
	return record->kind == UNDO_BECOMES ? note_becomes(v, record, data, true)
					    : rollback_judge_note(v, record, data);
}

/* A grain that was not altered, or came out as it had been, says nothing. */
static int count_image(struct view *v, const struct undo_record *record, const void *data)
{
	uint64_t at = record->offset, end = at + record->length;

	if (record->kind != UNDO_BLOCK_IMAGE || v->emptied || v->unknown || v->cut || v->fd < 0)
		return 0;
	for (; at < end; at = (at / UNDO_GRAIN + 1) * UNDO_GRAIN) {
		const unsigned char *p, *old = (const unsigned char *)data + (at - record->offset);
		uint64_t n;
		bool before, now;
		int r = look_at_grain(v, at / UNDO_GRAIN, &p, &n);

		if (r < 0)
			return r;
		if (!n || !has_bit(v->spoken, at / UNDO_GRAIN))
			continue;
		now = has_bit(v->known, at / UNDO_GRAIN);
		before = memcmp(p, old, n < end - at ? n : end - at) == 0;
		v->now += now && !before;
		v->before += before && !now;
		v->others += !before && !now;
	}
	return 0;
}

static enum last_pickle pickle_of(const struct judge *j)
{
	const struct view *v = &j->files[UNDO_PICKLE];

	if (v->fd >= 0 && v->emptied && !v->unknown && v->fits && !v->differs && !v->torn &&
	    v->size == v->end)
		return LAST_PICKLE_NOW;
	return v->fd >= 0 && is_old_pickle(j) == 1 ? LAST_PICKLE_BEFORE : LAST_PICKLE_OTHERS;
}

static int compare_files(struct judge *j, struct rollback_last *out)
{
	int r = for_all(j, note_last);
	unsigned i;

	if (r == 0)
		r = for_all(j, count_image);
	for (i = 0; i < UNDO_PICKLE; i++) {
		const struct view *v = &j->files[i];
		uint64_t reach = j->w->reader.header.reach[i];

		out->now += v->now;
		out->before += v->before;
		out->others += v->others;
		out->shorter |= v->fd >= 0 && !v->cut && !v->emptied &&
				(v->size < v->start || (reach < INT64_MAX && v->size < reach));
	}
	out->pickle = pickle_of(j);
	return r;
}

/* ---- both ---- */

static int with_views(struct work *w, int (*each)(struct judge *j, void *context), void *context)
{
	struct judge *j;
	unsigned i;
	int r = 0;

	j = sys_mmap(sizeof(*j), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_map_failed(j))
		return -ENOMEM;
	j->w = w;
	for (i = 0; i < UNDO_FILES; i++)
		j->files[i].fd = -1;
	for (i = 0; i < UNDO_FILES && r == 0; i++)
		r = open_view(j, i);
	if (r == 0)
		r = each(j, context);
	for (i = 0; i < UNDO_FILES; i++)
		close_view(&j->files[i]);
	sys_munmap(j, sizeof(*j));
	return r;
}

static int judge_all(struct judge *j, void *context)
{
	(void)context;
	return judge_files(j);
}

int rollback_judge(struct work *w)
{
	return w->reader.header.version <= 2 ? judge_version_2(w) : with_views(w, judge_all, NULL);
}

struct comparing {
	struct rollback_last *out;
	uint64_t *pickle_size;
};

static int compare_all(struct judge *j, void *context)
{
	const struct comparing *c = context;

	*c->pickle_size = j->files[UNDO_PICKLE].size;
	return compare_files(j, c->out);
}

int rollback_compare(struct work *w, struct rollback_last *out, uint64_t *pickle_size)
{
	return with_views(w, compare_all, &(struct comparing){out, pickle_size});
}
