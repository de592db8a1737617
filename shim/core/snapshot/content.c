/* SPDX-License-Identifier: MIT
 *
 * From files to what a manifest says of them.
 */
#include "core/snapshot/content.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/chroma/migrations.h"
#include "core/oplog/oplog.h"
#include "core/sqlite/page.h"

#define PAUSE_MAX (SECOND / 4)

/* ---- chunks ---- */

/* `bytes` took since `began`: sleeps for what is left of the time they may take. */
static void keep_rate(const struct content_meter *m, uint64_t began, uint64_t bytes)
{
	uint64_t spent = oplog_now() - began, fair, pause;
	struct timespec t;

	if (!m->rate)
		return;
	fair = (uint64_t)((double)bytes * (double)SECOND / (double)m->rate);
	while (spent < fair) {
		pause = fair - spent < PAUSE_MAX ? fair - spent : PAUSE_MAX;
		t = (struct timespec){(time_t)(pause / SECOND), (long)(pause % SECOND)};
		nanosleep(&t, NULL);
		if (m->deadline && oplog_now() > m->deadline)
			return;
		spent = oplog_now() - began;
	}
}

static bool has_sum(const struct content_known *known, uint64_t i, struct checksum128 sum)
{
	return known && known->sums && i < known->count && (sum.low || sum.high) &&
	       known->sums[i].low == sum.low && known->sums[i].high == sum.high;
}

/* What was read: a sum costs a tenth of its name. */
static int put_one(struct chunks *c, uint64_t i, const struct content_known *known,
		   const void *data, uint32_t size, struct chunk_name *out, struct checksum128 *sum)
{
	*sum = checksum128(data, size, c->sum_seed);
	if (!has_sum(known, i, *sum) || !chunks_has(c, &known->chunks[i]))
		return chunks_put(c, data, size, out);
	*out = known->chunks[i];
	c->reused++;
	c->compared++;
	return 0;
}

static int chunk_one(struct chunks *c, const struct file_source *source, uint64_t i,
		     const struct content_known *known, void *data, struct chunk_name *out,
		     struct checksum128 *sum)
{
	struct manifest_file shape = {.size = source->size};
	uint32_t want = manifest_chunk_size(&shape, i);
	int r;

	/* One that was found damaged has been set aside, and is to be written again. */
	if (known && known->is_same && known->is_same(known->context, i) &&
	    chunks_has(c, &known->chunks[i])) {
		*out = known->chunks[i];
		if (known->sums && i < known->count)
			*sum = known->sums[i];
		return 0;
	}
	r = file_source_read(source, data, want, i * SNAPSHOT_CHUNK_SIZE);
	return r == 0 ? put_one(c, i, known, data, want, out, sum) : r;
}

/* Room for the sums of all chunks; those before `first` are known or not. */
static int make_sums(struct checksum128 **sums, uint64_t first, uint64_t count)
{
	bool fresh = !*sums;
	struct checksum128 *more = reallocarray(*sums, (size_t)count + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	*sums = more;
	first = fresh || first > count ? 0 : first;
	memset(more + first, 0, (size_t)(count + 1 - first) * sizeof(*more));
	return 0;
}

int content_chunk_some(struct chunks *c, const struct file_source *source, uint64_t first,
		       const struct content_known *known, struct chunk_name **chunks,
		       struct checksum128 **sums, struct content_meter *meter, uint64_t *next_out)
{
	uint64_t count = manifest_chunk_count(source->size), i = first, began = oplog_now();
	struct manifest_file shape = {.size = source->size};
	struct chunk_name *more = reallocarray(*chunks, (size_t)count + 1, sizeof(*more));
	unsigned char *data = malloc(SNAPSHOT_CHUNK_SIZE);
	int r = more && data ? make_sums(sums, first, count) : -ENOMEM;

	*chunks = more ? more : *chunks;
	while (i < count && r == 0) {
		r = chunk_one(c, source, i, known, data, &more[i], &(*sums)[i]);
		if (r < 0)
			break;
		meter->done += manifest_chunk_size(&shape, i++);
		if (meter->progress)
			meter->progress(meter->context, meter->done, meter->total);
		keep_rate(meter, began, (i - first) * SNAPSHOT_CHUNK_SIZE);
		r = i < count && meter->deadline && oplog_now() > meter->deadline;
	}
	free(data);
	if (next_out)
		*next_out = i;
	return r;
}

bool content_is_as_known(const struct content_known *known, const struct chunk_name *chunks,
			 uint64_t size)
{
	return memcmp(known->chunks, chunks,
		      (size_t)manifest_chunk_count(size) * sizeof(*chunks)) == 0;
}

int content_chunk(struct chunks *c, const struct file_source *source, uint64_t first,
		  const struct content_known *known, struct chunk_name **chunks,
		  struct checksum128 **sums, struct content_meter *meter)
{
	meter->deadline = 0;
	return content_chunk_some(c, source, first, known, chunks, sums, meter, NULL);
}

/* ---- what the database says ---- */

void content_note_header(struct manifest *m, const struct file_source *database)
{
	unsigned char page[SQLITE_HEADER_SIZE];
	struct sqlite_header h;

	if (database->size < sizeof(page) ||
	    file_source_read(database, page, sizeof(page), 0) < 0 ||
	    sqlite_header_parse(&h, page, sizeof(page)) < 0)
		return;
	m->header.page_size = h.page_size;
	m->header.page_count = h.page_count;
	m->header.change_counter = h.change_counter;
	m->header.schema_cookie = h.schema_cookie;
}

static int note_collections(struct manifest *m, sqlite3 *db)
{
	sqlite3_stmt *s = NULL;
	int r = database_prepare(
	    db, &s,
	    "SELECT c.id, c.name, (SELECT count(*) FROM embeddings e JOIN segments s"
	    " ON s.id = e.segment_id WHERE s.collection = c.id) FROM collections c ORDER BY "
	    "c.name");

	while (r == 0 && (r = database_step(s)) == 1) {
		const char *id = (const char *)sqlite3_column_text(s, 0);
		const char *name = (const char *)sqlite3_column_text(s, 1);

		r = id && name
			? manifest_add_collection(m, id, name, (uint64_t)sqlite3_column_int64(s, 2))
			: 0;
	}
	sqlite3_finalize(s);
	return r == -ENOMEM ? r : 0;
}

int content_note_database(struct manifest *m, sqlite3 *db, const struct counts_since *since)
{
	struct migration_state migrations;

	if (migrations_read(db, &migrations) == 0)
		memcpy(m->header.migrations, migrations.counts, sizeof(m->header.migrations));
	return since && counts_note(m, db, since) ? 0 : note_collections(m, db);
}

/* ---- one file ---- */

int content_settle(int dirfd, char *why, size_t room)
{
	char path[64];
	sqlite3 *db = NULL;
	int64_t ignored;
	int r;

	why[0] = '\0';
	snprintf(path, sizeof(path), "/proc/self/fd/%d/" CHROMA_DATABASE, dirfd);
	r = database_error(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL));
	if (r == 0) {
		database_configure(db);
		r = database_number(db, "SELECT count(*) FROM sqlite_master", NULL, &ignored);
	}
	if (r == 0)
		r = database_error(
		    sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL));
	if (r < 0)
		snprintf(why, room, "%s", db ? sqlite3_errmsg(db) : "");
	if (sqlite3_close(db) != SQLITE_OK && r == 0)
		r = -EIO;
	return r;
}
