/* SPDX-License-Identifier: MIT
 *
 * Which Chroma wrote a database, and which one can open it.
 *
 * Chroma records the migrations it has applied in table `migrations` (dir, version, filename, sql,
 * hash). Their numbers per directory are a fingerprint of the newest release that opened the
 * database for writing. A release compares its own list with the table: what the database lacks is
 * applied at the start; what the release does not know makes 1.0.0 to 1.2.1 panic ("range start
 * index 10 out of range for slice of length 9"), 1.2.2 and later run on regardless, and the Python
 * releases (< 1.0) fail in one way or another. None of that is damage.
 */
#ifndef CORE_MIGRATIONS_H
#define CORE_MIGRATIONS_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>

enum migration_dir {
	MIGRATION_QUEUE,
	MIGRATION_METADB,
	MIGRATION_SYSDB,
};
#define MIGRATION_DIRS 3
#define MIGRATION_METADB_OF_RUST 5 /* the first of metadb that only Chroma >= 1.0 has */

struct migration {
	enum migration_dir dir;
	unsigned version;
	const char *filename;
	const char *md5;   /* of the SQL text, as Chroma stores it by default */
	const char *first; /* release */
};

/* Releases that share a set of migrations, oldest first. */
struct migration_era {
	const char *first, *last; /* releases */
	unsigned counts[MIGRATION_DIRS];
};

struct migration_state {
	bool has_table;
	unsigned counts[MIGRATION_DIRS]; /* highest version applied */
	unsigned missing;		 /* versions skipped below the highest */
	unsigned unknown;		 /* files or directories no release has */
	unsigned altered;		 /* of a known file, another MD5 */
	char example[192];		 /* directory and file of one that is unknown or altered */
};

enum migration_verdict {
	MIGRATION_OPENS,    /* nothing to apply */
	MIGRATION_MIGRATES, /* applies what is missing; older releases then have the trouble below
			     */
	MIGRATION_RUNS_ON,  /* ignores that the database is newer */
	MIGRATION_PANICS,   /* says "range start index" and stops; data unharmed */
	MIGRATION_FAILS,    /* Python release on a newer database: errors, and BLOB marks */
	MIGRATION_UNKNOWN,  /* no such release */
};

/* The three names, by enum migration_dir. */
extern const char *const migration_dir_names[MIGRATION_DIRS];

/* All of them by directory and version, and the eras; *count_out is their number. */
const struct migration *migrations_all(unsigned *count_out);
const struct migration_era *migrations_eras(unsigned *count_out);

/* Reads the table. 0 also when there is none; -EBADMSG damaged, -EBUSY, or what SQLite met. */
int migrations_read(sqlite3 *db, struct migration_state *out);

/*
 * Whether a migration of a Python release has begun and is not recorded, in a way that stops it
 * from running again: 1, with its name in `what`, 0 or -errno.
 */
int migrations_find_half(sqlite3 *db, char *what, size_t room);

/* What it has left behind. */
struct migration_trace {
	enum migration_dir dir;
	unsigned version;
	const char *found, *undo; /* a query that finds it; what takes it back */
	const char *empty;	  /* only if this table is: nobody's records are dropped */
};
/* The next one that is there, from *at on (0 at first): 1, 0 there is none, or -errno. */
int migrations_next_trace(sqlite3 *db, const struct migration_state *m, unsigned *at,
			  const struct migration_trace **out);

/* Whether a Python release has applied only the first of its migrations, which it does one
 * directory after the other: there were no records yet. */
bool migrations_is_beginning(const struct migration_state *m);

/* The era with exactly these counts, or NULL. */
const struct migration_era *migrations_find_era(const unsigned counts[MIGRATION_DIRS]);

/* What a release, as "1.0.5", does with such a database. */
enum migration_verdict migrations_judge(const unsigned counts[MIGRATION_DIRS], const char *release);

/* The same for one that is known to carry these; release "" if nothing says which it is. */
enum migration_verdict migrations_judge_carried(const unsigned counts[MIGRATION_DIRS],
						const unsigned carried[MIGRATION_DIRS],
						const char *release);

/* The SQL of a migration, to the letter; NULL: no such. In migrations_make.c, as what follows. */
const char *migrations_text(enum migration_dir dir, unsigned version);

/* Makes the tables of an era in an empty database, and records its migrations. 0 or -errno. */
int migrations_make(sqlite3 *db, const struct migration_era *era);
/* Records those that are not recorded yet, and makes the table for it. */
int migrations_record(sqlite3 *db, const struct migration_era *era);

/* Whether none is recorded although there are collections or records. */
bool migrations_are_lost(sqlite3 *db, const struct migration_state *m);
/* The newest era whose tables are all there, column by column; NULL: none is. 0 or -errno. */
int migrations_recognise(sqlite3 *db, const struct migration_era **era_out);

/*
 * Whether some are recorded and others, whose tables are there, are not: 1, with the era, 0 or
 * -errno. Where a Python release may have been cut off in the midst of one, only holes tell that.
 */
int migrations_have_holes(sqlite3 *db, const struct migration_state *m,
			  const struct migration_era **era_out);

/* Orders "1.0.5" < "1.0.12" < "1.3.0"; what follows the third number is ignored. */
int migrations_compare_releases(const char *a, const char *b);

#endif
