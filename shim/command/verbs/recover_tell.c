/* SPDX-License-Identifier: MIT
 *
 * What a recovery did, and its account, in words or as JSON.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/terminal.h"
#include "command/verbs/recover.h"

#define ID_SHOWN 64   /* bytes */
#define LOST_SHOWN 10 /* ids of a collection, without --json */

/* ---- steps ---- */

int recover_telling_begin(struct recover_telling *t)
{
	if (!t->is_json)
		return 0;
	t->steps = (struct json){.out = open_memstream(&t->text, &t->size)};
	return t->steps.out ? 0 : -ENOMEM;
}

void recover_tell_step(struct recover_telling *t, const char *step, const char *collection,
		       const char *sentence)
{
	struct json *j = &t->steps;

	t->any = true;
	if (t->is_json) {
		json_begin(j, '{');
		json_key(j, "step");
		json_string(j, step);
		json_key(j, "collection");
		json_string(j, collection);
		json_key(j, "done");
		json_string(j, sentence);
		json_end(j, '}');
	} else if (!t->quiet) {
		fprintf(t->out, "%s: ", step);
		if (collection) {
			fprintf(t->out, "collection ");
			terminal_put_text(t->out, collection, strlen(collection));
			fprintf(t->out, ": ");
		}
		fprintf(t->out, "%s\n", sentence);
	}
}

static bool has_lost(const struct recover_collection *c)
{
	return c->lost || c->bare || c->changed || c->were_bare;
}

/* ---- in words ---- */

struct words {
	FILE *out;
	struct recover_account *account;
	uint64_t told, lost;
	bool quiet;
};

static int print_lost(void *context, const char *id, size_t size, const char *what)
{
	struct words *w = context;

	if (w->told++ < LOST_SHOWN) {
		fprintf(w->out, "    %s ",
			strcmp(what, "record") == 0   ? "lost:"
			: strcmp(what, "vector") == 0 ? "without vector:"
			: strcmp(what, "bare") == 0   ? "without vector before:"
						      : "changed:");
		terminal_put_text(w->out, id, size < ID_SHOWN ? size : ID_SHOWN);
		fprintf(w->out, "%s\n", size > ID_SHOWN ? "…" : "");
	} else if (w->told == LOST_SHOWN + 1) {
		fprintf(w->out, "    … (--json lists all)\n");
	}
	return 0;
}

static int print_collection(void *context, const struct recover_collection *c)
{
	struct words *w = context;

	w->lost += c->lost + c->bare + c->changed;
	if (w->quiet)
		return 0;
	fprintf(w->out, "  ");
	terminal_put_text(w->out, c->name, strlen(c->name));
	fprintf(w->out,
		": %" PRIu64 " records before (%" PRIu64 " with vector), %" PRIu64
		" after (%" PRIu64 " with vector); %" PRIu64 " lost, %" PRIu64 " changed",
		c->records[0], c->with_vector[0], c->records[1], c->with_vector[1], c->lost,
		c->changed);
	if (c->bare)
		fprintf(w->out, ", %" PRIu64 " without their vector", c->bare);
	if (c->older)
		fprintf(w->out, ", %" PRIu64 " from a snapshot, which may be older than they were",
			c->older);
	if (c->were_bare)
		fprintf(w->out, "; %" PRIu64 " had no vector before this damage", c->were_bare);
	fputc('\n', w->out);
	w->told = 0;
	return !has_lost(c) ? 0 : recover_account_each_lost(w->account, c->id, print_lost, w);
}

/* Losses that are none of a record. */
static void print_more(struct words *w)
{
	if (w->account->nameless)
		fprintf(w->out, "  the names and settings of %" PRIu64 " collections are lost\n",
			w->account->nameless);
	if (w->account->may_lack)
		fprintf(w->out, "  records may be lost of which nothing tells any more\n");
	if (w->account->may_differ)
		fprintf(
		    w->out,
		    "  more vectors may be wrong, or older than they should be, of which nothing "
		    "tells\n");
	if (w->account->may_be_old)
		fprintf(w->out,
			"  documents and metadata that came from a snapshot may be older than "
			"the last change\n");
}

/* ---- as JSON ---- */

struct object {
	struct json json;
	struct recover_account *account;
	uint64_t lost;
};

static int put_lost(void *context, const char *id, size_t size, const char *what)
{
	struct object *o = context;

	json_begin(&o->json, '{');
	json_key(&o->json, "id");
	json_bytes(&o->json, id, size);
	json_key(&o->json, "what");
	json_string(&o->json, what);
	json_end(&o->json, '}');
	return 0;
}

static int put_collection(void *context, const struct recover_collection *c)
{
	struct object *o = context;
	struct json *j = &o->json;
	int phase, r;

	o->lost += c->lost + c->bare + c->changed;
	json_begin(j, '{');
	json_key(j, "name");
	json_string(j, c->name);
	json_key(j, "id");
	json_string(j, c->id);
	for (phase = 0; phase < 2; phase++) {
		json_key(j, phase ? "after" : "before");
		json_begin(j, '{');
		json_put_uint(j, "records", c->records[phase]);
		json_put_uint(j, "with_vector", c->with_vector[phase]);
		json_put_uint(j, "without_vector", c->records[phase] - c->with_vector[phase]);
		json_end(j, '}');
	}
	json_put_uint(j, "lost_records", c->lost);
	json_put_uint(j, "without_vector", c->bare);
	json_put_uint(j, "without_vector_before", c->were_bare);
	json_put_uint(j, "changed", c->changed);
	json_put_uint(j, "may_be_older", c->older);
	json_key(j, "lost");
	json_begin(j, '[');
	r = has_lost(c) ? recover_account_each_lost(o->account, c->id, put_lost, o) : 0;
	json_end(j, ']');
	json_end(j, '}');
	return r;
}

static void put_steps(struct recover_telling *t, struct json *j)
{
	fclose(t->steps.out);
	json_key(j, "steps");
	json_begin(j, '[');
	fwrite(t->text, 1, t->size, t->out);
	json_end(j, ']');
	free(t->text);
}

/* Whatever goes wrong on the way, the object has its end. */
static int put_object(struct recover_telling *t, struct recover_result *result,
		      const char *quarantine, struct object *o)
{
	struct json *j = &o->json;
	int r = 0;

	json_begin(j, '{');
	json_put_uint(j, "schema_version", SCHEMA_VERSION);
	json_key(j, "directory");
	json_string(j, t->dir);
	put_steps(t, j);
	if (result) {
		json_put_uint(j, "healed", result->healed);
		json_put_uint(j, "damage_before", result->damage[0]);
		json_put_uint(j, "damage_after", result->damage[1]);
		json_key(j, "collections");
		json_begin(j, '[');
		if (result->healed)
			r = recover_account_each(o->account, put_collection, o);
		json_end(j, ']');
		json_put_uint(j, "collections_without_name", result->account.nameless);
		json_key(j, "may_have_lost_more");
		json_bool(j, result->account.may_lack);
		json_key(j, "may_have_wrong_vectors");
		json_bool(j, result->account.may_differ);
		json_key(j, "may_be_older");
		json_bool(j, result->account.may_be_old);
		json_key(j, "quarantine");
		json_string(j, quarantine);
	}
	if (t->error[0] || r < 0) {
		json_key(j, "error");
		json_string(j, t->error[0] ? t->error : strerror(-r));
	}
	json_end(j, '}');
	json_newline(j);
	return r;
}

int recover_tell_end(struct recover_telling *t, struct recover_result *result,
		     const char *quarantine, uint64_t *lost_out)
{
	struct recover_account *account = result ? &result->account : NULL;
	struct object o = {.json = {.out = t->out}, .account = account};
	struct words w = {.out = t->out, .account = account, .quiet = t->quiet};
	int r = 0;

	if (t->is_json)
		r = put_object(t, result, quarantine, &o);
	else if (result && result->healed)
		r = recover_account_each(account, print_collection, &w);
	if (r == 0 && !t->is_json && !t->quiet && account)
		print_more(&w);
	*lost_out = o.lost + w.lost + (account && recover_may_have_lost(account));
	return r;
}
