/* SPDX-License-Identifier: MIT
 *
 * Names of collections by their ids and by those of their segments.
 */
#include "core/chroma/collection_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <bsd/sys/queue.h>
#include <bsd/sys/tree.h>

#include "core/oplog/acts.h"
#include "core/sqlite/database.h"

#define ENTRIES_MAX 1000000u

/* A name that it has, or had. */
struct called {
	SLIST_ENTRY(called) link;
	char name[];
};

/* A collection, or a segment: then `collection` is another id. */
struct known {
	RB_ENTRY(known) link;
	uint8_t id[16], collection[16];
	SLIST_HEAD(, called) names; /* the present one first */
	bool deleted;		    /* the last act says so */
	bool live;		    /* it is in the database, whose name counts */
};

RB_HEAD(known_tree, known);

struct collection_names {
	struct known_tree tree;
	size_t count;
	int storefd;
	bool acts_read;
};

static int compare_known(struct known *a, struct known *b)
{
	return memcmp(a->id, b->id, sizeof(a->id));
}

RB_GENERATE_INTERNAL(known_tree, known, link, compare_known, static __attribute__((unused)))

/* ---- the table ---- */

static struct known *find(struct collection_names *n, const uint8_t id[16])
{
	struct known key;

	memcpy(key.id, id, sizeof(key.id));
	return RB_FIND(known_tree, &n->tree, &key);
}

static struct known *find_or_add(struct collection_names *n, const uint8_t id[16],
				 const uint8_t collection[16])
{
	struct known *k = find(n, id);

	if (k || n->count >= ENTRIES_MAX)
		return k;
	k = calloc(1, sizeof(*k));
	if (!k)
		return NULL;
	memcpy(k->id, id, sizeof(k->id));
	memcpy(k->collection, collection, sizeof(k->collection));
	SLIST_INIT(&k->names);
	RB_INSERT(known_tree, &n->tree, k);
	n->count++;
	return k;
}

static struct called *called_find(struct known *k, const char *name)
{
	struct called *c;

	SLIST_FOREACH (c, &k->names, link)
		if (strcmp(c->name, name) == 0)
			return c;
	return NULL;
}

/* It is called so now, or `former`ly. 0 or -ENOMEM. */
static int call_it(struct known *k, const char *name, bool former)
{
	struct called *c = called_find(k, name), *first = SLIST_FIRST(&k->names);

	if (!*name)
		return 0;
	if (c && !former && c != first) {
		SLIST_REMOVE(&k->names, c, called, link);
		SLIST_INSERT_HEAD(&k->names, c, link);
	}
	if (c)
		return 0;
	c = malloc(sizeof(*c) + strlen(name) + 1);
	if (!c)
		return -ENOMEM;
	strcpy(c->name, name);
	if (former && first)
		SLIST_INSERT_AFTER(first, c, link);
	else
		SLIST_INSERT_HEAD(&k->names, c, link);
	return 0;
}

/* ---- the live database ---- */

static int add_live(struct collection_names *n, const char *id_text, const char *other)
{
	uint8_t id[16], collection[16];
	struct known *k;
	int r = 0;

	if (!id_text || !other || !oplog_act_uuid(id_text, id))
		return 0;
	if (oplog_act_uuid(other, collection) && strlen(other) == 36) {
		k = find_or_add(n, id, collection);
		return k ? 0 : -ENOMEM;
	}
	k = find_or_add(n, id, id);
	if (!k)
		return -ENOMEM;
	r = call_it(k, other, false);
	k->live = true;
	return r;
}

/* Rows of two texts: an id, and a name or the id of a collection. */
static void read_rows(struct collection_names *n, sqlite3 *db, const char *sql)
{
	sqlite3_stmt *s = NULL;
	int r = database_prepare(db, &s, sql);

	while (r == 0 && (r = database_step(s)) > 0)
		r = add_live(n, (const char *)sqlite3_column_text(s, 0),
			     (const char *)sqlite3_column_text(s, 1));
	sqlite3_finalize(s);
}

static void read_database(struct collection_names *n, const char *dir, int dirfd)
{
	sqlite3 *db = NULL;

	if (database_is_plain(dir) && database_open_now(dir, dirfd, &db) == 0) {
		read_rows(n, db, "SELECT id, name FROM collections");
		read_rows(n, db, "SELECT id, collection FROM segments");
	}
	sqlite3_close(db);
}

struct collection_names *collection_names_open(int storefd, const char *dir, int dirfd)
{
	struct collection_names *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	RB_INIT(&n->tree);
	n->storefd = storefd;
	n->acts_read = storefd < 0;
	if (dir && dirfd >= 0)
		read_database(n, dir, dirfd);
	return n;
}

void collection_names_close(struct collection_names *n)
{
	struct called *c;
	struct known *k;

	if (!n)
		return;
	while ((k = RB_ROOT(&n->tree))) {
		RB_REMOVE(known_tree, &n->tree, k);
		while ((c = SLIST_FIRST(&k->names))) {
			SLIST_REMOVE_HEAD(&k->names, link);
			free(c);
		}
		free(k);
	}
	free(n);
}

/* ---- acts ---- */

static int note_collection(struct collection_names *n, const struct oplog_entry *e,
			   const uint8_t id[16])
{
	struct known *k = find_or_add(n, id, id);
	const char *name, *old;
	int r;

	if (!k)
		return n->count >= ENTRIES_MAX ? 0 : -ENOMEM;
	k->deleted = e->result == OPLOG_COLLECTION_DELETED;
	oplog_act_collection(e, &name, &old);
	r = call_it(k, name, k->live);
	return r == 0 && old ? call_it(k, old, true) : r;
}

int collection_names_note(struct collection_names *n, const struct oplog_entry *e)
{
	uint8_t collection[16], id[16];
	const char *text, *scope;

	if ((e->op != OP_COLLECTION && e->op != OP_SEGMENT) || !e->name ||
	    !oplog_act_uuid(e->name, collection))
		return 0;
	if (e->op == OP_COLLECTION)
		return note_collection(n, e, collection);
	oplog_act_segment(e, &text, &scope);
	if (!oplog_act_uuid(text, id) || find_or_add(n, id, collection))
		return 0;
	return n->count >= ENTRIES_MAX ? 0 : -ENOMEM;
}

static void read_acts(struct collection_names *n)
{
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r;

	n->acts_read = true;
	r = oplog_reader_open_which(n->storefd, OPLOG_ACTS, &reader);
	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0)
		r = collection_names_note(n, &e);
	oplog_reader_close(reader);
}

/* ---- asking ---- */

static struct called *name_of(struct collection_names *n, const uint8_t id[16])
{
	struct known *k = find(n, id);

	if (k && memcmp(k->id, k->collection, sizeof(k->id)) != 0)
		k = find(n, k->collection);
	return k ? SLIST_FIRST(&k->names) : NULL;
}

const char *collection_names_find(struct collection_names *n, const char *text)
{
	struct called *c;
	uint8_t id[16];

	if (!text || !oplog_act_uuid(text, id))
		return NULL;
	c = name_of(n, id);
	if (!c && !n->acts_read) {
		read_acts(n);
		c = name_of(n, id);
	}
	return c ? c->name : NULL;
}

const char *collection_names_of(struct collection_names *n, const struct oplog_entry *e)
{
	const char *found = e->kind == OPLOG_NAME_SQL || e->kind == OPLOG_NAME_OBJECT
				? NULL
				: collection_names_find(n, e->name);

	if (!found && e->op == OP_COLLECTION && *e->text)
		found = e->text;
	return found;
}

bool collection_names_id(struct collection_names *n, const char *text, uint8_t out[16])
{
	struct known *k;

	if (!text || !oplog_act_uuid(text, out))
		return false;
	collection_names_find(n, text);
	k = find(n, out);
	if (k)
		memcpy(out, k->collection, sizeof(k->collection));
	return true;
}

bool collection_names_fits(struct collection_names *n, const char *text, const char *wanted)
{
	uint8_t id[16], wanted_id[16];
	struct known *k;

	if (!collection_names_id(n, text, id))
		return false;
	if (oplog_act_uuid(wanted, wanted_id) && memcmp(id, wanted_id, sizeof(id)) == 0)
		return true;
	k = find(n, id);
	return k && called_find(k, wanted);
}

bool collection_names_is_deleted(struct collection_names *n, const char *text)
{
	const struct known *k;
	uint8_t id[16];

	if (!n->acts_read)
		read_acts(n);
	k = text && oplog_act_uuid(text, id) ? find(n, id) : NULL;
	return k && k->deleted;
}

bool collection_names_has(struct collection_names *n, const char *wanted)
{
	uint8_t id[16];
	struct known *k;

	if (!n->acts_read)
		read_acts(n);
	if (oplog_act_uuid(wanted, id) && find(n, id))
		return true;
	RB_FOREACH (k, known_tree, &n->tree)
		if (called_find(k, wanted))
			return true;
	return false;
}
