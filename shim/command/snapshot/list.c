/* SPDX-License-Identifier: MIT
 *
 * `chromashim snapshot list` and `show`.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/base/snapshots.h"
#include "command/base/terminal.h"
#include "core/base/json.h"
#include "core/store/kept.h"

#define KEPT_TOLD 3

static void put_time(struct json *j, const char *key, uint64_t ns)
{
	char text[40];

	json_put_text(j, key, ns ? format_time_utc(text, sizeof(text), ns) : NULL);
}

static void put_held(struct json *j, const struct manifest *m)
{
	uint32_t i;

	json_key(j, "held");
	json_begin(j, '[');
	for (i = 0; i < m->tag_count; i++)
		json_string(j, m->tags[i]);
	json_end(j, ']');
}

static void json_members(struct json *j, const struct manifest *m, uint64_t used)
{
	json_put_uint(j, "id", m->header.id);
	put_time(j, "time", m->header.time);
	json_put_text(j, "state", snapshot_state_name(m->header.state));
	json_key(j, "progress");
	if (m->header.state == SNAPSHOT_HYDRATING)
		json_uint(j, m->header.progress);
	else
		json_null(j);
	json_put_text(j, "trouble", m->trouble);
	json_put_text(j, "reason", m->reason);
	json_put_text(j, "description", m->description);
	json_put_uint(j, "size", manifest_total_size(m));
	json_put_uint(j, "used", used);
	put_held(j, m);
}

/* ---- list ---- */

static void json_list(const struct snapshots *s, const uint64_t *used)
{
	struct json j = {.out = stdout};
	size_t i;

	json_begin(&j, '[');
	for (i = 0; i < s->count; i++) {
		json_begin(&j, '{');
		json_members(&j, &s->list[i], used[i]);
		json_end(&j, '}');
	}
	json_end(&j, ']');
	json_newline(&j);
}

static enum colour colour_of(const struct manifest *m)
{
	switch (m->header.state) {
	case SNAPSHOT_VERIFIED:
		return COLOUR_GREEN;
	case SNAPSHOT_BROKEN:
		return COLOUR_RED;
	default:
		return COLOUR_YELLOW;
	}
}

static void join_tags(char *out, size_t room, const struct manifest *m)
{
	size_t n = 0;
	uint32_t i;

	snprintf(out, room, "%s", m->tag_count ? "" : "-");
	for (i = 0; i < m->tag_count && n < room; i++)
		n += (size_t)snprintf(out + n, room - n, "%s%s", i ? "," : "", m->tags[i]);
}

static void text_line(const struct manifest *m, uint64_t used, bool utc)
{
	char time[40] = "-", size[24], exclusive[24], held[256], text[512], state[32];
	bool broken = m->header.state == SNAPSHOT_BROKEN;
	int width = terminal_width();

	if (m->header.time) {
		format_time(time, sizeof(time), m->header.time, utc);
		memmove(time + 19, utc ? "Z" : "", utc ? 2 : 1); /* whole seconds will do */
	}
	join_tags(text, sizeof(text), m);
	terminal_fit(held, sizeof(held), text, 16);
	terminal_fit(text, sizeof(text), broken && m->trouble[0] ? m->trouble : m->description,
		     width > 89 ? (size_t)width - 89 : 0);
	printf("%4" PRIu64 "  %-20s %s%-14s%s %-10s %10s %10s  %-8s %s\n", m->header.id, time,
	       terminal_colour(colour_of(m)), snapshots_state(m, state, sizeof(state)),
	       terminal_colour(COLOUR_PLAIN), m->reason[0] ? m->reason : "-",
	       format_bytes(size, sizeof(size), manifest_total_size(m)),
	       format_bytes(exclusive, sizeof(exclusive), used), held, text);
}

void snapshots_tell_kept(const struct data_directory *t, const char *label)
{
	int parent = openat(t->dirfd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct store_kept *list = NULL;
	size_t count = 0, i, told = 0;
	struct stat st;

	if (parent < 0 || fstat(t->dirfd, &st) < 0 ||
	    stores_kept(parent, st.st_uid, &list, &count) < 0)
		count = 0;
	for (i = 0; i < count; i++) {
		if (!list[i].directory[0])
			continue;
		if (told < KEPT_TOLD) {
			fputs(told ? ", " : label, stdout);
			terminal_put_text(stdout, list[i].directory, strlen(list[i].directory));
		}
		told++;
	}
	if (told > KEPT_TOLD)
		printf(" and %zu more", told - KEPT_TOLD);
	if (told)
		printf(": removed; the snapshots are kept (to have one back: `chromashim restore "
		       "--to latest DIR`)\n");
	free(list);
	if (parent >= 0)
		close(parent);
}

static void text_list(const struct snapshots *s, const uint64_t *used, uint64_t all,
		      const struct snapshot_flags *flags)
{
	char text[24];
	size_t i;

	if (!flags->quiet)
		printf("%s%4s  %-20s %-14s %-10s %10s %10s  %-8s %s%s\n",
		       terminal_colour(COLOUR_BOLD), "ID", "TIME", "STATE", "REASON", "SIZE",
		       "USED", "HELD", "DESCRIPTION", terminal_colour(COLOUR_PLAIN));
	for (i = 0; i < s->count && !terminal_is_gone(); i++)
		text_line(&s->list[i], used[i], flags->utc);
	if (!flags->quiet)
		printf("%zu snapshots in %s\n", s->count, format_bytes(text, sizeof(text), all));
	if (!flags->quiet)
		snapshots_tell_kept(&s->data, "");
}

int snapshot_command_list(int argc, char **argv)
{
	enum { UTC = 256, JSON };
	static const struct option options[] = {{"utc", no_argument, NULL, UTC},
						{"json", no_argument, NULL, JSON},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	struct snapshot_flags flags = {0};
	struct snapshots s;
	uint64_t *used, all;
	int option, status, r;

	while ((option = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("snapshot");
		flags.utc = flags.utc || option == UTC;
		flags.json = flags.json || option == JSON;
		flags.quiet = flags.quiet || option == 'q';
	}
	if (argc - optind > 1) {
		warn("snapshot list takes one directory");
		return fail_usage("snapshot");
	}
	status = snapshots_open(&s, argv[optind], SNAPSHOT_LOOK, false);
	if (status)
		return status;
	used = calloc(s.count + 1, sizeof(*used));
	r = used ? snapshot_sizes(&s.store, s.list, s.count, NULL, used, &all) : -1;
	if (r < 0)
		status = fail(EXIT_FAILED, 0, "Try again with more memory free.",
			      "cannot add up the snapshots in '%s'", s.data.store);
	else if (flags.json)
		json_list(&s, used);
	else
		text_list(&s, used, all, &flags);
	free(used);
	snapshots_close(&s);
	return status;
}

/* ---- show ---- */

static void json_show(const struct manifest *m, uint64_t used)
{
	struct json j = {.out = stdout};
	uint32_t i;

	json_begin(&j, '{');
	json_put_uint(&j, "schema_version", SCHEMA_VERSION);
	json_members(&j, m, used);
	put_time(&j, "verified", m->header.verified);
	json_put_uint(&j, "records", manifest_records(m));
	json_key(&j, "migrations");
	json_begin(&j, '[');
	for (i = 0; i < 3; i++)
		json_uint(&j, m->header.migrations[i]);
	json_end(&j, ']');
	json_key(&j, "collections");
	json_begin(&j, '[');
	for (i = 0; i < m->collection_count; i++) {
		json_begin(&j, '{');
		json_put_text(&j, "id", m->collections[i].id);
		json_put_text(&j, "name", m->collections[i].name);
		json_put_uint(&j, "records", m->collections[i].records);
		json_end(&j, '}');
	}
	json_end(&j, ']');
	json_key(&j, "files");
	json_begin(&j, '[');
	for (i = 0; i < m->file_count; i++) {
		json_begin(&j, '{');
		json_put_text(&j, "path", m->files[i].path);
		json_put_uint(&j, "size", m->files[i].size);
		json_end(&j, '}');
	}
	json_end(&j, ']');
	json_end(&j, '}');
	json_newline(&j);
}

static void put_line(const char *label, const char *text)
{
	printf("%-12s ", label);
	terminal_put_text(stdout, text, strlen(text));
	putchar('\n');
}

static void text_show(const struct manifest *m, uint64_t used, bool utc)
{
	char text[512], size[24];
	uint32_t i;

	printf("snapshot     %" PRIu64 "\n", m->header.id);
	put_line("taken", format_time(text, sizeof(text), m->header.time, utc));
	printf("state        %s%s%s\n", terminal_colour(colour_of(m)),
	       snapshots_state(m, size, sizeof(size)), terminal_colour(COLOUR_PLAIN));
	if (m->header.verified)
		put_line("checked", format_time(text, sizeof(text), m->header.verified, utc));
	if (m->trouble[0])
		put_line("trouble", m->trouble);
	put_line("reason", m->reason);
	if (m->description[0])
		put_line("description", m->description);
	join_tags(text, sizeof(text), m);
	put_line("held by", text);
	printf("size         %s", format_bytes(size, sizeof(size), manifest_total_size(m)));
	printf(", %s of it used by this one alone\n", format_bytes(size, sizeof(size), used));
	printf("migrations   embeddings_queue %u, metadb %u, sysdb %u\n", m->header.migrations[0],
	       m->header.migrations[1], m->header.migrations[2]);
	for (i = 0; i < m->collection_count; i++) {
		printf("collection   ");
		terminal_put_text(stdout, m->collections[i].name, strlen(m->collections[i].name));
		printf(": %" PRIu64 " records\n", m->collections[i].records);
	}
	for (i = 0; i < m->file_count; i++)
		printf("file         %10s  %s\n",
		       format_bytes(size, sizeof(size), m->files[i].size), m->files[i].path);
}

static int list_show(struct snapshots *s, const char *spec, const struct snapshot_flags *flags)
{
	long at = snapshots_find(s, spec);
	uint64_t *used, all;
	int r;

	if (at < 0)
		return EXIT_NOT_FOUND;
	used = calloc(s->count, sizeof(*used));
	r = used ? snapshot_sizes(&s->store, s->list, s->count, NULL, used, &all) : -1;
	if (r == 0 && flags->json)
		json_show(&s->list[at], used[at]);
	else if (r == 0)
		text_show(&s->list[at], used[at], flags->utc);
	free(used);
	return r == 0 ? EXIT_DONE
		      : fail(EXIT_FAILED, 0, "Try again with more memory free.",
			     "cannot add up the snapshots in '%s'", s->data.store);
}

int snapshot_command_show(int argc, char **argv)
{
	enum { UTC = 256, JSON };
	static const struct option options[] = {
	    {"utc", no_argument, NULL, UTC}, {"json", no_argument, NULL, JSON}, {NULL, 0, NULL, 0}};
	struct snapshot_flags flags = {0};
	struct snapshots s;
	int option, status;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("snapshot");
		flags.utc = flags.utc || option == UTC;
		flags.json = flags.json || option == JSON;
	}
	if (argc - optind < 1 || argc - optind > 2) {
		warn("snapshot show takes an ID, and a directory");
		return fail_usage("snapshot");
	}
	status = snapshots_open(&s, argv[optind + 1], SNAPSHOT_LOOK, false);
	if (status)
		return status;
	status = list_show(&s, argv[optind], &flags);
	snapshots_close(&s);
	return status;
}
