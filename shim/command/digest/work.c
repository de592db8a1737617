/* SPDX-License-Identifier: MIT
 *
 * The log in numbers: transactions, persists, and the statements and tables that they were about.
 */
#include "command/digest/digest.h"

#include <errno.h>
#include <string.h>

#include <bsd/string.h>

#include "command/log/log.h"

/* ---- what is open ---- */

static struct digest_open *open_find(struct digest_process *p, bool is_persist, uint64_t number,
				     const char *name)
{
	unsigned i;

	for (i = 0; i < p->open_count; i++) {
		struct digest_open *o = &p->open[i];

		if (o->is_persist == is_persist && o->t.number == number &&
		    (!name || !strcmp(o->name, name)))
			return o;
	}
	return NULL;
}

static struct digest_open *open_add(struct digest_process *p, const struct oplog_entry *e,
				    bool is_persist)
{
	struct digest_open *o;

	if (p->open_count == DIGEST_OPEN) /* the oldest will not end any more */
		memmove(p->open, p->open + 1, --p->open_count * sizeof(p->open[0]));
	o = &p->open[p->open_count++];
	memset(o, 0, sizeof(*o));
	o->is_persist = is_persist;
	o->t.number = e->arg;
	o->t.begin = e->time;
	o->t.pid = e->header->pid;
	o->t.tid = e->tid;
	strlcpy(o->name, e->name ? e->name : "", sizeof(o->name));
	if (!is_persist && p->statement[0] && p->statement_tid == e->tid &&
	    p->statement_end >= e->time) {
		strlcpy(o->t.statement, p->statement, sizeof(o->t.statement));
		o->t.statements = 1;
	}
	return o;
}

static void open_remove(struct digest_process *p, struct digest_open *o)
{
	*o = p->open[--p->open_count];
}

/* Whether a file is the database of a transaction, or what SQLite has beside it. */
static bool is_of_database(const struct digest_open *o, const char *file)
{
	size_t n = strlen(o->name);

	return !strncmp(file, o->name, n) &&
	       (!file[n] || !strcmp(file + n, "-journal") || !strcmp(file + n, "-wal"));
}

static bool is_in_segment(const struct digest_open *o, const char *file)
{
	size_t n = strlen(o->name);

	return n && !strncmp(file, o->name, n) && (file[n] == '/' || !file[n]);
}

/* What a call on a file belongs to; one on the directory to whatever its thread is at. */
static struct digest_open *open_of_file(struct digest_process *p, const struct oplog_entry *e)
{
	unsigned i;

	for (i = p->open_count; i-- > 0;) {
		struct digest_open *o = &p->open[i];

		if (!strcmp(e->name, ".") ? o->t.tid == e->tid
		    : o->is_persist	  ? is_in_segment(o, e->name)
					  : is_of_database(o, e->name))
			return o;
	}
	return NULL;
}

/* ---- tables ---- */

static void add_table(struct digest_transaction *t, const char *name)
{
	unsigned i;

	for (i = 0; i < t->table_count; i++)
		if (!strcmp(t->tables[i], name))
			return;
	if (t->table_count < DIGEST_TABLES)
		t->tables[t->table_count++] = name;
}

static int note_page(struct digest *d, struct digest_open *o, const struct oplog_entry *e)
{
	const char *table = NULL;
	struct digest_row *row;

	/* Page 1 changes with every transaction, whatever it is about. */
	if (d->table_of && o && !o->is_persist && e->offset > 0 && !strcmp(e->name, o->name))
		table = d->table_of(d->table_context, o->name, (uint64_t)e->offset);
	if (!table)
		return 0;
	row = digest_row(d, DIGEST_PAGES, table);
	if (!row)
		return -ENOMEM;
	row->writes++;
	row->written += (uint64_t)e->result;
	add_table(&o->t, table);
	return 0;
}

static int note_file_call(struct digest *d, struct digest_process *p, const struct oplog_entry *e)
{
	struct digest_open *o;

	if (!p->open_count || !e->name || e->in_flight || e->result < 0 ||
	    !(digest_is_write(e->op) || digest_is_sync(e->op)))
		return 0;
	o = open_of_file(p, e);
	if (!o)
		return 0;
	if (digest_is_sync(e->op)) {
		o->t.syncs++;
		o->t.sync_ns += e->duration;
		return 0;
	}
	if (o->is_persist)
		o->t.bytes += (uint64_t)e->result;
	return note_page(d, o, e);
}

/* ---- statements ---- */

static int note_statement(struct digest *d, struct digest_process *p, const struct oplog_entry *e)
{
	const char *sql = e->kind == OPLOG_NAME_SQL ? e->name : e->text_size ? e->text : NULL;
	struct digest_row *row;
	char text[DIGEST_TEXT];
	unsigned i;

	if (!sql || !log_is_telling(sql))
		return 0;
	digest_text(text, sizeof(text), sql, strlen(sql));
	row = digest_row(d, DIGEST_STATEMENTS, text);
	if (!row)
		return -ENOMEM;
	row->calls++;
	row->call_ns += e->duration;
	row->max_ns = e->duration > row->max_ns ? e->duration : row->max_ns;
	row->rows += e->offset > 0 ? (uint64_t)e->offset : 0;
	for (i = 0; i < p->open_count; i++) {
		struct digest_transaction *t = &p->open[i].t;

		if (p->open[i].is_persist || t->tid != e->tid)
			continue;
		if (!t->statements++)
			strlcpy(t->statement, text, sizeof(t->statement));
		return 0;
	}
	strlcpy(p->statement, text, sizeof(p->statement));
	p->statement_end = e->in_flight ? UINT64_MAX : e->time + e->duration;
	p->statement_tid = e->tid;
	return 0;
}

/* ---- the ends ---- */

static void keep_best(struct digest_transaction *list, unsigned *count,
		      const struct digest_transaction *t, bool by_bytes)
{
	uint64_t value = by_bytes ? t->bytes : t->duration;
	unsigned at = *count;

	while (at > 0 && (by_bytes ? list[at - 1].bytes : list[at - 1].duration) < value)
		at--;
	if (at >= DIGEST_TOP)
		return;
	if (*count < DIGEST_TOP)
		++*count;
	memmove(list + at + 1, list + at, (*count - at - 1) * sizeof(*list));
	list[at] = *t;
}

static bool mentions_queue(const struct digest_transaction *t)
{
	unsigned i;

	for (i = 0; i < t->table_count; i++)
		if (!strcmp(t->tables[i], "embeddings_queue"))
			return true;
	return strstr(t->statement, "embeddings_queue") != NULL;
}

static void note_commit(struct digest *d, struct digest_process *p, const struct digest_open *o,
			const struct oplog_entry *e)
{
	unsigned bucket = digest_bucket(d, e->time);

	d->commits++;
	d->commits_by_time.at[bucket]++;
	p->commits++;
	p->commit_ns += o->t.duration;
	if (o->t.duration > d->slowest_by_time.at[bucket])
		d->slowest_by_time.at[bucket] = o->t.duration;
	if (!o->records && !(mentions_queue(&o->t) && !d->has_acts))
		return;
	p->told_at = e->time;
	p->told_is_guess = !o->records;
}

/* The first schema that there is: SQLite made the database, by an open that does not tell. */
static int note_made(struct digest *d, const struct oplog_entry *e)
{
	struct digest_row *row;

	if (e->op != OP_TXN_COMMIT || e->result != 1 || !e->name)
		return 0;
	row = digest_row(d, DIGEST_FILES, e->name);
	if (!row)
		return -ENOMEM;
	if (!row->size_known) {
		row->size_known = true;
		row->size_before = 0;
		row->size = row->grown = row->most = e->length;
		row->grown_by_time.at[digest_bucket(d, e->time)] += e->length;
		d->grown_by_time.at[digest_bucket(d, e->time)] += e->length;
		d->grown += e->length;
	}
	return 0;
}

static int transaction_end(struct digest *d, struct digest_process *p, const struct oplog_entry *e)
{
	struct digest_open *o = open_find(p, false, e->arg, e->name);
	int r;

	if (!o) /* its begin is no longer in the log */
		o = open_add(p, e, false);
	o->t.duration = e->duration ? e->duration : e->time > o->t.begin ? e->time - o->t.begin : 0;
	o->t.begin = e->time > o->t.duration ? e->time - o->t.duration : 0;
	o->t.pages = e->offset > 0 ? (uint64_t)e->offset : 0;
	o->t.bytes = e->length;
	o->t.schema = e->result > 0;
	o->t.rolled_back = e->op != OP_TXN_COMMIT;
	r = latency_add(&d->transaction, o->t.duration);
	if (o->t.rolled_back)
		d->rolled_back++;
	else
		note_commit(d, p, o, e);
	keep_best(d->slow, &d->slow_count, &o->t, false);
	if (o->t.bytes)
		keep_best(d->large, &d->large_count, &o->t, true);
	open_remove(p, o);
	return r < 0 ? r : note_made(d, e);
}

static int persist_end(struct digest *d, struct digest_process *p, const struct oplog_entry *e)
{
	struct digest_open *o = open_find(p, true, e->arg, NULL);
	struct digest_row *row = NULL;
	uint64_t ns = e->duration ? e->duration : o ? e->time - o->t.begin : 0;
	int r = 0;

	if (e->op == OP_PERSIST_COMMIT) {
		row = digest_row(d, DIGEST_SEGMENTS, e->name ? e->name : DIGEST_OTHERS);
		if (!row)
			return -ENOMEM;
		d->persists++;
		row->calls++;
		row->call_ns += ns;
		row->max_ns = ns > row->max_ns ? ns : row->max_ns;
		row->written += o ? o->t.bytes : 0;
		row->syncs += o ? o->t.syncs : 0;
		row->sync_ns += e->offset > 0 ? (uint64_t)e->offset : o ? o->t.sync_ns : 0;
		row->last = e->time;
		r = latency_add(&d->persist, ns);
	}
	if (o)
		open_remove(p, o);
	return r;
}

int digest_work(struct digest *d, struct digest_process *p, const struct oplog_entry *e)
{
	switch (e->op) {
	case OP_TXN_BEGIN:
		open_add(p, e, false);
		return 0;
	case OP_TXN_COMMIT:
	case OP_TXN_ROLLBACK:
	case OP_TXN_RECOVER:
		return e->in_flight ? 0 : transaction_end(d, p, e);
	case OP_PERSIST_BEGIN: /* Chroma before 1.0 goes on with the one that it is at */
		if (!open_find(p, true, e->arg, NULL))
			open_add(p, e, true);
		return 0;
	case OP_PERSIST_COMMIT:
	case OP_PERSIST_ROLLBACK:
		return persist_end(d, p, e);
	case OP_SQL_STEP:
	case OP_SQL_EXEC:
		return note_statement(d, p, e);
	default:
		return note_file_call(d, p, e);
	}
}
