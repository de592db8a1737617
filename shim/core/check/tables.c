/* SPDX-License-Identifier: MIT
 *
 * Judging what is in chroma.sqlite3: its structure, tables and migrations.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/crew.h"
#include "core/check/internal.h"
#include "core/check/triggers.h"
#include "core/chroma/installation.h"
#include "core/chroma/own_tables.h"
#include "core/snapshot/store.h"
#include "core/sqlite/database.h"
#include "core/sqlite/fulltext.h"

static const struct diagnose_place database_place = {.file = CHROMA_DATABASE};
#define FTS FULLTEXT_TABLE

/* ---- structure ---- */

static void report_sqlite(struct diagnosis *d, int r, const char *where)
{
	enum diagnose_code code = r == -EBADMSG ? DIAGNOSE_DATABASE_MALFORMED
				  : r == -EBUSY ? DIAGNOSE_DATABASE_BUSY
				  : r == -EROFS ? DIAGNOSE_JOURNAL_PENDING
						: DIAGNOSE_UNREADABLE;

	diagnose_report(d, code, database_place, "%s: %s", where,
			r == -ENOMEM ? strerror(ENOMEM) : sqlite3_errmsg(d->db));
}

/* What a line of the check is about: rows that an index lacks are no loss. */
static enum diagnose_code kind_of(const char *line)
{
	if (strstr(line, "FTS5") || strstr(line, "fts5") || strstr(line, FTS))
		return DIAGNOSE_FTS_MALFORMED;
	if (strstr(line, "missing from index") || strstr(line, "wrong # of entries in index") ||
	    strstr(line, "non-unique entry in index"))
		return DIAGNOSE_INDEX_MALFORMED;
	return DIAGNOSE_DATABASE_MALFORMED;
}

/* The check itself had no memory: its lines say nothing of the database. */
static bool is_starved(const char *line)
{
	static const char text[] = "error code=7"; /* SQLITE_NOMEM */
	const char *at;

	for (at = line; (at = strstr(at, text)); at += sizeof(text) - 1)
		if (at[sizeof(text) - 1] < '0' || at[sizeof(text) - 1] > '9')
			return true;
	return false;
}

/* Runs a check that answers "ok" or lines; the first line of each kind is reported. */
static int run_check(struct diagnosis *d, const char *sql, const char *where)
{
	sqlite3_stmt *rows = NULL;
	uint64_t seen = 0;
	int r = database_prepare(d->db, &rows, sql);

	while (r == 0 && (r = database_step(rows)) == 1) {
		const char *line = (const char *)sqlite3_column_text(rows, 0);
		enum diagnose_code code;

		r = 0;
		if (!line || strcmp(line, "ok") == 0)
			continue;
		if (is_starved(line)) {
			diagnose_report(d, DIAGNOSE_UNREADABLE, database_place, "%s",
					strerror(ENOMEM));
			break;
		}
		code = kind_of(line);
		if (!(seen & UINT64_C(1) << code))
			diagnose_report(d, code, database_place, "%s", line);
		seen |= UINT64_C(1) << code;
	}
	if (r < 0)
		report_sqlite(d, r, where);
	sqlite3_finalize(rows);
	return seen ? -EBADMSG : r;
}

/* Everything but the full-text index, whose check takes ten times as long as all the rest. */
static int quick_check(struct diagnosis *d)
{
	sqlite3_stmt *tables = NULL;
	char sql[512];
	int r = database_prepare(d->db, &tables,
				 "SELECT name FROM sqlite_master WHERE type = 'table' AND "
				 "rootpage > 0 AND name NOT GLOB '" FTS "*'");

	while (r == 0 && (r = database_step(tables)) == 1) {
		const char *name = (const char *)sqlite3_column_text(tables, 0);

		sqlite3_snprintf(sizeof(sql), sql, "PRAGMA quick_check(%Q)", name);
		r = run_check(d, sql, name);
	}
	if (r < 0 && r != -EBADMSG)
		report_sqlite(d, r, "reading the schema");
	sqlite3_finalize(tables);
	return r;
}

/* What the full-text index lacks. */
struct lacking {
	int64_t documents, terms;
	int r;
};

static void report_fts(struct diagnosis *d, const struct lacking *l)
{
	if (l->r == -EBADMSG)
		diagnose_report(d, DIAGNOSE_FTS_MALFORMED, database_place,
				"its terms cannot be read");
	else if (l->r == 0 && l->terms)
		diagnose_report(d, DIAGNOSE_FTS_INCOMPLETE, database_place,
				l->terms > 0 ? "it lacks %lld places of terms"
					     : "it has %lld places of terms too many",
				l->terms > 0 ? (long long)l->terms : -(long long)l->terms);
	else if (l->r == 0 && l->documents)
		diagnose_report(d, DIAGNOSE_FTS_INCOMPLETE, database_place, "%lld documents",
				(long long)l->documents);
}

/* Its two halves take about as long as each other. */
struct full_check {
	struct diagnosis *d;
	sqlite3 *other; /* of the same database; NULL: there is no second connection */
	struct lacking lacking;
	int r;
};

static void check_integrity(void *context)
{
	struct full_check *f = context;

	f->r = run_check(f->d, "PRAGMA integrity_check", "integrity_check");
}

static void count_lacking(void *context)
{
	struct full_check *f = context;
	struct lacking *l = &f->lacking;

	l->r = fulltext_missing(f->other ? f->other : f->d->db, &l->documents, &l->terms);
}

/* A journal that waits for its roll-back, or a snapshot, has its one connection. */
static void open_other(struct full_check *f)
{
	int64_t ignored;

	if (f->d->dirfd < 0 || database_open(f->d->path, &f->other) < 0 ||
	    database_number(f->other, "SELECT count(*) FROM sqlite_master", NULL, &ignored) < 0) {
		sqlite3_close(f->other);
		f->other = NULL;
	}
}

static int full_check(struct diagnosis *d)
{
	struct full_check f = {.d = d};

	open_other(&f);
	if (f.other) {
		crew_both(check_integrity, count_lacking, &f);
	} else {
		check_integrity(&f);
		count_lacking(&f);
	}
	report_fts(d, &f.lacking);
	sqlite3_close(f.other);
	return f.r;
}

/* How much of the file SQLite has read tells how far it is. */
static int show_progress(void *context)
{
	struct diagnosis *d = context;
	uint64_t done;
	int misses, high;

	sqlite3_db_status(d->db, SQLITE_DBSTATUS_CACHE_MISS, &misses, &high, 0);
	done = (uint64_t)misses * 4096 /* Chroma's page size */;
	if (done > (uint64_t)d->database.st_size)
		done = (uint64_t)d->database.st_size;
	d->options->progress(d->options->context, done, d->summary->bytes);
	return 0;
}

bool diagnose_structure(struct diagnosis *d)
{
	int64_t ignored;
	int r = database_number(d->db, "SELECT count(*) FROM sqlite_master", NULL, &ignored);

	if (r < 0) {
		report_sqlite(d, r, "opening");
		if (r == -EBADMSG)
			diagnose_database_end(d);
		return false;
	}
	if (d->options->progress)
		sqlite3_progress_handler(d->db, 100000, show_progress, d);
	r = d->options->full ? full_check(d) : quick_check(d);
	sqlite3_progress_handler(d->db, 0, NULL, NULL);
	diagnose_advance(d, (uint64_t)d->database.st_size);
	if (r == -EBADMSG)
		diagnose_database_end(d);
	return r == 0 || r == -EBADMSG;
}

/* ---- tables and migrations ---- */

static int report_trigger(void *context, const struct trigger *t)
{
	diagnose_report(context, DIAGNOSE_TRIGGER, database_place, "%s on table %s", t->name,
			t->table);
	return 0;
}

static void check_foreign(struct diagnosis *d)
{
	sqlite3_stmt *rows = NULL;
	int r = database_prepare(d->db, &rows,
				 "SELECT type, name FROM sqlite_master WHERE type IN ('table', "
				 "'view', 'trigger')");
	uint64_t count = 0;
	char example[128];

	while (r == 0 && (r = database_step(rows)) == 1) {
		const char *type = (const char *)sqlite3_column_text(rows, 0);
		const char *name = (const char *)sqlite3_column_text(rows, 1);

		r = 0;
		if (!type || !name || (strcmp(type, "table") == 0 && chroma_is_own_table(name)))
			continue;
		if (!count++)
			snprintf(example, sizeof(example), "%s %.100s", type, name);
	}
	sqlite3_finalize(rows);
	if (count)
		diagnose_report(d, DIAGNOSE_TABLE_FOREIGN, database_place, "%s%s", example,
				count > 1 ? " and others" : "");
}

static void check_fulltext(struct diagnosis *d)
{
	enum fulltext_make made = fulltext_made_as(d->db);

	if (made == FULLTEXT_NONE)
		diagnose_report(d, DIAGNOSE_FTS_MALFORMED, database_place,
				"what is called so is no full-text index of Chroma's");
	else if (database_has_table(d->db, FTS) == 1 && !fulltext_works(d->db))
		diagnose_report(d, DIAGNOSE_FTS_MALFORMED, database_place, "%s",
				sqlite3_errmsg(d->db));
	else if (made == FULLTEXT_OTHER)
		diagnose_report(d, DIAGNOSE_FTS_FOREIGN, database_place, "%s", "");
}

static void check_tables(struct diagnosis *d)
{
	/* Python's migrations make these, and drop or rename them in the same script. */
	static const char *const passing[] = {"collections_tmp", "segments_temp"};
	const unsigned *counts = d->summary->migrations.counts;
	const struct migration_era *era;
	bool is_cut = false;
	char half[64];
	unsigned i;

	for (i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
		if (database_has_table(d->db, passing[i]) != 1)
			continue;
		/* Made IF NOT EXISTS, and nothing is dropped yet. */
		if (i == 0 && counts[MIGRATION_SYSDB] == 3 &&
		    database_has_table(d->db, "collections") == 1) {
			diagnose_report(d, DIAGNOSE_SETUP_CUT, database_place, "table %s is left",
					passing[i]);
			continue;
		}
		is_cut = true;
		diagnose_report(d, DIAGNOSE_MIGRATION_CUT, database_place, "table %s is left",
				passing[i]);
	}
	if (!is_cut && migrations_find_half(d->db, half, sizeof(half)) == 1) {
		is_cut = true;
		diagnose_report(d, DIAGNOSE_MIGRATION_CUT, database_place,
				"%s was begun and is not recorded", half);
	}
	if (!is_cut && migrations_have_holes(d->db, &d->summary->migrations, &era) == 1) {
		is_cut = true;
		diagnose_report(d, DIAGNOSE_MIGRATION_CUT, database_place,
				"not all are recorded, and the tables are those of Chroma %s to %s",
				era->first, era->last);
	}
	if (is_cut)
		return;
	for (i = 0; i < chroma_tables_count; i++)
		if (chroma_tables[i].needed &&
		    counts[chroma_tables[i].dir] >= chroma_tables[i].since &&
		    database_has_table(d->db, chroma_tables[i].name) == 0)
			diagnose_report(d, DIAGNOSE_TABLE_MISSING, database_place, "%s",
					chroma_tables[i].name);
	if (counts[MIGRATION_METADB] >= 3)
		check_fulltext(d);
	check_foreign(d);
	triggers_each_harmful(d->db, report_trigger, d);
}

/* A snapshot that these migrations cover, the newest; "": there is none. */
static void find_fitting(struct diagnosis *d, const unsigned *counts, char *out, size_t room)
{
	struct snapshot_store store;
	struct manifest *list = NULL;
	size_t count = 0, i;
	unsigned k;

	out[0] = '\0';
	if (d->options->storefd <= 0 || !d->summary->newest_snapshot ||
	    snapshot_store_open(&store, d->options->storefd, SNAPSHOT_LOOK, 0) < 0)
		return;
	if (snapshot_list_heads(&store, &list, &count) < 0)
		count = 0;
	for (i = 0; i < count; i++) {
		const struct snapshot_header *h = &list[i].header;
		bool fits = h->state == SNAPSHOT_VERIFIED || h->state == SNAPSHOT_COMPLETE;

		for (k = 0; k < MIGRATION_DIRS; k++)
			fits = fits && h->migrations[k] && h->migrations[k] <= counts[k];
		if (fits)
			snprintf(out, room, "; it could open snapshot %llu (restore --to %llu)",
				 (unsigned long long)h->id, (unsigned long long)h->id);
	}
	snapshot_list_free(list, count);
	snapshot_store_close(&store);
}

/* What the Chroma that shall open it will do. */
static void check_backend(struct diagnosis *d)
{
	struct diagnose_summary *s = d->summary;
	struct installation i;
	char back[80];
	int r = installation_find(d->options->backend, &i);

	if (r < 0) {
		diagnose_report(d, DIAGNOSE_BACKEND_UNKNOWN, (struct diagnose_place){0}, "%.200s%s",
				d->options->backend, r == -ENOENT ? "" : strerror(-r));
		return;
	}
	s->has_verdict = true;
	d->backend_is_rust = i.counts[MIGRATION_METADB] >= MIGRATION_METADB_OF_RUST;
	s->backend_verdict = installation_judge(&i, s->migrations.counts);
	strcpy(s->backend_release, i.release);
	if (s->backend_verdict == MIGRATION_OPENS)
		return;
	find_fitting(d, i.counts, back, sizeof(back));
	diagnose_report(
	    d,
	    s->backend_verdict == MIGRATION_MIGRATES  ? DIAGNOSE_BACKEND_MIGRATES
	    : s->backend_verdict == MIGRATION_RUNS_ON ? DIAGNOSE_BACKEND_BEHIND
						      : DIAGNOSE_BACKEND_OLDER,
	    database_place, "Chroma %s has migrations %u / %u / %u, the database %u / %u / %u%s",
	    i.release[0] ? i.release : "there", i.counts[MIGRATION_QUEUE],
	    i.counts[MIGRATION_METADB], i.counts[MIGRATION_SYSDB],
	    s->migrations.counts[MIGRATION_QUEUE], s->migrations.counts[MIGRATION_METADB],
	    s->migrations.counts[MIGRATION_SYSDB],
	    s->backend_verdict == MIGRATION_MIGRATES ? "" : back);
}

static bool check_migrations(struct diagnosis *d)
{
	struct migration_state *m = &d->summary->migrations;
	int r = migrations_read(d->db, m);

	if (r < 0) {
		report_sqlite(d, r, "table migrations");
		return r == -EBADMSG;
	}
	if (migrations_are_lost(d->db, m) && migrations_recognise(d->db, &d->summary->era) == 0 &&
	    d->summary->era) {
		memcpy(m->counts, d->summary->era->counts, sizeof(m->counts));
		diagnose_report(d, DIAGNOSE_MIGRATION_CUT, database_place,
				"none is recorded, and the tables are those of Chroma %s to %s",
				d->summary->era->first, d->summary->era->last);
		return true;
	}
	if (!m->has_table) {
		/* A reset that was cut off has dropped the one, and the other last. */
		bool is_chromas = database_has_table(d->db, "collections") == 1 ||
				  database_has_table(d->db, "embeddings_queue") == 1;

		diagnose_report(d, is_chromas ? DIAGNOSE_TABLE_MISSING : DIAGNOSE_NOT_CHROMA,
				database_place, "migrations");
		return is_chromas;
	}
	d->summary->era = migrations_find_era(m->counts);
	if (migrations_is_beginning(m))
		diagnose_report(d, DIAGNOSE_SETUP_CUT, database_place, "%u / %u / %u",
				m->counts[MIGRATION_QUEUE], m->counts[MIGRATION_METADB],
				m->counts[MIGRATION_SYSDB]);
	else if (!d->summary->era || m->missing || m->unknown)
		diagnose_report(d, DIAGNOSE_MIGRATION_GAP, database_place, "%u / %u / %u%s%s",
				m->counts[MIGRATION_QUEUE], m->counts[MIGRATION_METADB],
				m->counts[MIGRATION_SYSDB], m->example[0] ? ", for example " : "",
				m->example);
	if (m->altered)
		diagnose_report(d, DIAGNOSE_MIGRATION_ALTERED, database_place, "%s", m->example);
	return true;
}

/* Numbers go on after the last record's. In one statement: a writer may be at it. */
static void check_numbers(struct diagnosis *d)
{
	int64_t beyond = 0;
	int r = database_number(d->db,
				"SELECT coalesce((SELECT max(id) FROM embedding_metadata), 0) - "
				"coalesce((SELECT max(id) FROM embeddings), 0)",
				NULL, &beyond);

	if (r == 0 && beyond > 0) /* why it cannot be read is told by other checks */
		diagnose_report(d, DIAGNOSE_METADATA_BARE, database_place,
				"metadata goes %lld numbers beyond the last record",
				(long long)beyond);
}

bool diagnose_tables(struct diagnosis *d)
{
	int64_t records = 0;

	if (!check_migrations(d))
		return false;
	check_tables(d);
	check_numbers(d);
	if (d->options->backend)
		check_backend(d);
	database_number(d->db,
			"SELECT count(*) FROM embeddings WHERE segment_id IN (SELECT id FROM "
			"segments)",
			NULL, &records);
	d->summary->records = (uint64_t)records;
	return true;
}
