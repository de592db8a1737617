/* SPDX-License-Identifier: MIT
 *
 * `chromashim status`: is a process protected now, and what is recorded.
 *
 * A process is protected if its segment's header names a process that lives (it holds its lock in
 * the store) and that process has this very file mapped: an environment variable proves nothing.
 * One in another container has another pid here, or is not to be seen at all; then the lock has to
 * do.
 */
#include "command/status/status.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <bsd/string.h>

#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/names.h"
#include "core/oplog/oplog.h"
#include "core/settings/config.h"
#include "core/store/foreign.h"

const char status_usage[] =
    "Usage: chromashim status [OPTION]... [DIR]\n"
    "\n"
    "Tells whether a process that works on a Chroma directory is protected now, by proof from\n"
    "inside the process, and what is recorded. DIR is CHROMASHIM_DIR or ./chroma_data if not\n"
    "given.\n"
    "\n"
    "      --json   one JSON object\n"
    "      --check  for monitoring: one line, exit status 0 fine, 1 warning, 2 critical, 3 "
    "unknown\n"
    "      --since=TIME  for how long it tells of a crash, a healing or a refusal (1d)\n"
    "      --snapshot-age=TIME  how old the newest verified snapshot may be (twice\n"
    "               CHROMASHIM_EVERY and an hour)\n"
    "      --replica-age=TIME  how old the newest snapshot in each replica may be\n"
    "               (CHROMASHIM_REPLICA_LATE)\n"
    "      --drill-age=TIME  how old the last good drill may be (twice CHROMASHIM_DRILL and a "
    "day)\n"
    "      --ready  for readiness probes: one line, exit status 0 if a protected process has the\n"
    "               database open, whatever there may be to warn of; else 1\n"
    "      --utc    times in UTC\n"
    "\n"
    "Exit status without --check: 0 done (protected or not), 3 done but the log is damaged or\n"
    "records were lost, 10 no store, 12 no such directory or no Chroma directory.\n";

/* ---- gathering ---- */

static struct status_process *process_of(struct status *s, const struct oplog_header *h)
{
	struct status_process *p;
	unsigned i;

	for (i = 0; i < s->processes_size; i++) {
		p = &s->processes[i];
		if (oplog_same_process(&p->header, h))
			return p;
	}
	p = realloc(s->processes, (s->processes_size + 1) * sizeof(*p));
	if (!p)
		return NULL;
	s->processes = p;
	p += s->processes_size++;
	memset(p, 0, sizeof(*p));
	p->header = *h;
	return p;
}

static int note_copy(struct status *s, const struct oplog_entry *e)
{
	struct status_process *p = s->processes, *end = p + s->processes_size;
	unsigned i;

	while (p < end && !oplog_same_process(&p->header, e->header))
		p++;
	if (p == end || p->copies_size == STATUS_COPIES || !e->name)
		return 0;
	for (i = 0; i < p->copies_size; i++) {
		if (!strcmp(p->copies[i].path, e->name)) {
			p->copies[i].above |= e->arg == OPLOG_COPY_ABOVE;
			return 0;
		}
	}
	strlcpy(p->copies[i].path, e->name, sizeof(p->copies[i].path));
	p->copies[i].above = e->arg == OPLOG_COPY_ABOVE;
	p->copies_size++;
	return 0;
}

/* Its pid here, if it is another one than in its own container: who has it mapped. 0: unknown. */
static uint32_t find_outside(const struct status *s, const struct oplog_segment_info *info)
{
	unsigned i;

	for (i = 0; i < s->openers_size; i++)
		if (process_maps_file(s->others[i].pid, info->device, info->inode, info->name) > 0)
			return s->others[i].pid;
	return 0;
}

static void prove(struct status *s, struct status_process *p, const struct oplog_segment_info *info)
{
	int mapped;

	if (!p->is_here) {
		p->seen_as = find_outside(s, info);
		p->proof = p->seen_as ? PROOF_MAPPED : PROOF_ELSEWHERE;
		return;
	}
	mapped = process_maps_file(info->header.pid, info->device, info->inode, info->name);
	p->proof = mapped > 0 ? PROOF_MAPPED : mapped < 0 ? PROOF_HIDDEN : p->proof;
}

/* Which living processes there are, before their records are read. */
static int note_processes(struct status *s, struct oplog_reader *reader)
{
	size_t i;

	for (i = 0; i < oplog_reader_segments(reader); i++) {
		const struct oplog_segment_info *info = oplog_reader_segment(reader, i);
		struct status_process *p;

		if (info->error || info->life != OPLOG_LIVE)
			continue;
		p = process_of(s, &info->header);
		if (!p)
			return -ENOMEM;
		p->is_here = oplog_header_is_here(&info->header);
		if (!info->packed && p->proof != PROOF_MAPPED)
			prove(s, p, info);
	}
	return 0;
}

static void sum_up(struct status *s, struct oplog_reader *reader)
{
	size_t i;
	unsigned k;

	for (i = 0; i < oplog_reader_segments(reader); i++) {
		const struct oplog_segment_info *info = oplog_reader_segment(reader, i);

		s->segments++;
		s->packed += info->packed;
		s->bytes += info->size;
		s->records += info->records;
		s->damaged += info->damaged;
		s->unreadable += info->error && info->error != -ENOENT;
		s->cut += info->missing != 0;
		s->dropped |= !info->error && info->header.dropped;
		if (info->life != OPLOG_LIVE) {
			s->in_flight_dead += info->in_flight;
			continue;
		}
		for (k = 0; k < s->processes_size; k++) {
			struct status_process *p = &s->processes[k];

			if (oplog_same_process(&p->header, &info->header))
				p->records += info->records;
		}
	}
	s->lost = oplog_reader_lost(reader);
}

static int gather_log(struct status *s, int storefd)
{
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r = oplog_reader_open(storefd, &reader);

	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = note_processes(s, reader);
	while (r == 0 && !s->quick && (r = oplog_reader_next(reader, &e)) > 0) {
		if (s->first_time == 0)
			s->first_time = e.time;
		s->last_time = e.time;
		r = e.op == OP_SQL_COPY ? note_copy(s, &e) : 0;
	}
	if (r == 0)
		sum_up(s, reader);
	oplog_reader_close(reader);
	return r;
}

static bool is_protected(const struct status *s, uint32_t pid)
{
	unsigned i;

	for (i = 0; i < s->processes_size; i++) {
		const struct status_process *p = &s->processes[i];

		if (p->proof != PROOF_NONE && (p->is_here ? p->header.pid : p->seen_as) == pid)
			return true;
	}
	return false;
}

/* Who has the database open, as far as it is to be seen from here. */
static int gather_openers(struct status *s, int dirfd)
{
	struct stat st;
	int n;

	if (fstatat(dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	n = process_find_openers(&st, CHROMA_DATABASE, &s->others, &s->hidden);
	s->openers_size = n > 0 ? (unsigned)n : 0;
	return n < 0 ? n : 0;
}

/* Keeps those among them that work without being protected. Who only reads it, as the guardian does
 * for a snapshot, or a copy, works on nothing. */
static void keep_others(struct status *s)
{
	unsigned i;

	for (i = 0; i < s->openers_size; i++)
		if (s->others[i].writes && !is_protected(s, s->others[i].pid))
			s->others[s->others_size++] = s->others[i];
}

/* Who has the right to write, by what it wrote into the lock's file; 0: not known. */
static uint32_t named_writer(int storefd)
{
	char text[64] = "";
	int fd = file_open_at(storefd, WRITER_LOCK);
	unsigned long pid = 0;

	if (fd < 0)
		return 0;
	if (file_read_at(fd, text, sizeof(text) - 1, 0) > 0 && !strncmp(text, "pid ", 4))
		pid = strtoul(text + 4, NULL, 10);
	close(fd);
	return (uint32_t)pid;
}

/* A process that passed its right on by a fork does not know who took it before it writes. */
static void settle_writer(struct status *s)
{
	uint32_t named = s->data->storefd < 0 ? 0 : named_writer(s->data->storefd);
	struct status_process *p, *end = s->processes + s->processes_size;

	for (p = s->processes; p < end; p++)
		if (p->header.pid == named && p->header.features & OPLOG_HAS_WRITER)
			break;
	if (p == end)
		return;
	for (p = s->processes; p < end; p++) {
		if (p->header.pid == named || !(p->header.features & OPLOG_HAS_WRITER))
			continue;
		p->header.features &= ~(uint64_t)OPLOG_HAS_WRITER;
		p->passed_to = named;
	}
}

static void gather_libraries(struct status *s)
{
	unsigned i;

	for (i = 0; i < s->processes_size; i++) {
		struct status_process *p = &s->processes[i];

		if (p->proof >= PROOF_ELSEWHERE && (p->is_here || p->seen_as))
			p->library = process_library_file(p->is_here ? p->header.pid : p->seen_as);
	}
}

static void gather_builds(struct status *s)
{
	unsigned i, k;

	for (i = 0; i < s->processes_size; i++)
		for (k = 0; k < s->processes[i].copies_size; k++)
			process_find_sqlite(s->processes[i].is_here ? s->processes[i].header.pid
								    : s->processes[i].seen_as,
					    s->processes[i].copies[k].path,
					    &s->processes[i].copies[k].build);
}

static void count_protected(struct status *s)
{
	unsigned i;

	for (i = 0; i < s->processes_size; i++) {
		s->protected_size += s->processes[i].proof >= PROOF_ELSEWHERE;
		s->unproven_size += s->processes[i].proof == PROOF_HIDDEN;
	}
}

/* ---- the verb ---- */

enum {
	OPT_JSON = 256,
	OPT_CHECK,
	OPT_READY,
	OPT_SINCE,
	OPT_SNAPSHOT_AGE,
	OPT_DRILL_AGE,
	OPT_REPLICA_AGE,
	OPT_UTC
};

#define DAY (24 * 3600 * SECOND)

static int take_time(const char *text, const char *option, uint64_t *out)
{
	if (config_read_time(text, out))
		return 0;
	return fail(EXIT_USAGE, 0, "Give a time such as 30s, 12h or 2d.",
		    "--%s is '%s', which is no time", option, text);
}

static int parse_arguments(struct status_options *o, int argc, char **argv)
{
	static const struct option options[] = {
	    {"json", no_argument, NULL, OPT_JSON},
	    {"check", no_argument, NULL, OPT_CHECK},
	    {"ready", no_argument, NULL, OPT_READY},
	    {"since", required_argument, NULL, OPT_SINCE},
	    {"snapshot-age", required_argument, NULL, OPT_SNAPSHOT_AGE},
	    {"drill-age", required_argument, NULL, OPT_DRILL_AGE},
	    {"replica-age", required_argument, NULL, OPT_REPLICA_AGE},
	    {"utc", no_argument, NULL, OPT_UTC},
	    {NULL, 0, NULL, 0},
	};
	int option, status = 0;

	memset(o, 0, sizeof(*o));
	o->since = DAY;
	while (status == 0 && (option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case OPT_JSON:
			o->json = true;
			break;
		case OPT_CHECK:
			o->check = true;
			break;
		case OPT_READY:
			o->ready = true;
			break;
		case OPT_SINCE:
			status = take_time(optarg, "since", &o->since);
			break;
		case OPT_SNAPSHOT_AGE:
			status = take_time(optarg, "snapshot-age", &o->snapshot_age);
			break;
		case OPT_DRILL_AGE:
			status = take_time(optarg, "drill-age", &o->drill_age);
			break;
		case OPT_REPLICA_AGE:
			status = take_time(optarg, "replica-age", &o->replica_age);
			break;
		case OPT_UTC:
			o->utc = true;
			break;
		default:
			return fail_usage("status");
		}
	}
	if (status)
		return status;
	if (argc - optind > 1)
		return fail(EXIT_USAGE, 0, "See `chromashim help status`.",
			    "status takes one directory, and there are %d", argc - optind);
	o->dir = argv[optind];
	return 0;
}

/* A probe comes every few seconds: the log is not read. */
static int status_is_ready(struct status *s)
{
	int r = gather_openers(s, s->data->dirfd);

	s->quick = true;
	if (r == 0 && s->data->storefd >= 0)
		r = gather_log(s, s->data->storefd);
	if (r < 0) {
		printf("not ready: '%s' cannot be looked at: %s\n", s->data->dir, strerror(-r));
		return EXIT_FAILED;
	}
	count_protected(s);
	if (s->protected_size || s->unproven_size) {
		printf("ready: process %" PRIu32 " works on '%s'\n", s->processes[0].header.pid,
		       s->data->dir);
		return EXIT_DONE;
	}
	printf("not ready: no protected process works on '%s'\n", s->data->dir);
	return EXIT_FAILED;
}

static int status_show(struct status *s, const struct status_options *o)
{
	const struct data_directory *t = s->data;
	int r = gather_openers(s, t->dirfd);

	if (r == 0 && t->storefd >= 0)
		r = gather_log(s, t->storefd);
	if (r < 0)
		return fail(o->check ? (enum exit_code)CHECK_UNKNOWN : exit_code_of(r), r,
			    "Run this as the owner of the data directory.",
			    "cannot find out about '%s'", t->dir);
	keep_others(s);
	count_protected(s);
	settle_writer(s);
	status_gather_snapshots(s);
	status_gather_replicas(s);
	status_gather_drill(s);
	if (t->storefd >= 0) {
		struct store_foreign foreign;

		s->foreign = store_find_foreign(t->storefd, &foreign);
	}
	status_look_at_disk(s);
	status_gather_events(s);
	gather_libraries(s);
	status_find_alarms(s);
	if (o->json || !o->check)
		gather_builds(s);
	if (o->json)
		status_print_json(s);
	else if (o->check)
		status_print_check(s);
	else
		status_print_text(s, o->utc);
	if (o->check)
		return (int)s->verdict;
	if (t->storefd < 0)
		return fail(EXIT_NO_STORE, 0, "Start Chroma by `chromashim run -- COMMAND` first.",
			    "there is no store '%s'", t->store);
	return s->verdict == CHECK_DAMAGE || s->lost ? EXIT_WARNINGS : EXIT_DONE;
}

int command_status(int argc, char **argv)
{
	struct status_options o;
	struct status s = {0};
	struct data_directory t;
	int status = parse_arguments(&o, argc, argv);

	if (status)
		return status;
	status = data_directory_open(&t, o.dir, false);
	if (status == 0) {
		s.data = &t;
		s.since = o.since;
		s.snapshots.limit = o.snapshot_age;
		s.drill_limit = o.drill_age;
		s.replica_limit = o.replica_age;
		status = o.ready ? status_is_ready(&s) : status_show(&s, &o);
	} else if (o.check) {
		/* Why is on stderr, which monitoring does not show. */
		puts("CHROMASHIM UNKNOWN: the directory cannot be opened, or is no Chroma "
		     "directory | protected=0");
		status = CHECK_UNKNOWN;
	} else if (o.ready) {
		puts("not ready: the directory cannot be opened, or is no Chroma directory");
		status = EXIT_FAILED;
	}
	free(s.events);
	free(s.drill);
	free(s.replica_drill);
	free(s.replicas);
	free(s.processes);
	free(s.others);
	data_directory_close(&t);
	return status;
}
