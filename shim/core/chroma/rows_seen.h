/* SPDX-License-Identifier: MIT
 *
 * What a transaction has done to Chroma's tables, told by their rows before and after it.
 *
 * The pages that pass by, into the rollback journal and into the database, only tell where to look;
 * the shape of its first row tells which table a page is of. What counts is read from the database,
 * from the table's root down: before its first page is written, and when it has committed, and only
 * as far as pages have passed by of. So a page that was written twice, a savepoint that was rolled
 * back and a page that is free again count for nothing. Which rows are new is told by their
 * numbers, which grow.
 *
 * The journal alone would not do: SQLite frees a page whose rows go to its neighbours, and does not
 * save it before.
 *
 * Never documents, vectors or metadata: of a row of the queue its number, operation, collection and
 * id. Overflow pages are not followed. Nothing is allocated; all is bounded, and what was too much
 * is said (`more`). One thread at a time.
 */
#ifndef CORE_ROWS_SEEN_H
#define CORE_ROWS_SEEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/sqlite/tree.h"
#include "core/sqlite/walk.h"

enum rows_table {
	ROWS_QUEUE,
	ROWS_COLLECTIONS,
	ROWS_SEGMENTS,
	ROWS_MIGRATIONS,
	ROWS_TABLES /* how many; also: any other */
};

/* Of a database as it is. */
struct rows_roots {
	uint32_t page_size, usable, page_count, counter, cookie;
	uint32_t root[ROWS_TABLES]; /* 0: it has no such table */
};

#define ROWS_RANGES 64	    /* of rows of `collections`, in one transaction */
#define ROWS_TOPICS 128	    /* collections with rows in what is looked at */
#define ROWS_OLD 160	    /* rows of `collections` that were there before */
#define ROWS_ID 64	    /* bytes of a collection's id; Chroma's have 36 */
#define ROWS_NAMES 8192	    /* bytes of all their names together */
#define ROWS_IDS 12900	    /* bytes of ids of records, as they go into a record of the log */
#define ROWS_PAGES 16384u   /* that are read at most, before and after */
#define ROWS_PAGE_MAX 4096u /* Chroma's databases have pages of that size */
#define ROWS_OPERATIONS 5   /* add, update, upsert, delete, and any other */

/* Which rows there are: not known. */
#define ROWS_UNKNOWN INT64_C(-1)

/* The last row of each table; 0: there is none. */
struct rows_highest {
	int64_t row[ROWS_TABLES];
};

struct rows_range {
	int64_t first, last;
};

/* A collection's rows in the queue. */
struct rows_topic {
	char id[ROWS_ID];
	uint8_t id_size;
	uint32_t old, left; /* rows in what was looked at: before, and of these after */
	uint32_t gone;	    /* rows that came and went in the transaction */
	int64_t old_first, old_last, left_first, gone_last;
	uint32_t by_operation[ROWS_OPERATIONS]; /* rows that came */
	uint32_t count, ids;
	int64_t first, last;
};

/* What of a collection's row is told apart. */
enum rows_part { ROWS_NAME, ROWS_DIMENSION, ROWS_CONFIGURATION, ROWS_SCHEMA, ROWS_PARTS };

/* A row of `collections` as it was. */
struct rows_old {
	char id[ROWS_ID];
	uint8_t id_size;
	bool is_there; /* still */
	uint16_t name_size;
	uint32_t name; /* in names */
	uint64_t sums[ROWS_PARTS];
};

enum rows_event_kind {
	ROWS_COLLECTION_CREATED,
	ROWS_COLLECTION_RENAMED,
	ROWS_COLLECTION_CONFIGURED,
	ROWS_COLLECTION_DELETED,
	ROWS_SEGMENT,
	ROWS_MIGRATION,
};

/* Texts are lent, and not terminated. */
struct rows_text {
	const char *bytes;
	size_t size;
};

struct rows_event {
	enum rows_event_kind kind;
	struct rows_text collection; /* its id */
	/* name: of the collection; a segment's id; a migration's directory. other: the name
	 * before; a segment's scope; a migration's file. */
	struct rows_text name, other;
	int64_t number; /* of a migration; a collection's dimension, 0: it has none yet */
	unsigned parts; /* of a collection, what has changed: a bit for each enum rows_part */
};

typedef void rows_event_fn(void *context, const struct rows_event *event);

/* How an id is put down; 0 bytes: not at all. At most 255. */
typedef uint8_t rows_id_fn(void *context, const void *id, size_t size, unsigned char *out);

struct rows_seen {
	bool is_touched[ROWS_TABLES];
	bool more;		     /* not all that was done could be told */
	struct rows_highest highest; /* when it began */
	/* The queue: from which row on pages were saved, and from which on was looked at before. */
	int64_t from, looked_from;
	bool is_old_known; /* the rows that were there before */
	int64_t next;	   /* the row that would come next, if none had gone */
	uint32_t topics_count, topic_last;
	struct rows_topic topics[ROWS_TOPICS];
	/* Of new rows: number of the topic, then as in struct oplog_id. */
	uint32_t ids_size;
	unsigned char ids[ROWS_IDS];
	/* `collections`: rows on pages that passed by, and those that were saved. */
	uint32_t ranges_count, old_count, names_size;
	bool is_full; /* there were more */
	struct rows_range ranges[ROWS_RANGES];
	struct rows_old olds[ROWS_OLD];
	char names[ROWS_NAMES];
	/* Whoever is told. */
	rows_event_fn *event;
	rows_id_fn *id;
	void *context;
	char text[1200]; /* two names of the longest */
	/* For the walk. */
	struct sqlite_record record;
	struct sqlite_walk walk;
	enum rows_table table;
	bool is_before;
	unsigned char room[SQLITE_WALK_LEVELS * ROWS_PAGE_MAX];
};

/*
 * From the database as it is, with room of an r that is not in use: roots, and last rows. False: no
 * such database.
 */
bool rows_read(struct rows_seen *r, const struct file_source *database,
	       struct rows_roots *roots_out, struct rows_highest *highest_out);

/* A transaction begins. */
void rows_begin(struct rows_seen *r, const struct rows_highest *highest);
/* A page passes by: as it was before the transaction, or as it is written. */
void rows_page(struct rows_seen *r, const void *page, uint32_t size, bool is_old);
/* The first page is about to be written; `more` may be saved after it. */
void rows_before(struct rows_seen *r, const struct file_source *database,
		 const struct rows_roots *roots, bool more);

/*
 * It has committed. Collections, segments and migrations are told to event(), unless the schema has
 * changed, which makes tables anew: then only migrations are. What has become of the queue is in
 * r->topics and r->ids then.
 */
void rows_committed(struct rows_seen *r, const struct file_source *database,
		    const struct rows_roots *roots, bool schema_changed,
		    struct rows_highest *highest_out);

#endif
