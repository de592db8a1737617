/* SPDX-License-Identifier: MIT
 *
 * The op log, reading: all segments of one log or of both, merged by time.
 *
 * Segments are opened in the order of their names, which begin with the time they were made, and
 * only when the merge has come that far: what is in memory is one segment or two of each process
 * that was running at the time.
 */
#include "core/oplog/merge.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/alive.h"
#include "core/base/fileio.h"
#include "core/oplog/file.h"
#include "core/oplog/oplog.h"

/* A record may carry a time somewhat before its segment was made. */
#define SLACK_NS UINT64_C(2000000000)
#define OPEN_BYTES ((size_t)64 << 20) /* of segments that are open */

/* ---- the heap ---- */

static uint64_t next_time(const struct oplog_reader *r, size_t source)
{
	const struct source *s = r->sources[source];
	const struct oplog_header *h = &s->image.header;

	return s->image.order[s->at].time - h->anchor_monotonic + h->anchor_realtime;
}

static bool is_before(const struct oplog_reader *r, size_t a, size_t b)
{
	uint64_t x = next_time(r, a), y = next_time(r, b);

	return x != y ? x < y : a < b;
}

static void sift_down(struct oplog_reader *r, size_t i)
{
	for (;;) {
		size_t child = 2 * i + 1, tmp;

		if (child >= r->heap_size)
			return;
		if (child + 1 < r->heap_size && is_before(r, r->heap[child + 1], r->heap[child]))
			child++;
		if (!is_before(r, r->heap[child], r->heap[i]))
			return;
		tmp = r->heap[i];
		r->heap[i] = r->heap[child];
		r->heap[child] = tmp;
		i = child;
	}
}

static void heap_push(struct oplog_reader *r, size_t source)
{
	size_t i = r->heap_size++;

	while (i > 0 && is_before(r, source, r->heap[(i - 1) / 2])) {
		r->heap[i] = r->heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	r->heap[i] = source;
}

/* ---- sources ---- */

static void source_close(struct source *s)
{
	if (s->open)
		oplog_image_close(&s->image);
	s->open = false;
	free(s->given);
	s->given = NULL;
}

static void source_free(struct source *s)
{
	source_close(s);
	free(s->info.name);
	free(s);
}

static size_t stem_of(const char *name)
{
	bool packed = false;

	return oplog_name_stem(name, &packed);
}

static int compare_sources(const void *a, const void *b)
{
	const struct source *x = *(struct source *const *)a, *y = *(struct source *const *)b;
	size_t m = stem_of(x->info.name), n = stem_of(y->info.name);
	int order = memcmp(x->info.name, y->info.name, m < n ? m : n);

	return order ? order : m < n ? -1 : m > n;
}

static void read_identity(struct oplog_reader *r, struct source *s)
{
	unsigned char *data = NULL;
	struct stat st;
	size_t size = 0;

	s->info.error = oplog_file_read(merge_folder(r, s), s->info.name, true, &data, &size, &st);
	s->info.size = (uint64_t)st.st_size;
	s->info.device = st.st_dev;
	s->info.inode = st.st_ino;
	if (!s->info.error)
		s->info.error = oplog_header_read(data, size, &s->info.header);
	if (!s->info.error)
		s->info.life = oplog_header_life(r->storefd, &s->info.header);
	free(data);
}

static bool is_known(const struct oplog_reader *r, enum oplog_log log, const char *name,
		     size_t stem)
{
	size_t i;

	for (i = 0; i < r->sources_size; i++)
		if (r->sources[i]->info.log == log && stem_of(r->sources[i]->info.name) == stem &&
		    !memcmp(r->sources[i]->info.name, name, stem))
			return true;
	return false;
}

static int add_source(struct oplog_reader *r, enum oplog_log log, const char *name)
{
	struct source *s;

	if (r->sources_size == r->sources_room) {
		size_t room = r->sources_room ? 2 * r->sources_room : 64;
		struct source **sources = realloc(r->sources, room * sizeof(*sources));
		size_t *heap = sources ? realloc(r->heap, room * sizeof(*heap)) : NULL;

		if (sources)
			r->sources = sources;
		if (!heap)
			return -ENOMEM;
		r->heap = heap;
		r->sources_room = room;
	}
	s = calloc(1, sizeof(*s));
	if (!s || !(s->info.name = strdup(name))) {
		free(s);
		return -ENOMEM;
	}
	s->info.log = (uint8_t)log;
	oplog_name_stem(name, &s->info.packed);
	r->sources[r->sources_size++] = s;
	read_identity(r, s);
	return 0;
}

/* Adds what is new in a directory. A plain segment goes before its compressed form. */
static int scan_log(struct oplog_reader *r, enum oplog_log log)
{
	int pass, error = 0;

	for (pass = 0; pass < 2 && error == 0; pass++) {
		struct dirent *d;
		DIR *dir;

		error = file_names_at(r->dirfd[log], NULL, &dir);
		if (error < 0)
			return error;
		while (error == 0 && (d = readdir(dir))) {
			bool packed = false;
			size_t stem = oplog_name_stem(d->d_name, &packed);

			if (stem && packed == (pass == 1) && !is_known(r, log, d->d_name, stem))
				error = add_source(r, log, d->d_name);
		}
		closedir(dir);
	}
	return error;
}

static int scan(struct oplog_reader *r)
{
	size_t before = r->sources_size;
	int log, error = 0;

	for (log = OPLOG_LOG_CALLS; log <= OPLOG_LOG_ACTS && error == 0; log++)
		if (r->dirfd[log] >= 0)
			error = scan_log(r, (enum oplog_log)log);
	if (r->sources_size > before)
		qsort(r->sources + before, r->sources_size - before, sizeof(*r->sources),
		      compare_sources);
	return error;
}

/* ---- one source ---- */

/* Following: of a live process only what is finished, and nothing twice. */
static int select_new(struct oplog_reader *r, struct source *s)
{
	struct oplog_image *image = &s->image;
	uint32_t i, n = 0;

	s->at = 0;
	if (!r->following)
		return 0;
	if (!s->given)
		s->given = calloc(image->header.capacity / 8 + 1, 1);
	if (!s->given)
		return -ENOMEM;
	for (i = 0; i < image->order_size; i++) {
		uint32_t slot = image->order[i].slot, check;

		memcpy(&check, image->data + (size_t)slot * OPLOG_SLOT_SIZE, sizeof(check));
		if (s->given[slot / 8] & 1u << slot % 8 || (!check && s->info.life == OPLOG_LIVE))
			continue;
		s->given[slot / 8] |= (unsigned char)(1u << slot % 8);
		image->order[n++] = image->order[i];
	}
	image->order_size = n;
	return 0;
}

static void note_counts(struct source *s)
{
	s->info.header = s->image.header;
	s->info.records = s->image.records;
	s->info.in_flight = s->image.in_flight;
	s->info.damaged = s->image.damaged;
	s->info.missing = s->image.missing;
}

/*
 * All its records are older than what is wanted: its process had made the one after the next by
 * then, which it does when the next one is in use.
 */
static bool is_before_since(const struct oplog_reader *r, const struct source *s)
{
	size_t i;

	for (i = 0; r->since > SLACK_NS && !s->info.error && i < r->sources_size; i++) {
		const struct oplog_segment_info *info = &r->sources[i]->info;

		if (info->log == s->info.log && !info->error &&
		    info->header.anchor_realtime < r->since - SLACK_NS &&
		    info->header.sequence >= s->info.header.sequence + 2 &&
		    oplog_same_process(&info->header, &s->info.header))
			return true;
	}
	return false;
}

/* The next one that will be wanted is read meanwhile. */
static void start_ahead(struct oplog_reader *r)
{
	struct source *s = r->opened < r->sources_size ? r->sources[r->opened] : NULL;

	if (!r->reads_ahead || r->following || r->ahead.source || !s ||
	    (r->which == OPLOG_ACTS && s->info.log == OPLOG_LOG_CALLS) || is_before_since(r, s))
		return;
	merge_prepare(r, s, &r->ahead);
	r->ahead_runs = pthread_create(&r->thread, NULL, merge_read_ahead, &r->ahead) == 0;
	if (!r->ahead_runs)
		r->ahead.source = NULL;
}

/* Reads a source, or reads it again. Only -ENOMEM is returned, other errors are the source's. */
static int load_source(struct oplog_reader *r, size_t number)
{
	struct source *s = r->sources[number];
	uint64_t from = merge_other_from(r, s);
	struct loading l;
	int error;

	if ((from == 0 && r->which == OPLOG_ACTS) || is_before_since(r, s))
		return 0; /* the other log has all of it, or nobody wants it */
	if (s->open)
		oplog_image_close(&s->image);
	s->open = false;
	merge_load_image(r, s, &l);
	error = l.error;
	if (error == 0) {
		s->image = l.image;
		s->open = true;
		note_counts(s);
		merge_select_missing(r, s, from);
		error = select_new(r, s);
	}
	s->info.error = l.read_error ? l.read_error : error;
	if (error == 0 && s->image.order_size)
		heap_push(r, number);
	else if (!r->following)
		source_close(s);
	return error == -ENOMEM ? error : 0;
}

/* Following: a segment that will not change any more needs no second look. */
static bool is_over(const struct source *s)
{
	uint32_t i, check;

	if (s->info.life == OPLOG_DEAD || s->info.error)
		return true;
	if (!s->image.header.finished)
		return false;
	for (i = 0; i < s->image.slots && i < s->image.header.claimed; i++) {
		memcpy(&check, s->image.data + (size_t)i * OPLOG_SLOT_SIZE, sizeof(check));
		if (!check)
			return false;
	}
	return true;
}

/* ---- the reader ---- */

int oplog_reader_open(int storefd, struct oplog_reader **reader_out)
{
	return oplog_reader_open_which(storefd, OPLOG_CALLS, reader_out);
}

/* The folders: one of them is enough. */
static int open_folders(struct oplog_reader *r)
{
	int calls = file_open_directory_at(r->storefd, OPLOG_DIR);
	int acts =
	    r->which == OPLOG_CALLS ? -ENOENT : file_open_directory_at(r->storefd, OPLOG_ACTS_DIR);

	r->dirfd[OPLOG_LOG_CALLS] = calls;
	r->dirfd[OPLOG_LOG_ACTS] = acts;
	if (calls < 0 && calls != -ENOENT)
		return calls;
	if (acts < 0 && acts != -ENOENT)
		return acts;
	return calls < 0 && acts < 0 ? -ENOENT : 0;
}

int oplog_reader_open_which(int storefd, enum oplog_which which, struct oplog_reader **reader_out)
{
	struct oplog_reader *r = calloc(1, sizeof(*r));
	int error;

	*reader_out = NULL;
	if (!r)
		return -ENOMEM;
	r->which = which;
	r->dirfd[0] = r->dirfd[1] = -1;
	r->storefd = openat(storefd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	error = r->storefd < 0 ? -errno : open_folders(r);
	if (error == 0)
		error = scan(r);
	if (error < 0) {
		oplog_reader_close(r);
		return error;
	}
	*reader_out = r;
	return 0;
}

void oplog_reader_close(struct oplog_reader *r)
{
	size_t i;

	if (!r)
		return;
	merge_drop_ahead(r);
	for (i = 0; i < r->sources_size; i++)
		source_free(r->sources[i]);
	for (i = 0; i < 2; i++)
		if (r->dirfd[i] >= 0)
			close(r->dirfd[i]);
	if (r->storefd >= 0)
		close(r->storefd);
	free(r->sources);
	free(r->heap);
	free(r);
}

/* Leaves the record that was given by the call before. */
static void step_over(struct oplog_reader *r)
{
	struct source *s;

	if (!r->top_taken)
		return;
	r->top_taken = false;
	s = r->sources[r->heap[0]];
	if (++s->at >= s->image.order_size) {
		r->heap[0] = r->heap[--r->heap_size];
		if (!r->following || is_over(s))
			source_close(s);
	}
	sift_down(r, 0);
}

/*
 * However many segments a busy process fills in SLACK_NS, memory does not grow with them: beyond
 * OPEN_BYTES it has to be through with those that were full when this one was made. That is 16 of
 * full size: no thread is held up between the clock and its claim while a million records are
 * written.
 */
static bool is_far_ahead(const struct oplog_reader *r, const struct source *s)
{
	size_t i, bytes = 0;

	for (i = 0; i < r->heap_size; i++)
		bytes += (size_t)r->sources[r->heap[i]]->image.slots * OPLOG_SLOT_SIZE;
	for (i = 0; i < r->heap_size && bytes > OPEN_BYTES; i++) {
		const struct source *o = r->sources[r->heap[i]];

		if (!s->info.error && o->info.log == s->info.log &&
		    o->info.header.sequence + 3 <= s->info.header.sequence &&
		    oplog_same_process(&o->info.header, &s->info.header))
			return true;
	}
	return false;
}

int oplog_reader_next(struct oplog_reader *r, struct oplog_entry *entry_out)
{
	struct source *s;
	int error;

	step_over(r);
	while (r->opened < r->sources_size) {
		const struct oplog_segment_info *info = &r->sources[r->opened]->info;

		if (r->heap_size && !info->error &&
		    (next_time(r, r->heap[0]) + SLACK_NS < info->header.anchor_realtime ||
		     is_far_ahead(r, r->sources[r->opened])))
			break;
		error = load_source(r, r->opened++);
		if (error < 0)
			return error;
		start_ahead(r);
	}
	if (!r->heap_size)
		return 0;
	s = r->sources[r->heap[0]];
	error = oplog_image_get(&s->image, s->at, entry_out);
	entry_out->log = s->info.log;
	if (error < 0)
		return error;
	r->top_taken = true;
	return 1;
}

bool oplog_reader_has_more(struct oplog_reader *r, const struct oplog_header *h)
{
	size_t i;

	for (i = 0; i < r->sources_size; i++) {
		const struct source *s = r->sources[i];
		bool left =
		    i >= r->opened ? !s->info.error : s->open && s->at < s->image.order_size;

		if (left && oplog_same_process(&s->info.header, h) &&
		    !(i >= r->opened && r->which == OPLOG_ACTS && merge_other_from(r, s) == 0))
			return true;
	}
	return false;
}

void oplog_reader_since(struct oplog_reader *r, uint64_t since)
{
	r->since = since;
}

void oplog_reader_ahead(struct oplog_reader *r)
{
	r->reads_ahead = true;
}

void oplog_reader_follow(struct oplog_reader *r)
{
	r->following = true;
}

int oplog_reader_poll(struct oplog_reader *r)
{
	size_t i;
	int error;

	step_over(r);
	for (i = 0; i < r->opened; i++) {
		struct source *s = r->sources[i];

		if (!s->open || s->at < s->image.order_size)
			continue;
		if (is_over(s)) {
			source_close(s);
			continue;
		}
		error = load_source(r, i);
		if (error < 0)
			return error;
	}
	return scan(r);
}

size_t oplog_reader_segments(struct oplog_reader *r)
{
	return r->sources_size;
}

const struct oplog_segment_info *oplog_reader_segment(struct oplog_reader *r, size_t n)
{
	return &r->sources[n]->info;
}

uint64_t oplog_reader_lost(struct oplog_reader *r)
{
	uint64_t total = 0;
	size_t i, j;

	/* Each process counts on from segment to segment: its greatest number is the true one. */
	for (i = 0; i < r->sources_size; i++) {
		const struct oplog_segment_info *a = &r->sources[i]->info;
		bool greatest = !a->error;

		for (j = 0; greatest && j < r->sources_size; j++) {
			const struct oplog_segment_info *b = &r->sources[j]->info;

			if (j == i || b->error || a->log != b->log ||
			    !oplog_same_process(&a->header, &b->header))
				continue;
			greatest = b->header.lost < a->header.lost ||
				   (b->header.lost == a->header.lost && j > i);
		}
		if (greatest)
			total += a->header.lost;
	}
	return total;
}
