/* SPDX-License-Identifier: MIT
 *
 * Hydration: from a pin to a snapshot, in pieces, beside a writer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>

#include "core/pin/base.h"
#include "core/snapshot/chunks.h"
#include "core/snapshot/content.h"
#include "core/snapshot/hydrate.h"
#include "core/snapshot/manifest.h"
#include "pin_fixture.h"

static void make_database(struct fixture *f, int rows)
{
	char path[256], sql[512];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/" CHROMA_DATABASE, f->root.path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	snprintf(sql, sizeof(sql),
		 "CREATE TABLE collections(id, name); CREATE TABLE segments(id, collection); "
		 "CREATE TABLE embeddings(segment_id); WITH RECURSIVE c(x) AS (SELECT 1 "
		 "UNION ALL SELECT x+1 FROM c WHERE x<%d) INSERT INTO collections SELECT x, "
		 "hex(randomblob(200)) FROM c",
		 rows);
	assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
}

static int hydrate_as(struct fixture *f, struct pin_slot *slot,
		      const struct hydrate_options *options, struct manifest *m, uint64_t *reused)
{
	struct snapshot_trouble t;
	struct snapshot_store s;
	int r;

	assert_int_equal(snapshot_store_open(&s, f->storefd, SNAPSHOT_CHANGE, 0), 0);
	r = hydrate_pin(&s, &f->pins, slot, options, m, &t);
	*reused = s.chunks.reused;
	snapshot_store_close(&s);
	return r;
}

static int hydrate_once(struct fixture *f, struct pin_slot *slot, uint64_t budget,
			struct manifest *m)
{
	struct hydrate_options options = {.dirfd = f->root.fd, .budget = budget};
	uint64_t ignored;

	return hydrate_as(f, slot, &options, m, &ignored);
}

static void compare_file(struct fixture *f, const struct manifest *m, const char *path,
			 const char *expected, size_t size)
{
	const struct manifest_file *file = manifest_find(m, path);
	char *data = malloc(size + SNAPSHOT_CHUNK_SIZE);
	struct snapshot_store s;
	uint64_t i;

	assert_int_equal(file->size, size);
	assert_int_equal(snapshot_store_open(&s, f->storefd, SNAPSHOT_KEEP, 0), 0);
	for (i = 0; i < manifest_chunk_count(size); i++)
		assert_int_equal(chunks_get(&s.chunks, &file->chunks[i],
					    data + i * SNAPSHOT_CHUNK_SIZE,
					    manifest_chunk_size(file, i)),
				 0);
	snapshot_store_close(&s);
	assert_memory_equal(data, expected, size);
	free(data);
}

static void compare_with_chunks(struct fixture *f, const struct manifest *m, const char *expected,
				size_t size)
{
	compare_file(f, m, CHROMA_DATABASE, expected, size);
}

/* In the smallest pieces, with the backend writing between them. */
static void copied_in_pieces(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	struct pin_slot *slot;
	struct manifest m;
	char junk[4096] = {1};
	size_t size;
	char *before;
	unsigned pieces = 0;
	uint64_t id;
	int r;

	(void)state;
	make(f);
	make_database(f, 3000);
	write_at(f, SEGMENT_FILE, 0, "before", 6);
	before = scratch_get(f->root.fd, CHROMA_DATABASE, &size);
	slot = pin(f);
	id = slot->id;
	do {
		write_at(f, CHROMA_DATABASE, (uint64_t)roll(f, (unsigned)(size / 4096)) * 4096,
			 junk, sizeof(junk));
		r = hydrate_once(f, slot, 1, &m);
		if (r == 1) {
			assert_int_equal(m.header.state, SNAPSHOT_HYDRATING);
			assert_in_range(m.header.progress, 0, 99);
			pieces++;
			manifest_free(&m);
		}
	} while (r == 1);
	assert_int_equal(r, 0);
	assert_true(pieces >= 3);
	assert_int_equal(m.header.state, SNAPSHOT_COMPLETE);
	assert_int_equal(m.header.id, id);
	assert_int_equal(m.collection_count, 3000);
	compare_with_chunks(f, &m, before, size);
	assert_false(pins_any(&f->pins));
	manifest_free(&m);
	free(before);
	release(f);
	free(f);
}

/* What SQLite makes of a database with its log. */
static char *settled(struct fixture *f, size_t *size)
{
	struct scratch copy;
	static const char *const names[] = {CHROMA_DATABASE, CHROMA_DATABASE "-wal"};
	char why[200], *data;
	unsigned i;

	scratch_make(&copy);
	for (i = 0; i < 2; i++) {
		data = scratch_get(f->root.fd, names[i], size);
		scratch_put(copy.fd, names[i], data, *size);
		free(data);
	}
	assert_int_equal(content_settle(copy.fd, why, sizeof(why)), 0);
	data = scratch_get(copy.fd, CHROMA_DATABASE, size);
	scratch_remove(&copy);
	return data;
}

/* A database in WAL mode becomes one file, in pieces as well. */
static void copied_with_its_log(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	const struct pin_request request = {.reason = "manual", .wal = true};
	char path[256], junk[4096] = {1}, *before;
	struct pin_slot *slot;
	struct manifest m;
	unsigned pieces = 0;
	sqlite3 *db;
	size_t size;
	int r;

	(void)state;
	make(f);
	make_database(f, 3000);
	snprintf(path, sizeof(path), "%s/" CHROMA_DATABASE, f->root.path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	assert_int_equal(
	    sqlite3_exec(db,
			 "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;"
			 "UPDATE collections SET name = hex(randomblob(300)) WHERE id % 3;"
			 "DELETE FROM collections WHERE id > 2900; VACUUM;"
			 "UPDATE collections SET name = 'again' WHERE id % 7 = 0",
			 NULL, NULL, NULL),
	    SQLITE_OK);
	sqlite3_close(db);
	before = settled(f, &size);
	assert_int_equal(pin_begin(&f->pins, &request, &slot), 0);
	assert_int_equal(pin_list_make(&f->pins, slot->id, f->root.fd), 0);
	pin_hold(slot);
	do {
		write_at(f, CHROMA_DATABASE, (uint64_t)roll(f, (unsigned)(size / 4096)) * 4096,
			 junk, sizeof(junk));
		write_at(f, CHROMA_DATABASE "-wal", (uint64_t)roll(f, 50) * 4096, junk,
			 sizeof(junk));
		r = hydrate_once(f, slot, 1, &m);
		if (r == 1) {
			pieces++;
			manifest_free(&m);
		}
	} while (r == 1);
	assert_int_equal(r, 0);
	assert_int_equal(m.header.state, SNAPSHOT_COMPLETE);
	assert_true(pieces >= 3);
	assert_int_equal(m.collection_count, 2900);
	compare_with_chunks(f, &m, before, size);
	manifest_free(&m);
	free(before);
	release(f);
	free(f);
}

/* A transaction was committed behind a wrong sum: only SQLite, while it is open, has it. */
static void a_log_that_cannot_tell_all_becomes_broken(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	struct pin_request request = {.reason = "manual", .wal = true};
	struct pin_slot *slot;
	struct manifest m;
	char path[256], *log;
	size_t size;
	sqlite3 *db;

	(void)state;
	make(f);
	make_database(f, 10);
	snprintf(path, sizeof(path), "%s/" CHROMA_DATABASE, f->root.path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	assert_int_equal(sqlite3_exec(db,
				      "PRAGMA journal_mode=WAL; UPDATE collections SET name = 'a';"
				      "UPDATE collections SET name = 'b'",
				      NULL, NULL, NULL),
			 SQLITE_OK);
	sqlite3_close(db);
	log = scratch_get(f->root.fd, CHROMA_DATABASE "-wal", &size);
	log[32 + 16] ^= 1; /* the sum of its first frame */
	scratch_put(f->root.fd, CHROMA_DATABASE "-wal", log, size);
	free(log);
	request.wal_size = size;
	assert_int_equal(pin_begin(&f->pins, &request, &slot), 0);
	assert_int_equal(pin_list_make(&f->pins, slot->id, f->root.fd), 0);
	pin_hold(slot);
	assert_int_equal(hydrate_once(f, slot, 0, &m), 0);
	assert_int_equal(m.header.state, SNAPSHOT_BROKEN);
	assert_non_null(strstr(m.trouble, "wal_checkpoint(TRUNCATE)"));
	manifest_free(&m);
	release(f);
	free(f);
}

static void a_damaged_pin_becomes_broken(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	struct manifest m, again;
	struct pin_slot *slot;
	struct snapshot_store s;

	(void)state;
	make(f);
	make_database(f, 10);
	write_at(f, SEGMENT_FILE, 0, "before", 6);
	slot = pin(f);
	write_at(f, SEGMENT_FILE, 0, "after.", 6);
	damage(f, "data_level0.bin.pre", 8192 + 3, -1);
	assert_int_equal(hydrate_once(f, slot, 0, &m), 0);
	assert_int_equal(m.header.state, SNAPSHOT_BROKEN);
	assert_non_null(strstr(m.trouble, "data_level0.bin.pre"));
	assert_int_equal(m.file_count, 0);
	assert_false(pins_any(&f->pins));
	assert_int_equal(snapshot_store_open(&s, f->storefd, SNAPSHOT_LOOK, 0), 0);
	assert_int_equal(manifest_read(s.dirfd, m.header.id, &again), 0);
	assert_int_equal(again.header.state, SNAPSHOT_BROKEN);
	manifest_free(&again);
	snapshot_store_close(&s);
	manifest_free(&m);
	release(f);
	free(f);
}

static void tables_not_made_yet_are_nothing(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	struct manifest m;

	(void)state;
	make(f);
	write_at(f, CHROMA_DATABASE, 0, "a database", 10);
	assert_int_equal(hydrate_once(f, pin(f), 0, &m), 0);
	assert_int_equal(m.header.state, SNAPSHOT_COMPLETE); /* what it is, verifying will tell */
	manifest_free(&m);
	assert_int_equal(unlinkat(f->root.fd, CHROMA_DATABASE, 0), 0);
	scratch_put(f->root.fd, CHROMA_DATABASE, "", 0);
	assert_int_equal(hydrate_once(f, pin(f), 0, &m), 0);
	assert_int_equal(m.header.state, 0);
	assert_false(pins_any(&f->pins));
	manifest_free(&m);
	release(f);
	free(f);
}

/* ---- a base ---- */

/* A pin that becomes a snapshot, and the base of the next; how many chunks were read for nothing.
 */
static uint64_t hydrate_on(struct fixture *f, struct pin_slot *slot, struct manifest *m)
{
	struct hydrate_options options = {.dirfd = f->root.fd, .hold_on = true};
	uint64_t reused;

	assert_int_equal(hydrate_as(f, slot, &options, m, &reused), 0);
	assert_int_equal(m->header.state, SNAPSHOT_COMPLETE);
	assert_false(pins_any(&f->pins));
	return reused;
}

/* What is as it was is not read. */
static void only_what_has_changed(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	struct pin_slot *slot;
	struct manifest m;
	char junk[4096] = {1}, *now;
	size_t size;

	(void)state;
	make(f);
	make_database(f, 5000);
	assert_int_equal(hydrate_on(f, pin(f), &m), 0);
	manifest_free(&m);
	slot = pins_find_base(&f->pins);
	assert_non_null(slot);
	write_at(f, CHROMA_DATABASE, 9 * SNAPSHOT_CHUNK_SIZE, junk, sizeof(junk));
	now = scratch_get(f->root.fd, CHROMA_DATABASE, &size);
	assert_true(size > 12 * SNAPSHOT_CHUNK_SIZE);
	assert_int_equal(hydrate_on(f, pin(f), &m), 0);
	compare_with_chunks(f, &m, now, size);
	manifest_free(&m);
	free(now);
	/* Without the base all of it is read, and is there already. */
	pins_drop_base(&f->pins);
	assert_null(pins_find_base(&f->pins));
	assert_in_range(hydrate_on(f, pin(f), &m), 12, 100);
	manifest_free(&m);
	release(f);
	free(f);
}

/* One of the changes that a writer makes to a file. */
static void change_somehow(struct fixture *f, const char *path)
{
	unsigned char bytes[3000];
	struct stat st;
	uint64_t epoch, to;
	unsigned i;

	assert_int_equal(fstatat(f->root.fd, path, &st, 0), 0);
	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)roll(f, 256);
	if (roll(f, 6) == 0) {
		to = roll(f, (unsigned)st.st_size + 1);
		epoch = save(f, path, to, (uint64_t)st.st_size - to);
		i = (unsigned)openat(f->root.fd, path, O_RDWR);
		assert_int_equal(ftruncate((int)i, (off_t)to), 0);
		close((int)i);
		leave(f, epoch, path);
	} else {
		write_at(f, path,
			 roll(f, 8) ? roll(f, (unsigned)st.st_size + 1) : (uint64_t)st.st_size,
			 bytes, 1 + roll(f, sizeof(bytes)));
	}
}

/* Somebody changes a file without saving before: no base is good for it. */
static void change_behind(struct fixture *f, const char *path)
{
	int fd = openat(f->root.fd, path, O_RDWR);
	struct timespec tick = {0, 12000000};

	nanosleep(&tick, NULL);
	assert_int_equal(pwrite(fd, "behind", 6, (off_t)roll(f, 100000)), 6);
	close(fd);
	nanosleep(&tick, NULL);
}

/* Written, cut, grown, replaced and changed behind its back, each snapshot is what the file was. */
static void a_hundred_in_turn(void **state)
{
	static const char *const names[] = {SEGMENT_FILE, SEGMENT "/link_lists.bin"};
	struct fixture *f = malloc(sizeof(*f));
	char *big = malloc(5 * SNAPSHOT_CHUNK_SIZE), *now[2];
	struct pin_slot *slot;
	struct manifest m;
	size_t size[2];
	unsigned i, k;

	(void)state;
	make(f);
	make_database(f, 10);
	for (i = 0; i < 5 * SNAPSHOT_CHUNK_SIZE; i++)
		big[i] = (char)roll(f, 256);
	for (k = 0; k < 2; k++)
		scratch_put(f->root.fd, names[k], big, 5 * SNAPSHOT_CHUNK_SIZE);
	for (i = 0; i < 100; i++) {
		for (k = roll(f, 5); k > 0; k--)
			change_somehow(f, names[roll(f, 2)]);
		if (i % 9 == 0)
			change_behind(f, names[i % 2]);
		if (i % 13 == 0) {
			write_at(f, SEGMENT "/new", 0, big, 3 * SNAPSHOT_CHUNK_SIZE);
			assert_int_equal(
			    pin_file_keep(&f->pins, pins_epoch(&f->pins), f->root.fd, names[0]), 0);
			assert_int_equal(renameat(f->root.fd, SEGMENT "/new", f->root.fd, names[0]),
					 0);
		}
		for (k = 0; k < 2; k++)
			now[k] = scratch_get(f->root.fd, names[k], &size[k]);
		slot = pin(f);
		for (k = roll(f, 4); k > 0; k--)
			change_somehow(f, names[roll(f, 2)]);
		hydrate_on(f, slot, &m);
		for (k = 0; k < 2; k++) {
			compare_file(f, &m, names[k], now[k], size[k]);
			free(now[k]);
		}
		manifest_free(&m);
	}
	free(big);
	release(f);
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(only_what_has_changed),
	    cmocka_unit_test(a_hundred_in_turn),
	    cmocka_unit_test(copied_in_pieces),
	    cmocka_unit_test(copied_with_its_log),
	    cmocka_unit_test(a_log_that_cannot_tell_all_becomes_broken),
	    cmocka_unit_test(a_damaged_pin_becomes_broken),
	    cmocka_unit_test(tables_not_made_yet_are_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
