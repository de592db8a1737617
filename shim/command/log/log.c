/* SPDX-License-Identifier: MIT
 *
 * `chromashim log`: what was done to the data directory.
 */
#include "command/log/options.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command/base/command.h"
#include "command/base/terminal.h"
#include "command/log/crash.h"
#include "command/log/export.h"
#include "command/log/sql.h"
#include "core/oplog/oplog.h"

#define POLL_MS 200

/* ---- reading ---- */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

static int pass_records(struct oplog_reader *reader, struct log_sink *sink,
			const struct log_filter *filter)
{
	struct oplog_entry e;
	int r = 0;

	while (!interrupted && (r = oplog_reader_next(reader, &e)) > 0) {
		if (!sink->unfiltered && !log_filter_wants(filter, &e))
			continue;
		r = sink->entry(sink, &e);
		if (r < 0)
			return r;
	}
	return interrupted ? 0 : r;
}

/* True while there is someone to write for. */
static bool wait_for_more(void)
{
	struct pollfd out = {.fd = STDOUT_FILENO, .events = 0};

	if (fflush(stdout) != 0 || terminal_is_gone())
		return false;
	/* A pipe whose reader is gone says so at once. */
	return poll(&out, 1, POLL_MS) <= 0 || !(out.revents & (POLLERR | POLLNVAL));
}

static int follow(struct oplog_reader *reader, struct log_sink *sink,
		  const struct log_filter *filter)
{
	int r = 0;

	while (r == 0 && !interrupted && wait_for_more()) {
		r = oplog_reader_poll(reader);
		if (r == 0)
			r = pass_records(reader, sink, filter);
	}
	return r;
}

static struct log_sink *choose_sink(const struct arguments *a)
{
	if (a->stats)
		return log_stats_sink(&a->log);
	if (a->transactions)
		return log_transactions_sink(&a->log);
	if (a->processes)
		return log_processes_sink(&a->log);
	if (!log_shows_calls(a))
		return log_acts_sink(&a->log);
	return a->log.json ? log_json_sink(&a->log) : log_text_sink(&a->log);
}

static enum oplog_which choose_log(const struct arguments *a)
{
	if (a->transactions)
		return OPLOG_BOTH;
	if (a->processes)
		return OPLOG_ACTS;
	return log_shows_calls(a) ? OPLOG_CALLS : OPLOG_ACTS;
}

/* A collection that nobody knows is a mistake of who asks. */
static int check_collection(const struct log_filter *f)
{
	if (!f->collection || collection_names_has(f->names, f->collection))
		return 0;
	return fail(EXIT_NOT_FOUND, 0,
		    "Names are those of the database and of the log; `chromashim log --op "
		    "collection` shows which were made and deleted.",
		    "there is no collection '%s', and none that the log remembers", f->collection);
}

static int fail_reading(const struct data_directory *t, int r)
{
	return fail(exit_code_of(r), r, "Choose fewer records with --since, or free some memory.",
		    "cannot go on with the op log in '%s'", t->store);
}

/* From the reader into the sink. The exit status. */
static int pass_all(const struct arguments *a, const struct data_directory *t,
		    struct oplog_reader *reader)
{
	struct log_sink *sink = choose_sink(a);
	int status = EXIT_DONE, r = sink ? 0 : -ENOMEM;

	if (a->log.follow) {
		oplog_reader_follow(reader);
		signal(SIGINT, on_interrupt);
		signal(SIGTERM, on_interrupt);
	}
	oplog_reader_ahead(reader);
	if (log_shows_calls(a) && !a->transactions && !a->processes)
		oplog_reader_since(reader, a->log.filter.since);
	if (r == 0)
		r = pass_records(reader, sink, &a->log.filter);
	if (r == 0 && a->log.follow)
		r = follow(reader, sink, &a->log.filter);
	if (r == 0)
		status = sink->end(sink);
	if (r < 0 && r != -EPIPE)
		status = fail_reading(t, r);
	if (status == EXIT_DONE && r == 0)
		status = log_report_problems(reader, a->log.quiet);
	if (sink)
		sink->free(sink);
	return status;
}

static int log_show(struct arguments *a, const struct data_directory *t)
{
	struct oplog_reader *reader = NULL;
	int r = oplog_reader_open_which(t->storefd, choose_log(a), &reader), status;

	if (r == -ENOENT)
		return fail(EXIT_NO_STORE, 0, "Start Chroma under the shim first.",
			    "there is no op log in '%s'", t->store);
	if (r < 0)
		return fail(exit_code_of(r), r, "Check that the directory belongs to you.",
			    "cannot read the op log in '%s/%s'", t->store, OPLOG_DIR);
	a->log.reader = reader;
	status = check_collection(&a->log.filter);
	if (status == 0)
		status = pass_all(a, t, reader);
	oplog_reader_close(reader);
	return status;
}

static int compress(const struct arguments *a, const struct data_directory *t)
{
	struct oplog_packed packed;
	char before[32], after[32];
	int r = oplog_compress(t->storefd, &packed);

	if (r < 0)
		return fail(exit_code_of(r), r,
			    "The segment is still there as it was; see to the reason and repeat.",
			    "cannot compress '%s/%s'", t->store, packed.name);
	if (a->log.json) {
		struct json j = {.out = stdout};

		json_begin(&j, '{');
		json_key(&j, "schema_version");
		json_uint(&j, SCHEMA_VERSION);
		json_key(&j, "segments");
		json_uint(&j, packed.files);
		json_key(&j, "bytes_before");
		json_uint(&j, packed.bytes_before);
		json_key(&j, "bytes_after");
		json_uint(&j, packed.bytes_after);
		json_end(&j, '}');
		json_newline(&j);
	} else if (!a->log.quiet) {
		printf("%" PRIu64 " segments compressed, %s to %s\n", packed.files,
		       format_bytes(before, sizeof(before), packed.bytes_before),
		       format_bytes(after, sizeof(after), packed.bytes_after));
	}
	return EXIT_DONE;
}

/* What the views have of the directory. False: no memory. */
static bool lend_directory(struct log_options *o, const struct data_directory *t)
{
	o->dir = t->dir;
	o->dirfd = t->dirfd;
	o->storefd = t->storefd;
	o->filter.store_id = t->store_id;
	o->filter.names = collection_names_open(t->storefd, t->dir, t->dirfd);
	return o->filter.names != NULL;
}

static int show(struct arguments *a, const struct data_directory *t)
{
	if (a->last_crash)
		return log_last_crash(&a->log, t);
	if (a->export)
		return log_export(&a->log, t, a->export);
	return a->sql ? log_sql(&a->log, t, a->sql) : log_show(a, t);
}

int command_log(int argc, char **argv)
{
	struct arguments a;
	struct data_directory t;
	int status = log_parse_arguments(&a, argc, argv);

	if (status)
		return status;
	heap_keep();
	status = data_directory_open(&t, a.dir, true);
	if (status == 0) {
		if (a.compress)
			status = compress(&a, &t);
		else if (!lend_directory(&a.log, &t))
			status = fail_reading(&t, -ENOMEM);
		else
			status = show(&a, &t);
	}
	collection_names_close(a.log.filter.names);
	data_directory_close(&t);
	return status;
}
