/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --last-crash`. The logs are read twice: first for which processes there were and
 * how they ended, then for what the one that is meant was at. Answers come first, in this order:
 * what ended it; the last record that was acknowledged; what was in flight and what became of it;
 * who else had the directory open; what each snapshot would lose. Then its last calls that matter.
 */
#include "command/log/crash.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/rollbacks.h"
#include "command/base/terminal.h"
#include "command/log/crash_parts.h"
#include "core/base/clock.h"
#include "core/oplog/oplog.h"
#include "core/segment/pickle.h"

#define LAST_SECONDS 10
#define SHOWN 20 /* records */

/* ---- which process ---- */

static int each_record(struct crash *c, int (*each)(struct crash *, const struct oplog_entry *))
{
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r = oplog_reader_open_which(c->data->storefd, OPLOG_BOTH, &reader);

	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0)
		r = each(c, &e);
	oplog_reader_close(reader);
	return r;
}

static int note_process(struct crash *c, const struct oplog_entry *e)
{
	return log_who_note(&c->who, e) ? 0 : -ENOMEM;
}

#define NOBODY SIZE_MAX

/* The dead process that wrote last; if none wrote, the one that ended last. */
static size_t choose(const struct crash *c, bool crashed)
{
	uint64_t now = clock_read(CLOCK_REALTIME);
	size_t best = NOBODY, i;

	for (i = 0; i < c->who.count; i++) {
		const struct who_process *p = &c->who.list[i];
		const struct who_process *b = best == NOBODY ? NULL : &c->who.list[best];

		if (oplog_header_life(c->data->storefd, &p->header) == OPLOG_LIVE ||
		    (crashed && p->exited))
			continue;
		if (!b || p->writer > b->writer ||
		    (p->writer == b->writer && clock_is_later(p->last, b->last, now)))
			best = i;
	}
	return best;
}

/* ---- what it was doing ---- */

static void note_begin(struct crash_open *list, unsigned *count, const struct oplog_entry *e)
{
	struct crash_open *o = &list[*count];

	if (*count == CRASH_OPEN_MAX)
		return;
	o->number = e->arg;
	o->since = e->time;
	strlcpy(o->name, e->name ? e->name : "?", sizeof(o->name));
	++*count;
}

static void note_end(struct crash_open *list, unsigned *count, uint64_t number)
{
	unsigned i;

	for (i = 0; i < *count; i++)
		if (list[i].number == number) {
			list[i] = list[--*count];
			return;
		}
}

/* Of the last calls: what changed something, failed, or never ended. */
static bool is_telling(const struct oplog_entry *e)
{
	switch (e->op) {
	case OP_CLOSE:
	case OP_DUP:
	case OP_INHERIT:
	case OP_LOCK:
	case OP_FLOCK:
	case OP_MUNMAP:
	case OP_SQL_COPY:
	case OP_THREAD:
		return e->in_flight || log_has_failed(e);
	default:
		return true;
	}
}

static bool is_in_last_seconds(struct crash *c, const struct oplog_entry *e)
{
	const struct who_process *p = crash_dead(c);

	return oplog_same_process(&p->header, e->header) &&
	       e->time + LAST_SECONDS * SECOND >= p->last && is_telling(e);
}

static int note_record(struct crash *c, const struct oplog_entry *e)
{
	crash_note_loss(c, e);
	if (!oplog_same_process(&crash_dead(c)->header, e->header))
		return 0;
	c->in_flight += e->in_flight;
	c->telling += e->log == OPLOG_LOG_CALLS && is_in_last_seconds(c, e);
	switch (e->op) {
	case OP_TXN_BEGIN:
		note_begin(c->transactions, &c->transaction_count, e);
		break;
	case OP_TXN_COMMIT:
	case OP_TXN_ROLLBACK:
		note_end(c->transactions, &c->transaction_count, e->arg);
		break;
	case OP_PERSIST_BEGIN: /* Chroma before 1.0 goes on with the one that it is at */
		note_end(c->persists, &c->persist_count, e->arg);
		note_begin(c->persists, &c->persist_count, e);
		break;
	case OP_PERSIST_COMMIT:
	case OP_PERSIST_ROLLBACK:
		note_end(c->persists, &c->persist_count, e->arg);
		break;
	default:
		break;
	}
	return 0;
}

/*
 * Chroma 0.x makes an index's files long before it first persists. Without a pickle there has been
 * no persist, or one that nothing depends on: the records are in the queue.
 */
static void drop_creations(struct crash *c)
{
	char pickle[sizeof(c->persists[0].name) + 32];
	unsigned i, kept = 0;

	for (i = 0; i < c->persist_count; i++) {
		snprintf(pickle, sizeof(pickle), "%s/" PICKLE_FILE, c->persists[i].name);
		if (faccessat(c->data->dirfd, pickle, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			c->persists[kept++] = c->persists[i];
	}
	c->persist_count = kept;
}

/* What the chosen one was at when it ended. 0 or -errno. */
static int read_last_of(struct crash *c, size_t dead)
{
	int r;

	c->dead = dead;
	c->transaction_count = c->persist_count = c->in_flight = 0;
	c->telling = c->last_commit = c->acts_from = 0;
	c->outsiders[0] = c->refused[0] = '\0';
	memset(&c->last, 0, sizeof(c->last));
	memset(&c->end, 0, sizeof(c->end));
	c->snapshot_count = 0;
	crash_load_snapshots(c);
	r = each_record(c, note_record);
	drop_creations(c);
	if (r == 0)
		crash_ask_others(c);
	return r;
}

/* ---- telling ---- */

static void ignore_line(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static void print_persist(struct crash *c, const struct crash_open *p, bool waits)
{
	const char *name = collection_names_find(c->options->filter.names, p->name);
	char shown[128];

	printf("persist %" PRIu64 " of segment %s had not finished; %s", p->number, p->name,
	       waits ? "the next start under the shim undoes it"
		     : "it was undone since: its records are in Chroma's queue");
	if (name) {
		terminal_fit(shown, sizeof(shown), name, 0);
		printf(" (collection %s)", shown);
	}
	putchar('\n');
}

static void print_open(struct crash *c)
{
	static const char first[] = "In flight: ", next[] = "           ";
	struct rollbacks waiting = {0};
	const char *lead = first;
	char took[32];
	unsigned i;

	for (i = 0; i < c->transaction_count; i++, lead = next)
		printf("%stransaction %" PRIu64 " on %s was open for %s; SQLite undoes it\n", lead,
		       c->transactions[i].number, c->transactions[i].name,
		       format_duration(took, sizeof(took),
				       crash_dead(c)->last - c->transactions[i].since));
	if (c->persist_count)
		rollbacks_run(c->data, true, ignore_line, NULL, &waiting);
	for (i = 0; i < c->persist_count; i++, lead = next) {
		fputs(lead, stdout);
		print_persist(c, &c->persists[i], waiting.undone);
	}
	if (c->in_flight)
		printf("%s%u call%s under way\n", lead, c->in_flight,
		       c->in_flight == 1 ? " was" : "s were");
	else if (lead == first && crash_dead(c)->exited)
		printf("%snothing\n", lead);
	else if (lead == first)
		printf("%snothing was cut off: it was at no write, transaction or persist\n", lead);
}

static void print_json(struct crash *c)
{
	const struct who_process *p = crash_dead(c);
	struct json j = {.out = stdout};
	char when[40];
	unsigned i;

	json_begin(&j, '{');
	json_put_uint(&j, "schema_version", SCHEMA_VERSION);
	json_put_uint(&j, "pid", p->header.pid);
	json_key(&j, "program");
	json_string(&j, p->header.program);
	json_key(&j, "process");
	json_string(&j, p->label);
	json_key(&j, "command");
	json_string(&j, p->command);
	json_key(&j, "since");
	json_string(&j, format_time_utc(when, sizeof(when), p->first));
	json_key(&j, "last");
	json_string(&j, format_time_utc(when, sizeof(when), p->last));
	json_key(&j, "ended");
	json_string(&j, crash_how(c));
	if (p->exited && !p->stopped_by && p->exit_status >= 0)
		json_put_uint(&j, "exit_status", (uint64_t)p->exit_status);
	json_put_text(&j, "ended_by", c->end.by);
	json_put_text(&j, "kernel", c->end.words);
	json_put_uint(&j, "in_flight", c->in_flight);
	json_put_uint(&j, "open_transactions", c->transaction_count);
	json_key(&j, "open_persists");
	json_begin(&j, '[');
	for (i = 0; i < c->persist_count; i++)
		json_string(&j, c->persists[i].name);
	json_end(&j, ']');
	crash_put_loss(c, &j);
	json_end(&j, '}');
	json_newline(&j);
}

static int print_tail(struct crash *c)
{
	uint64_t skip = c->telling > SHOWN ? c->telling - SHOWN : 0;
	struct log_sink *sink = log_text_sink(c->options);
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r = sink ? oplog_reader_open(c->data->storefd, &reader) : -ENOMEM;

	printf("\nits last %u seconds%s, without locks and closes:\n", LAST_SECONDS,
	       skip ? ", the end of them" : "");
	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0) {
		bool wanted = is_in_last_seconds(c, &e);

		r = 0;
		if (wanted && skip)
			skip--;
		else if (wanted)
			r = sink->entry(sink, &e);
	}
	oplog_reader_close(reader);
	if (sink)
		sink->free(sink);
	return r == -ENOENT ? 0 : r;
}

static void print_answers(struct crash *c)
{
	crash_print_end(c);
	crash_print_last(c);
	print_open(c);
	crash_print_others(c);
	crash_print_snapshots(c);
}

/* Also a clean end may cut something off: threads do not survive exit(). */
static int tell_clean_end(struct crash *c, size_t newest)
{
	int r = read_last_of(c, newest);

	if (r == 0)
		print_answers(c);
	return r;
}

static int tell_crash(struct crash *c, size_t dead)
{
	int r = read_last_of(c, dead);

	if (r < 0)
		return r;
	print_answers(c);
	return print_tail(c);
}

static int crash_tell(struct crash *c)
{
	size_t newest = choose(c, false), dead = choose(c, true);
	bool clean;
	int r;

	if (newest == NOBODY) {
		printf("no backend has ended yet, as far as the log goes back\n");
		return 0;
	}
	if (c->options->json) {
		r = read_last_of(c, dead == NOBODY ? newest : dead);
		if (r == 0)
			print_json(c);
		return r;
	}
	clean = c->who.list[newest].exited;
	r = clean ? tell_clean_end(c, newest) : 0;
	if (r < 0 || dead == NOBODY)
		return r;
	if (clean)
		printf("\nthe last that did not end by itself:\n");
	return tell_crash(c, dead);
}

int log_last_crash(const struct log_options *options, const struct data_directory *t)
{
	struct crash *c = calloc(1, sizeof(*c));
	int r = c ? 0 : -ENOMEM;

	if (c) {
		c->options = options;
		c->data = t;
		r = each_record(c, note_process);
		if (r == 0)
			r = crash_tell(c);
		log_who_free(&c->who);
		free(c);
	}
	if (r == -ENOENT)
		return fail(EXIT_NO_STORE, 0, "Start Chroma under the shim first.",
			    "there is no op log in '%s'", t->store);
	if (r < 0 && r != -EPIPE)
		return fail(exit_code_of(r), r, "Check that the directory belongs to you.",
			    "cannot read the op log in '%s/%s'", t->store, OPLOG_DIR);
	return EXIT_DONE;
}
