/* SPDX-License-Identifier: MIT
 *
 * `chromashim status`: is a process protected now, and what is recorded.
 *
 * A process is protected if its segment's header names a process that lives (it holds its lock in
 * the store) and that process has this very file mapped: an environment variable proves nothing.
 * One in another container has another pid here, or is not to be seen at all; then the lock has to
 * do.
 */
#include "command/base/guard_settings.h"
#include "command/status/status.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

#include <bsd/string.h>

#include "core/oplog/oplog.h"
#include "core/store/foreign.h"

const char status_usage[] =
    "Usage: chromashim status [OPTION]... [DIR]\n"
    "\n"
    "Tells whether a process that works on a Chroma directory is protected now, by proof from\n"
    "inside the process, and what is recorded. DIR is CHROMASHIM_DIR or ./chroma_data if not\n"
    "given.\n"
    "\n"
    "      --json   one JSON object\n"
    "      --check  for monitoring: one line, exit status 0 fine, 1 warning, 2 damage, 3 unknown\n"
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
	struct status_process *p;
	unsigned i;

	for (i = 0; i < s->processes_size; i++) {
		p = &s->processes[i];
		if (oplog_same_process(&p->header, e->header))
			break;
	}
	if (i == s->processes_size || p->copies_size == STATUS_COPIES || !e->name)
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
	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0) {
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

/* As the backend warns, which does so at its next write: here at any time. */
static void look_at_disk(struct status *s)
{
	struct guard_settings settings;
	struct statvfs space;
	unsigned percent = 0;
	uint64_t used;

	if (fstatvfs(s->target->dirfd, &space) < 0 || !space.f_blocks)
		return;
	guard_settings_read(&settings, s->target->storefd);
	config_read_percent(config_get(&settings.config, CONFIG_WARN_FULL), &percent);
	guard_settings_free(&settings);
	used = space.f_blocks - space.f_bfree;
	s->disk_used = (unsigned)(used * 100 / (used + space.f_bavail ? used + space.f_bavail : 1));
	s->disk_full = percent && s->disk_used >= percent;
}

static enum check_code status_judge(const struct status *s)
{
	if (s->damaged || s->unreadable || s->cut)
		return CHECK_DAMAGE;
	if (!s->protected_size && s->unproven_size)
		return CHECK_UNKNOWN;
	if (s->disk_full || !s->protected_size || s->others_size || s->lost ||
	    s->snapshots.is_old || s->foreign > 0 || s->snapshots.guardian_died)
		return CHECK_WARNING;
	return CHECK_FINE;
}

/* ---- the verb ---- */

enum { OPT_JSON = 256, OPT_CHECK, OPT_UTC };

static int parse_arguments(struct status_options *o, int argc, char **argv)
{
	static const struct option options[] = {
	    {"json", no_argument, NULL, OPT_JSON},
	    {"check", no_argument, NULL, OPT_CHECK},
	    {"utc", no_argument, NULL, OPT_UTC},
	    {NULL, 0, NULL, 0},
	};
	int option;

	memset(o, 0, sizeof(*o));
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case OPT_JSON:
			o->json = true;
			break;
		case OPT_CHECK:
			o->check = true;
			break;
		case OPT_UTC:
			o->utc = true;
			break;
		default:
			return fail_usage("status");
		}
	}
	if (argc - optind > 1)
		return fail(EXIT_USAGE, 0, "See `chromashim help status`.",
			    "status takes one directory, and there are %d", argc - optind);
	o->dir = argv[optind];
	return 0;
}

static int status_show(struct status *s, const struct status_options *o)
{
	const struct target *t = s->target;
	int r = gather_openers(s, t->dirfd);

	if (r == 0 && t->storefd >= 0)
		r = gather_log(s, t->storefd);
	if (r < 0)
		return fail(o->check ? (enum exit_code)CHECK_UNKNOWN : exit_code_of(r), r,
			    "Run this as the owner of the data directory.",
			    "cannot find out about '%s'", t->dir);
	keep_others(s);
	count_protected(s);
	status_gather_snapshots(s);
	if (t->storefd >= 0) {
		struct store_foreign foreign;

		s->foreign = store_find_foreign(t->storefd, &foreign);
	}
	look_at_disk(s);
	s->verdict = status_judge(s);
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
		return fail(EXIT_NO_STORE, 0,
			    "Start Chroma with LD_PRELOAD=/path/to/libchromashim.so.",
			    "there is no store '%s'", t->store);
	return s->verdict == CHECK_DAMAGE || s->lost ? EXIT_WARNINGS : EXIT_DONE;
}

int command_status(int argc, char **argv)
{
	struct status_options o;
	struct status s = {0};
	struct target t;
	int status = parse_arguments(&o, argc, argv);

	if (status)
		return status;
	status = target_open(&t, o.dir, false);
	if (status == 0) {
		s.target = &t;
		status = status_show(&s, &o);
	} else if (o.check) {
		status = CHECK_UNKNOWN;
	}
	free(s.processes);
	free(s.others);
	target_close(&t);
	return status;
}
