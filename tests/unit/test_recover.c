/* SPDX-License-Identifier: MIT
 *
 * A recovery killed at every file of its copy and every step of its exchange, on a small database
 * with Chroma's own tables: a poisoned mark to heal, and a record without a vector to set aside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/wait.h>

#include "core/chroma/migrations.h"
#include "core/recover/recover.h"
#include "core/snapshot/restore.h"
#include "core/sqlite/database.h"
#include "scratch.h"

#define COLLECTION "0a1b2c3d-0000-4000-8000-0000000000c0"
#define METADATA "0a1b2c3d-0000-4000-8000-0000000000a0"
#define VECTOR "0a1b2c3d-0000-4000-8000-0000000000b0"
#define DELETED "0a1b2c3d-0000-4000-8000-0000000000d0"
#define TOPIC "persistent://default/default/" COLLECTION
#define POISONED "1229782938247303475" /* of 3 */

static const char rows[] =
    "INSERT INTO collections(id, name, dimension, database_id, config_json_str) VALUES('" COLLECTION
    "', 'c', 2, '00000000-0000-0000-0000-000000000000', '{}');"
    "INSERT INTO segments(id, type, scope, collection) VALUES"
    "('" METADATA "', 'urn:chroma:segment/metadata/sqlite', 'METADATA', '" COLLECTION "'),"
    "('" VECTOR "', 'urn:chroma:segment/vector/hnsw-local-persisted', 'VECTOR', '" COLLECTION "');"
    "INSERT INTO embeddings(id, segment_id, embedding_id, seq_id) VALUES"
    "(1, '" METADATA "', 'bare', 1), (2, '" METADATA "', 'a', 2), (3, '" METADATA "', 'b', 3);"
    "INSERT INTO embedding_metadata(id, key, string_value) SELECT id, 'chroma:document', "
    "'text ' || embedding_id FROM embeddings;"
    "INSERT INTO embedding_fulltext_search(rowid, string_value) SELECT id, string_value FROM "
    "embedding_metadata;"
    "INSERT INTO embeddings_queue(seq_id, operation, topic, id, vector, encoding, metadata) VALUES"
    "(2, 0, '" TOPIC "', 'a', x'0000803f00000040', 'FLOAT32', '{\"chroma:document\":\"text a\"}'),"
    "(3, 0, '" TOPIC "', 'b', x'0000004000000040', 'FLOAT32', '{\"chroma:document\":\"text b\"}');"
    "INSERT INTO max_seq_id VALUES('" METADATA "', " POISONED ")";

struct fixture {
	struct scratch dir; /* with data and store in it */
	int datafd, storefd;
};

static void make_data(struct fixture *f)
{
	const struct migration_era *eras;
	unsigned count;
	char path[128];
	sqlite3 *db;
	int fd;

	f->datafd = tree_make_directory(f->dir.fd, "data");
	snprintf(path, sizeof(path), "%s/data/" CHROMA_DATABASE, f->dir.path);
	eras = migrations_eras(&count);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA synchronous = OFF", NULL, NULL, NULL), 0);
	assert_int_equal(migrations_make(db, &eras[count - 1]), 0);
	assert_int_equal(sqlite3_exec(db, rows, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
	/* A segment, so that there is a directory to move. */
	fd = tree_make_directory(f->datafd, DELETED);
	scratch_put(fd, "header.bin", "h", 1);
	scratch_put(fd, "data_level0.bin", "d", 1);
	close(fd);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	scratch_make(&f->dir);
	f->storefd = tree_make_directory(f->dir.fd, "store");
	make_data(f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	close(f->datafd);
	close(f->storefd);
	scratch_remove(&f->dir);
	free(f);
	return 0;
}

static void start_again(struct fixture *f)
{
	tree_remove(f->storefd, QUARANTINE_DIR);
	tree_remove(f->storefd, RESTORE_DIR);
	tree_remove(f->dir.fd, "data");
	close(f->datafd);
	make_data(f);
}

/* -1: no such table, or no database. */
static int64_t ask(struct fixture *f, const char *file, const char *sql)
{
	sqlite3_stmt *s = NULL;
	int64_t found = -1;
	char path[192];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/%s", f->dir.path, file);
	if (sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK &&
	    sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK && sqlite3_step(s) == SQLITE_ROW)
		found = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	sqlite3_close(db);
	return found;
}

/* ---- in a process that dies ---- */

static int steps_left;

static void die_at_step(void *context)
{
	(void)context;
	if (steps_left-- == 0)
		_exit(42);
}

static struct recover_job job_of(const struct fixture *f, const char *quarantine)
{
	return (struct recover_job){
	    .datafd = f->datafd,
	    .storefd = f->storefd,
	    .outfd = -1,
	    .quarantine = quarantine,
	    .options = {.steps = RECOVER_ALL, .set_aside = true},
	    .step = die_at_step,
	};
}

static int recover(const struct fixture *f, const char *quarantine)
{
	struct recover_job job = job_of(f, quarantine);
	struct recover_result result;
	int r = recover_directory(&job, &result);

	recover_result_free(&result);
	return r;
}

/* 42 if it died. */
static int run_and_die(struct fixture *f, const char *quarantine, int at, bool resume)
{
	struct restore_swap swap = {
	    .datafd = f->datafd, .storefd = f->storefd, .step = die_at_step};
	pid_t child = fork();
	int status;

	if (child == 0) {
		steps_left = at;
		_exit((resume ? restore_resume(&swap) : recover(f, quarantine)) < 0 ? 1 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* ---- what is there ---- */

static int64_t mark(struct fixture *f, const char *where)
{
	char file[128];

	snprintf(file, sizeof(file), "%s/" CHROMA_DATABASE, where);
	return ask(f, file, "SELECT seq_id FROM max_seq_id");
}

static void assert_old(struct fixture *f, const char *where)
{
	char path[192];

	assert_true(mark(f, where) == INT64_C(1229782938247303475));
	snprintf(path, sizeof(path), "%s/%s/" DELETED "/data_level0.bin", f->dir.path, where);
	assert_int_equal(access(path, F_OK), 0);
}

static void assert_new(struct fixture *f)
{
	assert_int_equal(mark(f, "data"), 3);
	assert_int_equal(ask(f, "data/" CHROMA_DATABASE,
			     "SELECT count(*) FROM embeddings_queue WHERE id = 'bare' AND "
			     "operation = 3"),
			 1);
	assert_int_equal(
	    ask(f, "data/" CHROMA_DATABASE,
		"SELECT count(*) FROM embeddings_queue WHERE vector IS NOT NULL AND id IN "
		"('a', 'b')"),
	    2);
	assert_int_equal(faccessat(f->datafd, DELETED "/data_level0.bin", F_OK, 0), 0);
}

static bool is_kept(struct fixture *f, const char *quarantine)
{
	char file[128];

	snprintf(file, sizeof(file), "store/" QUARANTINE_DIR "/%s/" RECOVER_LOST_FILE, quarantine);
	return ask(f, file,
		   "SELECT count(*) FROM lost WHERE id = 'bare' AND document = 'text bare'") == 1;
}

/* Whatever it died at: all that was there is in one of the two, and what was set aside nowhere
 * but beside what it was taken from. */
static void look(struct fixture *f)
{
	bool is_pending = restore_is_pending(f->storefd);
	int64_t found = mark(f, "data");

	if (found == 3)
		assert_new(f);
	else if (found >= 0)
		assert_old(f, "data");
	else
		assert_true(is_pending);
	if (found != 3 && !is_pending)
		assert_false(is_kept(f, "then"));
	if (found == 3) {
		assert_old(f, "store/" QUARANTINE_DIR "/then");
		assert_true(is_kept(f, "then"));
	}
}

static void test_killed_at_every_step(void **state)
{
	struct fixture *f = *state;
	int at, again, status = 42, exchanged = 0;

	for (at = 0; status == 42; at++) {
		for (again = -1; again < 6; again += 4) {
			start_again(f);
			status = run_and_die(f, "then", at, false);
			assert_true(status == 42 || status == 0);
			look(f);
			/* Dies again while the exchange is ended, then is ended. */
			if (again >= 0)
				run_and_die(f, "", again, true);
			look(f);
			assert_int_equal(run_and_die(f, "", 1000, true), 0);
			assert_false(restore_is_pending(f->storefd));
			look(f);
			exchanged += mark(f, "data") == 3;
			/* The next one finds nothing to heal, or heals it. */
			assert_int_equal(run_and_die(f, "again", 1000, false), 0);
			assert_new(f);
			assert_true(is_kept(f, "then") != is_kept(f, "again"));
			assert_int_equal(faccessat(f->storefd, RESTORE_DIR, F_OK, 0), -1);
		}
	}
	assert_in_range(at, 12, 40);
	assert_true(exchanged > 10);
}

/* ---- refusals ---- */

static void write_meanwhile(void *context)
{
	const struct fixture *f = context;
	int fd = openat(f->datafd, CHROMA_DATABASE, O_WRONLY | O_APPEND);

	assert_int_equal(write(fd, "x", 1), 1);
	close(fd);
}

static int agree_and_write(void *context)
{
	write_meanwhile(context);
	return 0;
}

static int refuse(void *context)
{
	(void)context;
	return 1;
}

static void test_left_as_it_was(void **state)
{
	static const struct {
		int (*agree)(void *context);
		int result;
	} cases[] = {{refuse, -ECANCELED}, {agree_and_write, -ESTALE}};
	struct fixture *f = *state;
	struct recover_result result;
	struct recover_job job;
	unsigned i;

	for (i = 0; i < 2; i++) {
		job = job_of(f, "then");
		job.step = NULL;
		job.agree = cases[i].agree;
		job.context = f;
		assert_int_equal(recover_directory(&job, &result), cases[i].result);
		assert_int_equal(result.stage, RECOVER_EXCHANGING);
		assert_false(result.exchanged);
		recover_result_free(&result);
		assert_old(f, "data");
		assert_int_equal(faccessat(f->storefd, RESTORE_DIR, F_OK, 0), -1);
		assert_int_equal(faccessat(f->storefd, QUARANTINE_DIR, F_OK, 0), -1);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(killed_at_every_step),
	    TEST(left_as_it_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
