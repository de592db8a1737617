/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --last-crash`. The log is read twice: first for which processes there were and
 * how they ended, then for the last seconds of the one that is meant.
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

#include "command/base/crash_cause.h"
#include "command/base/rollbacks.h"
#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/oplog/oplog.h"
#include "core/segment/pickle.h"

#define LAST_SECONDS 10
#define SHOWN 20 /* records */
#define CLOCK_DRIFT UINT64_C(60000000000)
#define OPEN_MAX_KEPT 64 /* transactions and persists that are open at a time */

struct crash_process {
	struct oplog_header header;
	uint64_t first, last; /* of its records */
	bool exited, writer;
	int stopped_by; /* the signal it was stopped by, if it told */
};

struct crash_open {
	uint64_t number, since;
	char name[256];
};

struct crash {
	const struct log_options *options;
	const struct target *target;
	struct crash_process *processes;
	size_t count;
	struct crash_process *dead; /* the one that is told of */
	struct crash_open transactions[OPEN_MAX_KEPT], persists[OPEN_MAX_KEPT];
	unsigned transaction_count, persist_count, in_flight;
	uint64_t records; /* in the last seconds */
	enum crash_cause cause;
	char words[512]; /* the kernel's */
};

/* ---- which process ---- */

static bool is_of(const struct crash_process *p, const struct oplog_header *h)
{
	return oplog_same_process(&p->header, h);
}

static struct crash_process *find_process(struct crash *c, const struct oplog_header *h)
{
	struct crash_process *p;
	size_t i;

	for (i = c->count; i-- > 0;)
		if (is_of(&c->processes[i], h))
			return &c->processes[i];
	p = realloc(c->processes, (c->count + 1) * sizeof(*p));
	if (!p)
		return NULL;
	c->processes = p;
	p += c->count++;
	memset(p, 0, sizeof(*p));
	p->header = *h;
	return p;
}

static int each_record(struct crash *c, int (*each)(struct crash *, const struct oplog_entry *))
{
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r = oplog_reader_open(c->target->storefd, &reader);

	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0)
		r = each(c, &e);
	oplog_reader_close(reader);
	return r;
}

static int note_process(struct crash *c, const struct oplog_entry *e)
{
	struct crash_process *p = find_process(c, e->header);

	if (!p)
		return -ENOMEM;
	if (!p->first)
		p->first = e->time;
	p->last = e->time;
	p->exited = e->op == OP_EXIT;
	p->stopped_by = p->exited ? (int)e->arg : 0;
	p->writer |= (e->header->features & OPLOG_HAS_WRITER) != 0;
	return 0;
}

/* The dead process that wrote last; if none wrote, the one that ended last. */
static struct crash_process *choose(struct crash *c, bool crashed)
{
	struct crash_process *best = NULL;
	size_t i;

	for (i = 0; i < c->count; i++) {
		struct crash_process *p = &c->processes[i];

		if (oplog_header_life(c->target->storefd, &p->header) == OPLOG_LIVE ||
		    (crashed && p->exited))
			continue;
		if (!best || p->writer > best->writer ||
		    (p->writer == best->writer && p->last > best->last))
			best = p;
	}
	return best;
}

/* ---- what it was doing ---- */

static void note_begin(struct crash_open *list, unsigned *count, const struct oplog_entry *e)
{
	struct crash_open *o = &list[*count];

	if (*count == OPEN_MAX_KEPT)
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

static int note_record(struct crash *c, const struct oplog_entry *e)
{
	if (!is_of(c->dead, e->header))
		return 0;
	c->in_flight += e->in_flight;
	c->records += e->time + LAST_SECONDS * SECOND >= c->dead->last;
	switch (e->op) {
	case OP_TXN_BEGIN:
		note_begin(c->transactions, &c->transaction_count, e);
		break;
	case OP_TXN_COMMIT:
	case OP_TXN_ROLLBACK:
		note_end(c->transactions, &c->transaction_count, e->arg);
		break;
	case OP_PERSIST_BEGIN:
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
		if (faccessat(c->target->dirfd, pickle, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
			c->persists[kept++] = c->persists[i];
	}
	c->persist_count = kept;
}

/* What c->dead was at when it ended. 0 or -errno. */
static int read_last_of(struct crash *c)
{
	int r = each_record(c, note_record);

	drop_creations(c);
	return r;
}

/* ---- what ended it ---- */

/* What the kernel wrote about it, after its last record. */
static void ask_kernel(struct crash *c)
{
	const struct oplog_header *h = &c->dead->header;
	uint64_t last = c->dead->last - h->anchor_realtime + h->anchor_monotonic, us;
	int fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	enum crash_cause cause;
	char line[8192];
	ssize_t n;

	while (fd >= 0 && ((n = read(fd, line, sizeof(line) - 1)) > 0 || errno == EPIPE)) {
		if (n <= 0)
			continue; /* older ones were overwritten meanwhile */
		line[n] = '\0';
		line[strcspn(line, "\n")] = '\0';
		cause = crash_judge_kernel_line(line, h->pid, &us);
		/* Its clock may lag a little. Pids repeat: the first after the last record counts.
		 */
		if (cause == CRASH_UNKNOWN || us * 1000 + CLOCK_DRIFT < last)
			continue;
		c->cause = cause;
		strlcpy(c->words, strchr(line, ';') + 1, sizeof(c->words));
		break;
	}
	if (fd >= 0)
		close(fd);
}

static uint64_t read_kills(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[4096];
	ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = '\0';
	return crash_read_oom_kills(text);
}

/* In this control group, which in a container is the backend's too. */
static uint64_t oom_kills_here(void)
{
	char line[1024], path[1200];
	FILE *groups = fopen("/proc/self/cgroup", "re");
	uint64_t kills = 0;

	while (groups && fgets(line, sizeof(line), groups)) {
		char *name = strchr(line, ':'), *where = name ? strchr(name + 1, ':') : NULL;

		if (!where)
			continue;
		where[strcspn(where, "\n")] = '\0';
		if (strncmp(line, "0::", 3) == 0)
			snprintf(path, sizeof(path), "/sys/fs/cgroup%.1000s/memory.events",
				 where + 1);
		else if (strncmp(name, ":memory:", 8) == 0)
			snprintf(path, sizeof(path),
				 "/sys/fs/cgroup/memory%.1000s/memory.oom_control", where + 1);
		else
			continue;
		kills += read_kills(path);
	}
	if (groups)
		fclose(groups);
	return kills;
}

static bool is_this_boot(const struct oplog_header *h)
{
	uint8_t now[16];

	oplog_boot_id(now);
	return memcmp(now, h->boot_id, sizeof(now)) == 0;
}

static const char *how_it_ended(const struct crash *c)
{
	if (c->dead->exited)
		return c->dead->stopped_by ? "stop" : "exit";
	if (c->cause == CRASH_OOM)
		return "oom";
	if (c->cause == CRASH_FAULT)
		return "fault";
	return is_this_boot(&c->dead->header) ? "signal" : "reboot";
}

/* ---- telling ---- */

static const char *ending(const struct crash_process *p, char *out, size_t room)
{
	const char *name = sigabbrev_np(p->stopped_by);

	if (!p->stopped_by)
		snprintf(out, room, "ended by itself");
	else
		snprintf(out, room, "was stopped by SIG%s, and ended in order", name ? name : "?");
	return out;
}

static void print_end(const struct crash *c)
{
	const char *how = how_it_ended(c);
	char text[64];
	uint64_t kills;

	if (c->dead->exited) {
		printf("  it %s\n", ending(c->dead, text, sizeof(text)));
	} else if (!strcmp(how, "oom")) {
		printf("  killed by the kernel for want of memory: %s\n", c->words);
	} else if (!strcmp(how, "fault")) {
		printf("  it crashed: %s\n", c->words);
	} else if (!strcmp(how, "reboot")) {
		printf("  it did not end by itself, and the machine has been started again since: "
		       "power, "
		       "a reset, or a kill before that\n");
	} else {
		printf("  it did not end by itself: killed by a signal (SIGKILL leaves no other "
		       "trace, nor does one that it does not handle)\n");
		kills = oom_kills_here();
		if (kills)
			printf("  the kernel has killed %" PRIu64
			       " process%s of this control group for "
			       "want of memory; it may have been one\n",
			       kills, kills == 1 ? "" : "es");
	}
}

static void ignore_line(void *context, const char *line)
{
	(void)context;
	(void)line;
}

static void print_open(const struct crash *c)
{
	struct rollbacks waiting = {0};
	char took[32];
	unsigned i;

	for (i = 0; i < c->transaction_count; i++)
		printf(
		    "  transaction %" PRIu64 " on %s was open for %s; SQLite undoes it\n",
		    c->transactions[i].number, c->transactions[i].name,
		    format_duration(took, sizeof(took), c->dead->last - c->transactions[i].since));
	if (c->persist_count)
		rollbacks_run(c->target, true, ignore_line, NULL, &waiting);
	for (i = 0; i < c->persist_count; i++)
		printf("  persist %" PRIu64 " of segment %s had not finished; %s\n",
		       c->persists[i].number, c->persists[i].name,
		       waiting.undone ? "the next start under the shim undoes it"
				      : "it was undone since: its records are in Chroma's queue");
	if (!c->dead->exited && !c->transaction_count && !c->persist_count && !c->in_flight)
		printf("  nothing was cut off: it was at no write, transaction or persist\n");
	if (c->in_flight)
		printf("  %u call%s under way\n", c->in_flight,
		       c->in_flight == 1 ? " was" : "s were");
}

static void print_json(const struct crash *c)
{
	struct json j = {.out = stdout};
	char when[40];
	unsigned i;

	json_begin(&j, '{');
	json_key(&j, "schema_version");
	json_uint(&j, SCHEMA_VERSION);
	json_key(&j, "pid");
	json_uint(&j, c->dead->header.pid);
	json_key(&j, "program");
	json_string(&j, c->dead->header.program);
	json_key(&j, "since");
	json_string(&j, format_time_utc(when, sizeof(when), c->dead->first));
	json_key(&j, "last");
	json_string(&j, format_time_utc(when, sizeof(when), c->dead->last));
	json_key(&j, "ended");
	json_string(&j, how_it_ended(c));
	json_key(&j, "kernel");
	json_string(&j, c->words[0] ? c->words : NULL);
	json_key(&j, "in_flight");
	json_uint(&j, c->in_flight);
	json_key(&j, "open_transactions");
	json_uint(&j, c->transaction_count);
	json_key(&j, "open_persists");
	json_begin(&j, '[');
	for (i = 0; i < c->persist_count; i++)
		json_string(&j, c->persists[i].name);
	json_end(&j, ']');
	json_end(&j, '}');
	json_newline(&j);
}

static int print_tail(struct crash *c)
{
	uint64_t from = c->dead->last - LAST_SECONDS * SECOND;
	uint64_t skip = c->records > SHOWN ? c->records - SHOWN : 0;
	struct log_sink *sink = log_text_sink(c->options);
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r = sink ? oplog_reader_open(c->target->storefd, &reader) : -ENOMEM;

	printf("\nits last %u seconds%s:\n", LAST_SECONDS, skip ? ", the end of them" : "");
	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0) {
		bool wanted = is_of(c->dead, e.header) && e.time >= from;

		r = 0;
		if (wanted && skip)
			skip--;
		else if (wanted)
			r = sink->entry(sink, &e);
	}
	oplog_reader_close(reader);
	if (sink)
		sink->free(sink);
	return r;
}

static void print_head(const struct crash *c)
{
	char when[40], took[32];
	const struct crash_process *p = c->dead;

	printf("%s (pid %" PRIu32 "), last heard of at %s after %s\n", p->header.program,
	       p->header.pid, format_time(when, sizeof(when), p->last, c->options->utc),
	       format_duration(took, sizeof(took), p->last - p->first));
}

/* Also a clean end may cut something off: threads do not survive exit(). */
static int tell_clean_end(struct crash *c, struct crash_process *p)
{
	char when[40], how[64];
	int r;

	c->dead = p;
	r = read_last_of(c);
	printf("the last backend (pid %" PRIu32 ") %s at %s\n", p->header.pid,
	       ending(p, how, sizeof(how)),
	       format_time(when, sizeof(when), p->last, c->options->utc));
	print_open(c);
	c->transaction_count = c->persist_count = c->in_flight = 0;
	c->records = 0;
	return r;
}

static int crash_tell(struct crash *c)
{
	struct crash_process *newest = choose(c, false);
	int r;

	if (!newest) {
		printf("no backend has ended yet, as far as the log goes back\n");
		return 0;
	}
	if (newest->exited && !c->options->json) {
		r = tell_clean_end(c, newest);
		if (r < 0)
			return r;
	}
	c->dead = choose(c, true);
	if (!c->dead && !c->options->json)
		return 0;
	if (newest->exited && !c->options->json)
		printf("\nthe last that did not end by itself:\n");
	c->dead = c->dead ? c->dead : newest;
	r = read_last_of(c);
	if (r < 0)
		return r;
	if (is_this_boot(&c->dead->header))
		ask_kernel(c);
	if (c->options->json) {
		print_json(c);
		return 0;
	}
	print_head(c);
	print_end(c);
	print_open(c);
	return print_tail(c);
}

int log_last_crash(const struct log_options *options, const struct target *t)
{
	struct crash *c = calloc(1, sizeof(*c));
	int r = c ? 0 : -ENOMEM;

	if (c) {
		c->options = options;
		c->target = t;
		r = each_record(c, note_process);
		if (r == 0)
			r = crash_tell(c);
		free(c->processes);
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
