/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --sql`: the log as virtual tables, which are read while SQLite asks for rows.
 * Nothing is copied. What a query says of time, operation, path, process and collection is looked
 * at before a row is made; a bound in time keeps older segments from being read at all.
 */
#include "command/log/sql_tables.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <bsd/string.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/oplog/acts.h"
#include "core/oplog/oplog.h"

const char sql_tables_help[] =
    "Tables: ops (all that is recorded), acts, records, transactions, persists, snapshots, "
    "findings, processes, and log (calls). `PRAGMA table_info(ops)` lists the columns of one.";

/* ---- virtual tables ---- */

static int table_connect(sqlite3 *db, void *aux, int argc, const char *const *argv,
			 sqlite3_vtab **out, char **error)
{
	struct sql *q = aux;
	struct table *t = sqlite3_malloc(sizeof(*t));
	char schema[2048] = "CREATE TABLE x(";
	size_t i;
	int r;

	(void)argc, (void)error;
	if (!t)
		return SQLITE_NOMEM;
	memset(t, 0, sizeof(*t));
	t->q = q;
	for (i = 0; i < SQL_TABLES; i++)
		if (strcmp(sql_log_tables[i].name, argv[0]) == 0)
			t->of = &sql_log_tables[i];
	for (i = 0; i < COLUMNS_MAX && t->of->columns[i].name; i++) {
		const struct named_column *c = &t->of->columns[i];
		size_t n = strlen(schema);

		snprintf(schema + n, sizeof(schema) - n, "%s%s %s", i ? ", " : "", c->name,
			 c->type);
	}
	strlcat(schema, ")", sizeof(schema));
	r = sqlite3_declare_vtab(db, schema);
	if (r != SQLITE_OK) {
		sqlite3_free(t);
		return r;
	}
	*out = &t->base;
	return SQLITE_OK;
}

static int table_disconnect(sqlite3_vtab *base)
{
	sqlite3_free(base);
	return SQLITE_OK;
}

/* ---- what of a query can be looked at here ---- */

/* How a constraint is told to table_filter(): a letter for each argument, in idxStr. */
static char letter_of(enum column column, unsigned char op)
{
	switch (column) {
	case C_TIME_NS:
		return op == SQLITE_INDEX_CONSTRAINT_EQ	  ? '='
		       : op == SQLITE_INDEX_CONSTRAINT_GE ? 'g'
		       : op == SQLITE_INDEX_CONSTRAINT_GT ? 'g'
		       : op == SQLITE_INDEX_CONSTRAINT_LE ? 'l'
		       : op == SQLITE_INDEX_CONSTRAINT_LT ? 'l'
							  : 0;
	case C_TIME:
		return op == SQLITE_INDEX_CONSTRAINT_GE || op == SQLITE_INDEX_CONSTRAINT_GT   ? 'G'
		       : op == SQLITE_INDEX_CONSTRAINT_LE || op == SQLITE_INDEX_CONSTRAINT_LT ? 'L'
											      : 0;
	case C_OP:
		return op == SQLITE_INDEX_CONSTRAINT_EQ	    ? 'o'
		       : op == SQLITE_INDEX_CONSTRAINT_GLOB ? 'O'
							    : 0;
	case C_PATH:
		return op == SQLITE_INDEX_CONSTRAINT_EQ ? 'p' : 0;
	case C_COLLECTION:
		return op == SQLITE_INDEX_CONSTRAINT_EQ ? 'c' : 0;
	case C_PID:
		return op == SQLITE_INDEX_CONSTRAINT_EQ ? 'P' : 0;
	case C_TID:
		return op == SQLITE_INDEX_CONSTRAINT_EQ ? 'T' : 0;
	default:
		return 0;
	}
}

static bool uses_who(const struct sql_table *t, sqlite3_uint64 used)
{
	unsigned i;

	for (i = 0; i < COLUMNS_MAX && t->columns[i].name; i++)
		if ((t->columns[i].column == C_PROCESS || t->columns[i].column == C_THREAD) &&
		    used & (UINT64_C(1) << i))
			return true;
	return false;
}

/* Rows come in order of time. */
static bool is_in_order(const struct sql_table *t, const sqlite3_index_info *info)
{
	enum column column;

	if (info->nOrderBy != 1 || info->aOrderBy[0].desc || info->aOrderBy[0].iColumn < 0)
		return false;
	column = t->columns[info->aOrderBy[0].iColumn].column;
	return column == C_TIME || column == C_TIME_NS;
}

static int table_best_index(sqlite3_vtab *base, sqlite3_index_info *info)
{
	const struct sql_table *t = ((struct table *)base)->of;
	char letters[64];
	int i, n = 0;

	info->estimatedCost = 1e7;
	info->estimatedRows = 10000000;
	for (i = 0; i < info->nConstraint && n < (int)sizeof(letters) - 1; i++) {
		char letter = 0;

		if (info->aConstraint[i].iColumn >= 0)
			letter = letter_of(t->columns[info->aConstraint[i].iColumn].column,
					   info->aConstraint[i].op);
		if (!letter || !info->aConstraint[i].usable)
			continue;
		/* A list is taken whole: one pass over the log, not one for each of its items. */
		if (letter == 'o' && sqlite3_vtab_in(info, i, -1)) {
			sqlite3_vtab_in(info, i, 1);
			letter = 'i';
		} else if (sqlite3_vtab_in(info, i, -1)) {
			continue;
		}
		letters[n++] = letter;
		info->aConstraintUsage[i].argvIndex = n;
		/* The log is read from its beginning, or from a time on. */
		if (strchr("g=G", letter))
			info->estimatedCost /= 10;
		info->estimatedRows /= strchr("gGlL", letter) ? 4 : 1000;
	}
	letters[n] = '\0';
	info->idxStr = sqlite3_mprintf("%s", letters);
	info->needToFreeIdxStr = 1;
	info->idxNum = uses_who(t, info->colUsed);
	info->orderByConsumed = is_in_order(t, info);
	return info->idxStr ? SQLITE_OK : SQLITE_NOMEM;
}

/* ---- bounds ---- */

/* The beginning of a time as the column has it: "2026-11-29", "2026-11-29T14:02". False: it cannot
 * be told. */
static bool read_time(const char *text, uint64_t *ns)
{
	struct tm tm = {.tm_mday = 1};
	int n = 0;

	if (sscanf(text, "%4d-%2d-%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &n) < 3 || n != 10)
		return false;
	if (text[n] == 'T')
		sscanf(text + n, "T%2d:%2d:%2d", &tm.tm_hour, &tm.tm_min, &tm.tm_sec);
	else if (text[n])
		return false;
	tm.tm_year -= 1900;
	tm.tm_mon--;
	*ns = (uint64_t)timegm(&tm) * SECOND;
	return tm.tm_year >= 70 && tm.tm_year < 500;
}

static void raise_since(struct wanted *w, uint64_t ns)
{
	w->since = ns > w->since ? ns : w->since;
}

static void lower_until(struct wanted *w, uint64_t ns)
{
	w->until = ns < w->until ? ns : w->until;
}

static void add_bound(struct wanted *w, char letter, sqlite3_value *v)
{
	const char *text = (const char *)sqlite3_value_text(v);
	int64_t number = sqlite3_value_int64(v);
	uint64_t ns = number > 0 ? (uint64_t)number : 0;

	if (letter == 'G' || letter == 'L') {
		if (!text || !read_time(text, &ns))
			return;
		if (letter == 'G')
			raise_since(w, ns > 2 * SECOND ? ns - 2 * SECOND : 0);
		else
			lower_until(w, ns + 86402 * SECOND);
		return;
	}
	if (sqlite3_value_type(v) != SQLITE_INTEGER)
		return;
	if (letter == 'g' || letter == '=')
		raise_since(w, ns);
	if (letter == 'l' || letter == '=')
		lower_until(w, ns + 1);
}

static void add_ops(struct wanted *w, const char *glob, bool exact)
{
	unsigned op;
	bool fits[256];

	for (op = 0; op < 256; op++) {
		const char *name = oplog_op_name(op);

		/* What this version does not know is left to SQLite. */
		fits[op] = !name || (exact ? strcmp(name, glob) == 0 : log_op_fits(glob, name));
		w->ops[op] = (!w->ops_given || w->ops[op]) && fits[op];
	}
	w->ops_given = true;
}

static void add_op_list(struct wanted *w, sqlite3_value *list)
{
	bool any[256] = {false};
	sqlite3_value *v;
	unsigned op;
	int r;

	for (r = sqlite3_vtab_in_first(list, &v); r == SQLITE_OK && v;
	     r = sqlite3_vtab_in_next(list, &v)) {
		const char *text = (const char *)sqlite3_value_text(v);

		for (op = 0; text && op < 256; op++) {
			const char *name = oplog_op_name(op);

			any[op] |= !name || strcmp(name, text) == 0;
		}
	}
	for (op = 0; op < 256; op++)
		w->ops[op] = (!w->ops_given || w->ops[op]) && any[op];
	w->ops_given = true;
}

static int add_text(char **out, const char *text)
{
	if (*out || !text)
		return SQLITE_OK;
	*out = strdup(text);
	return *out ? SQLITE_OK : SQLITE_NOMEM;
}

static int add_wanted(struct wanted *w, char letter, sqlite3_value *v)
{
	const char *text;

	if (letter == 'i') {
		add_op_list(w, v);
		return SQLITE_OK;
	}
	if (sqlite3_value_type(v) == SQLITE_NULL) {
		w->nothing = true;
		return SQLITE_OK;
	}
	text = (const char *)sqlite3_value_text(v);
	switch (letter) {
	case 'o':
	case 'O':
		if (text && !strpbrk(text, ","))
			add_ops(w, text, letter == 'o');
		return SQLITE_OK;
	case 'p':
		return add_text(&w->path, text);
	case 'c':
		return add_text(&w->collection, text);
	case 'P':
		w->pid = sqlite3_value_int64(v);
		return SQLITE_OK;
	case 'T':
		w->tid = sqlite3_value_int64(v);
		return SQLITE_OK;
	default:
		add_bound(w, letter, v);
		return SQLITE_OK;
	}
}

/* ---- rows ---- */

static int table_open(sqlite3_vtab *base, sqlite3_vtab_cursor **out)
{
	struct cursor *c = sqlite3_malloc(sizeof(*c));

	(void)base;
	if (!c)
		return SQLITE_NOMEM;
	memset(c, 0, sizeof(*c));
	*out = &c->base;
	return SQLITE_OK;
}

static void cursor_reset(struct cursor *c)
{
	oplog_reader_close(c->reader);
	c->reader = NULL;
	free(c->wanted.path);
	free(c->wanted.collection);
	memset(&c->wanted, 0, sizeof(c->wanted));
	log_who_free(&c->who);
	words_free(&c->words);
}

static int table_close(sqlite3_vtab_cursor *base)
{
	cursor_reset((struct cursor *)base);
	sqlite3_free(base);
	return SQLITE_OK;
}

static bool is_wanted(struct cursor *c, const struct oplog_entry *e)
{
	const struct wanted *w = &c->wanted;
	const char *name;

	if (e->time < w->since || (w->ops_given && e->op < 256 && !w->ops[e->op]) ||
	    (w->pid >= 0 && e->header->pid != w->pid) || (w->tid >= 0 && e->tid != w->tid) ||
	    !table_of(c)->has(e))
		return false;
	if (w->path && (!e->name || e->kind == OPLOG_NAME_SQL || strcmp(e->name, w->path) != 0) &&
	    *w->path != '#')
		return false;
	if (w->collection) {
		name = collection_names_of(c->words.names, e);
		if (name && strcmp(name, w->collection) != 0)
			return false;
	}
	return !c->filters || log_filter_wants(&sql_of(c)->options->filter, e);
}

/* What later rows refer to. */
static int note(struct cursor *c)
{
	if (c->needs_who && !log_who_note(&c->who, &c->e))
		return SQLITE_NOMEM;
	return oplog_is_act(c->e.op) && words_note(&c->words, &c->e) < 0 ? SQLITE_NOMEM : SQLITE_OK;
}

static int end_of_log(struct cursor *c, int r)
{
	struct sql *q = sql_of(c);

	c->eof = true;
	if (r < 0) {
		q->error = r;
		return r == -ENOMEM ? SQLITE_NOMEM : SQLITE_ERROR;
	}
	if (!q->reported) {
		q->reported = true;
		q->status = log_report_problems(c->reader, q->options->quiet);
	}
	return SQLITE_OK;
}

static int table_next(sqlite3_vtab_cursor *base)
{
	struct cursor *c = (struct cursor *)base;
	int r;

	c->explained = false;
	c->rowid++;
	do {
		r = oplog_reader_next(c->reader, &c->e);
		if (r <= 0)
			return end_of_log(c, r);
		if (c->e.time >= c->wanted.until) {
			c->eof = true;
			return SQLITE_OK;
		}
		r = note(c);
		if (r != SQLITE_OK)
			return r;
	} while (!is_wanted(c, &c->e));
	return SQLITE_OK;
}

static bool has_filters(const struct log_filter *f)
{
	return f->since || f->until || f->ops || f->path || f->collection || f->id ||
	       f->slower_than || f->pid || f->tid || f->failed || f->in_flight || f->protected_only;
}

static int table_filter(sqlite3_vtab_cursor *base, int number, const char *letters, int argc,
			sqlite3_value **argv)
{
	struct cursor *c = (struct cursor *)base;
	struct sql *q = sql_of(c);
	int i, r = SQLITE_OK;

	cursor_reset(c);
	c->wanted.until = UINT64_MAX;
	c->wanted.pid = c->wanted.tid = -1;
	c->words.names = q->options->filter.names;
	c->filters = has_filters(&q->options->filter);
	c->needs_who = number;
	c->eof = false;
	raise_since(&c->wanted, q->options->filter.since);
	for (i = 0; i < argc && r == SQLITE_OK; i++)
		r = add_wanted(&c->wanted, letters[i], argv[i]);
	if (r != SQLITE_OK)
		return r;
	r = oplog_reader_open_which(q->data->storefd, table_of(c)->which, &c->reader);
	if (r == -ENOENT || c->wanted.nothing) {
		c->eof = true;
		return SQLITE_OK;
	}
	if (r < 0)
		return end_of_log(c, r);
	oplog_reader_ahead(c->reader);
	if (!c->needs_who && table_of(c)->which == OPLOG_CALLS)
		oplog_reader_since(c->reader, c->wanted.since);
	else if (!c->needs_who && c->wanted.since)
		oplog_reader_since(c->reader, c->wanted.since);
	return table_next(base);
}

static int table_eof(sqlite3_vtab_cursor *base)
{
	return ((struct cursor *)base)->eof;
}

static int table_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *out)
{
	*out = ((struct cursor *)base)->rowid;
	return SQLITE_OK;
}

/* ---- the tables ---- */

static const sqlite3_module module = {
    .iVersion = 0,
    .xConnect = table_connect, /* no xCreate: they are there without being made */
    .xBestIndex = table_best_index,
    .xDisconnect = table_disconnect,
    .xOpen = table_open,
    .xClose = table_close,
    .xFilter = table_filter,
    .xNext = table_next,
    .xEof = table_eof,
    .xColumn = sql_value,
    .xRowid = table_rowid,
};

/* Its columns are declared by a statement of their own, which a query may not have. */
static int connect_now(sqlite3 *db, const char *name)
{
	char query[64];
	sqlite3_stmt *s = NULL;
	int r;

	snprintf(query, sizeof(query), "SELECT 1 FROM %s", name);
	r = sqlite3_prepare_v2(db, query, -1, &s, NULL);
	sqlite3_finalize(s);
	return r;
}

int sql_tables_register(struct sql *q)
{
	size_t i;
	int r = SQLITE_OK;

	for (i = 0; i < SQL_TABLES && r == SQLITE_OK; i++) {
		r = sqlite3_create_module(q->db, sql_log_tables[i].name, &module, q);
		if (r == SQLITE_OK)
			r = connect_now(q->db, sql_log_tables[i].name);
	}
	return r;
}
