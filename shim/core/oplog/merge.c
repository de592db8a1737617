/* SPDX-License-Identifier: MIT
 *
 * The op log, reading: all segments of one log or of both, merged by time.
 *
 * Segments are opened in the order of their names, which begin with the time they were made, and
 * only when the merge has come that far: what is in memory is one segment or two of each process
 * that was running at the time.
 */
#include "core/oplog/read.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
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

struct source {
	struct oplog_segment_info info;
	struct oplog_image image;
	bool open;	      /* image is there */
	bool told;	      /* first_time is known */
	uint64_t first_time;  /* of its records; 0: it has those from the process's start on */
	uint32_t at;	      /* next in image.order */
	unsigned char *given; /* following: one bit a slot */
};

/* A segment that is being read. */
struct loading {
	struct source *source;
	int dirfd;
	const char *name;
	bool packed;
	struct oplog_image image; /* unless error */
	int read_error, error;
};

struct oplog_reader {
	int dirfd[2]; /* by enum oplog_log; -1: there is none, or it is not asked for */
	enum oplog_which which;
	int storefd; /* its own */
	bool following;
	uint64_t since; /* what is before is not wanted */
	bool reads_ahead, ahead_runs;
	struct loading ahead;
	pthread_t thread;
	struct source **sources; /* by name, those found by a poll after the others */
	size_t sources_size, sources_room;
	size_t opened; /* how many of them have been */
	size_t *heap;  /* sources with records left, the earliest record on top */
	size_t heap_size;
	bool top_taken; /* the record on top was given by the last call */
};

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

static int folder_of(const struct oplog_reader *r, const struct source *s)
{
	return r->dirfd[s->info.log];
}

static void read_identity(struct oplog_reader *r, struct source *s)
{
	unsigned char *data = NULL;
	struct stat st;
	size_t size = 0;

	s->info.error = oplog_file_read(folder_of(r, s), s->info.name, true, &data, &size, &st);
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

/* ---- two logs ---- */

/* The two logs say the same moment with a little in between. */
#define SAME_NS UINT64_C(1000000000)

/* A whole segment, also one that was compressed since its name was read. */
static int read_file(int dirfd, const char *name, bool packed, unsigned char **data, size_t *size)
{
	char other[300];
	struct stat st;
	int error = oplog_file_read(dirfd, name, false, data, size, &st);

	if (error != -ENOENT || packed)
		return error;
	free(*data);
	snprintf(other, sizeof(other), "%.255s.zst", name);
	return oplog_file_read(dirfd, other, false, data, size, &st);
}

/* Reads a segment for the time of its first record. */
static void read_first_time(struct oplog_reader *r, struct source *s)
{
	struct oplog_image image;
	unsigned char *data = NULL;
	size_t size = 0;
	uint32_t i;
	int error;

	s->told = true;
	s->first_time = UINT64_MAX;
	error = read_file(folder_of(r, s), s->info.name, s->info.packed, &data, &size);
	if ((error == 0 || error == -EUCLEAN) && oplog_image_open(&image, data, size) == 0) {
		if (image.order_size)
			s->first_time = image.order[0].time - image.header.anchor_monotonic +
					image.header.anchor_realtime;
		for (i = 0; i < image.order_size && s->first_time; i++) {
			struct oplog_record record;

			memcpy(&record, image.data + (size_t)image.order[i].slot * OPLOG_SLOT_SIZE,
			       sizeof(record));
			/* With arg 1 it says who goes on. */
			if (record.op == OP_START && !record.arg)
				s->first_time = 0;
		}
		oplog_image_close(&image);
	}
	free(data);
}

/* From when on a log has the process, or UINT64_MAX: not at all. */
static uint64_t told_from(struct oplog_reader *r, const struct oplog_header *h, enum oplog_log log)
{
	struct source *first = NULL;
	size_t i;

	for (i = 0; i < r->sources_size; i++) {
		struct source *s = r->sources[i];

		if (s->info.log == log && !s->info.error &&
		    oplog_same_process(&s->info.header, h) &&
		    (!first || s->info.header.sequence < first->info.header.sequence))
			first = s;
	}
	if (!first)
		return UINT64_MAX;
	if (!first->told)
		read_first_time(r, first);
	return first->first_time;
}

/* Ops that stand in acts/ only. */
static bool is_in_acts_only(uint16_t op)
{
	return op >= OP_RECORDS || op == OP_THREAD;
}

/* From when on the other log has what this segment says of acts; UINT64_MAX: it is not asked. */
static uint64_t other_from(struct oplog_reader *r, const struct source *s)
{
	bool is_acts = s->info.log == OPLOG_LOG_ACTS;

	if (r->which == OPLOG_CALLS || (r->which == OPLOG_ACTS) == is_acts)
		return UINT64_MAX;
	return told_from(r, &s->info.header, is_acts ? OPLOG_LOG_CALLS : OPLOG_LOG_ACTS);
}

/* Of a log that is there for what the other one lacks: only that. */
static void select_missing(struct oplog_reader *r, struct source *s, uint64_t from)
{
	struct oplog_image *image = &s->image;
	uint64_t shift = image->header.anchor_realtime - image->header.anchor_monotonic;
	bool acts_alone = r->which == OPLOG_ACTS && s->info.log == OPLOG_LOG_CALLS;
	uint32_t i, n = 0;

	if (from == UINT64_MAX && !acts_alone)
		return;
	for (i = 0; i < image->order_size; i++) {
		uint16_t op;

		memcpy(&op,
		       image->data + (size_t)image->order[i].slot * OPLOG_SLOT_SIZE +
			   offsetof(struct oplog_record, op),
		       sizeof(op));
		if (acts_alone && !oplog_is_act(op))
			continue;
		if (from != UINT64_MAX && !(!acts_alone && is_in_acts_only(op)) &&
		    (from < SAME_NS || image->order[i].time + shift >= from - SAME_NS))
			continue;
		image->order[n++] = image->order[i];
	}
	image->order_size = n;
}

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

/* ---- a segment into memory, also by another thread ---- */

static void read_once(struct loading *l)
{
	unsigned char *data = NULL;
	size_t size = 0;

	l->read_error = read_file(l->dirfd, l->name, l->packed, &data, &size);
	/* What a damaged file still gives is taken. */
	l->error = l->read_error == 0 || l->read_error == -EUCLEAN
		       ? oplog_image_open(&l->image, data, size)
		       : l->read_error;
	if (l->error && (l->read_error == 0 || l->read_error == -EUCLEAN))
		oplog_image_close(&l->image);
	free(data);
}

/* A slot that was read while it was written looks damaged, and does not when it is read again. */
static void read_image(struct loading *l)
{
	unsigned tries;

	read_once(l);
	for (tries = 0; tries < 3 && !l->error && !l->packed && l->image.damaged; tries++) {
		oplog_image_close(&l->image);
		read_once(l);
	}
}

static void *read_ahead(void *loading)
{
	read_image(loading);
	return NULL;
}

/* Whether its process lives is asked before it is read: it may still write, and then die. */
static void prepare(struct oplog_reader *r, struct source *s, struct loading *l)
{
	memset(l, 0, sizeof(*l));
	l->source = s;
	l->dirfd = folder_of(r, s);
	l->name = s->info.name;
	l->packed = s->info.packed;
	if (!s->info.error)
		s->info.life = oplog_header_life(r->storefd, &s->info.header);
}

static void wait_for_ahead(struct oplog_reader *r)
{
	if (r->ahead_runs)
		pthread_join(r->thread, NULL);
	r->ahead_runs = false;
}

static void drop_ahead(struct oplog_reader *r)
{
	wait_for_ahead(r);
	if (r->ahead.source && !r->ahead.error)
		oplog_image_close(&r->ahead.image);
	r->ahead.source = NULL;
}

/* The next one that will be wanted is read meanwhile. */
static void start_ahead(struct oplog_reader *r)
{
	struct source *s = r->opened < r->sources_size ? r->sources[r->opened] : NULL;

	if (!r->reads_ahead || r->following || r->ahead.source || !s ||
	    (r->which == OPLOG_ACTS && s->info.log == OPLOG_LOG_CALLS) || is_before_since(r, s))
		return;
	prepare(r, s, &r->ahead);
	r->ahead_runs = pthread_create(&r->thread, NULL, read_ahead, &r->ahead) == 0;
	if (!r->ahead_runs)
		r->ahead.source = NULL;
}

static void load_image(struct oplog_reader *r, struct source *s, struct loading *l)
{
	if (r->ahead.source == s) {
		wait_for_ahead(r);
		*l = r->ahead;
		r->ahead.source = NULL;
		return;
	}
	prepare(r, s, l);
	read_image(l);
}

/* Reads a source, or reads it again. Only -ENOMEM is returned, other errors are the source's. */
static int load_source(struct oplog_reader *r, size_t number)
{
	struct source *s = r->sources[number];
	uint64_t from = other_from(r, s);
	struct loading l;
	int error;

	if ((from == 0 && r->which == OPLOG_ACTS) || is_before_since(r, s))
		return 0; /* the other log has all of it, or nobody wants it */
	if (s->open)
		oplog_image_close(&s->image);
	s->open = false;
	load_image(r, s, &l);
	error = l.error;
	if (error == 0) {
		s->image = l.image;
		s->open = true;
		note_counts(s);
		select_missing(r, s, from);
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
	drop_ahead(r);
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
		    !(i >= r->opened && r->which == OPLOG_ACTS && other_from(r, s) == 0))
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
