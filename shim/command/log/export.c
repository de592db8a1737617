/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --export FORMAT=FILE`: the log for other tools: CSV; a trace in the JSON format
 * that Perfetto, Chromium and Tracy read, with a track for each thread; and lines as strace writes
 * them.
 */
#include "command/log/export.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "command/base/output.h"
#include "command/base/terminal.h"
#include "command/log/sql.h"
#include "command/log/who.h"
#include "command/log/words.h"
#include "core/base/clock.h"
#include "core/oplog/oplog.h"

struct export
{
	const struct log_options *options;
	FILE *out;
	struct log_who who;
	struct words words;
	bool first; /* of a list */
};

/* ---- CSV ---- */

static void csv_text(FILE *out, const char *text)
{
	fputc('"', out);
	for (; text && *text; text++) {
		if (*text == '"')
			fputc('"', out);
		fputc(*text, out);
	}
	fputc('"', out);
}

static void csv_head(struct export *x)
{
	fputs("time,time_ns,pid,tid,process,op,path,path2,sql,collection,offset,length,result,"
	      "errno,duration_ns,in_flight,words\r\n",
	      x->out);
}

static void csv_number(FILE *out, bool there, int64_t number)
{
	fputc(',', out);
	if (there)
		fprintf(out, "%" PRId64, number);
}

static void csv_entry(struct export *x, const struct oplog_entry *e, const struct who_process *p)
{
	const char *collection = collection_names_of(x->words.names, e);
	char when[40], words[WORDS_ROOM] = "";
	struct log_meaning m;

	log_explain(e, &m);
	if (oplog_is_act(e->op))
		words_of(&x->words, e, words);
	fprintf(x->out, "%s,%" PRIu64 ",%" PRIu32 ",%" PRIu32 ",",
		format_time_utc(when, sizeof(when), e->time), e->time, e->header->pid, e->tid);
	csv_text(x->out, p->label);
	fprintf(x->out, ",%s,", m.op);
	csv_text(x->out, m.path);
	fputc(',', x->out);
	csv_text(x->out, m.path2);
	fputc(',', x->out);
	csv_text(x->out, m.sql);
	fputc(',', x->out);
	csv_text(x->out, collection);
	csv_number(x->out, m.has_offset, m.offset);
	csv_number(x->out, m.has_length, (int64_t)m.length);
	csv_number(x->out, m.has_result, m.result);
	fprintf(x->out, ",%s", m.error ? m.error : "");
	csv_number(x->out, m.has_duration, (int64_t)e->duration);
	fprintf(x->out, ",%d,", e->in_flight);
	csv_text(x->out, words);
	fputs("\r\n", x->out);
}

/* ---- a trace ---- */

static void trace_head(struct export *x)
{
	fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n", x->out);
	x->first = true;
}

static void trace_begin(struct export *x, struct json *j)
{
	fputs(x->first ? "" : ",\n", x->out);
	x->first = false;
	*j = (struct json){.out = x->out};
	json_begin(j, '{');
}

/* What a process or thread is called: at its START and THREAD. */
static void trace_name(struct export *x, const struct oplog_entry *e, const char *of,
		       const char *name)
{
	struct json j;

	trace_begin(x, &j);
	json_put_text(&j, "ph", "M");
	json_put_text(&j, "name", of);
	json_put_uint(&j, "pid", e->header->pid);
	json_put_uint(&j, "tid", e->tid);
	json_key(&j, "args");
	json_begin(&j, '{');
	json_put_text(&j, "name", name);
	json_end(&j, '}');
	json_end(&j, '}');
}

/* In which row of the picture it belongs: acts above calls. */
static const char *trace_category(const struct oplog_entry *e)
{
	if (e->op >= OP_TXN_BEGIN && e->op <= OP_TXN_RECOVER)
		return "transaction";
	if (e->op >= OP_PERSIST_BEGIN && e->op <= OP_PERSIST_FREEZE)
		return "persist";
	if (oplog_is_act(e->op))
		return "act";
	if (e->op >= OP_SQL_COPY && e->op <= OP_SQL_LOAD)
		return "sqlite";
	return e->op >= OP_FSYNC && e->op <= OP_MSYNC ? "sync" : "call";
}

/* Ends of transactions and persists are recorded at their end. */
static uint64_t begin_of(const struct oplog_entry *e)
{
	bool at_end = e->op > OP_TXN_BEGIN && e->op <= OP_PERSIST_FREEZE;

	return at_end && e->duration < e->time ? e->time - e->duration : e->time;
}

static void trace_arguments(struct export *x, struct json *j, const struct oplog_entry *e,
			    const struct log_meaning *m)
{
	const char *collection = collection_names_of(x->words.names, e);
	char words[WORDS_ROOM];

	json_key(j, "args");
	json_begin(j, '{');
	if (m->path)
		json_put_text(j, "path", m->path);
	if (m->sql)
		json_put_text(j, "sql", m->sql);
	if (collection)
		json_put_text(j, "collection", collection);
	if (m->has_offset)
		json_put_uint(j, "offset", (uint64_t)m->offset);
	if (m->has_length)
		json_put_uint(j, "length", m->length);
	if (m->error)
		json_put_text(j, "error", m->error);
	if (oplog_is_act(e->op))
		json_put_text(j, "words", words_of(&x->words, e, words));
	json_end(j, '}');
}

static void trace_entry(struct export *x, const struct oplog_entry *e, const struct who_process *p)
{
	bool slice = e->duration && !e->in_flight;
	struct log_meaning m;
	struct json j;

	if (e->op == OP_START)
		trace_name(x, e, "process_name", p->label);
	if (e->op == OP_THREAD) {
		trace_name(x, e, "thread_name", e->text);
		return;
	}
	log_explain(e, &m);
	trace_begin(x, &j);
	json_put_text(&j, "ph", slice ? "X" : "i");
	if (!slice)
		json_put_text(&j, "s", "t");
	json_put_text(&j, "name", m.op);
	json_put_text(&j, "cat", trace_category(e));
	json_key(&j, "ts"); /* microseconds */
	fprintf(x->out, "%" PRIu64 ".%03u", begin_of(e) / 1000, (unsigned)(begin_of(e) % 1000));
	j.comma = true;
	if (slice) {
		json_key(&j, "dur");
		fprintf(x->out, "%" PRIu64 ".%03u", e->duration / 1000,
			(unsigned)(e->duration % 1000));
		j.comma = true;
	}
	json_put_uint(&j, "pid", e->header->pid);
	json_put_uint(&j, "tid", e->tid);
	trace_arguments(x, &j, e, &m);
	json_end(&j, '}');
}

static void trace_end(struct export *x)
{
	fputs("\n]}\n", x->out);
}

/* ---- strace ---- */

static void strace_string(FILE *out, const char *text)
{
	fputc('"', out);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			fprintf(out, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(out, "\\%o", c);
		else
			fputc(c, out);
	}
	fputc('"', out);
}

static void strace_number(FILE *out, bool *comma, bool there, uint64_t number)
{
	if (there)
		fprintf(out, "%s%" PRIu64, *comma ? ", " : "", number);
	*comma |= there;
}

/* Data is not recorded, so there is none; a call on a descriptor has the path in its place, as with
 * strace -y. */
static void strace_arguments(FILE *out, const struct oplog_entry *e, const struct log_meaning *m)
{
	bool comma = false;
	unsigned i;

	if (m->sql || m->path) {
		strace_string(out, m->sql ? m->sql : m->path);
		comma = true;
	}
	if (m->path2) {
		fputs(comma ? ", " : "", out);
		strace_string(out, m->path2);
		comma = true;
	}
	for (i = 0; i < m->details; i++) {
		if (strcmp(m->detail[i].key, "flags") != 0 && strcmp(m->detail[i].key, "mode") != 0)
			continue;
		fprintf(out, "%s%s", comma ? ", " : "", m->detail[i].text);
		comma = true;
	}
	strace_number(out, &comma, m->has_length, m->length);
	strace_number(out, &comma, m->has_offset, (uint64_t)e->offset);
}

static void strace_entry(struct export *x, const struct oplog_entry *e, const struct who_process *p)
{
	struct log_meaning m;

	(void)p;
	if (e->op >= OP_TXN_BEGIN || e->op < OP_OPEN)
		return; /* no calls */
	log_explain(e, &m);
	fprintf(x->out, "%-7" PRIu32 " %" PRIu64 ".%06u ", e->tid, e->time / SECOND,
		(unsigned)(e->time % SECOND / 1000));
	for (char *c = m.op; *c; c++) /* SQLite's and others have a dot, which no call has */
		fputc(*c == '.' ? '_' : *c, x->out);
	fputc('(', x->out);
	strace_arguments(x->out, e, &m);
	if (e->in_flight)
		fputs(" <unfinished ...>\n", x->out);
	else if (m.error)
		fprintf(x->out, ") = -1 %s (%s) <%.6f>\n", m.error, strerror((int)-e->result),
			(double)e->duration / 1e9);
	else
		fprintf(x->out, ") = %" PRId64 " <%.6f>\n", e->result, (double)e->duration / 1e9);
}

/* ---- all of them ---- */

static void nothing(struct export *x)
{
	(void)x;
}

static const struct form {
	const char *name;
	void (*head)(struct export *x);
	void (*entry)(struct export *x, const struct oplog_entry *e, const struct who_process *p);
	void (*end)(struct export *x);
} forms[] = {
    {"csv", csv_head, csv_entry, nothing},
    {"perfetto", trace_head, trace_entry, trace_end},
    {"strace", nothing, strace_entry, nothing},
};

#define FORMS (sizeof(forms) / sizeof(forms[0]))

static const struct form *form_of(const char *what)
{
	size_t i;

	for (i = 0; i < FORMS; i++) {
		size_t n = strlen(forms[i].name);

		if (strncmp(what, forms[i].name, n) == 0 && what[n] == '=' && what[n + 1])
			return &forms[i];
	}
	return NULL;
}

bool log_export_is_known(const char *what)
{
	return form_of(what) || (strncmp(what, "sqlite=", 7) == 0 && what[7]);
}

static int write_all(struct export *x, struct oplog_reader *reader, const struct form *form)
{
	struct oplog_entry e;
	int r;

	form->head(x);
	while ((r = oplog_reader_next(reader, &e)) > 0) {
		const struct who_process *p = log_who_note(&x->who, &e);

		if (!p || words_note(&x->words, &e) < 0)
			return -ENOMEM;
		errno = 0;
		if (log_filter_wants(&x->options->filter, &e))
			form->entry(x, &e, p);
		if (ferror(x->out))
			return errno ? -errno : -EIO;
	}
	form->end(x);
	return r;
}

static int write_file(const struct log_options *options, const struct data_directory *t,
		      const struct form *form, const char *path)
{
	struct export x = {.options = options, .words = {.names = options->filter.names}};
	struct oplog_reader *reader = NULL;
	struct output out;
	int status = EXIT_DONE, r = oplog_reader_open_which(t->storefd, OPLOG_BOTH, &reader);

	if (r < 0)
		return fail(r == -ENOENT ? EXIT_NO_STORE : exit_code_of(r), r,
			    "Start Chroma under the shim first.", "cannot read the op log in '%s'",
			    t->store);
	oplog_reader_ahead(reader);
	r = output_open(&out, path, false);
	if (r == 0) {
		x.out = out.stream;
		r = write_all(&x, reader, form);
		if (r < 0)
			output_abort(&out);
		else
			r = output_close(&out);
	}
	status = r < 0 ? output_fail(r, path) : log_report_problems(reader, options->quiet);
	log_who_free(&x.who);
	words_free(&x.words);
	oplog_reader_close(reader);
	return status;
}

int log_export(const struct log_options *options, const struct data_directory *t, const char *what)
{
	const struct form *form = form_of(what);
	const char *path = strchr(what, '=') + 1;
	struct stat st;

	/* What is no file, as /dev/stdout, is written through; a database has to be a file. */
	if (stat(path, &st) == 0 && (!form || S_ISREG(st.st_mode)))
		return fail(EXIT_USAGE, 0, "Name another file, or remove this one.",
			    "'%s' is there already", path);
	return form ? write_file(options, t, form, path) : log_sql_export(options, t, path);
}
