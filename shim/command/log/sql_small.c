/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --sql`: tables that are small, and are filled in before the query if it names
 * them: processes, snapshots, findings.
 */
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "command/base/snapshots.h"
#include "command/base/terminal.h"
#include "command/log/sql.h"
#include "command/log/who.h"
#include "core/check/diagnose.h"
#include "core/oplog/oplog.h"

static const char processes_schema[] =
    "CREATE TEMP TABLE processes(pid INTEGER, parent_pid INTEGER, uid INTEGER, process TEXT,"
    " program TEXT, command TEXT, first TEXT, first_ns INTEGER, last TEXT, last_ns INTEGER,"
    " ended TEXT, writer INTEGER, records INTEGER, commits INTEGER, persists INTEGER,"
    " refused INTEGER)";
static const char snapshots_schema[] =
    "CREATE TEMP TABLE snapshots(id INTEGER, time TEXT, time_ns INTEGER, state TEXT, reason TEXT,"
    " description TEXT, records INTEGER, bytes INTEGER)";
static const char findings_schema[] =
    "CREATE TEMP TABLE findings(code TEXT, severity TEXT, collection TEXT, segment TEXT,"
    " file TEXT, detail TEXT, means TEXT, helps TEXT)";

static void bind_text(sqlite3_stmt *s, int n, const char *text)
{
	if (text)
		sqlite3_bind_text(s, n, text, -1, SQLITE_TRANSIENT);
	else
		sqlite3_bind_null(s, n);
}

static void bind_time(sqlite3_stmt *s, int n, uint64_t time)
{
	char when[40];

	bind_text(s, n, format_time_utc(when, sizeof(when), time));
	sqlite3_bind_int64(s, n + 1, (int64_t)time);
}

static int insert_row(sqlite3_stmt *s)
{
	int r = sqlite3_step(s);

	sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	return r == SQLITE_DONE ? SQLITE_OK : r;
}

/* ---- processes ---- */

static int insert_process(struct sql *q, sqlite3_stmt *s, const struct who_process *p)
{
	bind_text(s, 4, p->label);
	bind_text(s, 5, p->header.program);
	bind_text(s, 6, p->command);
	sqlite3_bind_int64(s, 1, p->header.pid);
	sqlite3_bind_int64(s, 2, p->header.parent_pid);
	sqlite3_bind_int64(s, 3, p->header.uid);
	bind_time(s, 7, p->first);
	bind_time(s, 9, p->last);
	bind_text(s, 11, log_who_end(p, q->data->storefd));
	sqlite3_bind_int(s, 12, p->writer);
	sqlite3_bind_int64(s, 13, (int64_t)p->changes);
	sqlite3_bind_int64(s, 14, (int64_t)p->commits);
	sqlite3_bind_int64(s, 15, (int64_t)p->persists);
	sqlite3_bind_int64(s, 16, (int64_t)p->refusals);
	return insert_row(s);
}

static int fill_processes(struct sql *q, sqlite3_stmt *s)
{
	struct oplog_reader *reader = NULL;
	struct log_who who = {0};
	struct oplog_entry e;
	int r = oplog_reader_open_which(q->data->storefd, OPLOG_ACTS, &reader);
	int result = SQLITE_OK;
	size_t i;

	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0)
		r = log_who_note(&who, &e) ? 0 : -ENOMEM;
	oplog_reader_close(reader);
	if (r < 0 && r != -ENOENT)
		q->error = r;
	for (i = 0; i < who.count && result == SQLITE_OK; i++)
		result = insert_process(q, s, &who.list[i]);
	log_who_free(&who);
	return q->error ? SQLITE_ERROR : result;
}

/* ---- snapshots ---- */

static int fill_snapshots(struct sql *q, sqlite3_stmt *s)
{
	struct snapshots list = {.data = *q->data, .pins = {.dirfd = -1}};
	char state[64];
	int r = SQLITE_OK;
	size_t i;

	if (snapshots_load(&list, SNAPSHOT_LOOK, false, 0) < 0)
		return SQLITE_OK;
	for (i = 0; i < list.count && r == SQLITE_OK; i++) {
		const struct manifest *m = &list.list[i];

		sqlite3_bind_int64(s, 1, (int64_t)m->header.id);
		bind_time(s, 2, m->header.time);
		bind_text(s, 4, snapshots_state(m, state, sizeof(state)));
		bind_text(s, 5, m->reason);
		bind_text(s, 6, m->description);
		sqlite3_bind_int64(s, 7, (int64_t)manifest_records(m));
		sqlite3_bind_int64(s, 8, (int64_t)manifest_total_size(m));
		r = insert_row(s);
	}
	snapshots_unload(&list);
	return r;
}

/* ---- findings ---- */

static void insert_finding(void *context, const struct diagnose_finding *f)
{
	const struct diagnose_kind *kind = &diagnose_kinds[f->code];
	sqlite3_stmt *s = context;

	bind_text(s, 1, kind->code);
	bind_text(s, 2, diagnose_severity_names[kind->severity]);
	bind_text(s, 3, f->collection);
	bind_text(s, 4, f->segment);
	bind_text(s, 5, f->file);
	bind_text(s, 6, f->detail);
	bind_text(s, 7, kind->means);
	bind_text(s, 8, f->helps ? f->helps : kind->helps);
	insert_row(s);
}

/* As `check` without --full finds them now. */
static int fill_findings(struct sql *q, sqlite3_stmt *s)
{
	struct diagnose_summary summary;
	struct diagnose_options options = {.storefd = q->data->storefd,
					   .strayfd = q->data->strayfd,
					   .report = insert_finding,
					   .context = s};
	int r = diagnose_directory(q->data->dir, q->data->dirfd, &options, &summary);

	q->error = r < 0 ? r : q->error;
	return r < 0 ? SQLITE_ERROR : SQLITE_OK;
}

/* ---- which ---- */

static const struct small {
	const char *name, *schema;
	int columns;
	int (*fill)(struct sql *q, sqlite3_stmt *insert);
} smalls[] = {
    {"processes", processes_schema, 16, fill_processes},
    {"snapshots", snapshots_schema, 8, fill_snapshots},
    {"findings", findings_schema, 8, fill_findings},
};

static bool names(const char *query, const char *word)
{
	size_t n = strlen(word);
	const char *at;

	for (at = query; (at = strcasestr(at, word)); at += n)
		if (!isalnum((unsigned char)at[n]) && at[n] != '_' &&
		    (at == query || (!isalnum((unsigned char)at[-1]) && at[-1] != '_')))
			return true;
	return false;
}

static int fill(struct sql *q, const struct small *small)
{
	char insert[128];
	sqlite3_stmt *s = NULL;
	int i, r = sqlite3_exec(q->db, small->schema, NULL, NULL, NULL);

	snprintf(insert, sizeof(insert), "INSERT INTO %s VALUES(?", small->name);
	for (i = 1; i < small->columns; i++)
		strcat(insert, ",?");
	strcat(insert, ")");
	if (r == SQLITE_OK)
		r = sqlite3_prepare_v2(q->db, insert, -1, &s, NULL);
	if (r == SQLITE_OK)
		r = small->fill(q, s);
	sqlite3_finalize(s);
	return r;
}

int sql_small_fill(struct sql *q, const char *query)
{
	int r = SQLITE_OK;
	size_t i;

	for (i = 0; i < sizeof(smalls) / sizeof(smalls[0]) && r == SQLITE_OK; i++)
		if (!query || names(query, smalls[i].name))
			r = fill(q, &smalls[i]);
	return r;
}
