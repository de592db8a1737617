/* SPDX-License-Identifier: MIT
 *
 * `chromashim snapshot diff`: collections, records and files of two snapshots compared.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command/base/snapshots.h"
#include "command/base/terminal.h"
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

static int diff(struct snapshots *s, char *range, bool as_json)
{
	struct json j = {.out = stdout};
	struct diff d = {.json = as_json ? &j : NULL};
	char *second = strstr(range, "..");
	long a, b;
	int status;

	*second = '\0';
	second += 2;
	a = snapshots_find(s, *range ? range : "latest");
	b = a < 0 ? -1 : snapshots_find(s, *second ? second : "latest");
	if (a < 0 || b < 0)
		return EXIT_NOT_FOUND;
	status = snapshots_settle(s, a, &(struct snapshot_flags){0});
	if (status == 0)
		status = snapshots_settle(s, b, &(struct snapshot_flags){0});
	if (status)
		return status;
	d.a = &s->list[a];
	d.b = &s->list[b];
	if (d.a->header.magic != SNAPSHOT_MAGIC || d.b->header.magic != SNAPSHOT_MAGIC)
		return fail(EXIT_FAILED, 0, "Compare others: `chromashim snapshot list`.",
			    "the manifest of one of them cannot be read");
	if (as_json)
		json_begin(&j, '[');
	diff_collections(&d);
	diff_files(&d);
	if (as_json) {
		json_end(&j, ']');
		json_newline(&j);
	}
	return EXIT_DONE;
}

int snapshot_command_diff(int argc, char **argv)
{
	enum { JSON = 256 };
	static const struct option options[] = {{"json", no_argument, NULL, JSON},
						{NULL, 0, NULL, 0}};
	struct snapshots s;
	bool json = false;
	int option, status;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("snapshot");
		json = true;
	}
	if (argc - optind < 1 || argc - optind > 2 || !strstr(argv[optind], "..")) {
		warn("snapshot diff takes A..B, and a directory");
		return fail_usage("snapshot");
	}
	status = snapshots_open(&s, argv[optind + 1], SNAPSHOT_LOOK, false);
	if (status)
		return status;
	status = diff(&s, argv[optind], json);
	snapshots_close(&s);
	return status;
}
