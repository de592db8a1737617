/* SPDX-License-Identifier: MIT
 *
 * Hydration: from a pin to a snapshot.
 */
#include "core/snapshot/hydrate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/chroma/chroma.h"
#include "core/oplog/oplog.h"
#include "core/pin/base.h"
#include "core/pin/groups.h"
#include "core/snapshot/content.h"
#include "core/snapshot/known.h"
#include "core/sqlite/wal.h"

#define SAVE_EVERY UINT64_C(2000000000) /* ns: what a death costs at most */
#define WAL_FILE CHROMA_DATABASE "-wal"

/* An earlier snapshot, and what was written since. */
struct earlier {
	struct pin_base pin;
	struct manifest manifest;
	bool is_open;
	uint64_t size; /* of the file under way, then */
};

struct hydration {
	struct snapshot_store *store;
	const struct hydrate_options *options;
	struct pin_view view;
	struct earlier earlier;
	struct known known;		  /* by what it was made of */
	struct known_notes notes;	  /* for the next one */
	const struct manifest_file *same; /* in it: the file under way is the very same */
	struct manifest *out;
	struct snapshot_trouble *trouble;
	struct content_meter meter;
	uint64_t deadline;    /* of this piece, 0: none */
	bool has_worked;      /* in this piece */
	bool is_empty;	      /* Chroma has not made its tables yet */
	uint64_t source_size; /* of the file under way */
};

/* ---- the manifest ---- */

static void copy_text(char *out, size_t room, const char *text, size_t size)
{
	snprintf(out, room, "%.*s", (int)strnlen(text, size), text);
}

int hydrate_describe(const struct pin_slot *slot, struct manifest *out)
{
	char text[PIN_TEXT + 64], detail[PIN_TEXT];
	int r;

	*out = (struct manifest){0};
	out->header.id = slot->id;
	out->header.time = slot->time;
	out->header.state = slot->state == PIN_BROKEN ? SNAPSHOT_BROKEN : SNAPSHOT_PINNED;
	copy_text(text, sizeof(text), slot->reason, sizeof(slot->reason));
	r = manifest_set_text(&out->reason, text);
	copy_text(text, sizeof(text), slot->description, sizeof(slot->description));
	if (r == 0)
		r = manifest_set_text(&out->description, text);
	copy_text(detail, sizeof(detail), slot->detail, sizeof(slot->detail));
	snprintf(text, sizeof(text), "%s%s%s", detail, detail[0] && slot->error ? ": " : "",
		 slot->error ? strerror(slot->error < 0 ? -slot->error : slot->error) : "");
	if (!text[0])
		snprintf(text, sizeof(text), "its undo data was lost");
	if (r == 0)
		r = manifest_set_text(&out->trouble, slot->state == PIN_BROKEN ? text : "");
	return r;
}

/* Reads where an earlier piece of the work has stopped. */
static int load_manifest(struct hydration *h, const struct pin_slot *slot)
{
	int r = manifest_read(h->store->dirfd, slot->id, h->out);

	if (r == 0 && h->out->header.state == SNAPSHOT_HYDRATING)
		return 0;
	if (r == 0)
		return -EEXIST;
	manifest_free(h->out);
	if (r == -ENOMEM)
		return r;
	r = hydrate_describe(slot, h->out);
	h->out->header.state = SNAPSHOT_HYDRATING;
	oplog_boot_id(h->out->header.boot_id);
	return r;
}

/* The chunks that a manifest names are on the disk before it is. */
static int save_progress(struct hydration *h)
{
	int r = chunks_flush(&h->store->chunks);

	h->out->header.progress =
	    h->meter.total ? (uint32_t)(h->meter.done * 100 / h->meter.total) : 0;
	return r == 0 ? snapshot_add_numbered(h->store, h->out) : r;
}

static int set_broken(struct hydration *h)
{
	char text[sizeof(h->trouble->file) + sizeof(h->trouble->detail) + 4];
	struct manifest *m = h->out;

	snprintf(text, sizeof(text), "%s%s%s", h->trouble->file, h->trouble->file[0] ? ": " : "",
		 h->trouble->detail);
	/* What there is of it is no snapshot. */
	while (m->file_count)
		manifest_remove_last_file(m);
	m->header.state = SNAPSHOT_BROKEN;
	m->header.progress = 0;
	return manifest_set_text(&m->trouble, text);
}

/* ---- files ---- */

static struct manifest_file *find_entry(struct manifest *m, const char *path)
{
	uint32_t i;

	for (i = 0; i < m->file_count; i++)
		if (!strcmp(m->files[i].path, path))
			return &m->files[i];
	return NULL;
}

static void fill_entry(struct manifest_file *f, const struct pin_view_file *from)
{
	f->mode = from->mode;
	f->mtime = from->mtime;
	f->mtime_ns = from->mtime_ns;
}

/* ---- what is known from an earlier snapshot ---- */

static void open_earlier(struct hydration *h, struct pins *pins)
{
	const struct pin_slot *base = pins_find_base(pins);
	struct earlier *e = &h->earlier;

	*e = (struct earlier){.is_open = false};
	if (!base || base->id >= h->view.id ||
	    manifest_read(h->store->dirfd, base->id, &e->manifest) < 0)
		return;
	e->is_open = (e->manifest.header.state == SNAPSHOT_COMPLETE ||
		      e->manifest.header.state == SNAPSHOT_VERIFIED) &&
		     pin_base_open(&e->pin, pins, h->options->dirfd, h->view.id);
}

static void close_earlier(struct hydration *h)
{
	pin_base_close(&h->earlier.pin);
	manifest_free(&h->earlier.manifest);
	h->earlier.is_open = false;
}

/* Whole chunks only, but for the last one of a file that has kept its size. */
static bool is_as_before(void *context, uint64_t i)
{
	const struct hydration *h = context;
	uint64_t offset = i * SNAPSHOT_CHUNK_SIZE, end = offset + SNAPSHOT_CHUNK_SIZE;
	uint64_t before = h->earlier.size, now = h->source_size;

	if (end > before || end > now) {
		if (before != now)
			return false;
		end = now;
	}
	return pin_base_same(&h->earlier.pin, offset, end - offset);
}

/* By what was written since. NULL: nothing. */
static const struct content_known *know_by_base(struct hydration *h, const char *path,
						struct content_known *out)
{
	struct earlier *e = &h->earlier;
	const struct manifest_file *f = e->is_open ? manifest_find(&e->manifest, path) : NULL;

	if (!f || !pin_base_find(&e->pin, &h->view, path, &e->size) || f->size != e->size)
		return NULL;
	*out = (struct content_known){.chunks = f->chunks, .is_same = is_as_before, .context = h};
	return out;
}

/* What the list says of a file at the pin; false: that is not what the pin has of it. */
static bool identify(const struct hydration *h, const char *path, struct pin_identity *out)
{
	const struct pin_list_entry *e = pin_view_listed(&h->view, path);
	char segment[CHROMA_ID_SIZE];

	if (!e || !strchr(path, '/'))
		return false;
	snprintf(segment, sizeof(segment), "%.36s", path);
	if (pin_groups_header(&h->view, segment))
		return false;
	*out = (struct pin_identity){.size = e->size,
				     .dev = e->dev,
				     .ino = e->ino,
				     .birth = e->birth,
				     .changed = e->changed};
	return true;
}

static bool is_not_tried(void *context, uint64_t i)
{
	const struct hydration *h = context;

	return !known_is_tried(&h->known, h->same, i);
}

/* By which file it was. NULL: nothing. */
static const struct content_known *know_by_identity(struct hydration *h, const char *path,
						    struct content_known *out)
{
	struct pin_identity was;

	h->same = identify(h, path, &was) ? known_find(&h->known, path, &was) : NULL;
	if (h->same && h->same->size != h->source_size)
		h->same = NULL;
	if (!h->same)
		return NULL;
	*out = (struct content_known){
	    .chunks = h->same->chunks, .is_same = is_not_tried, .context = h};
	return out;
}

/* Before it is read. */
static void settle(const struct hydration *h, const char *path)
{
	struct pin_identity was;

	if (identify(h, path, &was))
		known_settle(h->options->dirfd, path, &was, h->view.time);
}

/* By its sums: all of it has to be read. */
static const struct content_known *know_by_sums(struct hydration *h, const char *path,
						struct content_known *out)
{
	const struct checksum128 *sums;
	const struct manifest_file *f = known_sums(&h->known, path, &sums);

	if (!f)
		return NULL;
	*out = (struct content_known){
	    .chunks = f->chunks, .sums = sums, .count = manifest_chunk_count(f->size)};
	return out;
}

/* Whatever tells it; NULL: nothing. */
static const struct content_known *know(struct hydration *h, const char *path,
					struct content_known *out)
{
	struct content_known sums = {.chunks = NULL};
	bool has_sums = know_by_sums(h, path, &sums) != NULL;
	bool by_base = know_by_base(h, path, out) != NULL;

	if (!by_base && !know_by_identity(h, path, out)) {
		*out = sums;
		return has_sums ? out : NULL;
	}
	/* The base may be another snapshot. */
	if (has_sums &&
	    (!by_base || h->known.manifest.header.id == h->earlier.manifest.header.id)) {
		out->sums = sums.sums;
		out->count = sums.count;
	}
	return out;
}

/* When all is read: what is still as it was at the pin need not be read for the next one. */
static int note_files(struct hydration *h)
{
	size_t i;
	int r = 0;

	for (i = 0; i < h->view.count && r == 0; i++) {
		const char *path = h->view.files[i].path;
		struct pin_identity was;

		if (identify(h, path, &was) &&
		    known_settle(h->options->dirfd, path, &was, h->view.time))
			r = known_note(&h->notes, path, &was);
	}
	return r;
}

/* ---- a file ---- */

/* Until SAVE_EVERY or the deadline: 1: not all yet. */
static int chunk_piece(struct hydration *h, struct manifest_file *f,
		       const struct file_source *source, const struct content_known *known)
{
	uint64_t next = manifest_chunk_count(f->size), now = oplog_now();
	int r;

	h->has_worked = true;
	h->meter.deadline = now + SAVE_EVERY;
	if (h->deadline && h->deadline < h->meter.deadline)
		h->meter.deadline = h->deadline;
	r = content_chunk_some(&h->store->chunks, source, next, known, &f->chunks, &f->sums,
			       &h->meter, &next);
	if (r >= 0)
		f->size = r == 0 ? source->size : next * SNAPSHOT_CHUNK_SIZE;
	return r;
}

static bool is_over(const struct hydration *h)
{
	return h->deadline && oplog_now() > h->deadline;
}

/* What has been read is judged before it is put down. `log` may be NULL. */
static int judge(struct pin_reader *file, struct pin_reader *log)
{
	int r = pin_reader_judge(file);

	return r == 0 && log ? pin_reader_judge(log) : r;
}

/* 1: the time is over. */
static int hydrate_source(struct hydration *h, const struct pin_view_file *file,
			  const struct file_source *source, struct pin_reader *reader,
			  struct pin_reader *log)
{
	struct manifest_file *f = find_entry(h->out, file->path);
	struct content_known room;
	const struct content_known *known;
	int r;

	if (f && f->size == source->size)
		return 0;
	if (!f)
		f = manifest_add_file(h->out, file->path);
	if (!f)
		return -ENOMEM;
	if (f->size > source->size || f->size % SNAPSHOT_CHUNK_SIZE)
		f->size = 0;
	fill_entry(f, file);
	h->source_size = source->size;
	h->same = NULL;
	known = log ? know_by_sums(h, file->path, &room) : know(h, file->path, &room);
	settle(h, file->path);
	do {
		int judged;

		r = chunk_piece(h, f, source, known);
		judged = r >= 0 ? judge(reader, log) : 0;
		r = judged < 0 ? judged : r;
		if (r == 1) {
			int saved = save_progress(h);

			r = saved < 0 ? saved : r;
		}
	} while (r == 1 && !is_over(h));
	return r == 0 && h->same && !content_is_as_known(known, f->chunks, f->size) ? -EUCLEAN : r;
}

static int hydrate_file(struct hydration *h, const struct pin_view_file *file)
{
	struct pin_reader reader;
	int r = pin_reader_open(&reader, &h->view, file->path);

	if (r == 0)
		r = hydrate_source(h, file, &reader.source, &reader, NULL);
	if (r == -ENOENT)
		r = -ESTALE;
	pin_reader_close(&reader);
	return r;
}

/* ---- the database ---- */

static bool is_unchanged(void *context, uint64_t offset, uint64_t length)
{
	const struct hydration *h = context;

	return pin_base_same(&h->earlier.pin, offset, length);
}

static int judge_earlier(void *context)
{
	return pin_reader_judge(&((struct hydration *)context)->earlier.pin.reader);
}

static int note_database(struct hydration *h, const struct file_source *source)
{
	struct content_known ignored;
	bool is_known = know_by_base(h, CHROMA_DATABASE, &ignored) != NULL;
	struct counts_since since = {.earlier = &h->earlier.manifest,
				     .before = &h->earlier.pin.reader.source,
				     .now = source,
				     .is_same = is_unchanged,
				     .judge = judge_earlier,
				     .context = h};
	sqlite3 *db = NULL;
	int r = 0;

	content_note_header(h->out, source);
	if (database_open_source(source, &db) == 0) {
		h->is_empty = database_has_table(db, "collections") == 0;
		r = content_note_database(h->out, db, is_known ? &since : NULL);
	}
	sqlite3_close(db);
	return r;
}

/* What the database was to SQLite, its log has to tell. */
static int open_both(struct hydration *h, struct sqlite_wal_database *both,
		     const struct file_source *database, const struct file_source *log)
{
	int r = sqlite_wal_database_open(both, database, log);

	if (r == -EBADMSG && !h->trouble->file[0])
		*h->trouble = (struct snapshot_trouble){WAL_FILE, "it is damaged"};
	if (r < 0 || !both->pages.goes_on || both->pages.goes_on >= h->view.wal_size)
		return r;
	*h->trouble = (struct snapshot_trouble){
	    WAL_FILE,
	    "what was committed last has wrong checksums: it was changed without the shim, "
	    "or an older SQLite goes on so after a roll-back to a savepoint; after PRAGMA "
	    "wal_checkpoint(TRUNCATE) another snapshot can be taken"};
	return -ESTALE;
}

/* A snapshot's database is one file: with its log, if it has one. It is noted when all is there. */
static int hydrate_database(struct hydration *h, bool note)
{
	struct pin_reader file, log = {.live = -1, .moved = -1};
	struct sqlite_wal_database both = {{0}, NULL, NULL, {0}};
	const struct file_source *source = &file.source;
	int r = pin_reader_open(&file, &h->view, CHROMA_DATABASE), e = -ENOENT;

	if (r == 0 && h->view.wal) {
		e = pin_reader_open(&log, &h->view, WAL_FILE);
		r = e == -ENOENT ? 0 : e;
	}
	if (r == 0 && e == 0) {
		r = open_both(h, &both, &file.source, &log.source);
		source = &both.source;
	}
	if (r == 0)
		r = note
			? note_database(h, source)
			: hydrate_source(h, &h->view.files[0], source, &file, e == 0 ? &log : NULL);
	if (r == 0 && note)
		r = judge(&file, e == 0 ? &log : NULL);
	sqlite_wal_database_close(&both);
	if (h->view.wal)
		pin_reader_close(&log);
	pin_reader_close(&file);
	return r == -ENOENT ? -ESTALE : r;
}

/* ---- all of it ---- */

static void start_meter(struct hydration *h)
{
	size_t i;

	h->meter = (struct content_meter){.rate = h->options->rate,
					  .progress = h->options->progress,
					  .context = h->options->context};
	for (i = 0; i < h->view.count; i++) {
		const struct manifest_file *f = find_entry(h->out, h->view.files[i].path);

		h->meter.total += h->view.files[i].size;
		h->meter.done += f ? f->size : 0;
	}
}

static int hydrate_files(struct hydration *h)
{
	size_t i;
	int r = 0;

	start_meter(h);
	for (i = 0; i < h->view.count && r == 0; i++) {
		const struct pin_view_file *file = &h->view.files[i];

		if (!strcmp(file->path, WAL_FILE))
			continue;
		r = i == 0 ? hydrate_database(h, false) : hydrate_file(h, file);
		if (r == 0 && h->has_worked && is_over(h) && i + 1 < h->view.count) {
			r = save_progress(h);
			r = r == 0 ? 1 : r;
		}
	}
	if (r == 0)
		r = hydrate_database(h, true);
	if (r == 0 && h->is_empty)
		return -ENOMSG;
	if (r == 0)
		r = pin_view_check(&h->view);
	if (r == 0) {
		h->out->header.state = SNAPSHOT_COMPLETE;
		h->out->header.progress = 0;
	}
	return r;
}

static bool is_worth_nothing(int r)
{
	return r == -EBADMSG || r == -ESTALE || r == -EPROTONOSUPPORT;
}

/* A file whose change time does not tell of its changes: all of them are read. */
static int hydrate_doubting(struct hydration *h)
{
	known_forget(&h->known, h->store);
	while (h->out->file_count)
		manifest_remove_last_file(h->out);
	return hydrate_files(h);
}

static int hydrate_view(struct hydration *h, struct pins *pins)
{
	int r;

	open_earlier(h, pins);
	known_open(&h->known, h->store);
	r = hydrate_files(h);
	if (r == -EUCLEAN)
		r = hydrate_doubting(h);
	if (r == 0)
		r = note_files(h);
	known_close(&h->known);
	close_earlier(h);
	return r;
}

static int hydrate_held(struct hydration *h, struct pins *pins, struct pin_slot *slot)
{
	int r = pin_view_open(&h->view, pins, slot, h->options->dirfd, h->trouble);

	if (r == 0) {
		r = hydrate_view(h, pins);
		pin_view_close(&h->view);
	}
	/* While it was read, the backend may have found that it cannot go on saving. */
	if (__atomic_load_n(&slot->state, __ATOMIC_SEQ_CST) == PIN_BROKEN &&
	    __atomic_load_n(&slot->id, __ATOMIC_SEQ_CST) == h->out->header.id) {
		struct manifest said;

		if (hydrate_describe(slot, &said) == 0)
			snprintf(h->trouble->detail, sizeof(h->trouble->detail), "%s",
				 said.trouble);
		manifest_free(&said);
		h->trouble->file[0] = '\0';
		return set_broken(h);
	}
	if (r == 0 && !pins_are_current(pins)) {
		snprintf(h->trouble->detail, sizeof(h->trouble->detail),
			 "pins/state in the store was lost while it was copied");
		h->trouble->file[0] = '\0';
		return set_broken(h);
	}
	return is_worth_nothing(r) ? set_broken(h) : r;
}

/* Pinned while Chroma was making its tables for the first time: there is nothing to keep. */
static int forget_pin(struct hydration *h, struct pins *pins, struct pin_slot *slot)
{
	int r = snapshot_remove(h->store, slot->id);

	h->out->header.state = 0;
	if (r < 0 && r != -ENOENT)
		return r;
	pin_drop(pins, slot);
	pins_sweep(pins);
	return 0;
}

/* The manifest is whole, and goes to the disk; then the pin may go. */
static int finish(struct hydration *h, struct pins *pins, struct pin_slot *slot)
{
	uint64_t id = h->out->header.id;
	bool broken = h->out->header.state == SNAPSHOT_BROKEN;
	int r = snapshot_add_numbered(h->store, h->out);

	if (r < 0)
		return r;
	if (!broken)
		known_write(h->store, h->out, &h->notes);
	/* A backend with many may have given it up meanwhile, and its slot be another's. */
	if (!broken && h->options->hold_on)
		pin_become_base(pins, slot, id);
	else if (!broken)
		pin_let_go(pins, slot, id);
	else if (__atomic_load_n(&slot->id, __ATOMIC_SEQ_CST) == id)
		pin_drop(pins, slot);
	pins_sweep(pins);
	return 0;
}

int hydrate_pin(struct snapshot_store *s, struct pins *pins, struct pin_slot *slot,
		const struct hydrate_options *options, struct manifest *out,
		struct snapshot_trouble *t)
{
	struct hydration h = {.store = s, .options = options, .out = out, .trouble = t};
	uint64_t id = __atomic_load_n(&slot->id, __ATOMIC_SEQ_CST);
	int r;

	*out = (struct manifest){0};
	*t = (struct snapshot_trouble){{0}, {0}};
	h.deadline = options->budget ? oplog_now() + options->budget : 0;
	r = load_manifest(&h, slot);
	if (r == -EEXIST) { /* only its end was missed */
		pin_let_go(pins, slot, id);
		pins_sweep(pins);
		return 0;
	}
	if (r == 0)
		r = hydrate_held(&h, pins, slot);
	if (r == -ENOMSG)
		r = forget_pin(&h, pins, slot);
	else if (r == 0)
		r = finish(&h, pins, slot);
	known_notes_free(&h.notes);
	return r;
}

/* ---- what is lost ---- */

static struct pin_slot *find_slot(struct pins *pins, uint64_t id)
{
	unsigned i;

	for (i = 0; pins && pins->state && i < PIN_SLOTS; i++)
		if (pins->slots[i].id == id && pins->slots[i].state != PIN_FREE)
			return &pins->slots[i];
	return NULL;
}

static int give_up(struct snapshot_store *s, struct manifest *m)
{
	struct snapshot_trouble t = {{0}, "the machine was started again before it was copied"};
	struct hydration h = {.store = s, .out = m, .trouble = &t};
	int r = set_broken(&h);

	return r == 0 ? manifest_write(s->dirfd, m) : r;
}

int hydrate_give_up_lost(struct snapshot_store *s, struct pins *pins)
{
	struct manifest *list;
	size_t count, i;
	int r = snapshot_list(s, &list, &count), n = 0;

	if (r < 0)
		return r;
	for (i = 0; i < count && r == 0; i++) {
		if (list[i].header.state != SNAPSHOT_HYDRATING ||
		    find_slot(pins, list[i].header.id))
			continue;
		r = give_up(s, &list[i]);
		n++;
	}
	snapshot_list_free(list, count);
	return r < 0 ? r : n;
}
