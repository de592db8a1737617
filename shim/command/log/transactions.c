/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --transactions`: one line for each transaction.
 *
 * A transaction is what lies between txn.begin and its end in one process and on one database. Its
 * statements are the sqlite.step and sqlite.exec records of the thread that began it; where SQLite
 * is seen from below only, the pages written tell the tables.
 */
#include "command/log/log.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <bsd/sys/queue.h>

#include "command/base/command.h"
#include "command/base/terminal.h"
#include "command/log/words.h"
#include "core/oplog/oplog.h"

#define STATEMENTS_MAX 64
#define TABLES_MAX 64
#define ACTS_MAX 16

struct transaction {
	TAILQ_ENTRY(transaction) link;
	uint32_t pid, tid;
	uint64_t start_ticks, number, begin;
	bool begin_is_gone; /* it is met by its acts or its end: older ones have no more */
	char *database;
	char *statements[STATEMENTS_MAX];
	unsigned statements_size, statements_more;
	char *acts[ACTS_MAX]; /* in words */
	unsigned acts_size;
	uint32_t *pages; /* written, a page may be there twice */
	size_t pages_size, pages_room;
};

TAILQ_HEAD(transaction_list, transaction);

struct database {
	TAILQ_ENTRY(database) link;
	char *name;
	struct log_tables *tables;
};

TAILQ_HEAD(database_list, database);

/* The newest statement of a thread: a record is in time order by when it began. */
struct statement {
	TAILQ_ENTRY(statement) link;
	uint32_t pid, tid;
	uint64_t start_ticks, end;
	char *sql;
};

TAILQ_HEAD(statement_list, statement);

struct transactions_sink {
	struct log_sink sink;
	struct statement_list statements;
	const struct log_options *options;
	struct transaction_list open;
	struct database_list databases;
	struct words words;
};

static void free_transaction(struct transaction *t)
{
	unsigned i;

	for (i = 0; i < t->statements_size; i++)
		free(t->statements[i]);
	for (i = 0; i < t->acts_size; i++)
		free(t->acts[i]);
	free(t->database);
	free(t->pages);
	free(t);
}

static bool is_of(const struct transaction *t, const struct oplog_entry *e)
{
	return t->pid == e->header->pid && t->start_ticks == e->header->start_ticks;
}

static struct transaction *transaction_find(struct transactions_sink *s,
					    const struct oplog_entry *e)
{
	struct transaction *t;

	TAILQ_FOREACH (t, &s->open, link)
		if (is_of(t, e) && t->number == e->arg &&
		    (t->begin_is_gone || !strcmp(t->database, e->name ? e->name : "")))
			return t;
	return NULL;
}

/* ---- what it did ---- */

/* One line, without runs of blanks. */
static char *squeeze(const char *sql)
{
	char *out = malloc(strlen(sql) + 1), *to = out;

	if (!out)
		return NULL;
	for (; *sql; sql++) {
		bool blank = *sql == ' ' || *sql == '\n' || *sql == '\t' || *sql == '\r';

		if (!blank)
			*to++ = *sql;
		else if (to > out && to[-1] != ' ')
			*to++ = ' ';
	}
	while (to > out && to[-1] == ' ')
		to--;
	*to = '\0';
	return out;
}

static int add_statement(struct transaction *t, const char *sql)
{
	char *text = squeeze(sql);
	unsigned i;

	if (!text)
		return -ENOMEM;
	for (i = 0; i < t->statements_size; i++) {
		if (!strcmp(t->statements[i], text)) {
			free(text);
			return 0;
		}
	}
	if (t->statements_size == STATEMENTS_MAX) {
		t->statements_more++;
		free(text);
		return 0;
	}
	t->statements[t->statements_size++] = text;
	return 0;
}

/* Those that change nothing by themselves are not what a transaction is known by. */
bool log_is_telling(const char *sql)
{
	static const char *const quiet[] = {"BEGIN",	 "COMMIT",  "END",    "ROLLBACK",
					    "SAVEPOINT", "RELEASE", "SELECT", "EXPLAIN"};
	size_t i;

	sql += strspn(sql, " \t\r\n(");
	for (i = 0; i < sizeof(quiet) / sizeof(quiet[0]); i++) {
		size_t n = strlen(quiet[i]);

		if (!strncasecmp(sql, quiet[i], n) && !isalnum((unsigned char)sql[n]))
			return false;
	}
	return true;
}

static struct statement *newest_statement(struct transactions_sink *s, const struct oplog_entry *e)
{
	struct statement *n;

	TAILQ_FOREACH (n, &s->statements, link)
		if (n->pid == e->header->pid && n->start_ticks == e->header->start_ticks &&
		    n->tid == e->tid)
			return n;
	n = calloc(1, sizeof(*n));
	if (!n)
		return NULL;
	n->pid = e->header->pid;
	n->start_ticks = e->header->start_ticks;
	n->tid = e->tid;
	TAILQ_INSERT_HEAD(&s->statements, n, link);
	return n;
}

static int note_statement(struct transactions_sink *s, const struct oplog_entry *e)
{
	const char *sql = e->kind == OPLOG_NAME_SQL ? e->name : e->text_size ? e->text : NULL;
	struct statement *newest;
	struct transaction *t;

	if (!sql || !log_is_telling(sql))
		return 0;
	TAILQ_FOREACH (t, &s->open, link)
		if (is_of(t, e) && t->tid == e->tid)
			return add_statement(t, sql);
	newest = newest_statement(s, e);
	if (!newest)
		return -ENOMEM;
	free(newest->sql);
	newest->sql = strdup(sql);
	newest->end = e->in_flight ? UINT64_MAX : e->time + e->duration;
	return newest->sql ? 0 : -ENOMEM;
}

static struct transaction *begin(struct transactions_sink *s, const struct oplog_entry *e)
{
	struct transaction *t = calloc(1, sizeof(*t));
	struct statement *newest;

	if (!t)
		return NULL;
	t->pid = e->header->pid;
	t->start_ticks = e->header->start_ticks;
	t->tid = e->tid;
	t->number = e->arg;
	t->begin = e->time;
	t->database = strdup(e->name ? e->name : "");
	if (!t->database) {
		free(t);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&s->open, t, link);
	/* A statement that commits by itself began before its transaction. */
	newest = newest_statement(s, e);
	if (newest && newest->sql && newest->end >= e->time)
		add_statement(t, newest->sql);
	return t;
}

/* What Chroma did in it. */
static int note_act(struct transactions_sink *s, const struct oplog_entry *e)
{
	char words[WORDS_ROOM];
	struct transaction *t;
	int r = words_note(&s->words, e);

	TAILQ_FOREACH (t, &s->open, link)
		if (is_of(t, e) && t->number == e->arg)
			break;
	if (r == 0 && !t) {
		t = begin(s, e);
		r = t ? 0 : -ENOMEM;
		if (t)
			t->begin_is_gone = true;
	}
	if (r < 0 || t->acts_size == ACTS_MAX || !words_is_news(e))
		return r;
	t->acts[t->acts_size] = strdup(words_of(&s->words, e, words));
	return t->acts[t->acts_size++] ? 0 : -ENOMEM;
}

static struct log_tables *tables_of(struct transactions_sink *s, const char *database)
{
	struct database *d;

	TAILQ_FOREACH (d, &s->databases, link)
		if (!strcmp(d->name, database))
			return d->tables;
	d = calloc(1, sizeof(*d));
	if (!d || !(d->name = strdup(database))) {
		free(d);
		return NULL;
	}
	d->tables = log_tables_open(s->options->dir, database);
	TAILQ_INSERT_TAIL(&s->databases, d, link);
	return d->tables;
}

static int note_write(struct transactions_sink *s, const struct oplog_entry *e)
{
	struct log_tables *tables;
	struct transaction *t;
	uint32_t *pages, size;

	TAILQ_FOREACH (t, &s->open, link)
		if (is_of(t, e) && e->name && !strcmp(t->database, e->name))
			break;
	if (!t || e->offset < 0 || t->statements_size || e->in_flight || e->result <= 0)
		return 0;
	tables = tables_of(s, t->database);
	if (!tables)
		return -ENOMEM;
	size = log_tables_page_size(tables);
	if (!size || (uint64_t)e->offset / size >= UINT32_MAX - 1)
		return 0;
	if (t->pages_size == t->pages_room) {
		size_t room = t->pages_room ? 2 * t->pages_room : 64;

		pages = realloc(t->pages, room * sizeof(*pages));
		if (!pages)
			return -ENOMEM;
		t->pages = pages;
		t->pages_room = room;
	}
	t->pages[t->pages_size++] = (uint32_t)((uint64_t)e->offset / size + 1);
	return 0;
}

/* Names of the tables, each once. They belong to the databases. */
static unsigned collect_tables(struct transactions_sink *s, const struct transaction *t,
			       const char *names[TABLES_MAX])
{
	struct log_tables *tables = t->pages_size ? tables_of(s, t->database) : NULL;
	unsigned n = 0, i;
	size_t k;

	for (k = 0; tables && k < t->pages_size && n < TABLES_MAX; k++) {
		const char *name = log_tables_find(tables, t->pages[k]);

		/* Page 1 changes with every transaction, and is of the schema only when alone. */
		if (!name || t->pages[k] == 1)
			continue;
		for (i = 0; i < n && names[i] != name; i++)
			;
		if (i == n)
			names[n++] = name;
	}
	return n;
}

/* ---- printing ---- */

struct outcome {
	const char *word; /* commit, rollback, recover, open, lost */
	bool has_numbers;
	uint64_t duration, pages, bytes, cookie;
};

static void print_json(const struct transaction *t, const struct outcome *o,
		       const char *const *tables, unsigned n)
{
	struct json j = {.out = stdout};
	char when[40];
	unsigned i;

	json_begin(&j, '{');
	json_key(&j, "schema_version");
	json_uint(&j, SCHEMA_VERSION);
	json_key(&j, "transaction");
	json_uint(&j, t->number);
	json_key(&j, "time");
	json_string(&j, format_time_utc(when, sizeof(when), t->begin));
	json_key(&j, "pid");
	json_uint(&j, t->pid);
	json_key(&j, "tid");
	json_uint(&j, t->tid);
	json_key(&j, "path");
	json_string(&j, t->database);
	json_key(&j, "outcome");
	json_string(&j, o->word);
	json_key(&j, "duration_ns");
	o->has_numbers ? json_uint(&j, o->duration) : json_null(&j);
	json_key(&j, "pages");
	o->has_numbers ? json_uint(&j, o->pages) : json_null(&j);
	json_key(&j, "bytes");
	o->has_numbers ? json_uint(&j, o->bytes) : json_null(&j);
	json_key(&j, "schema_change");
	json_bool(&j, o->cookie != 0);
	json_key(&j, "schema_cookie");
	o->cookie ? json_uint(&j, o->cookie) : json_null(&j);
	json_key(&j, "statements");
	json_begin(&j, '[');
	for (i = 0; i < t->statements_size; i++)
		json_string(&j, t->statements[i]);
	json_end(&j, ']');
	json_key(&j, "statements_more");
	json_uint(&j, t->statements_more);
	json_key(&j, "acts");
	json_begin(&j, '[');
	for (i = 0; i < t->acts_size; i++)
		json_string(&j, t->acts[i]);
	json_end(&j, ']');
	json_key(&j, "tables");
	json_begin(&j, '[');
	for (i = 0; i < n; i++)
		json_string(&j, tables[i]);
	json_end(&j, ']');
	json_end(&j, '}');
	json_newline(&j);
}

static void print_touched(const struct transaction *t, const char *const *tables, unsigned n,
			  size_t columns)
{
	char text[8192] = "", shown[8400];
	size_t size = 0;
	unsigned i;

	for (i = 0; i < t->acts_size && size < sizeof(text) - 1; i++) {
		int added = snprintf(text + size, sizeof(text) - size, "%s%.400s", i ? "; " : "",
				     t->acts[i]);

		size += added > 0 ? (size_t)added : 0;
	}
	if (!t->acts_size && t->statements_size) {
		unsigned more = t->statements_size - 1 + t->statements_more;

		size = (size_t)snprintf(text, sizeof(text), "%.8000s", t->statements[0]);
		if (more)
			snprintf(text + size, sizeof(text) - size, " (+%u more)", more);
	}
	for (i = 0; !t->acts_size && !t->statements_size && i < n && size < sizeof(text) - 1; i++) {
		int added = snprintf(text + size, sizeof(text) - size, "%s%.200s", i ? ", " : "",
				     tables[i]);

		size += added > 0 ? (size_t)added : 0;
	}
	if (!*text)
		return;
	terminal_fit(shown, sizeof(shown), text, columns);
	printf("  %s", shown);
}

static void print_text(const struct transactions_sink *s, const struct transaction *t,
		       const struct outcome *o, const char *const *tables, unsigned n)
{
	char when[40], duration[48] = "-", bytes[32] = "-", head[256];
	int width = terminal_width();
	bool bad = strcmp(o->word, "commit") != 0;
	size_t taken;

	if (o->has_numbers) {
		snprintf(duration, sizeof(duration), "%.1f ms", (double)o->duration / 1e6);
		format_bytes(bytes, sizeof(bytes), o->bytes);
	}
	snprintf(head, sizeof(head), "%s  %" PRIu32 "  #%-6" PRIu64 " %12s %5" PRIu64 " pages %10s",
		 format_time(when, sizeof(when), t->begin, s->options->utc), t->pid, t->number,
		 duration, o->pages, bytes);
	taken = terminal_columns(head) + strlen(o->word) + 4 + (o->cookie ? 8 : 0);
	printf("%s  %s%s%s%s", head, bad ? terminal_colour(COLOUR_YELLOW) : "", o->word,
	       bad ? terminal_colour(COLOUR_PLAIN) : "", o->cookie ? " schema" : "");
	print_touched(t, tables, n,
		      width == 0		   ? 0
		      : (size_t)width > taken + 16 ? (size_t)width - taken
						   : 16);
	putchar('\n');
}

static bool is_wanted(const struct transactions_sink *s, const struct transaction *t)
{
	const struct log_filter *f = &s->options->filter;

	return t->begin >= f->since && (!f->until || t->begin < f->until) &&
	       (!f->pid || f->pid == t->pid) && (!f->tid || f->tid == t->tid) &&
	       (!f->path || log_path_fits(f->path, t->database));
}

static void print(struct transactions_sink *s, const struct transaction *t, const struct outcome *o)
{
	const char *tables[TABLES_MAX];
	unsigned n;

	if (!is_wanted(s, t) || (s->options->filter.failed && !strcmp(o->word, "commit")) ||
	    (s->options->filter.slower_than && o->duration < s->options->filter.slower_than))
		return;
	n = collect_tables(s, t, tables);
	if (s->options->json)
		print_json(t, o, tables, n);
	else
		print_text(s, t, o, tables, n);
}

/* Only its end tells when it began, and of what it was. 0 or -ENOMEM. */
static int name_late(struct transaction *t, const struct oplog_entry *e)
{
	char *database = strdup(e->name ? e->name : "");

	if (!database)
		return -ENOMEM;
	free(t->database);
	t->database = database;
	t->begin = e->time - (e->duration < e->time ? e->duration : 0);
	return 0;
}

static int transaction_finish(struct transactions_sink *s, const struct oplog_entry *e)
{
	struct transaction *t = transaction_find(s, e);
	struct outcome o = {.word = e->op == OP_TXN_COMMIT     ? "commit"
				    : e->op == OP_TXN_ROLLBACK ? "rollback"
							       : "recover",
			    .has_numbers = !e->in_flight};

	if (!t) {
		t = begin(s, e);
		if (!t)
			return -ENOMEM;
		t->begin_is_gone = true;
	}
	if (t->begin_is_gone && name_late(t, e) < 0)
		return -ENOMEM;
	if (o.has_numbers) {
		o.duration = e->duration ? e->duration : e->time - t->begin;
		o.pages = e->offset > 0 ? (uint64_t)e->offset : 0;
		o.bytes = e->length;
		o.cookie = e->result > 0 ? (uint64_t)e->result : 0;
	}
	print(s, t, &o);
	TAILQ_REMOVE(&s->open, t, link);
	free_transaction(t);
	return terminal_is_gone() ? -EPIPE : 0;
}

static int transactions_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct transactions_sink *s = (struct transactions_sink *)sink;

	switch (e->op) {
	case OP_TXN_BEGIN:
		return begin(s, e) ? 0 : -ENOMEM;
	case OP_TXN_COMMIT:
	case OP_TXN_ROLLBACK:
	case OP_TXN_RECOVER:
		return transaction_finish(s, e);
	case OP_SQL_STEP:
	case OP_SQL_EXEC:
		return note_statement(s, e);
	case OP_WRITE:
	case OP_PWRITE:
	case OP_WRITEV:
	case OP_PWRITEV:
		return note_write(s, e);
	default:
		return e->op >= OP_RECORDS ? note_act(s, e) : 0;
	}
}

static int transactions_end(struct log_sink *sink)
{
	struct transactions_sink *s = (struct transactions_sink *)sink;
	struct outcome o = {.word = "open"};
	struct transaction *t;

	TAILQ_FOREACH (t, &s->open, link)
		print(s, t, &o);
	return 0;
}

static void transactions_free(struct log_sink *sink)
{
	struct transactions_sink *s = (struct transactions_sink *)sink;
	struct transaction *t;
	struct statement *n;
	struct database *d;

	words_free(&s->words);
	while ((n = TAILQ_FIRST(&s->statements))) {
		TAILQ_REMOVE(&s->statements, n, link);
		free(n->sql);
		free(n);
	}
	while ((t = TAILQ_FIRST(&s->open))) {
		TAILQ_REMOVE(&s->open, t, link);
		free_transaction(t);
	}
	while ((d = TAILQ_FIRST(&s->databases))) {
		TAILQ_REMOVE(&s->databases, d, link);
		log_tables_close(d->tables);
		free(d->name);
		free(d);
	}
	free(s);
}

struct log_sink *log_transactions_sink(const struct log_options *options)
{
	struct transactions_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->sink.entry = transactions_entry;
	s->sink.end = transactions_end;
	s->sink.free = transactions_free;
	s->sink.unfiltered = true;
	s->options = options;
	s->words.names = options->filter.names;
	TAILQ_INIT(&s->statements);
	TAILQ_INIT(&s->open);
	TAILQ_INIT(&s->databases);
	return &s->sink;
}
