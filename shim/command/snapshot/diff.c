/* SPDX-License-Identifier: MIT
 *
 * `chromashim snapshot diff`: collections, records and files of two snapshots compared.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command/base/terminal.h"
#include "command/snapshot/diff.h"
#include "core/base/json.h"

struct diff {
	const struct manifest *a, *b;
	struct json *json; /* NULL: text */
};

static void put(struct diff *d, const char *change, const char *kind, const char *name,
		uint64_t before, uint64_t after)
{
	const char *unit = !strcmp(kind, "collection") ? "records" : "bytes";

	if (!d->json) {
		printf("%c %-10s ", change[0] == 'a' ? '+' : change[0] == 'r' ? '-' : 'M', kind);
		terminal_put_text(stdout, name, strlen(name));
		printf(": %" PRIu64 " -> %" PRIu64 " %s\n", before, after, unit);
		return;
	}
	json_begin(d->json, '{');
	json_key(d->json, "change");
	json_string(d->json, change);
	json_key(d->json, "kind");
	json_string(d->json, kind);
	json_key(d->json, "name");
	json_string(d->json, name);
	json_key(d->json, "before");
	json_uint(d->json, before);
	json_key(d->json, "after");
	json_uint(d->json, after);
	json_end(d->json, '}');
}

static const struct manifest_collection *find_collection(const struct manifest *m, const char *id)
{
	uint32_t i;

	for (i = 0; i < m->collection_count; i++)
		if (!strcmp(m->collections[i].id, id))
			return &m->collections[i];
	return NULL;
}

static void diff_collections(struct diff *d)
{
	const struct manifest_collection *c, *other;
	uint32_t i;

	for (i = 0; i < d->a->collection_count; i++) {
		c = &d->a->collections[i];
		other = find_collection(d->b, c->id);
		if (!other)
			put(d, "removed", "collection", c->name, c->records, 0);
		else if (other->records != c->records || strcmp(other->name, c->name) != 0)
			put(d, "changed", "collection", other->name, c->records, other->records);
	}
	for (i = 0; i < d->b->collection_count; i++) {
		c = &d->b->collections[i];
		if (!find_collection(d->a, c->id))
			put(d, "added", "collection", c->name, 0, c->records);
	}
}

static bool is_same_content(const struct manifest_file *a, const struct manifest_file *b)
{
	return a->size == b->size && (a->size == 0 || memcmp(a->chunks, b->chunks,
							     (size_t)manifest_chunk_count(a->size) *
								 sizeof(*a->chunks)) == 0);
}

static void diff_files(struct diff *d)
{
	const struct manifest_file *f, *other;
	uint32_t i;

	for (i = 0; i < d->a->file_count; i++) {
		f = &d->a->files[i];
		other = manifest_find(d->b, f->path);
		if (!other)
			put(d, "removed", "file", f->path, f->size, 0);
		else if (!is_same_content(f, other))
			put(d, "changed", "file", f->path, f->size, other->size);
	}
	for (i = 0; i < d->b->file_count; i++) {
		f = &d->b->files[i];
		if (!manifest_find(d->a, f->path))
			put(d, "added", "file", f->path, 0, f->size);
	}
}

/* Its index, and it is copied first if it is only pinned; -1: *status_out is the exit status. */
static long diff_side(struct snapshots *s, const char *spec, int *status_out)
{
	long at = snapshots_find(s, *spec ? spec : "latest");

	*status_out =
	    at < 0 ? EXIT_NOT_FOUND : snapshots_settle(s, at, &(struct snapshot_flags){0});
	return *status_out ? -1 : at;
}

static bool can_be_read(const struct manifest *m)
{
	if (m->header.magic == SNAPSHOT_MAGIC)
		return true;
	fail(EXIT_FAILED, 0, "Compare others: `chromashim snapshot list`.",
	     "the manifest of snapshot %" PRIu64 " cannot be read", m->header.id);
	return false;
}

static int diff_all(struct diff *d, bool as_json)
{
	if (as_json)
		json_begin(d->json, '[');
	diff_collections(d);
	diff_files(d);
	if (as_json) {
		json_end(d->json, ']');
		json_newline(d->json);
	}
	return EXIT_DONE;
}

struct diff_arguments {
	char *range;
	const char *collection;
	bool json, records;
};

static int diff(struct snapshots *s, const struct diff_arguments *x)
{
	struct json j = {.out = stdout};
	struct diff d = {.json = x->json ? &j : NULL};
	char *second = strstr(x->range, "..");
	bool to_now = strcmp(second + 2, "now") == 0;
	long a, b = 0;
	int status;

	*second = '\0';
	second += 2;
	a = diff_side(s, x->range, &status);
	if (a >= 0 && !to_now)
		b = diff_side(s, second, &status);
	if (status)
		return status;
	d.a = &s->list[a];
	d.b = to_now ? NULL : &s->list[b];
	if (!can_be_read(d.a) || (d.b && !can_be_read(d.b)))
		return EXIT_FAILED;
	return x->records ? diff_records(s, d.a, d.b, x->collection, x->json)
			  : diff_all(&d, x->json);
}

/* A..B; now is compared by its records only. */
static bool diff_is_sound(const struct diff_arguments *x, int count)
{
	const char *second = count >= 1 ? strstr(x->range, "..") : NULL;

	if (count < 1 || count > 2 || !second)
		warn("snapshot diff takes A..B, and a directory");
	else if (strcmp(second + 2, "now") == 0 && !x->records)
		warn("what is there now is compared by its records: add --records");
	else if (x->collection && !x->records)
		warn("--collection goes with --records");
	else
		return true;
	return false;
}

int snapshot_command_diff(int argc, char **argv)
{
	enum { JSON = 256, RECORDS, COLLECTION };
	static const struct option options[] = {{"json", no_argument, NULL, JSON},
						{"records", no_argument, NULL, RECORDS},
						{"collection", required_argument, NULL, COLLECTION},
						{NULL, 0, NULL, 0}};
	struct diff_arguments x = {.range = NULL};
	struct snapshots s;
	int option, status;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("snapshot");
		x.json = x.json || option == JSON;
		x.records = x.records || option == RECORDS;
		x.collection = option == COLLECTION ? optarg : x.collection;
	}
	x.range = argv[optind];
	if (!diff_is_sound(&x, argc - optind))
		return fail_usage("snapshot");
	status =
	    snapshots_open(&s, argv[optind + 1], x.records ? SNAPSHOT_KEEP : SNAPSHOT_LOOK, false);
	if (status)
		return status;
	status = diff(&s, &x);
	snapshots_close(&s);
	return status;
}
