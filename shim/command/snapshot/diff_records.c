/* SPDX-License-Identifier: MIT
 *
 * `chromashim snapshot diff --records`: which records were added, deleted and changed.
 */
#include "command/snapshot/diff.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command/base/terminal.h"
#include "core/base/json.h"
#include "core/export/compare.h"

struct telling {
	struct json *json; /* NULL: text */
	uint64_t collections;
};

static void put_what(struct json *j, const struct compare_change *c)
{
	json_key(j, "what");
	json_begin(j, '[');
	if (c->vector)
		json_string(j, "embedding");
	if (c->document)
		json_string(j, "document");
	if (c->metadata)
		json_string(j, "metadata");
	json_end(j, ']');
}

static int put_change(void *context, const struct compare_change *c)
{
	static const char *const words[] = {"added", "deleted", "changed"};
	struct json *j = ((struct telling *)context)->json;

	if (!j) {
		printf("%c record     ", "+-M"[c->kind]);
		terminal_put_text(stdout, c->collection, strlen(c->collection));
		printf(": ");
		terminal_put_text(stdout, c->id, c->id_size);
		if (c->kind == COMPARE_CHANGED)
			printf(" (%s%s%s%s%s)", c->vector ? "embedding" : "",
			       c->vector && c->document ? ", " : "", c->document ? "document" : "",
			       (c->vector || c->document) && c->metadata ? ", " : "",
			       c->metadata ? "metadata" : "");
		putchar('\n');
		return 0;
	}
	json_begin(j, '{');
	json_put_text(j, "change", words[c->kind]);
	json_put_text(j, "kind", "record");
	json_put_text(j, "collection", c->collection);
	json_put_text(j, "collection_id", c->collection_id);
	json_key(j, "id");
	json_bytes(j, c->id, c->id_size);
	if (c->kind == COMPARE_CHANGED)
		put_what(j, c);
	json_end(j, '}');
	return 0;
}

static int put_count(void *context, const struct compare_count *c)
{
	struct telling *t = context;
	struct json *j = t->json;

	t->collections++;
	if (!j && (c->added || c->deleted || c->changed || c->is_gone || c->is_new)) {
		printf("%c collection ", c->is_gone ? '-' : c->is_new ? '+' : 'M');
		terminal_put_text(stdout, c->collection, strlen(c->collection));
		printf(": %" PRIu64 " -> %" PRIu64 " records: %" PRIu64 " deleted, %" PRIu64
		       " added, %" PRIu64 " changed\n",
		       c->before, c->after, c->deleted, c->added, c->changed);
	}
	if (!j)
		return 0;
	json_begin(j, '{');
	json_put_text(j, "change", c->is_gone ? "deleted" : c->is_new ? "added" : "changed");
	json_put_text(j, "kind", "collection");
	json_put_text(j, "collection", c->collection);
	json_put_text(j, "collection_id", c->collection_id);
	json_put_uint(j, "before", c->before);
	json_put_uint(j, "after", c->after);
	json_put_uint(j, "records_deleted", c->deleted);
	json_put_uint(j, "records_added", c->added);
	json_put_uint(j, "records_changed", c->changed);
	json_end(j, '}');
	return 0;
}

static int tell_all(struct compare *c, bool as_json, const char *collection)
{
	struct json j = {.out = stdout};
	struct telling t = {.json = as_json ? &j : NULL};
	int r;

	if (as_json)
		json_begin(&j, '[');
	r = compare_each_collection(c, put_count, &t);
	if (r == 0)
		r = compare_each(c, put_change, &t);
	if (as_json) {
		json_end(&j, ']');
		json_newline(&j);
	}
	if (r == 0 && collection && !t.collections)
		return fail(EXIT_NOT_FOUND, 0, "Without --collection all of them are compared.",
			    "there is no collection '%s', before or after", collection);
	return r < 0 ? fail(exit_code_of(r), r, "Try again with more room for temporary files.",
			    "cannot compare the records")
		     : EXIT_DONE;
}

/* What could not be read counts as if it were not there. */
static int tell_troubles(const struct compare *c)
{
	unsigned i;

	for (i = 0; i < 2; i++) {
		if (c->troubles[i])
			warn("not all of the records %s could be read: those are missing here",
			     i ? "afterwards" : "before");
		if (c->without_vector[i])
			warn("%" PRIu64 " records %s have no vector that can be read",
			     c->without_vector[i], i ? "afterwards" : "before");
	}
	return c->troubles[0] || c->troubles[1] ? EXIT_WARNINGS : EXIT_DONE;
}

int diff_records(struct snapshots *s, const struct manifest *a, const struct manifest *b,
		 const char *collection, bool as_json)
{
	struct compare_moment before = {.store = &s->store, .manifest = a},
			      after = {.store = &s->store,
				       .manifest = b,
				       .path = s->data.dir,
				       .dirfd = s->data.dirfd};
	struct compare c;
	int status, r = compare_open(&c);

	if (r == 0)
		r = compare_take(&c, &before, collection);
	if (r == 0)
		r = compare_take(&c, &after, collection);
	if (r < 0)
		status = fail(exit_code_of(r), r,
			      "`chromashim check` tells what is wrong with the directory.",
			      "cannot read the records of '%s'", s->data.dir);
	else
		status = tell_all(&c, as_json, collection);
	if (status == EXIT_DONE)
		status = tell_troubles(&c);
	compare_close(&c);
	return status;
}
