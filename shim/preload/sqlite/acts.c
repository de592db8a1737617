/* SPDX-License-Identifier: MIT */
#include "preload/sqlite/acts.h"

#include <string.h>

#include "core/base/checksum.h"
#include "core/chroma/rows_seen.h"
#include "core/sqlite/page.h"
#include "core/sqlite/tree.h"
#include "preload/base/settings.h"
#include "preload/place/callers.h"
#include "preload/place/record.h"
#include "preload/sqlite/transaction_state.h"
#include "preload/sqlite/wal_view.h"

#define SPARE 4 /* rooms that are kept for transactions to come */

/* What is known of a database between its transactions. */
static struct database {
	struct rows_seen *seen; /* of the one under way; NULL: it is not looked at */
	/* In WAL mode, when it began: frames of the log, which log it is, pages of the database. */
	uint32_t frames, pages;
	uint64_t salt;
	bool shrunk; /* a row may be gone from the queue */
	bool known;  /* what follows, while the change counter is roots.counter, */
	bool wal;    /* or in WAL mode, the one of its index */
	struct rows_roots roots;
	struct rows_highest highest;
} databases[PROTECTIONS];

/* ---- rooms ---- */

static struct rows_seen *_Atomic spare[SPARE];

static struct rows_seen *room_take(void)
{
	struct rows_seen *room = NULL;
	unsigned i;

	for (i = 0; i < SPARE && !room; i++)
		room = atomic_exchange(&spare[i], NULL);
	return room ? room : memory_make(sizeof(*room));
}

static void room_give(struct rows_seen *room)
{
	struct rows_seen *none;
	unsigned i;

	for (i = 0; i < SPARE; i++) {
		none = NULL;
		if (atomic_compare_exchange_strong(&spare[i], &none, room))
			return;
	}
	sys_munmap(room, sizeof(*room));
}

static void drop(struct database *d)
{
	if (d->seen)
		room_give(d->seen);
	d->seen = NULL;
}

/* ---- the database ---- */

/* By a descriptor of the host's: one of ours that was closed would take SQLite's locks with it. */
static bool open_database(unsigned protection, uint8_t object, struct file_source *out)
{
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (s.role != ROLE_DATABASE || s.protection != protection || s.object != object ||
		    !(s.writable & SLOT_WRITABLE))
			continue;
		*out = shim_source(fd, INT64_MAX);
		return true;
	}
	return false;
}

static void learn(struct database *d, const struct file_source *database)
{
	d->highest = (struct rows_highest){{0}};
	d->known = database && rows_read(d->seen, database, &d->roots, &d->highest);
	d->wal = false;
}

/* ---- in WAL mode ---- */

_Static_assert(VIEW_AT_ONCE * 4 <= sizeof(((struct rows_seen *)0)->text), "there is room");
_Static_assert(offsetof(struct rows_seen, text) % 4 == 0, "and it is aligned");

static bool open_log(unsigned protection, uint8_t object, struct wal_view *v,
		     struct file_source *out)
{
	v->pages =
	    (uint32_t *)(void *)databases[protection].seen->text; /* no text is there meanwhile */
	*out = (struct file_source){.read = wal_view_read, .size = INT64_MAX, .data = v};
	return wal_view_open(protection, object, v);
}

static void begin_in_log(struct database *d, unsigned protection, uint8_t object)
{
	struct file_source source;
	struct wal_view view;

	if (!open_log(protection, object, &view, &source)) {
		drop(d);
		return;
	}
	if (!d->known || !d->wal || d->roots.counter != view.change)
		learn(d, &source);
	d->wal = true;
	d->shrunk = false;
	d->frames = view.frames;
	d->pages = view.page_count ? view.page_count : d->roots.page_count;
	d->salt = view.salt;
	rows_begin(d->seen, &d->highest);
}

/* No journal has the page as it was: it is read, as the log still has it. NULL: it cannot be. */
static const unsigned char *old_in_log(struct database *d, unsigned protection, uint8_t object,
				       uint32_t number, uint32_t size)
{
	struct file_source source;
	struct wal_view view;

	if (size > ROWS_PAGE_MAX || !open_log(protection, object, &view, &source) ||
	    (view.page_size != size && view.frames) ||
	    file_source_read(&source, d->seen->room, size, (uint64_t)(number - 1) * size) < 0)
		return NULL;
	return d->seen->room;
}

/* The queue as it was: the log has it still, and nobody else may write now. */
static void before_in_log(struct database *d, const struct wal_view *now)
{
	struct wal_view view = *now;
	struct file_source source = {.read = wal_view_read, .size = INT64_MAX, .data = &view};

	view.frames = now->salt == d->salt ? d->frames : 0;
	rows_before(d->seen, &source, &d->roots, true);
}

/* ---- pages that pass by ---- */

void acts_begin(unsigned protection, const struct transaction *t)
{
	struct database *d = &databases[protection];
	struct file_source source;
	int saved = errno;

	if (!protections[protection].acts)
		return;
	callers_ask();
	if (!d->seen)
		d->seen = room_take();
	if (d->seen && GET(t->kind) == TRANSACTION_WAL) {
		begin_in_log(d, protection, t->object);
	} else if (d->seen) {
		if (!d->known || d->wal || !t->before.known ||
		    d->roots.counter != t->before.counter)
			learn(d, open_database(protection, t->object, &source) ? &source : NULL);
		rows_begin(d->seen, &d->highest);
	}
	errno = saved;
}

static bool is_empty_leaf(const unsigned char *page)
{
	return page[0] == SQLITE_TABLE_LEAF && get_be16(page + 3) == 0;
}

/* A leaf of collections, or of nothing: the last of them may have been deleted. One of the queue,
 * or a page above leaves: it tells whether any are gone. */
void acts_frame(unsigned protection, uint8_t object, uint32_t number, const unsigned char *page,
		uint32_t size)
{
	struct database *d = &databases[protection];
	bool *touched, collections, queue, above = page[0] == SQLITE_TABLE_INTERIOR;
	const unsigned char *old = NULL;
	int saved = errno;

	if (!d->seen || !d->wal)
		return;
	touched = d->seen->is_touched;
	collections = touched[ROWS_COLLECTIONS];
	queue = touched[ROWS_QUEUE];
	touched[ROWS_COLLECTIONS] = touched[ROWS_QUEUE] = false;
	acts_page(protection, number, page, size, false);
	if (touched[ROWS_COLLECTIONS] || touched[ROWS_QUEUE] || above || is_empty_leaf(page))
		old = old_in_log(d, protection, object, number, size);
	if (old && (touched[ROWS_QUEUE] || above))
		d->shrunk |= sqlite_tree_has_lost(old, page, size);
	if (old && !touched[ROWS_QUEUE] && !above)
		rows_page(d->seen, old, size, true);
	touched[ROWS_COLLECTIONS] |= collections;
	touched[ROWS_QUEUE] |= queue;
	errno = saved;
}

void acts_page(unsigned protection, uint32_t number, const unsigned char *page, uint32_t size,
	       bool is_old)
{
	struct database *d = &databases[protection];

	if (!d->seen)
		return;
	rows_page(d->seen, page, size, is_old);
	/* As when all rows are deleted at once: no page of theirs is touched. */
	if (d->known && number == d->roots.root[ROWS_QUEUE])
		d->seen->is_touched[ROWS_QUEUE] = true;
}

/* A commit begins with page 1; with any other, its memory is full, and more is to come. */
void acts_before(unsigned protection, uint8_t object, bool is_commit)
{
	struct database *d = &databases[protection];
	struct file_source database;
	int saved = errno;

	if (!d->seen || d->wal || !d->known || (is_commit && !d->seen->is_touched[ROWS_QUEUE]))
		return;
	if (open_database(protection, object, &database))
		rows_before(d->seen, &database, &d->roots, !is_commit);
	errno = saved;
}

/* ---- what is told ---- */

struct telling {
	unsigned protection;
	uint64_t number, time, duration; /* of the transaction */
	struct rows_seen *seen;
};

static void put(const struct telling *t, struct oplog_record r, const char *id, size_t id_size,
		const void *text, size_t size)
{
	r.file = name_intern_kind(t->protection, id, id_size, OPLOG_NAME_COLLECTION);
	r.time = t->time;
	r.duration = t->duration;
	r.arg = t->number;
	record_act(t->protection, &r, text, size);
}

/* One text, and behind a NUL another one. */
static size_t join(char *out, size_t room, struct rows_text a, struct rows_text b)
{
	size_t n = a.size < room ? a.size : room, more = 0;

	if (n)
		memcpy(out, a.bytes, n);
	if (b.size && n + 1 < room) {
		more = b.size < room - n - 1 ? b.size : room - n - 1;
		out[n] = '\0';
		memcpy(out + n + 1, b.bytes, more);
		more++;
	}
	return n + more;
}

static void tell_migration(const struct telling *t, const struct rows_event *e)
{
	struct oplog_record r = {.op = OP_MIGRATION,
				 .offset = e->number,
				 .time = t->time,
				 .duration = t->duration,
				 .arg = t->number};
	char *text = t->seen->text;
	size_t n = join(text, sizeof(t->seen->text), e->name, e->other);

	if (e->name.size < n)
		text[e->name.size] = ' ';
	record_act(t->protection, &r, text, n);
}

static void on_event(void *context, const struct rows_event *e)
{
	static const uint16_t results[] = {
	    [ROWS_COLLECTION_CREATED] = OPLOG_COLLECTION_CREATED,
	    [ROWS_COLLECTION_RENAMED] = OPLOG_COLLECTION_RENAMED,
	    [ROWS_COLLECTION_CONFIGURED] = OPLOG_COLLECTION_CONFIGURED,
	    [ROWS_COLLECTION_DELETED] = OPLOG_COLLECTION_DELETED,
	};
	const struct telling *t = context;
	struct oplog_record r = {.op = OP_SEGMENT, .offset = -1};

	if (e->kind == ROWS_MIGRATION) {
		tell_migration(t, e);
		return;
	}
	if (e->kind != ROWS_SEGMENT) {
		r.op = OP_COLLECTION;
		r.result = results[e->kind];
		r.offset = e->parts >> 1;
		r.length = (uint64_t)e->number;
	}
	put(t, r, e->collection.bytes, e->collection.size, t->seen->text,
	    join(t->seen->text, sizeof(t->seen->text), e->name, e->other));
}

/* An id as the setting has it. */
static uint8_t put_id(void *context, const void *id, size_t size, unsigned char *out)
{
	const struct telling *t = context;
	uint64_t seed, sum;
	size_t n = size < UINT8_MAX ? size : UINT8_MAX;

	if (settings.log_ids == OPLOG_IDS_PLAIN) {
		memcpy(out, id, n);
		return (uint8_t)n;
	}
	memcpy(&seed, protections[t->protection].store_id, sizeof(seed));
	sum = checksum64(id, size, seed);
	memcpy(out, &sum, sizeof(sum));
	return sizeof(sum);
}

/* Behind the counts, those of one collection, in the room of the walk, which is over. */
static size_t put_ids(struct rows_seen *seen, uint32_t topic, unsigned char *out)
{
	uint32_t at = 0;
	size_t n = 0;

	while (at < seen->ids_size) {
		const unsigned char *id = seen->ids + at;

		if (id[0] == topic) {
			memcpy(out + n, id + 1, 2 + (size_t)id[2]);
			n += 2 + (size_t)id[2];
		}
		at += 3u + id[2];
	}
	return n;
}

static void tell_records(const struct telling *t, uint32_t topic)
{
	struct rows_seen *seen = t->seen;
	const struct rows_topic *c = &seen->topics[topic];
	struct oplog_record r = {
	    .op = OP_RECORDS, .offset = c->first, .length = (uint64_t)c->last, .result = c->count};
	struct oplog_records counts = {
	    .added = c->by_operation[0],
	    .updated = c->by_operation[1],
	    .upserted = c->by_operation[2],
	    .deleted = c->by_operation[3],
	    .other = c->by_operation[4],
	    .ids = (uint16_t)c->ids,
	    .form = settings.log_ids,
	    .more = seen->more,
	};
	size_t n = put_ids(seen, topic, seen->room + sizeof(counts));

	memcpy(seen->room, &counts, sizeof(counts));
	put(t, r, c->id, c->id_size, seen->room, sizeof(counts) + n);
}

/* Those that were there before, and those that came in this very transaction. */
static void tell_purge(const struct telling *t, const struct rows_topic *c)
{
	bool is_known = t->seen->is_old_known && c->old > c->left;
	uint32_t gone = is_known ? c->old - c->left : 0;
	struct oplog_record r = {.op = OP_PURGE,
				 .offset = gone ? c->old_first : c->first,
				 .length = (uint64_t)(c->gone ? c->gone_last : c->old_last),
				 .result = (int64_t)gone + c->gone};

	if (!c->gone && c->left && c->left_first > c->old_first)
		r.length = (uint64_t)c->left_first - 1;
	if (gone + c->gone)
		put(t, r, c->id, c->id_size, NULL, 0);
}

static void tell_queue(const struct telling *t)
{
	struct rows_seen *seen = t->seen;
	uint32_t i;

	for (i = 0; seen->is_touched[ROWS_QUEUE] && i < seen->topics_count; i++) {
		if (seen->topics[i].count)
			tell_records(t, i);
		tell_purge(t, &seen->topics[i]);
	}
}

/* All pages were saved and written, and none is free: the database is written anew. What is behind
 * its new end was not even saved. One that is about to be made is as small as this for a moment. */
static bool is_vacuum(const struct transaction *t, const struct rows_roots *roots, uint32_t before)
{
	uint32_t count = roots->page_count;

	return before > 8 && count && count <= before && !t->after.free && t->pages + 1 >= count;
}

static void tell_vacuum(const struct telling *t, const struct rows_roots *roots, uint32_t before)
{
	struct oplog_record r = {.op = OP_VACUUM,
				 .offset = (int64_t)before * roots->page_size,
				 .length = (uint64_t)roots->page_count * roots->page_size,
				 .time = t->time,
				 .duration = t->duration,
				 .arg = t->number};

	record_act(t->protection, &r, NULL, 0);
}

/* ---- the end ---- */

static void tell_rows(struct database *d, struct telling *telling,
		      const struct file_source *database, bool new_schema)
{
	d->seen->event = on_event;
	d->seen->id = settings.log_ids == OPLOG_IDS_NONE ? NULL : put_id;
	d->seen->context = telling;
	rows_committed(d->seen, database, &d->roots, new_schema, &d->highest);
	tell_queue(telling);
	d->known = !new_schema;
}

static void look(struct database *d, const struct transaction *t, struct telling *telling)
{
	bool new_schema = !t->before.known || t->before.cookie != t->after.cookie;
	struct file_source database;

	if (!open_database(telling->protection, t->object, &database)) {
		d->known = false;
		return;
	}
	if (new_schema || !d->known)
		d->known = rows_read(d->seen, &database, &d->roots, &d->highest);
	if (!d->known)
		return;
	if (t->before.cookie != t->after.cookie && is_vacuum(t, &d->roots, t->initial_pages) &&
	    GET(t->journaled) + 1 >= d->roots.page_count) {
		tell_vacuum(telling, &d->roots, t->initial_pages);
		d->known = false;
		return;
	}
	tell_rows(d, telling, &database, new_schema);
	d->roots.counter = t->after.counter;
}

static bool is_touched(const struct rows_seen *seen)
{
	unsigned i;

	for (i = 0; i < ROWS_TABLES; i++)
		if (seen->is_touched[i])
			return true;
	return false;
}

static struct telling telling_of(unsigned protection, const struct transaction *t)
{
	uint64_t now = oplog_now();

	return (struct telling){.protection = protection,
				.number = t->number,
				.time = now,
				.duration = now - t->since,
				.seen = databases[protection].seen};
}

void acts_end(unsigned protection, const struct transaction *t, bool committed)
{
	struct database *d = &databases[protection];
	struct telling telling = telling_of(protection, t);
	int saved = errno;

	if (!d->seen || d->wal) {
		drop(d);
		return;
	}
	if (committed && t->pages && !t->after.known)
		d->known = false;
	else if (committed && t->pages &&
		 (is_touched(d->seen) || t->before.cookie != t->after.cookie))
		look(d, t, &telling);
	else if (committed && t->pages)
		d->roots.counter = t->after.counter;
	drop(d);
	errno = saved;
}

static void tell_log(struct database *d, struct telling *telling, const struct file_source *source,
		     bool new_schema)
{
	if (d->shrunk && d->seen->is_touched[ROWS_QUEUE] && !new_schema)
		before_in_log(d, source->data);
	tell_rows(d, telling, source, new_schema);
}

void acts_log_commits(unsigned protection, const struct transaction *t)
{
	struct database *d = &databases[protection];
	struct telling telling = telling_of(protection, t);
	struct file_source source;
	struct wal_view view;
	bool new_schema;
	int saved = errno;

	if (!d->seen || !d->wal)
		return;
	new_schema = t->after.known && t->after.cookie != d->roots.cookie;
	if (!open_log(protection, t->object, &view, &source) || !d->known ||
	    (new_schema && !rows_read(d->seen, &source, &d->roots, &d->highest)))
		d->known = false;
	else if (new_schema && is_vacuum(t, &d->roots, d->pages))
		tell_vacuum(&telling, &d->roots, d->pages), d->known = false;
	else if (is_touched(d->seen) || new_schema)
		tell_log(d, &telling, &source, new_schema);
	d->roots.counter = view.change;
	drop(d);
	errno = saved;
}

void acts_fork(void)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < used; i++) {
		drop(&databases[i]);
		databases[i].known = false;
	}
}

void acts_stop(unsigned protection)
{
	drop(&databases[protection]);
	databases[protection].known = false;
}
