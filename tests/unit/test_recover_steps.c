/* SPDX-License-Identifier: MIT
 *
 * What recover does on request: one step alone, an index made again, a healed copy elsewhere,
 * deleted collections brought back, half a migration taken back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

#include "chroma_fixture.h"
#include "core/base/names.h"
#include "core/export/export.h"
#include "core/recover/recover.h"
#include "core/snapshot/restore.h"
#include "core/snapshot/snapshot.h"
#include "core/sqlite/database.h"

static void take_snapshot(struct chroma_fixture *f)
{
	struct snapshot_options options = {
	    .path = f->data, .dirfd = f->datafd, .reason = "manual", .idle = true};
	struct snapshot_store store;
	struct snapshot_trouble trouble;
	struct manifest m;

	assert_int_equal(snapshot_store_open(&store, f->storefd, SNAPSHOT_CHANGE, 0), 0);
	assert_int_equal(snapshot_take(&store, &options, &m, &trouble), 0);
	manifest_free(&m);
	snapshot_store_close(&store);
}

/* In place, or into outfd. Returns how many things were healed. */
static uint64_t recover(struct chroma_fixture *f, const struct recover_options *options, int outfd)
{
	struct recover_job job = {.datafd = f->datafd,
				  .storefd = f->storefd,
				  .outfd = outfd,
				  .quarantine = "then",
				  .options = *options};
	struct recover_result result;
	uint64_t healed;

	tree_remove(f->storefd, QUARANTINE_DIR);
	assert_int_equal(recover_directory(&job, &result), 0);
	assert_int_equal(result.exchanged, outfd < 0 && result.healed > 0);
	healed = result.healed;
	recover_result_free(&result);
	if (outfd < 0) {
		close(f->datafd);
		f->datafd = openat(f->dir.fd, "data", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	}
	return healed;
}

static int count_vectors(void *context, const struct export_record *record)
{
	uint64_t *vectors = context;

	*vectors += record->vector != NULL;
	return 0;
}

static void fail_on_trouble(void *context, const char *collection, const char *what, int error)
{
	(void)context;
	(void)collection;
	(void)error;
	fail_msg("%s", what);
}

static uint64_t vectors_of(struct chroma_fixture *f, const char *name)
{
	struct export_summary summary = {0};
	uint64_t vectors = 0;
	struct export_options options = {.vectors = true,
					 .record = count_vectors,
					 .trouble = fail_on_trouble,
					 .context = &vectors};
	int fd = openat(f->dir.fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", f->dir.path, name);
	assert_int_equal(export_directory(path, fd, &options, &summary), 0);
	close(fd);
	return vectors;
}

static void test_one_step_alone(void **state)
{
	struct recover_options options = {.steps = 1u << RECOVER_QUEUE};
	struct chroma_fixture *f = *state;

	chroma_run_sql(f, "UPDATE embeddings_queue SET metadata = '{\"n\": NaN}' WHERE seq_id = 55;"
			  "UPDATE max_seq_id SET seq_id = 1229782938247303475 WHERE segment_id = "
			  "'" CHROMA_METADATA "';"
			  "INSERT INTO collection_metadata(collection_id, key, str_value) VALUES"
			  "('" CHROMA_COLLECTION "', 'hnsw:foo', 'x')");
	assert_int_equal(recover(f, &options, -1), 1);
	assert_int_equal(chroma_ask(f, "SELECT json_type(metadata, '$.n') = 'null' FROM "
				       "embeddings_queue WHERE seq_id = 55"),
			 1);
	assert_true(chroma_ask(f, "SELECT max(seq_id) FROM max_seq_id") > 1000);
	options.steps = 1u << RECOVER_MARKS;
	assert_int_equal(recover(f, &options, -1), 1);
	assert_in_range(chroma_ask(f, "SELECT max(seq_id) FROM max_seq_id"), 51, 61);
	options.steps = 1u << RECOVER_PARAMETERS;
	assert_int_equal(recover(f, &options, -1), 1);
	assert_int_equal(chroma_ask(f, "SELECT count(*) FROM collection_metadata WHERE key GLOB "
				       "'hnsw:*'"),
			 0);
	options.steps = RECOVER_ALL;
	assert_int_equal(recover(f, &options, -1), 0);
}

static void keep_sentence(void *context, enum recover_step step, const char *collection,
			  const char *sentence)
{
	(void)step;
	(void)collection;
	snprintf(context, 512, "%s", sentence);
}

static void test_triggers(void **state)
{
	char said[512] = "";
	struct recover_options options = {
	    .steps = 1u << RECOVER_INDEXES, .said = keep_sentence, .context = said};
	struct chroma_fixture *f = *state;

	chroma_run_sql(f,
		       "CREATE TABLE audit(id); CREATE TRIGGER audits AFTER INSERT ON embeddings "
		       "BEGIN INSERT INTO audit VALUES(new.embedding_id); END");
	assert_int_equal(recover(f, &options, -1), 0);
	chroma_run_sql(f, "CREATE TRIGGER stops BEFORE INSERT ON embeddings_queue BEGIN SELECT "
			  "RAISE(ABORT, 'not now'); END");
	assert_int_equal(recover(f, &options, -1), 1);
	assert_non_null(strstr(said, "the trigger stops stood on Chroma's table embeddings_queue"));
	assert_non_null(strstr(said, "SELECT RAISE(ABORT, 'not now'); END"));
	assert_int_equal(chroma_ask(f, "SELECT count(*) FROM sqlite_master WHERE type = 'trigger'"),
			 1);
	chroma_run_sql(f, "CREATE TRIGGER deletes AFTER INSERT ON segments BEGIN DELETE FROM "
			  "max_seq_id; END; CREATE TRIGGER fails AFTER UPDATE OF dimension ON "
			  "collections BEGIN INSERT INTO nowhere VALUES(1); END");
	assert_int_equal(recover(f, &options, -1), 2);
	assert_int_equal(chroma_ask(f, "SELECT name = 'audits' FROM sqlite_master WHERE type = "
				       "'trigger'"),
			 1);
}

static void note_older(void *context, enum recover_step step, const char *collection,
		       const char *sentence)
{
	(void)step;
	(void)collection;
	*(bool *)context |= strstr(sentence, "written after it") != NULL;
}

/* Whether it is said that vectors of a snapshot may be older ones. */
static bool says_older(struct chroma_fixture *f, const char *damage)
{
	struct recover_job job = {.datafd = f->datafd,
				  .storefd = f->storefd,
				  .outfd = tree_make_directory(f->dir.fd, "out"),
				  .options = {.steps = RECOVER_ALL, .said = note_older}};
	struct recover_result result;
	struct snapshot_store store;
	bool found = false;

	chroma_run_sql(f, damage);
	assert_int_equal(snapshot_store_open(&store, f->storefd, SNAPSHOT_KEEP, 0), 0);
	job.options.snapshots = &store;
	job.options.context = &found;
	assert_int_equal(recover_directory(&job, &result), 0);
	assert_true(result.healed > 0);
	assert_true(result.account.may_differ || !found);
	recover_result_free(&result);
	snapshot_store_close(&store);
	close(job.outfd);
	tree_remove(f->dir.fd, "out");
	return found;
}

/* A record that was written after the snapshot has the vector of before it. */
static void test_vectors_of_an_older_snapshot(void **state)
{
	struct chroma_fixture *f = *state;

	take_snapshot(f);
	assert_false(says_older(f, "DELETE FROM embeddings_queue WHERE id IN ('r55', 'r56')"));
	assert_true(says_older(f, "UPDATE embeddings SET seq_id = 62 WHERE embedding_id = 'r55'"));
}

static void test_a_copy_elsewhere(void **state)
{
	struct recover_options options = {.steps = RECOVER_ALL};
	struct chroma_fixture *f = *state;
	int outfd = tree_make_directory(f->dir.fd, "out");

	chroma_run_sql(f, "UPDATE max_seq_id SET seq_id = 1229782938247303475");
	assert_true(recover(f, &options, outfd) > 0);
	close(outfd);
	assert_true(chroma_ask(f, "SELECT max(seq_id) FROM max_seq_id") > 1000);
	assert_int_equal(vectors_of(f, "out"), CHROMA_RECORDS);
}

static void test_an_index_made_again(void **state)
{
	struct recover_options options = {.steps = RECOVER_ALL, .rebuild = "docs"};
	struct chroma_fixture *f = *state;

	assert_true(recover(f, &options, -1) > 0);
	assert_int_equal(chroma_ask(f,
				    "SELECT count(DISTINCT id) FROM embeddings_queue WHERE vector "
				    "IS NOT NULL"),
			 CHROMA_RECORDS);
	assert_int_equal(vectors_of(f, "data"), CHROMA_RECORDS);
}

/* ---- deleted collections ---- */

static void delete_collection(struct chroma_fixture *f)
{
	chroma_run_sql(f, "DELETE FROM collections; DELETE FROM segments; DELETE FROM embeddings;"
			  "DELETE FROM embedding_metadata; DELETE FROM embeddings_queue;"
			  "DELETE FROM embedding_fulltext_search; DELETE FROM max_seq_id;"
			  "DELETE FROM collection_metadata");
}

static void undelete(struct chroma_fixture *f, bool has_snapshot, const char *name)
{
	struct recover_undelete_options back = {.name = name, .space = -1};
	struct recover_options options = {.steps = RECOVER_ALL, .undelete = &back};
	struct snapshot_store store;
	struct leftover *list = NULL;

	if (has_snapshot) {
		assert_int_equal(snapshot_store_open(&store, f->storefd, SNAPSHOT_KEEP, 0), 0);
		options.snapshots = &store;
	}
	assert_int_equal(leftover_list(f->data, f->datafd, options.snapshots, &list, &back.count),
			 0);
	assert_int_equal(back.count, 1);
	assert_string_equal(list->segment, CHROMA_VECTOR);
	assert_int_equal(list->ids, CHROMA_PERSISTED - 1);
	assert_int_equal(list->snapshot != 0, has_snapshot);
	assert_true(leftover_is_whole(list));
	back.list = list;
	assert_true(recover(f, &options, -1) > 0);
	free(list);
	if (has_snapshot)
		snapshot_store_close(&store);
}

static void test_undelete_from_the_files(void **state)
{
	struct chroma_fixture *f = *state;

	delete_collection(f);
	undelete(f, false, NULL);
	assert_int_equal(vectors_of(f, "data"), CHROMA_PERSISTED - 1);
	assert_int_equal(chroma_ask(f, "SELECT count(*) FROM collections WHERE name GLOB "
				       "'recovered-*'"),
			 1);
}

static void test_undelete_with_a_name(void **state)
{
	struct chroma_fixture *f = *state;

	delete_collection(f);
	undelete(f, false, "again");
	assert_int_equal(chroma_ask(f, "SELECT count(*) FROM collections WHERE name = 'again'"), 1);
}

static void test_undelete_from_a_snapshot(void **state)
{
	struct chroma_fixture *f = *state;

	take_snapshot(f);
	delete_collection(f);
	undelete(f, true, NULL);
	assert_int_equal(vectors_of(f, "data"), CHROMA_RECORDS);
	assert_int_equal(chroma_ask(f, "SELECT count(*) FROM collections WHERE name = 'docs'"), 1);
	assert_int_equal(chroma_ask(f, "SELECT count(*) FROM collection_metadata WHERE str_value = "
				       "'a test'"),
			 1);
}

/* ---- half a migration ---- */

static sqlite3 *make_era(struct chroma_fixture *f, const struct migration_era *era)
{
	char path[128];
	sqlite3 *db;

	tree_remove(f->dir.fd, "data");
	close(f->datafd);
	f->datafd = tree_make_directory(f->dir.fd, "data");
	snprintf(path, sizeof(path), "%s/" CHROMA_DATABASE, f->data);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "PRAGMA synchronous = OFF", NULL, NULL, NULL), 0);
	assert_int_equal(migrations_make(db, era), 0);
	return db;
}

/* The newest migration of a directory has run and was not recorded: as killed just before that. */
static void test_half_a_migration(void **state)
{
	struct recover_options options = {.steps = 1u << RECOVER_MIGRATION};
	const struct migration_era *eras;
	struct chroma_fixture *f = *state;
	unsigned count, i, dir, healed = 0;
	char sql[200], what[192];
	sqlite3 *db;

	eras = migrations_eras(&count);
	for (i = 0; i < count && eras[i].counts[MIGRATION_METADB] < MIGRATION_METADB_OF_RUST; i++) {
		for (dir = 0; dir < MIGRATION_DIRS; dir++) {
			db = make_era(f, &eras[i]);
			snprintf(sql, sizeof(sql),
				 "DELETE FROM migrations WHERE dir = '%s' AND version = %u",
				 migration_dir_names[dir], eras[i].counts[dir]);
			assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), 0);
			if (migrations_find_half(db, what, sizeof(what)) == 1) {
				assert_true(strlen(what) > 5);
				sqlite3_close(db);
				assert_true(recover(f, &options, -1) > 0);
				snprintf(sql, sizeof(sql), "%s/" CHROMA_DATABASE, f->data);
				assert_int_equal(sqlite3_open(sql, &db), SQLITE_OK);
				assert_int_equal(migrations_find_half(db, what, sizeof(what)), 0);
				healed++;
			}
			sqlite3_close(db);
		}
	}
	assert_in_range(healed, 8, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    CHROMA_TEST(one_step_alone),
	    CHROMA_TEST(a_copy_elsewhere),
	    CHROMA_TEST(an_index_made_again),
	    CHROMA_TEST(undelete_from_the_files),
	    CHROMA_TEST(undelete_with_a_name),
	    CHROMA_TEST(undelete_from_a_snapshot),
	    CHROMA_TEST(half_a_migration),
	    CHROMA_TEST(triggers),
	    CHROMA_TEST(vectors_of_an_older_snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
