/* SPDX-License-Identifier: MIT
 *
 * The identity of a store, whose lines are not held as a whole.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <limits.h>

#include "core/store/store.h"
#include "scratch.h"

#define ID "00112233445566778899aabbccddeeff"

static struct scratch store;
static struct store_identity read_back;

static int read_text(const char *text, size_t size)
{
	scratch_put(store.fd, STORE_IDENTITY, text, size);
	memset(&read_back, 0xa5, sizeof(read_back));
	return store_identity_read(store.fd, &read_back);
}

static void test_as_written(void **state)
{
	static const size_t lengths[] = {0,   1,   100, 121, 122,	  123,
					 127, 128, 129, 250, PATH_MAX - 1};
	static struct store_identity in = {.version = 0x010203};
	unsigned i, k;

	(void)state;
	store_id_draw(in.id);
	for (i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
		for (k = 0; k < sizeof(lengths) / sizeof(lengths[0]); k++) {
			memset(&in.path, 0, sizeof(in.path));
			memset(&in.store, 0, sizeof(in.store));
			memset(in.path, 'p', lengths[i]);
			memset(in.store, 's', lengths[k]);
			in.directory.inode = 7 + i;
			unlinkat(store.fd, STORE_IDENTITY, 0);
			assert_int_equal(store_identity_write(store.fd, &in, false), 0);
			assert_int_equal(store_identity_read(store.fd, &read_back), 0);
			assert_memory_equal(&in, &read_back, sizeof(in));
		}
}

/* Where two meet a directory at the same moment, the second takes the first one's. */
static void test_one_is_first(void **state)
{
	static struct store_identity one = {.path = "/one"}, other = {.path = "/other"};

	(void)state;
	unlinkat(store.fd, STORE_IDENTITY, 0);
	store_id_draw(one.id);
	store_id_draw(other.id);
	assert_int_equal(store_identity_write(store.fd, &one, true), 0);
	assert_int_equal(store_identity_write(store.fd, &other, true), -EEXIST);
	assert_int_equal(store_identity_read(store.fd, &read_back), 0);
	assert_memory_equal(read_back.id, one.id, sizeof(one.id));
	assert_int_equal(store_identity_write(store.fd, &other, false), 0);
	assert_int_equal(store_identity_read(store.fd, &read_back), 0);
	assert_memory_equal(read_back.id, other.id, sizeof(other.id));
}

static void test_unknown_lines(void **state)
{
	static char text[2048];
	int n = snprintf(text, sizeof(text),
			 "chromashim-store 1\nlater %01000d\nid " ID "\n\npath /a b\n", 0);

	(void)state;
	assert_int_equal(read_text(text, (size_t)n), 0);
	assert_string_equal(read_back.path, "/a b");
	assert_string_equal(read_back.store, "");
	assert_int_equal(read_back.id[15], 0xff);
}

static void test_too_long(void **state)
{
	static char text[PATH_MAX + 256];
	int n = snprintf(text, sizeof(text), "chromashim-store 1\nid " ID "\npath ");

	(void)state;
	memset(text + n, 'p', PATH_MAX);
	text[n + PATH_MAX] = '\n';
	assert_int_equal(read_text(text, (size_t)n + PATH_MAX + 1), 0);
	assert_string_equal(read_back.path, "");
}

static void test_damaged(void **state)
{
	static const char *const bad[] = {
	    "",
	    "chromashim-store 1\n",
	    "id " ID "\n",
	    "chromashim-store 1\nid " ID,
	    "chromashim-store 1\nid 00112233\n",
	    "chromashim-store 1\nid " ID "\npath /cut",
	};
	static char text[4 * PATH_MAX];
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(read_text(bad[i], strlen(bad[i])), -EBADMSG);
	assert_int_equal(read_text("chromashim-store 2\nid " ID "\n", 56), -EPROTONOSUPPORT);
	memset(text, 'x', sizeof(text));
	assert_int_equal(read_text(text, sizeof(text)), -EBADMSG);
	unlinkat(store.fd, STORE_IDENTITY, 0);
	assert_int_equal(store_identity_read(store.fd, &read_back), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_as_written),	  cmocka_unit_test(test_one_is_first),
	    cmocka_unit_test(test_unknown_lines), cmocka_unit_test(test_too_long),
	    cmocka_unit_test(test_damaged),
	};
	int failed;

	scratch_make(&store);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	scratch_remove(&store);
	return failed;
}
