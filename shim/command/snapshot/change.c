/* SPDX-License-Identifier: MIT
 *
 * `chromashim snapshot verify`, `hold`, `release` and `delete`.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/snapshots.h"
#include "command/base/terminal.h"
#include "core/base/json.h"

#define DEFAULT_TAG "held"

/* Tells a directory from a TAG or an ID that stands in the same place. */
static bool is_directory(const char *word)
{
	return strchr(word, '/') || !strcmp(word, ".") || !strcmp(word, "..");
}

/* ---- verify ---- */

static void tell_verified(const struct manifest *m, struct json *j,
			  const struct snapshot_flags *flags)
{
	if (flags->json) {
		json_begin(j, '{');
		json_key(j, "id");
		json_uint(j, m->header.id);
		json_key(j, "state");
		json_string(j, snapshot_state_name(m->header.state));
		json_key(j, "trouble");
		json_string(j, m->trouble[0] ? m->trouble : NULL);
		json_end(j, '}');
	} else if (m->header.state == SNAPSHOT_VERIFIED && !flags->quiet) {
		printf("snapshot %" PRIu64 " is %s\n", m->header.id,
		       snapshot_state_name(m->header.state));
	}
}

static int verify(struct snapshots *s, const char *spec, bool all,
		  const struct snapshot_flags *flags)
{
	long at = all ? 0 : snapshots_find(s, spec), end = all ? (long)s->count : at + 1;
	struct json j = {.out = stdout};
	int status = EXIT_DONE, one;

	if (at < 0)
		return EXIT_NOT_FOUND;
	if (flags->json) {
		json_begin(&j, '{');
		json_key(&j, "schema_version");
		json_uint(&j, SCHEMA_VERSION);
		json_key(&j, "snapshots");
		json_begin(&j, '[');
	}
	for (; at < end; at++) {
		one = snapshots_verify(s, &s->list[at], flags);
		status = one == EXIT_DONE || status == EXIT_FAILED ? status : one;
		tell_verified(&s->list[at], &j, flags);
	}
	if (flags->json) {
		json_end(&j, ']');
		json_end(&j, '}');
		json_newline(&j);
	}
	return status;
}

int snapshot_command_verify(int argc, char **argv)
{
	enum { ALL = 256, JSON };
	static const struct option options[] = {{"all", no_argument, NULL, ALL},
						{"json", no_argument, NULL, JSON},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	struct snapshot_flags flags = {0};
	const char *spec = NULL;
	struct snapshots s;
	bool all = false;
	int option, status;

	while ((option = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("snapshot");
		all = all || option == ALL;
		flags.json = flags.json || option == JSON;
		flags.quiet = flags.quiet || option == 'q';
	}
	if (!all && optind < argc && !is_directory(argv[optind]))
		spec = argv[optind++];
	if (argc - optind > 1) {
		warn("snapshot verify takes an ID or --all, and a directory");
		return fail_usage("snapshot");
	}
	status = snapshots_open(&s, argv[optind], SNAPSHOT_ADD, false);
	if (status)
		return status;
	status = verify(&s, spec ? spec : "latest", all, &flags);
	snapshots_close(&s);
	return status;
}

/* ---- hold and release ---- */

static int change_hold(struct snapshots *s, const char *spec, const char *tag, bool hold)
{
	long at = snapshots_find(s, spec);
	struct manifest *m;
	int r = 0;

	if (at < 0)
		return EXIT_NOT_FOUND;
	m = &s->list[at];
	r = snapshots_settle(s, at, &(struct snapshot_flags){0});
	if (r)
		return r;
	if (m->header.magic != SNAPSHOT_MAGIC)
		return fail(EXIT_FAILED, 0, "Only `chromashim snapshot delete` is possible.",
			    "snapshot %" PRIu64 ": %s", m->header.id, m->trouble);
	if (!hold && manifest_remove_tag(m, tag) == 0)
		return fail(EXIT_NOT_FOUND, 0, "`chromashim snapshot show` says what holds it.",
			    "snapshot %" PRIu64 " is not held%s%s", m->header.id, tag ? " by " : "",
			    tag ? tag : "");
	if (hold && !manifest_has_tag(m, tag ? tag : DEFAULT_TAG))
		r = manifest_add_tag(m, tag ? tag : DEFAULT_TAG);
	if (r == 0)
		r = manifest_write(s->store.dirfd, m);
	return r < 0 ? fail(exit_code_of(r), r, "Make room, or run this as the store's owner.",
			    "cannot write the manifest of snapshot %" PRIu64, m->header.id)
		     : EXIT_DONE;
}

static int hold_or_release(int argc, char **argv, bool hold)
{
	static const struct option options[] = {{NULL, 0, NULL, 0}};
	const char *spec, *tag = NULL;
	struct snapshots s;
	int status;

	if (getopt_long(argc, argv, "", options, NULL) != -1)
		return fail_usage("snapshot");
	if (optind == argc) {
		warn("snapshot %s needs an ID", hold ? "hold" : "release");
		return fail_usage("snapshot");
	}
	spec = argv[optind++];
	if (optind < argc && !is_directory(argv[optind]))
		tag = argv[optind++];
	if (argc - optind > 1 || (tag && (!*tag || strlen(tag) > 64))) {
		warn("snapshot %s takes an ID, a TAG of at most 64 bytes, and a directory",
		     hold ? "hold" : "release");
		return fail_usage("snapshot");
	}
	status = snapshots_open(&s, argv[optind], SNAPSHOT_CHANGE, false);
	if (status)
		return status;
	status = change_hold(&s, spec, tag, hold);
	snapshots_close(&s);
	return status;
}

int snapshot_command_hold(int argc, char **argv)
{
	return hold_or_release(argc, argv, true);
}

int snapshot_command_release(int argc, char **argv)
{
	return hold_or_release(argc, argv, false);
}

/* ---- delete ---- */

static bool is_last_verified(const struct snapshots *s, const bool *chosen, size_t at)
{
	size_t i;

	if (s->list[at].header.state != SNAPSHOT_VERIFIED)
		return false;
	for (i = 0; i < s->count; i++)
		if (!chosen[i] && s->list[i].header.state == SNAPSHOT_VERIFIED)
			return false;
	return true;
}

static int may_be_deleted(const struct snapshots *s, const bool *chosen, size_t at, bool force)
{
	const struct manifest *m = &s->list[at];

	if (m->tag_count && !force)
		return fail(EXIT_FAILED, 0, "`chromashim snapshot release`, or --force.",
			    "snapshot %" PRIu64 " is held by '%s'", m->header.id, m->tags[0]);
	if (!force && is_last_verified(s, chosen, at))
		return fail(EXIT_FAILED, 0, "Take another one first, or add --force.",
			    "snapshot %" PRIu64 " is the last verified one", m->header.id);
	return 0;
}

static int delete_chosen(struct snapshots *s, const bool *chosen,
			 const struct snapshot_flags *flags)
{
	uint64_t freed = 0;
	char text[24];
	size_t i, count = 0;
	int r = 0;

	for (i = 0; i < s->count && r == 0; i++) {
		if (!chosen[i])
			continue;
		count++;
		if (!flags->dry)
			r = snapshots_remove(s, i);
	}
	if (r == 0 && !flags->dry)
		r = snapshot_collect(&s->store, false, &freed);
	if (r == -EBADMSG)
		warn("chunks are left as they are, since a manifest cannot be read");
	else if (r < 0)
		return fail(exit_code_of(r), r, "Run this as the store's owner.",
			    "cannot delete from '%s'", s->data.store);
	if (!flags->quiet)
		printf("%s %zu snapshots, %s\n", flags->dry ? "would delete" : "deleted", count,
		       flags->dry ? "nothing was changed"
				  : format_bytes(text, sizeof(text), freed));
	return EXIT_DONE;
}

static int delete_named(struct snapshots *s, char **specs, int n,
			const struct snapshot_flags *flags)
{
	bool *chosen = calloc(s->count + 1, sizeof(*chosen));
	int i, status = chosen ? 0 : EXIT_FAILED;
	size_t j;

	for (i = 0; i < n && status == 0; i++) {
		long at = snapshots_find(s, specs[i]);

		if (at < 0)
			status = EXIT_NOT_FOUND;
		else
			chosen[at] = true;
	}
	for (j = 0; j < s->count && status == 0; j++)
		if (chosen[j])
			status = may_be_deleted(s, chosen, j, flags->force);
	if (status == 0 && !flags->dry)
		status = snapshots_confirm(flags, "Delete %d snapshots for good?", n);
	if (status == 0)
		status = delete_chosen(s, chosen, flags);
	free(chosen);
	return status;
}

int snapshot_command_delete(int argc, char **argv)
{
	static const struct option options[] = {{"dry-run", no_argument, NULL, 'n'},
						{"yes", no_argument, NULL, 'y'},
						{"force", no_argument, NULL, 'f'},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	struct snapshot_flags flags = {0};
	const char *dir = NULL;
	struct snapshots s;
	int option, status;

	while ((option = getopt_long(argc, argv, "nyfq", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("snapshot");
		flags.dry = flags.dry || option == 'n';
		flags.yes = flags.yes || option == 'y';
		flags.force = flags.force || option == 'f';
		flags.quiet = flags.quiet || option == 'q';
	}
	if (optind < argc && is_directory(argv[argc - 1]))
		dir = argv[--argc];
	if (optind == argc) {
		warn("snapshot delete needs an ID");
		return fail_usage("snapshot");
	}
	status = snapshots_open(&s, dir, SNAPSHOT_CHANGE, false);
	if (status)
		return status;
	status = delete_named(&s, argv + optind, argc - optind, &flags);
	snapshots_close(&s);
	return status;
}
