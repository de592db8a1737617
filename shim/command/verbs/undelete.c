/* SPDX-License-Identifier: MIT
 *
 * The list of deleted collections whose directory is left, and the choice among them.
 */
#include "command/verbs/undelete.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#define WAIT_MS 2000 /* for who changes the snapshots just now */

bool undelete_take(struct undelete *u, int option, const char *value)
{
	if (option == 0) {
		u->is_wanted = true;
		u->which = value;
	} else if (option == 1) {
		u->options.name = value;
	} else if (option == 2) {
		u->options.space = (int)chroma_space_of(value);
		if (strcmp(chroma_space_names[u->options.space], value) != 0) {
			warn("there is no space '%s'", value);
			return false;
		}
	}
	return true;
}

bool undelete_is_sound(const struct undelete *u)
{
	bool is_one = u->which && strcmp(u->which, "all") != 0;

	if (u->options.name && !is_one)
		warn("--name belongs to one --undelete=SEGMENT");
	else if (u->options.name && !chroma_is_collection_name(u->options.name))
		warn("'%s' is no name of a collection: " CHROMA_NAME_RULE, u->options.name);
	else if (u->options.space >= 0 && !u->which)
		warn("--space belongs to --undelete=SEGMENT");
	else
		return true;
	return false;
}

/* ---- telling ---- */

static const char *space_name(int space)
{
	return space == CHROMA_SPACE_L2_OR_IP ? "l2 or ip"
	       : space < 0		      ? NULL
					      : chroma_space_names[space];
}

static void format_changed(char *out, size_t room, const struct leftover *l)
{
	format_time_utc(out, room, (uint64_t)l->changed * SECOND);
}

static void put_json(struct json *j, const struct leftover *l)
{
	char changed[48];

	format_changed(changed, sizeof(changed), l);
	json_begin(j, '{');
	json_key(j, "segment");
	json_string(j, l->segment);
	json_key(j, "ids");
	json_uint(j, l->ids);
	json_key(j, "dimension");
	json_uint(j, l->header.stride ? hnsw_dimension(&l->header) : 0);
	json_key(j, "persisted");
	json_string(j, l->changed ? changed : NULL);
	json_key(j, "damage");
	json_string(j, l->damage);
	json_key(j, "space");
	json_string(j, space_name(l->space));
	json_key(j, "snapshot");
	if (l->snapshot)
		json_uint(j, l->snapshot);
	else
		json_null(j);
	json_key(j, "collection");
	json_string(j, l->snapshot ? l->name : NULL);
	json_key(j, "recoverable");
	json_bool(j, leftover_is_whole(l));
	json_end(j, '}');
}

static void print(const struct leftover *l)
{
	char changed[48];

	format_changed(changed, sizeof(changed), l);
	printf("%s  ", l->segment);
	if (l->damage)
		printf("its files are damaged (%s)\n", l->damage);
	else if (!l->ids)
		printf("was never persisted\n");
	else
		printf("%" PRIu64 " ids, dimension %" PRIu64 ", space %s, last persisted %.19sZ\n",
		       l->ids, hnsw_dimension(&l->header),
		       space_name(l->space) ? space_name(l->space) : "unknown", changed);
	if (l->snapshot) {
		printf("    collection ");
		terminal_put_text(stdout, l->name, strlen(l->name));
		printf(" of snapshot %" PRIu64 ", with documents and metadata%s\n", l->snapshot,
		       l->is_newer ? "; persisted since" : "");
	} else if (leftover_is_whole(l)) {
		printf("    in no snapshot: comes back as recovered-%.8s, ids and vectors alone\n",
		       l->segment);
	} else {
		printf("    in no snapshot: cannot be brought back\n");
	}
}

static void list(const struct undelete *u, const struct snapshots *s,
		 const struct snapshot_flags *flags)
{
	struct json j = {.out = stdout};
	size_t i;

	if (flags->json) {
		json_begin(&j, '{');
		json_key(&j, "schema_version");
		json_uint(&j, SCHEMA_VERSION);
		json_key(&j, "directory");
		json_string(&j, s->data.dir);
		json_key(&j, "deleted");
		json_begin(&j, '[');
		for (i = 0; i < u->count; i++)
			put_json(&j, &u->list[i]);
		json_end(&j, ']');
		json_end(&j, '}');
		json_newline(&j);
		return;
	}
	for (i = 0; i < u->count; i++)
		print(&u->list[i]);
	if (u->count == 0 && !flags->quiet)
		printf("no directory of a deleted collection is left in '%s'\n", s->data.dir);
}

/* ---- choosing ---- */

/* Only those that are meant stay in the list. */
static void choose(struct undelete *u)
{
	size_t i, kept = 0, length = strlen(u->which);
	bool all = strcmp(u->which, "all") == 0;

	for (i = 0; i < u->count; i++)
		if (all ? leftover_is_whole(&u->list[i])
			: strncmp(u->list[i].segment, u->which, length) == 0)
			u->list[kept++] = u->list[i];
	u->count = kept;
}

static int check_choice(const struct undelete *u, const struct snapshots *s)
{
	static const char todo[] = "`chromashim recover --undelete` lists what there is.";

	if (u->count == 0)
		return fail(EXIT_NOT_FOUND, 0, todo,
			    "there is no such deleted collection in '%s': %s", s->data.dir,
			    u->which);
	if (strcmp(u->which, "all") == 0)
		return 0;
	if (u->count > 1)
		return fail(EXIT_USAGE, 0, todo, "several deleted collections begin with '%s'",
			    u->which);
	if (u->list[0].damage && !leftover_is_whole(&u->list[0]))
		return fail(EXIT_FAILED, 0, todo, "%s cannot be brought back: %s, and no snapshot",
			    u->list[0].segment, u->list[0].damage);
	if (!leftover_is_whole(&u->list[0]))
		return fail(EXIT_FAILED, 0, todo,
			    "%s cannot be brought back: it was never persisted, and no snapshot "
			    "has it",
			    u->list[0].segment);
	return 0;
}

int undelete_find(struct undelete *u, struct snapshots *s, const struct snapshot_flags *flags)
{
	char path[48];
	int status = 0, r;

	if (s->store.lockfd < 0 && snapshots_load(s, SNAPSHOT_KEEP, false, WAIT_MS) == 0)
		u->loaded = s; /* to read; without a snapshot it goes as well */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->data.dirfd);
	r = leftover_list(path, s->data.dirfd, s->store.lockfd >= 0 ? &s->store : NULL, &u->list,
			  &u->count);
	if (r < 0)
		return fail(exit_code_of(r), r, "Heal the database first: chromashim recover.",
			    "cannot look for deleted collections in '%s'", s->data.dir);
	if (u->which) {
		choose(u);
		status = check_choice(u, s);
	}
	u->options.list = u->list;
	u->options.count = u->count;
	if (status == 0 && undelete_only_lists(u, flags))
		list(u, s, flags);
	return status;
}

void undelete_free(struct undelete *u)
{
	if (u->loaded)
		snapshots_unload(u->loaded);
	free(u->list);
	*u = (struct undelete){.is_wanted = false};
}
