/* SPDX-License-Identifier: MIT
 *
 * `chromashim status`: for people, for programs and for monitoring.
 */
#include "command/status/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/json.h"

/* ---- JSON ---- */

static void put_time(struct json *j, const char *key, uint64_t ns)
{
	char when[40];

	json_put_text(j, key, ns ? format_time_utc(when, sizeof(when), ns) : NULL);
}

/* What protects a directory in a process now; what the process says of itself in its log's header.
 */
static const struct {
	uint64_t bit;
	const char *key;
	const char *on, *off; /* for people; NULL: not worth a word */
} features[] = {
    {OPLOG_HAS_WRITER, "writer", "the writer", "has not written yet"},
    {OPLOG_HAS_OFD_LOCKS, "lasting_locks", "locks that last", "SQLite's own locks as they are"},
    {OPLOG_HAS_FENCE, "fence", "fence against other writers", "no fence now"},
    {OPLOG_HAS_GROUPS, "persist_groups", "persists can be rolled back", NULL},
    {OPLOG_HAS_BALLAST, "ballast", "ballast", NULL},
    {OPLOG_WAL_MODE, "wal_mode", "WAL mode", NULL},
    {OPLOG_LIMIT, "limit_reached",
     "A LIMIT OF THE LIBRARY IS REACHED: chromashim log --op log.note", NULL},
    {OPLOG_SPACE_LOW, "space_low", "SPACE IS LOW: new writes are refused", NULL},
};
#define FEATURES (sizeof(features) / sizeof(features[0]))

static void json_process(struct json *j, const struct status_process *p)
{
	static const char *const proofs[] = {"none", "hidden", "elsewhere", "mapped"};
	static const char *const files[] = {NULL, "loaded", "replaced", "removed"};
	char version[VERSION_TEXT];
	unsigned i;

	json_begin(j, '{');
	json_put_uint(j, "pid", p->header.pid);
	json_put_uint(j, "parent_pid", p->header.parent_pid);
	json_key(j, "in_another_container");
	json_bool(j, !p->is_here);
	json_put_text(j, "program", p->header.program);
	put_time(j, "since", p->header.protected_since);
	json_put_text(j, "proof", proofs[p->proof]);
	version_text(version, p->header.shim_version);
	json_put_text(j, "library_version", version);
	json_put_text(j, "library_file", files[p->library]);
	json_put_uint(j, "records", p->records);
	for (i = 0; i < FEATURES; i++) {
		json_key(j, features[i].key);
		json_bool(j, (p->header.features & features[i].bit) != 0);
	}
	json_key(j, "sqlite");
	json_begin(j, '[');
	for (i = 0; i < p->copies_size; i++) {
		const struct status_copy *c = &p->copies[i];

		json_begin(j, '{');
		json_put_text(j, "path", c->path);
		json_put_text(j, "seen", c->above ? "above" : "below");
		json_put_text(j, "version", c->build.version);
		json_put_text(j, "source_id", c->build.source_id);
		json_end(j, '}');
	}
	json_end(j, ']');
	json_end(j, '}');
}

static void json_log(struct json *j, const struct status *s)
{
	json_key(j, "log");
	json_begin(j, '{');
	json_put_uint(j, "records", s->records);
	json_put_uint(j, "bytes", s->bytes);
	json_put_uint(j, "segments", s->segments);
	json_put_uint(j, "compressed", s->packed);
	json_put_uint(j, "in_flight_of_dead", s->in_flight_dead);
	json_put_uint(j, "lost", s->lost);
	json_put_uint(j, "damaged_slots", s->damaged);
	json_put_uint(j, "unreadable_segments", s->unreadable);
	json_put_uint(j, "cut_segments", s->cut);
	json_key(j, "older_gone");
	json_bool(j, s->dropped);
	put_time(j, "first", s->first_time);
	put_time(j, "last", s->last_time);
	json_end(j, '}');
}

void status_print_json(const struct status *s)
{
	static const char *const verdicts[] = {"fine", "warning", "damage", "unknown"};
	struct json j = {.out = stdout};
	char version[VERSION_TEXT];
	unsigned i;

	json_begin(&j, '{');
	json_put_uint(&j, "schema_version", SCHEMA_VERSION);
	json_put_text(&j, "command_version", version_own());
	json_put_text(&j, "directory", s->data->dir);
	json_put_text(&j, "store", s->data->storefd >= 0 ? s->data->store : NULL);
	version_text(version, s->data->store_version);
	json_put_text(&j, "store_version", s->data->store_version ? version : NULL);
	json_key(&j, "protected");
	json_bool(&j, s->protected_size > 0);
	json_put_text(&j, "verdict", verdicts[s->verdict]);
	json_key(&j, "processes");
	json_begin(&j, '[');
	for (i = 0; i < s->processes_size; i++)
		json_process(&j, &s->processes[i]);
	json_end(&j, ']');
	json_key(&j, "unprotected");
	json_begin(&j, '[');
	for (i = 0; i < s->others_size; i++) {
		json_begin(&j, '{');
		json_put_uint(&j, "pid", s->others[i].pid);
		json_put_text(&j, "name", s->others[i].name);
		json_put_text(&j, "command", s->others[i].command);
		json_end(&j, '}');
	}
	json_end(&j, ']');
	json_put_uint(&j, "hidden_processes", s->hidden);
	json_log(&j, s);
	status_json_snapshots(&j, s);
	status_json_replicas(&j, s);
	status_json_drill(&j, s);
	status_json_alarms(&j, s);
	json_end(&j, '}');
	json_newline(&j);
}

/* ---- text ---- */

static void put_label(const char *label, enum colour colour)
{
	printf("%s%-14s%s", terminal_colour(colour), label, terminal_colour(COLOUR_PLAIN));
}

static void put_text(const char *text)
{
	terminal_put_text(stdout, text, strlen(text));
}

static uint64_t age_of(uint64_t since)
{
	uint64_t now = clock_read(CLOCK_REALTIME);

	return now > since ? (now - since) / SECOND : 0;
}

static void put_age(uint64_t seconds)
{
	if (seconds < 120)
		printf("%" PRIu64 " s", seconds);
	else if (seconds < 7200)
		printf("%" PRIu64 " min", seconds / 60);
	else if (seconds < 172800)
		printf("%" PRIu64 " h", seconds / 3600);
	else
		printf("%" PRIu64 " days", seconds / 86400);
}

static void text_copy(const struct status_copy *c)
{
	printf("%14sSQLite", "");
	if (*c->build.version)
		printf(" %s", c->build.version);
	if (*c->build.source_id)
		printf(" (%.10s)", c->build.source_id);
	fputs(c->above ? ", seen from above and below: " : ", seen from below: ", stdout);
	put_text(c->path);
	putchar('\n');
}

/* Only the writer has a fence. */
static void text_features(const struct status_process *p)
{
	bool writes = p->header.features & OPLOG_HAS_WRITER;
	const char *between = "";
	size_t i;

	printf("%14s", "");
	for (i = 0; i < FEATURES; i++) {
		bool on = p->header.features & features[i].bit;
		const char *word = on ? features[i].on : features[i].off;

		if (!word || (features[i].bit == OPLOG_HAS_FENCE && !on && !writes))
			continue;
		if (features[i].bit == OPLOG_HAS_WRITER && p->passed_to)
			printf("has passed the right to write on to process %" PRIu32,
			       p->passed_to);
		else
			printf("%s%s", between, word);
		between = ", ";
	}
	putchar('\n');
}

/* Only where it is not this command's, or not the file that a restart brings. */
static void text_library(const struct status_process *p)
{
	uint32_t its = p->header.shim_version, own = version_own_number();
	char version[VERSION_TEXT];

	version_text(version, its);
	if (its != own)
		printf("%14sits library is of chromashim %s, this command is %s%s\n", "", version,
		       version_own(),
		       its > own ? ": use the command of that version, or a newer one" : "");
	if (p->library == LIBRARY_REPLACED)
		printf("%14sthe library's file was replaced since it started: a restart brings "
		       "the new one\n",
		       "");
	else if (p->library == LIBRARY_REMOVED)
		printf("%14s%sthe library's file was removed since it started: install it again, "
		       "or the next start is unprotected%s\n",
		       "", terminal_colour(COLOUR_RED), terminal_colour(COLOUR_PLAIN));
	else if (its < own)
		printf("%14sa restart by this command (chromashim run) brings its own\n", "");
}

static void text_process(const struct status_process *p, bool utc)
{
	char since[40];
	unsigned i;

	if (p->proof >= PROOF_ELSEWHERE)
		put_label("protected", COLOUR_GREEN);
	else if (p->proof == PROOF_HIDDEN)
		put_label("probably", COLOUR_YELLOW);
	else
		put_label("not any more", COLOUR_YELLOW);
	format_time(since, sizeof(since), p->header.protected_since, utc);
	printf("pid %" PRIu32, p->header.pid);
	if (!p->is_here)
		fputs(" in another container", stdout);
	if (p->seen_as)
		printf(", here %" PRIu32, p->seen_as);
	fputs(" (", stdout);
	put_text(*p->header.program ? p->header.program : "?");
	printf(") since %.19s%s, ", since, utc ? "Z" : "");
	put_age(age_of(p->header.protected_since));
	printf(", %" PRIu64 " records\n", p->records);
	if (p->proof == PROOF_HIDDEN)
		printf("%14sits memory map may not be read by this user\n", "");
	if (p->proof == PROOF_NONE)
		printf("%14sit lives, but does not write to its log\n", "");
	if (p->proof >= PROOF_ELSEWHERE)
		text_features(p);
	text_library(p);
	for (i = 0; i < p->copies_size; i++)
		text_copy(&p->copies[i]);
}

static void text_others(const struct status *s)
{
	char shown[1100];
	unsigned i;

	for (i = 0; i < s->others_size; i++) {
		put_label("UNPROTECTED", COLOUR_RED);
		printf("pid %" PRIu32 " (", s->others[i].pid);
		terminal_fit(shown, sizeof(shown),
			     *s->others[i].command ? s->others[i].command : s->others[i].name, 80);
		fputs(shown, stdout);
		printf(") has %s open without the shim\n", CHROMA_DATABASE);
	}
	if (s->hidden && !s->protected_size)
		printf("%14s%u processes of other users could not be looked into\n", "", s->hidden);
}

static void text_problems(const struct status *s)
{
	const struct {
		uint64_t count;
		const char *what;
	} problems[] = {
	    {s->lost, "records lost"},
	    {s->damaged, "slots damaged"},
	    {s->unreadable, "segments unreadable"},
	    {s->cut, "segments cut off"},
	};
	bool any = false;
	size_t i;

	printf("%14s", "");
	for (i = 0; i < sizeof(problems) / sizeof(problems[0]); i++) {
		if (!problems[i].count)
			continue;
		printf("%s%s%" PRIu64 " %s%s", any ? ", " : "", terminal_colour(COLOUR_RED),
		       problems[i].count, problems[i].what, terminal_colour(COLOUR_PLAIN));
		any = true;
	}
	puts(any ? " (of the log, not of the data)"
		 : "no record of the log since then is lost or damaged");
}

void status_print_text(const struct status *s, bool utc)
{
	char bytes[32], first[40], last[40];
	unsigned i;

	for (i = 0; i < s->processes_size; i++)
		text_process(&s->processes[i], utc);
	if (!s->protected_size && !s->unproven_size) {
		put_label("not protected", s->others_size ? COLOUR_RED : COLOUR_YELLOW);
		puts(s->others_size ? "no process works on this directory under the shim"
				    : "no process works on this directory now");
	}
	text_others(s);
	if (s->data->storefd < 0)
		return;
	put_label("log", COLOUR_BOLD);
	printf("%" PRIu64 " records, %s in %" PRIu64 " segments", s->records,
	       format_bytes(bytes, sizeof(bytes), s->bytes), s->segments);
	if (s->packed)
		printf(" (%" PRIu64 " compressed)", s->packed);
	putchar('\n');
	if (s->records)
		printf("%14s%.19s to %.19s%s%s\n", "",
		       format_time(first, sizeof(first), s->first_time, utc),
		       format_time(last, sizeof(last), s->last_time, utc), utc ? " UTC" : "",
		       s->dropped ? "; older records are gone (CHROMASHIM_LOG_SIZE)" : "");
	text_problems(s);
	if (s->in_flight_dead)
		printf("%14s%" PRIu64 " calls were under way when their process died"
		       " (chromashim log --in-flight)\n",
		       "", s->in_flight_dead);
	status_text_snapshots(s);
	status_text_replicas(s);
	status_text_drill(s);
	status_text_events(s, utc);
	if (s->data->store_version > version_own_number()) {
		put_label("store", COLOUR_YELLOW);
		printf("a newer chromashim has used it (%s), and this command is %s\n",
		       (version_text(first, s->data->store_version), first), version_own());
	}
	if (s->foreign > 0) {
		put_label("store", COLOUR_YELLOW);
		printf("%" PRIi64 " files in it are not its owner's (chromashim check)\n",
		       s->foreign);
	}
}
