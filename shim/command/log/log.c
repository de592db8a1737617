/* SPDX-License-Identifier: MIT
 *
 * `chromashim log`: what was done to the data directory.
 */
#include "command/log/log.h"

#include <errno.h>
#include <getopt.h>
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
#include "core/oplog/oplog.h"

#define POLL_MS 200
#define PROBLEMS_SHOWN 10

const char log_usage[] =
    "Usage: chromashim log [OPTION]... [DIR]\n"
    "\n"
    "Shows what was done to a Chroma directory: every call that changed its files, its\n"
    "transactions, and what was under way when a process died. DIR is CHROMASHIM_DIR or\n"
    "./chroma_data if not given.\n"
    "\n"
    "Which records:\n"
    "      --since TIME, --until TIME  an age (10m, 1h30m, 2d) or RFC 3339\n"
    "      --op LIST         comma list of operations, globs allowed: pwrite,sqlite.*\n"
    "      --path GLOB       files; without a slash it fits the last part of the path\n"
    "      --pid N, --tid N  of one process, of one thread\n"
    "      --failed          calls that failed\n"
    "      --in-flight       calls without an end: what was under way\n"
    "      --protected       protected operations (protect.*)\n"
    "How:\n"
    "      --json            JSON, one object a line\n"
    "  -f, --follow          goes on as more is recorded\n"
    "      --stats           counts, bytes and latencies by operation and file\n"
    "      --transactions    one line for each transaction\n"
    "      --last-crash      how the last backend ended, what was open, its last seconds\n"
    "      --sql QUERY       asks the table log(time, time_ns, pid, tid, op, path, path2, sql,\n"
    "                        offset, length, result, errno, duration_ns, in_flight, text,\n"
    "                        detail)\n"
    "      --utc             times in UTC\n"
    "  -v, --verbose         with the place in the log\n"
    "  -q, --quiet           no word about damaged or lost records (the exit status tells)\n"
    "Instead:\n"
    "      --compress        compresses the segments that are finished, and shows nothing\n"
    "\n"
    "Exit status: 0 done, 3 done but records are damaged or lost, 10 no store, 12 no such\n"
    "directory or no Chroma directory.\n";

enum {
	OPT_SINCE = 256,
	OPT_UNTIL,
	OPT_OP,
	OPT_PATH,
	OPT_PID,
	OPT_TID,
	OPT_FAILED,
	OPT_IN_FLIGHT,
	OPT_PROTECTED,
	OPT_JSON,
	OPT_STATS,
	OPT_TRANSACTIONS,
	OPT_SQL,
	OPT_UTC,
	OPT_COMPRESS,
	OPT_LAST_CRASH,
};

static const struct option long_options[] = {
    {"since", required_argument, NULL, OPT_SINCE},
    {"until", required_argument, NULL, OPT_UNTIL},
    {"op", required_argument, NULL, OPT_OP},
    {"path", required_argument, NULL, OPT_PATH},
    {"pid", required_argument, NULL, OPT_PID},
    {"tid", required_argument, NULL, OPT_TID},
    {"failed", no_argument, NULL, OPT_FAILED},
    {"in-flight", no_argument, NULL, OPT_IN_FLIGHT},
    {"protected", no_argument, NULL, OPT_PROTECTED},
    {"json", no_argument, NULL, OPT_JSON},
    {"follow", no_argument, NULL, 'f'},
    {"stats", no_argument, NULL, OPT_STATS},
    {"transactions", no_argument, NULL, OPT_TRANSACTIONS},
    {"sql", required_argument, NULL, OPT_SQL},
    {"utc", no_argument, NULL, OPT_UTC},
    {"compress", no_argument, NULL, OPT_COMPRESS},
    {"last-crash", no_argument, NULL, OPT_LAST_CRASH},
    {"verbose", no_argument, NULL, 'v'},
    {"quiet", no_argument, NULL, 'q'},
    {NULL, 0, NULL, 0},
};

struct arguments {
	struct log_options log;
	bool stats, transactions, compress, last_crash;
	const char *sql;
	const char *dir;
};

/* ---- arguments ---- */

static int bad_value(const char *option, const char *value, const char *wanted)
{
	return fail(EXIT_USAGE, 0, "See `chromashim help log`.", "%s: '%s' is not %s", option,
		    value, wanted);
}

static int take_value(struct arguments *a, int option, const char *value)
{
	static const char time_wanted[] = "a time (10m, 2h30m, 2026-01-31T10:00:00Z)";
	struct log_filter *f = &a->log.filter;
	char unknown[64];

	switch (option) {
	case OPT_SINCE:
		return parse_time(value, &f->since) ? 0 : bad_value("--since", value, time_wanted);
	case OPT_UNTIL:
		return parse_time(value, &f->until) ? 0 : bad_value("--until", value, time_wanted);
	case OPT_PID:
		return parse_number(value, &f->pid) ? 0 : bad_value("--pid", value, "a process id");
	case OPT_TID:
		return parse_number(value, &f->tid) ? 0 : bad_value("--tid", value, "a thread id");
	case OPT_OP:
		f->ops = value;
		return log_ops_known(value, unknown)
			   ? 0
			   : bad_value("--op", unknown,
				       "an operation of the log, such as pwrite or txn.*");
	case OPT_PATH:
		f->path = value;
		return 0;
	default:
		a->sql = value;
		return 0;
	}
}

static int take_flag(struct arguments *a, int option)
{
	switch (option) {
	case OPT_FAILED:
		a->log.filter.failed = true;
		return 0;
	case OPT_IN_FLIGHT:
		a->log.filter.in_flight = true;
		return 0;
	case OPT_PROTECTED:
		a->log.filter.protected_only = true;
		return 0;
	case OPT_JSON:
		a->log.json = true;
		return 0;
	case OPT_STATS:
		a->stats = true;
		return 0;
	case OPT_TRANSACTIONS:
		a->transactions = true;
		return 0;
	case OPT_UTC:
		a->log.utc = true;
		return 0;
	case OPT_COMPRESS:
		a->compress = true;
		return 0;
	case OPT_LAST_CRASH:
		a->last_crash = true;
		return 0;
	case 'f':
		a->log.follow = true;
		return 0;
	case 'v':
		a->log.filter.verbose = true;
		return 0;
	case 'q':
		a->log.quiet = true;
		return 0;
	default:
		return fail_usage("log");
	}
}

static int parse_arguments(struct arguments *a, int argc, char **argv)
{
	int option, r = 0;

	memset(a, 0, sizeof(*a));
	while (r == 0 && (option = getopt_long(argc, argv, "fvq", long_options, NULL)) != -1) {
		if ((option >= OPT_SINCE && option <= OPT_TID) || option == OPT_SQL)
			r = take_value(a, option, optarg);
		else
			r = take_flag(a, option);
	}
	if (r)
		return r;
	if (argc - optind > 1)
		return fail(EXIT_USAGE, 0, "See `chromashim help log`.",
			    "log takes one directory, and there are %d", argc - optind);
	a->dir = argv[optind];
	if ((a->stats != 0) + (a->transactions != 0) + (a->sql != NULL) + (a->compress != 0) +
		(a->last_crash != 0) >
	    1)
		return fail(
		    EXIT_USAGE, 0, "Leave out all but one.",
		    "--stats, --transactions, --last-crash, --sql and --compress exclude each "
		    "other");
	if (a->log.follow && (a->stats || a->sql || a->compress || a->last_crash))
		return fail(EXIT_USAGE, 0, "Leave out --follow.",
			    "--follow goes with records and --transactions only");
	return 0;
}

/* ---- the end of it ---- */

static int report_segment(const struct oplog_segment_info *info, bool quiet, unsigned *shown)
{
	bool bad = info->error && info->error != -ENOENT; /* rotated away meanwhile: no damage */

	if (!bad && !info->damaged && !info->missing)
		return 0;
	if (quiet || (*shown)++ >= PROBLEMS_SHOWN)
		return 1;
	if (bad)
		warn("op log segment '%s' %s: %s%s", info->name,
		     info->records ? "could be read in part only" : "was left out",
		     oplog_error_text(info->error),
		     info->error == -EPROTONOSUPPORT ? "; a newer chromashim reads it" : "");
	if (info->damaged)
		warn("op log segment '%s': %" PRIu64 " damaged slot%s skipped", info->name,
		     info->damaged, info->damaged == 1 ? "" : "s");
	if (info->missing && info->error != -EUCLEAN)
		warn("op log segment '%s' is cut off: %" PRIu64 " of %" PRIu32 " slots are missing",
		     info->name, info->missing, info->header.capacity);
	return 1;
}

static int report_problems(struct oplog_reader *reader, bool quiet)
{
	uint64_t lost = oplog_reader_lost(reader);
	unsigned shown = 0;
	int status = EXIT_DONE;
	size_t i;

	for (i = 0; i < oplog_reader_segments(reader); i++)
		if (report_segment(oplog_reader_segment(reader, i), quiet, &shown))
			status = EXIT_WARNINGS;
	if (shown > PROBLEMS_SHOWN)
		warn("%u more segments have problems", shown - PROBLEMS_SHOWN);
	if (lost) {
		status = EXIT_WARNINGS;
		if (!quiet)
			warn("%" PRIu64 " record%s lost: there was no room or no store to write to",
			     lost, lost == 1 ? " was" : "s were");
	}
	return status;
}

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
	if (a->sql)
		return log_sql_sink(&a->log, a->sql);
	return a->log.json ? log_json_sink(&a->log) : log_text_sink(&a->log);
}

static int log_show(const struct arguments *a, const struct target *t)
{
	struct oplog_reader *reader = NULL;
	struct log_sink *sink = NULL;
	int status = EXIT_DONE, r;

	r = oplog_reader_open(t->storefd, &reader);
	if (r == -ENOENT)
		return fail(EXIT_NO_STORE, 0, "Start Chroma under the shim first.",
			    "there is no op log in '%s'", t->store);
	if (r < 0)
		return fail(exit_code_of(r), r, "Check that the directory belongs to you.",
			    "cannot read the op log in '%s/%s'", t->store, OPLOG_DIR);
	sink = choose_sink(a);
	r = sink ? 0 : -ENOMEM;
	if (a->log.follow) {
		oplog_reader_follow(reader);
		signal(SIGINT, on_interrupt);
		signal(SIGTERM, on_interrupt);
	}
	if (r == 0)
		r = pass_records(reader, sink, &a->log.filter);
	if (r == 0 && a->log.follow)
		r = follow(reader, sink, &a->log.filter);
	if (r == 0)
		status = sink->end(sink);
	if (r == -ENOSPC)
		status = EXIT_NO_SPACE; /* the sink has said which */
	else if (r < 0 && r != -EPIPE)
		status = fail(exit_code_of(r), r,
			      "Choose fewer records with --since, or free some memory.",
			      "cannot go on with the op log in '%s'", t->store);
	if (status == EXIT_DONE && r == 0)
		status = report_problems(reader, a->log.quiet);
	if (sink)
		sink->free(sink);
	oplog_reader_close(reader);
	return status;
}

static int compress(const struct arguments *a, const struct target *t)
{
	struct oplog_packed packed;
	char before[32], after[32];
	int r = oplog_compress(t->storefd, &packed);

	if (r < 0)
		return fail(exit_code_of(r), r,
			    "The segment is still there as it was; see to the reason and repeat.",
			    "cannot compress '%s/%s/%s'", t->store, OPLOG_DIR, packed.name);
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

int command_log(int argc, char **argv)
{
	struct arguments a;
	struct target t;
	int status = parse_arguments(&a, argc, argv);

	if (status)
		return status;
	status = target_open(&t, a.dir, true);
	if (status == 0) {
		a.log.dir = t.dir;
		a.log.dirfd = t.dirfd;
		if (a.last_crash)
			status = log_last_crash(&a.log, &t);
		else
			status = a.compress ? compress(&a, &t) : log_show(&a, &t);
	}
	target_close(&t);
	return status;
}
