/* SPDX-License-Identifier: MIT
 *
 * Stores that were put aside: the newest stay, and what somebody asked for or uses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scratch.h"

#include "core/base/alive.h"
#include "core/base/clock.h"
#include "core/snapshot/store.h"
#include "core/store/kept.h"
#include "core/store/store.h"

#define HOUR (3600 * SECOND)
#define DAY (24 * HOUR)

static struct scratch dir;
static uint64_t now;

static int set_up(void **state)
{
	(void)state;
	scratch_make(&dir);
	now = clock_read(CLOCK_REALTIME);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	scratch_remove(&dir);
	return 0;
}

/* The store of a directory `n`, put aside after all that were made before. */
static int put_aside(unsigned n)
{
	struct store_identity identity = {.id = {(uint8_t)n, 7}};
	char name[64];
	int fd;

	snprintf(name, sizeof(name), ".d%u.chromashim", n);
	fd = tree_make_directory(dir.fd, name);
	assert_true(fd >= 0);
	snprintf(identity.path, sizeof(identity.path), "/srv/d%u", n);
	store_place_of(fd, &identity.own);
	assert_int_equal(store_identity_write(fd, &identity, false), 0);
	scratch_put(fd, "guard.log", "x", 1);
	return fd;
}

static void put_some(unsigned from, unsigned to)
{
	for (; from < to; from++) {
		close(put_aside(from));
		/* Each gets its number before the next one comes. */
		assert_int_equal(stores_kept_prune(dir.fd, getuid(), now), 0);
	}
}

static bool is_there(unsigned n)
{
	char name[64];

	snprintf(name, sizeof(name), ".d%u.chromashim", n);
	return faccessat(dir.fd, name, F_OK, 0) == 0;
}

static void test_the_newest_stay(void **state)
{
	struct store_kept *list;
	size_t count;
	unsigned n;

	(void)state;
	put_some(0, 6);
	assert_int_equal(stores_kept_prune(dir.fd, getuid(), now + 6 * DAY), 0);
	assert_int_equal(stores_kept_prune(dir.fd, getuid(), now - 30 * DAY), 0);
	assert_int_equal(stores_kept_prune(dir.fd, getuid() + 1, now + 8 * DAY), 0);
	assert_int_equal(stores_kept_prune(dir.fd, getuid(), now + 8 * DAY), 3);
	for (n = 0; n < 6; n++)
		assert_int_equal(is_there(n), n >= 3);
	assert_int_equal(stores_kept(dir.fd, getuid(), &list, &count), 0);
	assert_int_equal(count, 3);
	assert_string_equal(list[0].directory, "/srv/d5");
	assert_string_equal(list[2].directory, "/srv/d3");
	free(list);
	assert_int_equal(stores_kept_prune(dir.fd, getuid(), now + 800 * DAY), 0);
}

static void test_of_very_many_some_go_soon(void **state)
{
	(void)state;
	put_some(0, STORES_KEPT_MOST + 2);
	assert_int_equal(stores_kept_prune(dir.fd, getuid(), now + HOUR / 2), 0);
	assert_int_equal(stores_kept_prune(dir.fd, getuid(), now + 2 * HOUR), 2);
	assert_true(!is_there(0) && !is_there(1) && is_there(2));
}

static void add_snapshot(int fd, const char *reason, const char *tag)
{
	struct manifest m = {.header = {.state = SNAPSHOT_COMPLETE, .time = now}};
	struct snapshot_store s;

	assert_int_equal(snapshot_store_open(&s, fd, SNAPSHOT_CHANGE, 0), 0);
	assert_int_equal(manifest_set_text(&m.reason, reason), 0);
	if (tag)
		assert_int_equal(manifest_add_tag(&m, tag), 0);
	assert_int_equal(snapshot_add(&s, &m), 0);
	snapshot_store_close(&s);
	manifest_free(&m);
}

/* By hand, held, in use; with one that is damaged nobody knows. */
static void test_what_is_wanted_stays(void **state)
{
	int fds[7], alive, damaged;
	char name[MANIFEST_NAME_SIZE];
	uint64_t life;
	unsigned n;

	(void)state;
	for (n = 0; n < 7; n++) {
		fds[n] = put_aside(n);
		assert_int_equal(stores_kept_prune(dir.fd, getuid(), now), 0);
	}
	put_some(7, 7 + STORES_KEPT);
	add_snapshot(fds[0], "schedule", NULL);
	add_snapshot(fds[1], "manual", NULL);
	add_snapshot(fds[2], "schema", "before the move");
	alive = alive_open(fds[3]);
	assert_int_equal(alive_begin(alive, &life), 0);
	tree_remove(fds[4], "identity");
	add_snapshot(fds[5], "schedule", NULL);
	damaged = tree_make_directory(fds[5], SNAPSHOTS_DIR);
	manifest_file_name(name, 1);
	scratch_put(damaged, name, "x", 1);
	close(damaged);
	assert_int_equal(stores_kept_prune(dir.fd, getuid(), now + 8 * DAY), 2);
	for (n = 0; n < 7; n++) {
		assert_int_equal(is_there(n), n != 0 && n != 6);
		close(fds[n]);
	}
	close(alive);
	assert_int_equal(stores_kept_prune(dir.fd, getuid(), now + 8 * DAY), 1);
	assert_false(is_there(3));
}

/* Killed in the midst of it; and what only looks like a store. */
static void test_a_removal_is_ended(void **state)
{
	static const char half[] = ".removed-00112233445566778899aabbccddeeff.chromashim";
	int fd = tree_make_directory(dir.fd, half);

	(void)state;
	scratch_put(fd, "guard.log", "x", 1);
	close(fd);
	close(tree_make_directory(dir.fd, ".else.chromashim"));
	close(tree_make_directory(dir.fd, ".chromashim"));
	close(tree_make_directory(dir.fd, ".removed-x.chromashim"));
	assert_int_equal(symlinkat(".else.chromashim", dir.fd, ".link.chromashim"), 0);
	assert_int_equal(stores_kept_prune(dir.fd, getuid(), now + 8 * DAY), 1);
	assert_int_equal(faccessat(dir.fd, half, F_OK, 0), -1);
	assert_int_equal(faccessat(dir.fd, ".else.chromashim", F_OK, 0), 0);
	assert_int_equal(faccessat(dir.fd, ".removed-x.chromashim", F_OK, 0), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(the_newest_stay),
	    TEST(of_very_many_some_go_soon),
	    TEST(what_is_wanted_stays),
	    TEST(a_removal_is_ended),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
