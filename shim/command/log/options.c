/* SPDX-License-Identifier: MIT
 *
 * The command line of `chromashim log`.
 */
#include "command/log/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/command.h"
#include "command/base/terminal.h"
#include "command/log/export.h"

const char log_usage[] =
    "Usage: chromashim log [OPTION]... [DIR]\n"
    "\n"
    "Shows what was done to a Chroma directory: by default one line for each act (a write to a\n"
    "collection, a persist, a snapshot, a refusal, the start and end of a process, an upgrade),\n"
    "with who did it and how long it took. DIR is CHROMASHIM_DIR or ./chroma_data if not given.\n"
    "\n"
    "What:\n"
    "      --calls           each call that changed its files; so do --op, --path and --in-flight\n"
    "                        for what is of calls\n"
    "      --acts            acts, also with these, --stats and -c\n"
    "      --stats           counts, bytes and latencies by operation and file\n"
    "  -c                    counts as strace -c prints them\n"
    "      --transactions    one line for each transaction\n"
    "      --processes       one line for each process that had the directory\n"
    "      --last-crash      how the last backend ended, its last acknowledged write, what was in\n"
    "                        flight, who else was there, what snapshots would lose; last calls\n"
    "      --sql QUERY       asks the tables ops (all that is recorded), acts, records,\n"
    "                        transactions, persists, snapshots, findings and processes; see below\n"
    "      --export FORM=FILE  sqlite, csv, perfetto (a trace for Perfetto or Tracy), strace\n"
    "Which:\n"
    "      --since TIME, --until TIME  14:02, 14:02:30, 'today 9:00', yesterday, 'yesterday\n"
    "                        14:00', a time as the log prints it, RFC 3339, or an age (10m, 2d)\n"
    "      --collection NAME  of a collection, by its name (also a former one) or its id\n"
    "      --id ID           writes of a record; also where the log has hashes of ids\n"
    "      --slower-than SPAN  what took that long (100ms, 2s)\n"
    "      --top N           the N that took longest, the longest first\n"
    "      --op LIST         comma list of operations, globs allowed: records,persist.*,death\n"
    "  -P, --path GLOB       files; without a slash it fits the last part of the path\n"
    "      --pid N, --tid N  of one process, of one thread\n"
    "      --failed          what failed, was refused or was undone\n"
    "      --in-flight       calls without an end: what was under way\n"
    "      --protected       protected operations (protect.*)\n"
    "How:\n"
    "      --json            JSON, one object a line\n"
    "      --csv, --table    of --sql; else a table on a terminal, and rows with tabs in a pipe\n"
    "  -f, --follow          goes on as more is recorded\n"
    "  -T                    the time spent at the end of the line, in seconds\n"
    "  -r                    instead of the time what has passed since the line before\n"
    "      --utc             times in UTC\n"
    "  -v, --verbose         also acts without news (each transaction); calls with their place\n"
    "  -q, --quiet           no word about damaged or lost records (the exit status tells)\n"
    "Instead:\n"
    "      --compress        compresses the segments that are finished, and shows nothing\n"
    "\n"
    "Tables of --sql. All but the last three begin with time, time_ns, pid, tid (and process):\n"
    "  ops           op, path, path2, sql, collection, offset, length, result, errno,\n"
    "                duration_ns, in_flight, failed, text, detail\n"
    "  acts          thread, op, collection, records, duration_ns, failed, caller,\n"
    "                words\n"
    "  records       thread, transaction_number, collection, collection_id, added, updated,\n"
    "                upserted, deleted, other, records, at_least, first_seq, last_seq, caller,\n"
    "                ids\n"
    "  transactions  number, path, outcome, duration_ns, pages, bytes, schema_cookie\n"
    "  persists      number, segment, collection, outcome, duration_ns, sync_ns, elements,\n"
    "                preimage_bytes, caller, words\n"
    "  snapshots     id, time, time_ns, state, reason, description, records, bytes\n"
    "  findings      code, severity, collection, segment, file, detail, means, helps\n"
    "  processes     pid, parent_pid, uid, process, program, command, first, first_ns, last,\n"
    "                last_ns, ended, writer, records, commits, persists, refused\n"
    "  log           calls alone, with the columns that it always had\n"
    "\n"
    "Exit status: 0 done, 3 done but records are damaged or lost, 10 no store, 12 no such\n"
    "directory, no Chroma directory, or no such collection.\n";

enum {
	OPT_SINCE = 256,
	OPT_UNTIL,
	OPT_OP,
	OPT_PID,
	OPT_TID,
	OPT_COLLECTION,
	OPT_ID,
	OPT_SLOWER,
	OPT_TOP,
	OPT_EXPORT,
	OPT_SQL,
	/* flags */
	OPT_FAILED,
	OPT_IN_FLIGHT,
	OPT_PROTECTED,
	OPT_JSON,
	OPT_STATS,
	OPT_TRANSACTIONS,
	OPT_UTC,
	OPT_COMPRESS,
	OPT_LAST_CRASH,
	OPT_CALLS,
	OPT_ACTS,
	OPT_PROCESSES,
	OPT_CSV,
	OPT_TABLE,
};

static const struct option long_options[] = {
    {"since", required_argument, NULL, OPT_SINCE},
    {"until", required_argument, NULL, OPT_UNTIL},
    {"op", required_argument, NULL, OPT_OP},
    {"path", required_argument, NULL, 'P'},
    {"pid", required_argument, NULL, OPT_PID},
    {"tid", required_argument, NULL, OPT_TID},
    {"collection", required_argument, NULL, OPT_COLLECTION},
    {"id", required_argument, NULL, OPT_ID},
    {"slower-than", required_argument, NULL, OPT_SLOWER},
    {"top", required_argument, NULL, OPT_TOP},
    {"failed", no_argument, NULL, OPT_FAILED},
    {"in-flight", no_argument, NULL, OPT_IN_FLIGHT},
    {"protected", no_argument, NULL, OPT_PROTECTED},
    {"json", no_argument, NULL, OPT_JSON},
    {"follow", no_argument, NULL, 'f'},
    {"stats", no_argument, NULL, OPT_STATS},
    {"transactions", no_argument, NULL, OPT_TRANSACTIONS},
    {"sql", required_argument, NULL, OPT_SQL},
    {"export", required_argument, NULL, OPT_EXPORT},
    {"csv", no_argument, NULL, OPT_CSV},
    {"table", no_argument, NULL, OPT_TABLE},
    {"utc", no_argument, NULL, OPT_UTC},
    {"compress", no_argument, NULL, OPT_COMPRESS},
    {"last-crash", no_argument, NULL, OPT_LAST_CRASH},
    {"calls", no_argument, NULL, OPT_CALLS},
    {"acts", no_argument, NULL, OPT_ACTS},
    {"processes", no_argument, NULL, OPT_PROCESSES},
    {"verbose", no_argument, NULL, 'v'},
    {"quiet", no_argument, NULL, 'q'},
    {NULL, 0, NULL, 0},
};

static int bad_value(const char *option, const char *value, const char *wanted)
{
	return fail(EXIT_USAGE, 0, "See `chromashim help log`.", "%s: '%s' is not %s", option,
		    value, wanted);
}

static int take_time(const char *option, const char *value, uint64_t *out)
{
	return parse_time(value, out) ? 0
				      : bad_value(option, value,
						  "a time (14:02, 'yesterday 14:00', 10m, "
						  "2026-01-31T10:00:00Z)");
}

static int take_ops(struct log_filter *f, const char *value)
{
	char unknown[64];

	f->ops = value;
	return log_ops_known(value, unknown)
		   ? 0
		   : bad_value("--op", unknown,
			       "an operation of the log, such as records, txn.* or pwrite");
}

static int take_value(struct arguments *a, int option, const char *value)
{
	struct log_filter *f = &a->log.filter;

	switch (option) {
	case OPT_SINCE:
		return take_time("--since", value, &f->since);
	case OPT_UNTIL:
		return take_time("--until", value, &f->until);
	case OPT_PID:
		return parse_number(value, &f->pid) ? 0 : bad_value("--pid", value, "a process id");
	case OPT_TID:
		return parse_number(value, &f->tid) ? 0 : bad_value("--tid", value, "a thread id");
	case OPT_TOP:
		return parse_number(value, &a->log.top)
			   ? 0
			   : bad_value("--top", value, "a number from 1 on");
	case OPT_SLOWER:
		return parse_duration(value, &f->slower_than)
			   ? 0
			   : bad_value("--slower-than", value, "a span (100ms, 1.5s, 2m)");
	case OPT_OP:
		return take_ops(f, value);
	case OPT_COLLECTION:
		f->collection = value;
		return 0;
	case OPT_ID:
		f->id = value;
		return 0;
	case 'P':
		f->path = value;
		return 0;
	case OPT_EXPORT:
		a->export = value;
		return log_export_is_known(value)
			   ? 0
			   : bad_value("--export", value,
				       "sqlite=FILE, csv=FILE, perfetto=FILE or strace=FILE");
	default:
		a->sql = value;
		return 0;
	}
}

static bool *flag_of(struct arguments *a, int option)
{
	switch (option) {
	case OPT_FAILED:
		return &a->log.filter.failed;
	case OPT_IN_FLIGHT:
		return &a->log.filter.in_flight;
	case OPT_PROTECTED:
		return &a->log.filter.protected_only;
	case OPT_JSON:
		return &a->log.json;
	case OPT_STATS:
		return &a->stats;
	case OPT_TRANSACTIONS:
		return &a->transactions;
	case OPT_UTC:
		return &a->log.utc;
	case OPT_COMPRESS:
		return &a->compress;
	case OPT_LAST_CRASH:
		return &a->last_crash;
	case OPT_CALLS:
		return &a->calls;
	case OPT_ACTS:
		return &a->acts;
	case OPT_PROCESSES:
		return &a->processes;
	case OPT_CSV:
		return &a->log.csv;
	case OPT_TABLE:
		return &a->log.table;
	case 'c':
		return &a->log.counts;
	case 'T':
		return &a->log.spent;
	case 'r':
		return &a->log.relative;
	case 'f':
		return &a->log.follow;
	case 'v':
		return &a->log.filter.verbose;
	case 'q':
		return &a->log.quiet;
	default:
		return NULL;
	}
}

static int take_option(struct arguments *a, int option)
{
	bool *flag;

	if ((option >= OPT_SINCE && option <= OPT_SQL) || option == 'P')
		return take_value(a, option, optarg);
	flag = flag_of(a, option);
	if (!flag)
		return fail_usage("log");
	*flag = true;
	return 0;
}

/* What does not go together. */
static int judge(const struct arguments *a)
{
	int views = a->stats + a->transactions + (a->sql != NULL) + a->compress + a->last_crash +
		    a->processes + (a->export != NULL);

	if (views > 1)
		return fail(EXIT_USAGE, 0, "Leave out all but one.",
			    "--stats, --transactions, --processes, --last-crash, --sql, "
			    "--export and --compress exclude each other");
	if (a->calls && a->acts)
		return fail(EXIT_USAGE, 0, "Leave out one.",
			    "--calls and --acts exclude each other");
	if (a->log.follow && ((views && !a->transactions) || a->log.top))
		return fail(EXIT_USAGE, 0, "Leave out --follow.",
			    "--follow goes with acts, --calls and --transactions only");
	return 0;
}

int log_parse_arguments(struct arguments *a, int argc, char **argv)
{
	int option, r = 0;

	memset(a, 0, sizeof(*a));
	while (r == 0 && (option = getopt_long(argc, argv, "fvqcTrP:", long_options, NULL)) != -1)
		r = take_option(a, option);
	if (r)
		return r;
	if (argc - optind > 1)
		return fail(EXIT_USAGE, 0, "See `chromashim help log`.",
			    "log takes one directory, and there are %d", argc - optind);
	a->dir = argv[optind];
	a->stats |= a->log.counts;
	return judge(a);
}

bool log_shows_calls(const struct arguments *a)
{
	const struct log_filter *f = &a->log.filter;

	if (a->calls || a->acts)
		return a->calls;
	return a->stats || f->in_flight || f->path || log_ops_are_calls(f->ops);
}
