/* SPDX-License-Identifier: MIT
 *
 * What is found on the pages of a database that SQLite cannot read any more.
 *
 * Every page is looked at once and listed in a temporary database: memory does not grow with the
 * file, and time not with what the pages claim. A tree is followed from a root that is known, each
 * page taken once. A page that no tree leads to counts only for a table that has lost what would
 * lead to it, only for the row numbers that are missing there, and not if it is on the freelist.
 */
#ifndef CORE_SALVAGE_H
#define CORE_SALVAGE_H

#include "core/sqlite/database.h"
#include "core/sqlite/fulltext.h"
#include "core/sqlite/page.h"
#include "core/sqlite/tree.h"

/* The full-text index's own tables come with it. */
#define SALVAGE_NO_SHADOW \
	"name NOT GLOB '" FULLTEXT_TABLE "_*' AND name NOT GLOB 'embedding_fulltext_[a-r]*' "

struct salvage;

/* What a recovery has beside the pages; each may be NULL. */
struct salvage_help {
	void *context;
	/* Rows of collections that are lost, from elsewhere: into s->to. 0 or -errno. Which rows of
	 * what are lost for sure, or may be, is in temp.damage. */
	int (*find_collections)(void *context, struct salvage *s);
	/* A record of which something is lost, or may be. 0 or -errno. */
	int (*note)(void *context, const char *collection, const char *id, size_t id_size);
	void (*say)(void *context, const char *collection, const char *sentence);
	bool has_more; /* an empty database is of use: there is more than its pages */
};

struct salvage {
	int dirfd; /* of the old database and the segments */
	const struct salvage_help *help;
	int fd; /* of the old database */
	struct file_source source;
	struct sqlite_header header; /* if has_header */
	bool has_header;
	uint32_t page_size, usable;
	uint64_t pages; /* that hold anything */
	unsigned char *page;
	struct sqlite_record_reader reader;
	sqlite3 *to;	    /* the new database; the lists are in its temp schema */
	bool has_freelist;  /* all of it */
	bool has_schema;    /* all of it */
	bool lost_records;  /* and nothing tells which */
	bool lost_segments; /* which of them a collection has is not known for all */
	bool lacks_queue;   /* rows of it */
	bool lost_queue;    /* and some may not have been applied */
	bool lost_marks;    /* rows of max_seq_id */
	bool is_traced;	    /* no page is lost, but rows of collections are: also those of
			       temp.unlisted */
	uint64_t nameless;  /* collections whose names and settings are made up */
	uint64_t gaps;	    /* rows of temp.gap */
	uint64_t rows, tables, damaged, unreadable, doubtful, deleted, restored;
};

/* The sets of tables whose rows look alike: bits of a page's mask. shapes.c. */
enum salvage_shape {
	SHAPE_SCHEMA,
	SHAPE_MIGRATIONS,
	SHAPE_ACQUIRE_WRITE,
	SHAPE_MAINTENANCE_LOG,
	SHAPE_TENANTS,
	SHAPE_DATABASES,
	SHAPE_COLLECTIONS,
	SHAPE_SEGMENTS,
	SHAPE_COLLECTION_METADATA, /* and segment_metadata */
	SHAPE_QUEUE,
	SHAPE_QUEUE_CONFIG,
	SHAPE_EMBEDDINGS,
	SHAPE_METADATA,
	SHAPE_METADATA_ARRAY,
	SHAPE_MAX_SEQ_ID,
	SHAPE_FULLTEXT_CONTENT,
	SALVAGE_SHAPES
};

/* Those that all rows of a leaf page (nearly) have; *columns_out: of its longest row. */
uint32_t salvage_shapes_of(const struct sqlite_tree_page *page, uint32_t *columns_out);
/* Of the table of that name; 0: none that is known. */
uint32_t salvage_shape_bit(const char *table);
bool salvage_has_shape(enum salvage_shape shape, const struct sqlite_record *record);
extern const char *const salvage_shape_tables[SALVAGE_SHAPES];

/* scan.c: s->fd and s->to are open. 0 or -errno. */
int salvage_scan(struct salvage *s);
/* Takes the tree of a root: its pages get tree = root, certain = 1; what lacks goes to temp.gap. */
int salvage_claim(struct salvage *s, uint32_t root, bool is_index);
/* Puts what no known root leads to together to trees of its own. */
int salvage_claim_rest(struct salvage *s);
/* A page into s->page: -EBADMSG, -ENODATA if it is none of a b-tree. */
int salvage_read_page(struct salvage *s, uint32_t number, struct sqlite_tree_page *out);
int salvage_sql(struct salvage *s, const char *sql);
void salvage_say(const struct salvage *s, const char *collection, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* rows.c: what the pages hold of a table of the new database; of all, segments first. */
bool salvage_is_unreadable(int error);
int salvage_bind(const struct salvage *s, sqlite3_stmt *put, int at, const struct sqlite_value *v);
int salvage_fill_table(struct salvage *s, const char *name);
int salvage_fill_tables(struct salvage *s);

/*
 * evidence.c: what else tells of the rows that are lost. Whole indexes tell deleted rows
 * from live ones, and which are missing; those that can be put together again are. temp.harm: the
 * records of which something is lost, or may be.
 */
int salvage_weigh(struct salvage *s);

/* collections.c: those whose own row is lost get it from elsewhere, or one made up. */
int salvage_collections(struct salvage *s);
/* The same where no page is lost, and temp.damage is empty: of collections that segments with a
 * trace tell of. */
int salvage_traced_collections(struct salvage *s);

/*
 * All of it, into a new database at `file` ("": one that is gone when it is closed), with what the
 * schema has lost made as the release of Chroma makes it. s->dirfd and s->help are set; s->to is
 * the caller's to close, also after an error. The files are only read; a journal or a log is not.
 */
int salvage_into(struct salvage *s, const char *file);

/* Whether the pages of a damaged database hold anything that can be worked with. */
bool salvage_has_rows(int fd);

#endif
