/* SPDX-License-Identifier: MIT
 *
 * SQL and persists in one order that is always the same, with pins in between and in their midst.
 *
 *	pinned DIRECTORY work COPIES delete|wal		all steps from the first that is not done
 *	pinned DIRECTORY check				prints "step N segment G content HASH"
 *
 * Before each step the database is copied to COPIES/<step>/database (and log), and
 *
 *	step N at TIME		it begins, at that time (ns); the copy is made
 *	done N HASH		it is committed, and then that is what the tables hold
 *	failed N		an error; it is tried again, three times in all
 *	persisted G at TIME	that generation of the segment is acknowledged
 *
 * is said on stdout. What a step does to the tables depends on nothing but them and its number.
 * DIRECTORY is one that Chroma has made.
 */
#define FIRST_ELEMENTS 6
#include "hnsw_segment.h"

#include <dlfcn.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdint.h>
#include <time.h>

#define TRIES 3
#define ALWAYS 2u /* CHROMASHIM_SNAPSHOT_ALWAYS */

static const char *copies;
static sqlite3 *db;
static uint64_t (*protect_begin)(const char *, unsigned);
static int (*protect_end)(uint64_t, int);
static int generation;	  /* of the segment, acknowledged */
static int writes_to_pin; /* of the persist under way, until it is pinned */

static const struct step {
	const char *sql;
	int persists, pin_at; /* after so many writes */
	int pins_first;
	const char *alone; /* before the transaction */
} steps[] = {
    {"CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB);"
     "CREATE TABLE u(id INTEGER PRIMARY KEY, k INT, body BLOB); CREATE INDEX i ON u(k)",
     .pins_first = 1},
    {"WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12)"
     " INSERT INTO t SELECT i, fill(i, 1500) FROM n;"
     "INSERT INTO u SELECT id, id % 5, fill(id, 300) FROM t"},
    {"DELETE FROM u WHERE k = 2", .persists = 1},
    {"UPDATE t SET body = fill(id + 7, 1400) WHERE id % 2; DELETE FROM t WHERE id % 5 = 0",
     .pins_first = 1},
    {"UPDATE u SET k = k + 1", .persists = 1, .pin_at = 9},
    {"UPDATE t SET body = fill(id + 9, 3000); UPDATE u SET body = fill(k, 500)",
     .alone = "PRAGMA cache_size = 3"},
    {"INSERT INTO u(k, body) VALUES (9, fill(9, 9000))", .persists = 1, .pins_first = 1,
     .alone = "PRAGMA cache_size = 500"},
    {"ALTER TABLE u ADD COLUMN more DEFAULT 'x'; DROP INDEX i"},
    {"SELECT 1", .alone = "VACUUM"},
    {"DELETE FROM t WHERE id % 3 = 0"},
    {"INSERT INTO t(body) SELECT fill(id, 700) FROM t", .persists = 1, .pin_at = 24},
    {"UPDATE t SET body = fill(id, 2000) WHERE id < 12", .pins_first = 1},
    {"DROP TABLE u"},
};
#define STEPS ((int)(sizeof(steps) / sizeof(steps[0])))

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void say(const char *format, ...)
{
	char line[200];
	va_list list;
	int n;

	va_start(list, format);
	n = vsnprintf(line, sizeof(line), format, list);
	va_end(list);
	if (write(STDOUT_FILENO, line, (size_t)n) != n)
		_exit(9);
}

/* ---- SQL ---- */

static void fill(sqlite3_context *context, int count, sqlite3_value **values)
{
	unsigned char bytes[10000];
	int seed = sqlite3_value_int(values[0]), n = sqlite3_value_int(values[1]), i;

	(void)count;
	for (i = 0; i < n; i++)
		bytes[i] = (unsigned char)(seed * 31 + i * 7 + i / 256);
	sqlite3_result_blob(context, bytes, n, SQLITE_TRANSIENT);
}

static void open_database(int read_only)
{
	char path[4100];

	snprintf(path, sizeof(path), "%s/chroma.sqlite3", directory);
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		exit(8);
	sqlite3_busy_timeout(db, 10000);
	if (!read_only)
		sqlite3_create_function(db, "fill", 2, SQLITE_UTF8, NULL, fill, NULL, NULL);
}

static int run(const char *sql)
{
	return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

/* -1: that could not be told. */
static long long ask(const char *sql)
{
	sqlite3_stmt *s = NULL;
	long long n = -1;

	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
		n = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return n;
}

static uint64_t hash_of(const char *sql, uint64_t hash)
{
	sqlite3_stmt *s = NULL;

	sqlite3_prepare_v2(db, sql, -1, &s, NULL);
	while (s && sqlite3_step(s) == SQLITE_ROW) {
		int column, i;

		for (column = 0; column < sqlite3_column_count(s); column++) {
			const unsigned char *p = sqlite3_column_blob(s, column);

			for (i = 0; i < sqlite3_column_bytes(s, column); i++)
				hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
			hash = (hash ^ 0xff) * UINT64_C(0x100000001b3);
		}
	}
	sqlite3_finalize(s);
	return hash;
}

static unsigned long long content_hash(void)
{
	uint64_t hash =
	    hash_of("SELECT sql FROM sqlite_master WHERE name IN ('t', 'u', 'i', 'work')"
		    " ORDER BY name",
		    UINT64_C(0xcbf29ce484222325));

	hash = hash_of("SELECT * FROM t ORDER BY id", hash);
	return hash_of("SELECT * FROM u ORDER BY id", hash);
}

/* ---- copies and pins ---- */

/* Under another name: a chroma.sqlite3 would be protected, too. */
static void copy_file(const char *name, int step, const char *copy)
{
	char path[4300];
	static char bytes[4 << 20];
	int from, to;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	from = open(path, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return;
	n = read(from, bytes, sizeof(bytes));
	close(from);
	snprintf(path, sizeof(path), "%s/%d/%s", copies, step, copy);
	to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (to < 0 || write(to, bytes, (size_t)n) != n)
		_exit(7);
	close(to);
}

static void copy_database(int step)
{
	char path[4200];

	snprintf(path, sizeof(path), "%s/%d", copies, step);
	mkdir(path, 0755);
	copy_file("chroma.sqlite3", step, "database");
	copy_file("chroma.sqlite3-wal", step, "log");
}

static void pin(void)
{
	if (protect_begin)
		protect_end(protect_begin("work", ALWAYS), 0);
}

static void pin_in_the_midst(void)
{
	if (writes_to_pin && --writes_to_pin == 0)
		pin();
}

/* ---- steps ---- */

static void persist_next(const struct step *s)
{
	static int is_open;
	int r;

	is_open = is_open || segment_open();
	if (!is_open)
		return;
	writes_to_pin = s->pin_at;
	r = segment_persist(generation + 1);
	writes_to_pin = 0;
	if (r == 0)
		say("persisted %d at %lld\n", ++generation, now());
}

static int do_step(int number)
{
	const struct step *s = &steps[number - 1];
	char sql[200];

	snprintf(sql, sizeof(sql), "UPDATE work SET step = %d; COMMIT", number);
	if ((s->alone && run(s->alone)) || run("BEGIN IMMEDIATE"))
		return 0;
	return run(s->sql) == SQLITE_OK && run(sql) == SQLITE_OK;
}

static int try_step(int number)
{
	int tries;

	for (tries = 0; tries < TRIES; tries++) {
		if (do_step(number))
			return 1;
		run("ROLLBACK");
		/* The commit may have come through all the same. */
		if (ask("SELECT step FROM work") == number)
			return 1;
		say("failed %d\n", number);
	}
	return 0;
}

static int work(const char *mode)
{
	char sql[100];
	int step;

	*(void **)&protect_begin = dlsym(RTLD_DEFAULT, "chromashim_protect_begin");
	*(void **)&protect_end = dlsym(RTLD_DEFAULT, "chromashim_protect_end");
	open_database(0);
	snprintf(sql, sizeof(sql), "PRAGMA secure_delete = 0; PRAGMA journal_mode = %s", mode);
	run(sql);
	run("CREATE TABLE IF NOT EXISTS work(step)");
	run("INSERT INTO work SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM work)");
	generation = access(path_of(names[PICKLE]), F_OK) ? 0 : segment_check();
	after_write = pin_in_the_midst;
	for (step = (int)ask("SELECT step FROM work") + 1; step > 0 && step <= STEPS; step++) {
		copy_database(step);
		say("step %d at %lld\n", step, now());
		if (steps[step - 1].pins_first)
			pin();
		if (steps[step - 1].persists)
			persist_next(&steps[step - 1]);
		if (!try_step(step))
			return 3;
		say("done %d %016llx\n", step, content_hash());
	}
	return step > STEPS ? 0 : 3;
}

static int check(void)
{
	sqlite3_stmt *s = NULL;
	const char *verdict = "";

	generation = segment_check();
	open_database(1);
	if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &s, NULL) == SQLITE_OK &&
	    sqlite3_step(s) == SQLITE_ROW)
		verdict = (const char *)sqlite3_column_text(s, 0);
	if (strcmp(verdict, "ok") != 0)
		printf("torn: %s\n", *verdict ? verdict : sqlite3_errmsg(db));
	printf("step %lld segment %d content %016llx\n", ask("SELECT step FROM work"), generation,
	       content_hash());
	return strcmp(verdict, "ok") != 0 || generation < 0;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	snprintf(directory, sizeof(directory), "%s", argv[1]);
	if (strcmp(argv[2], "check") == 0)
		return check();
	copies = argv[3];
	return work(argv[4]);
}
