/* SPDX-License-Identifier: MIT
 *
 * `chromashim restore --collection`: single records of a snapshot back into a directory that has
 * gone on.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/in_use.h"
#include "command/base/terminal.h"
#include "command/verbs/restore.h"
#include "core/export/compare.h"
#include "core/recover/give_back.h"
#include "core/recover/internal.h"
#include "core/recover/leftover.h"

#define IDS_SHOWN 10

struct bringing {
	struct restoring *x;
	struct compare compare;
	struct compare_chosen chosen;
	uint64_t found; /* collections of that name in the snapshot */
	char id[CHROMA_ID_SIZE], name[LEFTOVER_NAME_SIZE]; /* of the collection, there */
	char now[CHROMA_ID_SIZE];			   /* its id now; "": it is not there */
};

static int fail_reading(const struct bringing *b, int error)
{
	return fail(exit_code_of(error), error,
		    "`chromashim check` tells what is wrong with the directory.",
		    "cannot compare the records of '%s'", b->x->s.data.dir);
}

/* ---- which collection ---- */

static int note_before(void *context, const struct compare_count *count)
{
	struct bringing *b = context;

	if (count->is_new)
		return 0;
	b->found++;
	snprintf(b->id, sizeof(b->id), "%s", count->collection_id);
	snprintf(b->name, sizeof(b->name), "%s", count->collection);
	return 0;
}

static int compare_with_now(struct bringing *b)
{
	struct compare_moment now = {.path = b->x->s.data.dir, .dirfd = b->x->s.data.dirfd};
	int r = compare_take(&b->compare, &now, b->id);

	/* It may have been deleted, and made anew. */
	if (r == 0)
		r = compare_find_after(&b->compare, b->id, b->now);
	if (r == 0 && !b->now[0])
		r = compare_take(&b->compare, &now, b->name);
	return r < 0 ? r : compare_find_after(&b->compare, b->id, b->now);
}

/* The exit status. */
static int find_collection(struct bringing *b)
{
	const struct restore_selection *records = &b->x->records;
	struct compare_moment then = {.store = &b->x->s.store, .manifest = b->x->m};
	int r = compare_open(&b->compare);

	if (r == 0)
		r = compare_take(&b->compare, &then, records->collection);
	if (r == 0)
		r = compare_each_collection(&b->compare, note_before, b);
	if (r < 0)
		return fail_reading(b, r);
	if (b->found == 0)
		return fail(EXIT_NOT_FOUND, 0,
			    "`chromashim snapshot show ID` lists the collections of a snapshot.",
			    "snapshot %" PRIu64 " has no collection '%s'", b->x->m->header.id,
			    records->collection);
	if (b->found > 1)
		return fail(EXIT_USAGE, 0,
			    "Give its id: `chromashim snapshot show ID` lists them with their ids.",
			    "snapshot %" PRIu64 " has %" PRIu64 " collections '%s'",
			    b->x->m->header.id, b->found, records->collection);
	if (records->as)
		return 0;
	r = compare_with_now(b);
	return r < 0 ? fail_reading(b, r) : 0;
}

/* ---- which records ---- */

/* What some editors put first. */
static size_t skip_mark(const char *line, size_t n)
{
	return n >= 3 && !memcmp(line, "\xef\xbb\xbf", 3) ? 3 : 0;
}

/* -ENODATA: there is none. */
static int read_ids(struct bringing *b, FILE *in)
{
	char *line = NULL;
	size_t room = 0, count = 0, from;
	ssize_t n;
	int r = 0;

	while (r == 0 && (n = getline(&line, &room, in)) >= 0) {
		n -= n > 0 && line[n - 1] == '\n';
		n -= n > 0 && line[n - 1] == '\r';
		from = count ? 0 : skip_mark(line, (size_t)n);
		if ((size_t)n == from)
			continue;
		r = compare_name(&b->compare, line + from, (size_t)n - from);
		count++;
	}
	if (r == 0 && ferror(in))
		r = errno ? -errno : -EIO;
	free(line);
	return r == 0 && !count ? -ENODATA : r;
}

/* The exit status. */
static int take_ids(struct bringing *b)
{
	const char *path = b->x->records.ids;
	bool is_stdin = path && strcmp(path, "-") == 0;
	FILE *in = is_stdin ? stdin : path ? fopen(path, "re") : NULL;
	int r;

	if (!path)
		return 0;
	r = in ? read_ids(b, in) : -errno;
	if (in && !is_stdin)
		fclose(in);
	if (r == -ENODATA)
		return fail(EXIT_FAILED, 0, "Give a file with one id a line.",
			    "there are no ids in '%s'", path);
	return r < 0 ? fail(exit_code_of(r), r,
			    "Give a file with one id a line, or - for "
			    "standard input.",
			    "cannot read the ids in '%s'", path)
		     : 0;
}

static int choose(struct bringing *b)
{
	const struct restore_selection *records = &b->x->records;
	bool is_new = records->as || !b->now[0];
	struct compare_choice choice = {.all = is_new && !records->deleted && !records->changed,
					.deleted =
					    records->deleted || records->ids || !records->changed,
					.changed = records->changed || records->ids,
					.named = records->ids != NULL};
	int status = take_ids(b), r;

	if (status)
		return status;
	r = compare_choose(&b->compare, &choice, &b->chosen);
	if (r < 0)
		return fail_reading(b, r);
	if (b->chosen.unknown)
		warn("%" PRIu64 " of the ids are not in collection '%s' of snapshot %" PRIu64,
		     b->chosen.unknown, b->name, b->x->m->header.id);
	return 0;
}

/* ---- telling ---- */

static int show_id(void *context, const char *id, size_t size)
{
	unsigned *shown = context;

	if ((*shown)++ == IDS_SHOWN)
		printf("  …\n");
	if (*shown > IDS_SHOWN)
		return 1;
	printf("  ");
	terminal_put_text(stdout, id, size);
	putchar('\n');
	return 0;
}

static void tell(struct bringing *b, const char *did)
{
	const char *into = b->x->records.as ? b->x->records.as : b->name;
	char time[40];

	format_time(time, sizeof(time), b->x->m->header.time, b->x->flags.utc);
	printf("%s %" PRIu64 " records of collection '%s' as they were in snapshot %" PRIu64
	       " (%s)",
	       did, b->chosen.deleted + b->chosen.changed, b->name, b->x->m->header.id, time);
	if (b->x->records.as || !b->now[0])
		printf(", into a new collection '%s'\n", into);
	else
		printf(": %" PRIu64 " were deleted since, %" PRIu64 " changed\n", b->chosen.deleted,
		       b->chosen.changed);
}

/* ---- doing it ---- */

static int fail_giving(const struct bringing *b, int error)
{
	struct snapshot_trouble none = {{0}, {0}};

	switch (-error) {
	case EEXIST:
		return fail(EXIT_FAILED, 0, "Give another name with --as.",
			    "there is a collection '%s' already",
			    b->x->records.as ? b->x->records.as : b->name);
	case EDOM:
		return fail(EXIT_FAILED, 0, "Bring them into a new one: --as NAME.",
			    "the vectors of collection '%s' have another number of dimensions now",
			    b->name);
	case ESTALE:
		return fail(EXIT_BUSY, 0, "Nothing was changed. Keep it stopped, and try again.",
			    "'%s' was changed while its records were compared", b->x->s.data.dir);
	case EROFS:
	case EACCES:
		return fail(EXIT_FAILED, 0, "Run this as the owner of the directory.",
			    "the database in '%s' cannot be written to", b->x->s.data.dir);
	case EBUSY:
		return fail(EXIT_IN_THE_WAY, 0, restore_stop_it, "a process has '%s' open",
			    b->x->s.data.dir);
	default:
		return snapshots_fail(&b->x->s, error, &none, "cannot write to the queue of");
	}
}

static int give(struct bringing *b)
{
	struct give_back g = {.dirfd = b->x->s.data.dirfd,
			      .store = &b->x->s.store,
			      .manifest = b->x->m,
			      .collection = b->id,
			      .name = b->name,
			      .into = b->x->records.as || !b->now[0] ? NULL : b->now,
			      .as = b->x->records.as,
			      .wanted = b->compare.db,
			      .check = restore_is_as_it_was,
			      .check_context = b->x};
	struct give_back_result done;
	uint64_t kept = 0;
	int status = restore_keep(b->x, &kept), r;

	if (status)
		return status;
	r = recover_give_back(&g, &done);
	if (r < 0) {
		restore_forget(b->x, kept);
		return fail_giving(b, r);
	}
	if (done.bare)
		warn("%" PRIu64
		     " of them have no vector in the snapshot that can be read, and were "
		     "left",
		     done.bare);
	if (!b->x->flags.quiet) {
		tell(b, "brought back");
		printf("Chroma applies them when it starts. `chromashim restore --to %" PRIu64
		       "` undoes this\n",
		       kept);
	}
	return done.bare || b->chosen.unknown ? EXIT_WARNINGS : EXIT_DONE;
}

static int bring_back(struct bringing *b)
{
	unsigned shown = 0;
	int status = find_collection(b);

	if (status == 0)
		status = choose(b);
	if (status)
		return status;
	if (b->chosen.deleted + b->chosen.changed == 0) {
		if (!b->x->flags.quiet)
			printf("nothing to bring back: no such record of collection '%s' was in "
			       "snapshot %" PRIu64 " and is lost or another now\n",
			       b->name, b->x->m->header.id);
		return b->chosen.unknown ? EXIT_WARNINGS : EXIT_DONE;
	}
	if (b->x->flags.dry) {
		tell(b, "would bring back");
		compare_each_wanted(&b->compare, show_id, &shown);
		return in_use_refuse(&b->x->s.data, restore_stop_it);
	}
	status =
	    snapshots_confirm(&b->x->flags,
			      "Bring back %" PRIu64 " records of collection '%s' as they were "
			      "in snapshot %" PRIu64 "?",
			      b->chosen.deleted + b->chosen.changed, b->name, b->x->m->header.id);
	return status ? status : give(b);
}

int restore_records(struct restoring *x)
{
	struct bringing b = {.x = x};
	int status = x->flags.dry ? 0 : in_use_refuse(&x->s.data, restore_stop_it);

	if (status)
		return status;
	if (!x->flags.dry)
		snapshots_roll_back(&x->s.data);
	x->state = recover_state(x->s.data.dirfd);
	status = bring_back(&b);
	compare_close(&b.compare);
	return status;
}
