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

enum migration_dir {
	MIGRATION_QUEUE,
	MIGRATION_METADB,
	MIGRATION_SYSDB,
};
#define MIGRATION_DIRS 3

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

/* The era with exactly these counts, or NULL. */
const struct migration_era *migrations_find_era(const unsigned counts[MIGRATION_DIRS]);

/* What a release, as "1.0.5", does with such a database. */
enum migration_verdict migrations_judge(const unsigned counts[MIGRATION_DIRS], const char *release);

/* Orders "1.0.5" < "1.0.12" < "1.3.0"; what follows the third number is ignored. */
int migrations_compare_releases(const char *a, const char *b);

#endif
