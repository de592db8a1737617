/* SPDX-License-Identifier: MIT
 *
 * A file that is still the one of which the last snapshot was made is not read for the next; any
 * other is, and what is said to be the same and is not is found.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sqlite3.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#include "core/base/checksum.h"
#include "core/base/clock.h"
#include "core/base/filesystem.h"
#include "core/snapshot/hydrate.h"
#include "core/snapshot/known.h"
#include "core/snapshot/snapshot.h"
#include "pin_fixture.h"

#define CHUNKS 72u
#define SIZE (CHUNKS * SNAPSHOT_CHUNK_SIZE)
#define CHANGED 50u /* a chunk, by change_in_place() */
#define FEW                                                                                  \
	32u /* chunks of a snapshot that need be read: the database, and some that are tried \
	     */
#define LEAST 400u	   /* bytes of what is said: two files and some sums */
#define SETTLED 150000000l /* ns */

/* ---- a directory ---- */

static void make_database(const struct fixture *f)
{
	char path[256];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/" CHROMA_DATABASE, f->root.path);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(
	    sqlite3_exec(db,
			 "CREATE TABLE collections(id, name); CREATE TABLE segments(id, "
			 "collection); CREATE TABLE embeddings(segment_id)",
			 NULL, NULL, NULL),
	    SQLITE_OK);
	sqlite3_close(db);
}

static void age_files(void)
{
	const struct timespec t = {0, SETTLED};

	nanosleep(&t, NULL);
}

static char *content_of(unsigned seed)
{
	char *data = malloc(SIZE);
	uint32_t *at = (uint32_t *)(void *)data;
	size_t i;

	for (i = 0; i < SIZE / sizeof(*at); i++)
		at[i] = (uint32_t)(i / 7 + seed);
	return data;
}

static bool tells_of_changes(const struct fixture *f)
{
	struct statfs fs;
	const struct filesystem *known;

	assert_int_equal(fstatfs(f->root.fd, &fs), 0);
	known = filesystem_find((uint64_t)fs.f_type);
	return known && known->changes;
}

static int set_up(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	char *data = content_of(1);

	make(f);
	make_database(f);
	scratch_put(f->root.fd, SEGMENT_FILE, data, SIZE);
	free(data);
	age_files();
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	release(f);
	free(f);
	return 0;
}

/* ---- snapshots of it ---- */

/* Chunks that were there already, by the last snapshot; and those that were not even hashed. */
static unsigned read_again, compared;

static void compare(struct snapshot_store *s, const struct manifest *m, const char *expected)
{
	const struct manifest_file *file = manifest_find(m, SEGMENT_FILE);
	char *data = malloc(SNAPSHOT_CHUNK_SIZE);
	uint64_t i;

	assert_non_null(file);
	assert_int_equal(file->size, SIZE);
	for (i = 0; i < CHUNKS; i++) {
		assert_int_equal(
		    chunks_get(&s->chunks, &file->chunks[i], data, SNAPSHOT_CHUNK_SIZE), 0);
		assert_memory_equal(data, expected + i * SNAPSHOT_CHUNK_SIZE, SNAPSHOT_CHUNK_SIZE);
	}
	free(data);
}

static void take_without_looking(const struct fixture *f, struct manifest *m)
{
	const struct snapshot_options o = {
	    .path = f->root.path, .dirfd = f->root.fd, .reason = "manual", .idle = true};
	struct snapshot_trouble t;
	struct snapshot_store s;

	assert_int_equal(snapshot_store_open(&s, f->storefd, SNAPSHOT_ADD, 0), 0);
	assert_int_equal(snapshot_take(&s, &o, m, &t), 0);
	read_again = (unsigned)s.chunks.reused;
	compared = (unsigned)s.chunks.compared;
	snapshot_store_close(&s);
}

/* How many of its chunks were there already, which only who has read them knows; what is in it has
 * to be what is there. */
static unsigned take_of(const struct fixture *f, struct manifest *m)
{
	struct snapshot_store s;
	size_t size;
	char *now = scratch_get(f->root.fd, SEGMENT_FILE, &size);

	take_without_looking(f, m);
	assert_int_equal(snapshot_store_open(&s, f->storefd, SNAPSHOT_KEEP, 0), 0);
	compare(&s, m, now);
	snapshot_store_close(&s);
	free(now);
	return read_again;
}

static unsigned take(const struct fixture *f)
{
	struct manifest m;
	unsigned read = take_of(f, &m);

	manifest_free(&m);
	return read;
}

static unsigned hydrate_slot(struct fixture *f, struct pin_slot *slot, const char *expected)
{
	const struct hydrate_options o = {.dirfd = f->root.fd};
	struct snapshot_trouble t;
	struct snapshot_store s;
	struct manifest m;
	unsigned read;

	assert_int_equal(snapshot_store_open(&s, f->storefd, SNAPSHOT_ADD, 0), 0);
	assert_int_equal(hydrate_pin(&s, &f->pins, slot, &o, &m, &t), 0);
	assert_int_equal(m.header.state, SNAPSHOT_COMPLETE);
	read = (unsigned)s.chunks.reused;
	compare(&s, &m, expected);
	manifest_free(&m);
	snapshot_store_close(&s);
	return read;
}

/* ---- what is not read ---- */

static void the_very_same_is_not_read(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	if (!tells_of_changes(f))
		skip();
	take(f);
	for (i = 0; i < 3; i++)
		assert_in_range(take(f), 1, FEW);
}

static void nor_is_it_for_a_pin(void **state)
{
	struct fixture *f = *state;
	struct pin_slot *slot;
	char *before;

	if (!tells_of_changes(f))
		skip();
	before = content_of(1);
	hydrate_slot(f, pin(f), before);
	assert_in_range(hydrate_slot(f, pin(f), before), 1, FEW);
	assert_in_range(take(f), 1, FEW);
	/* Overwritten between the pin and its copy: of the pin's moment it is known. */
	slot = pin(f);
	write_at(f, SEGMENT_FILE, SIZE / 2, "later", 5);
	assert_in_range(hydrate_slot(f, slot, before), 1, FEW);
	/* And for the next one it is another. */
	memcpy(before + SIZE / 2, "later", 5);
	assert_in_range(hydrate_slot(f, pin(f), before), CHUNKS - 1, 2 * CHUNKS);
	free(before);
}

/* ---- what is read all the same ---- */

static void keep_times(const struct fixture *f, const struct stat *st)
{
	const struct timespec times[2] = {st->st_atim, st->st_mtim};

	assert_int_equal(utimensat(f->root.fd, SEGMENT_FILE, times, 0), 0);
}

/* dd conv=notrunc, rsync --inplace, and anybody who puts the times back. */
static void change_in_place(const struct fixture *f)
{
	struct stat st;
	int fd = openat(f->root.fd, SEGMENT_FILE, O_WRONLY);

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(pwrite(fd, "other", 5, CHANGED * SNAPSHOT_CHUNK_SIZE), 5);
	close(fd);
	keep_times(f, &st);
}

/* cp -a and tar of a backup of another moment. */
static void put_another(const struct fixture *f)
{
	char *data = content_of(77);
	struct stat st;

	assert_int_equal(fstatat(f->root.fd, SEGMENT_FILE, &st, 0), 0);
	assert_int_equal(unlinkat(f->root.fd, SEGMENT_FILE, 0), 0);
	scratch_put(f->root.fd, SEGMENT_FILE, data, SIZE);
	keep_times(f, &st);
	free(data);
}

static void exchange_directories(const struct fixture *f)
{
	char *data = content_of(78);

	assert_int_equal(renameat(f->root.fd, SEGMENT, f->root.fd, "aside"), 0);
	assert_int_equal(mkdirat(f->root.fd, SEGMENT, 0700), 0);
	scratch_put(f->root.fd, SEGMENT_FILE, data, SIZE);
	free(data);
}

static void touch_only(const struct fixture *f)
{
	assert_int_equal(fchmodat(f->root.fd, SEGMENT_FILE, 0640, 0), 0);
}

static void what_was_changed_is_read(void **state)
{
	static void (*const ways[])(const struct fixture *f) = {change_in_place, put_another,
								exchange_directories, touch_only};
	struct fixture *f = *state;
	size_t i;

	for (i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		take(f);
		ways[i](f);
		age_files();
		take(f); /* compares */
		ways[i == 2 ? 0 : i](f);
		take(f); /* before it is old enough to be noted */
		take(f);
	}
}

/* While its page is dirty, a store through a map is told by no change time. */
static void stores_through_a_map_are_seen(void **state)
{
	struct fixture *f = *state;
	int fd = openat(f->root.fd, SEGMENT_FILE, O_RDWR);
	char *map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	close(fd);
	assert_true(map != MAP_FAILED);
	map[3 * SNAPSHOT_CHUNK_SIZE] ^= 1;
	age_files();
	take(f);
	map[3 * SNAPSHOT_CHUNK_SIZE] ^= 2;
	take(f);
	age_files();
	take(f);
	map[3 * SNAPSHOT_CHUNK_SIZE] ^= 4;
	take(f);
	munmap(map, SIZE);
}

static void what_is_too_young_is_not_noted(void **state)
{
	struct fixture *f = *state;
	struct pin_identity is;
	uint64_t now = clock_read(CLOCK_REALTIME);

	if (!tells_of_changes(f))
		skip();
	assert_int_equal(pin_identify(f->root.fd, SEGMENT_FILE, &is), 0);
	assert_true(known_settle(f->root.fd, SEGMENT_FILE, &is, now));
	/* The clock was set back behind the last change, or that was within its tick. */
	assert_false(known_settle(f->root.fd, SEGMENT_FILE, &is, (uint64_t)is.changed - SECOND));
	assert_false(known_settle(f->root.fd, SEGMENT_FILE, &is, (uint64_t)is.changed + 10));
	/* Times in whole seconds; no birth; another file; none. */
	is.changed -= is.changed % (int64_t)SECOND;
	assert_false(known_settle(f->root.fd, SEGMENT_FILE, &is, now));
	assert_int_equal(pin_identify(f->root.fd, SEGMENT_FILE, &is), 0);
	is.birth = 0;
	assert_false(known_settle(f->root.fd, SEGMENT_FILE, &is, now));
	assert_int_equal(pin_identify(f->root.fd, SEGMENT_FILE, &is), 0);
	assert_false(known_settle(f->root.fd, CHROMA_DATABASE, &is, now));
	assert_false(known_settle(f->root.fd, SEGMENT "/none", &is, now));
	touch_only(f);
	assert_false(known_settle(f->root.fd, SEGMENT_FILE, &is, now));
}

/* ---- what is said of it ---- */

static char *said(struct fixture *f, size_t *size)
{
	return scratch_get(f->storefd, SNAPSHOTS_DIR "/" KNOWN_FILE, size);
}

static void say(struct fixture *f, char *data, size_t size)
{
	const struct snapshot_known_header *h = (const void *)data;
	uint64_t check = checksum64(data, size - 8, h->id);

	memcpy(data + size - 8, &check, 8);
	scratch_put(f->storefd, SNAPSHOTS_DIR "/" KNOWN_FILE, data, size);
}

/* Of another boot, of another version, cut, damaged, of a snapshot that is gone: all is read. */
static void what_does_not_fit_is_not_believed(void **state)
{
	struct fixture *f = *state;
	struct manifest m;
	unsigned way;

	if (!tells_of_changes(f))
		skip();
	for (way = 0; way < 6; way++) {
		struct snapshot_known_header *h;
		struct snapshot_store s;
		size_t size;
		char *data;

		take_of(f, &m);
		assert_in_range(take(f), 1, FEW);
		data = said(f, &size);
		h = (void *)data;
		assert_int_equal(h->count, 2);
		h->boot_id[3] ^= way == 0;
		h->version += way == 1;
		h->id += way == 2 ? 1000 : 0;
		h->count += way == 3;
		say(f, data, way == 4 ? size - 20 : size);
		if (way == 5) {
			data[60] ^= 1;
			scratch_put(f->storefd, SNAPSHOTS_DIR "/" KNOWN_FILE, data, size);
		}
		free(data);
		assert_in_range(take(f), CHUNKS, 2 * CHUNKS);
		assert_int_equal(snapshot_store_open(&s, f->storefd, SNAPSHOT_CHANGE, 0), 0);
		assert_int_equal(snapshot_remove(&s, m.header.id + 2), 0);
		snapshot_store_close(&s);
		assert_in_range(take(f), CHUNKS, 2 * CHUNKS); /* its snapshot is gone */
		manifest_free(&m);
	}
}

/* Whatever it says, with a good checksum: nothing is read beside it. */
static void what_is_made_up_does_no_harm(void **state)
{
	struct fixture *f = *state;
	struct snapshot_store s;
	char *data, *bad;
	size_t size;
	unsigned i;

	take(f);
	data = said(f, &size);
	assert_int_equal(snapshot_store_open(&s, f->storefd, SNAPSHOT_ADD, 0), 0);
	for (i = 0; i < 2000; i++) {
		size_t cut = i % 3 ? size : size - roll(f, (unsigned)(size - LEAST));
		const struct checksum128 *sums;
		const struct manifest_file *file;
		struct known k;

		bad = malloc(cut);
		memcpy(bad, data, cut);
		bad[8 + roll(f, LEAST - 16)] ^= (char)(1 << roll(f, 8));
		say(f, bad, cut);
		free(bad);
		known_open(&k, &s);
		file = known_sums(&k, SEGMENT_FILE, &sums);
		if (file && i % 3)
			assert_int_not_equal(sums[CHUNKS - 1].high, sums[0].high);
		known_close(&k);
	}
	snapshot_store_close(&s);
	free(data);
}

/* What has to be read is compared by sums: whatever the file is, and in another boot. */
static void what_is_read_is_not_hashed(void **state)
{
	struct fixture *f = *state;
	struct snapshot_known_header *h;
	size_t size;
	char *data;

	take(f);
	touch_only(f);
	take(f);
	assert_in_range(compared, CHUNKS, CHUNKS + 1);
	data = said(f, &size);
	h = (void *)data;
	h->boot_id[3] ^= 1;
	say(f, data, size);
	free(data);
	put_another(f);
	change_in_place(f);
	take(f); /* compares: nothing is as it was but the database */
	assert_in_range(compared, 1, 1);
	change_in_place(f);
	take(f);
	assert_in_range(compared, CHUNKS, CHUNKS + 1);
	data = said(f, &size);
	h = (void *)data;
	h->seed++; /* no sum is right */
	say(f, data, size);
	free(data);
	touch_only(f);
	take(f);
	assert_int_equal(compared, 0);
}

/* One that was found damaged and set aside is written again. */
static void a_chunk_that_is_gone_is_made_again(void **state)
{
	struct fixture *f = *state;
	struct snapshot_store s;
	struct manifest m;

	take_of(f, &m);
	assert_int_equal(snapshot_store_open(&s, f->storefd, SNAPSHOT_ADD, 0), 0);
	assert_int_equal(chunks_set_aside(&s.chunks, &manifest_find(&m, SEGMENT_FILE)->chunks[5]),
			 0);
	snapshot_store_close(&s);
	take(f); /* compares */
	manifest_free(&m);
}

/* As a file system would that puts down no change time. */
static void pretend_nothing_has_changed(struct fixture *f)
{
	struct snapshot_known *n;
	struct pin_identity is;
	size_t size;
	char *data = said(f, &size);

	assert_int_equal(pin_identify(f->root.fd, SEGMENT_FILE, &is), 0);
	n = memmem(data, size, SEGMENT_FILE, sizeof(SEGMENT_FILE));
	assert_non_null(n);
	n->changed = is.changed;
	n->ino = is.ino;
	n->birth = is.birth;
	say(f, data, size);
	free(data);
}

static void a_lie_is_found(void **state)
{
	struct fixture *f = *state;
	struct chunk_name before;
	struct manifest m;
	unsigned i;

	if (!tells_of_changes(f))
		skip();
	take(f);
	put_another(f); /* all of it: at once */
	age_files();
	pretend_nothing_has_changed(f);
	take(f); /* compares */
	assert_in_range(take(f), 1, FEW);
	take_of(f, &m);
	before = manifest_find(&m, SEGMENT_FILE)->chunks[CHANGED];
	manifest_free(&m);
	change_in_place(f); /* a single chunk: sooner or later */
	age_files();
	for (i = 0; i < CHUNKS; i++) {
		const struct manifest_file *file;
		bool found;

		pretend_nothing_has_changed(f);
		take_without_looking(f, &m);
		file = manifest_find(&m, SEGMENT_FILE);
		found = memcmp(&file->chunks[CHANGED], &before, sizeof(before)) != 0;
		manifest_free(&m);
		if (found)
			break;
	}
	assert_in_range(i, 0, 8);
	take(f); /* compares */
}

static void a_lie_is_found_for_a_pin(void **state)
{
	struct fixture *f = *state;
	char *other = content_of(77);

	take(f);
	put_another(f);
	age_files();
	if (tells_of_changes(f))
		pretend_nothing_has_changed(f);
	hydrate_slot(f, pin(f), other);
	free(other);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(the_very_same_is_not_read),	      TEST(nor_is_it_for_a_pin),
	    TEST(what_was_changed_is_read),	      TEST(stores_through_a_map_are_seen),
	    TEST(what_is_too_young_is_not_noted),     TEST(what_does_not_fit_is_not_believed),
	    TEST(what_is_made_up_does_no_harm),	      TEST(what_is_read_is_not_hashed),
	    TEST(a_chunk_that_is_gone_is_made_again), TEST(a_lie_is_found),
	    TEST(a_lie_is_found_for_a_pin),
	};

	/* What a file system tells of changes is the subject: in memory there would be none. */
	setenv("TMPDIR", "/var/tmp", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
