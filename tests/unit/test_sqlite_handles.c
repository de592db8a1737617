/* SPDX-License-Identifier: MIT
 *
 * The table of SQLite's handles: found again, taken out, full, and from several threads at once.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>

#include "preload/sqlite/handles.c"

#define MANY 20000
#define THREADS 4

static char addresses[THREADS * MANY];

static struct sqlite_handle value_of(const char *key)
{
	return (struct sqlite_handle){.rows = (uint64_t)(key - addresses), .protected = true};
}

static void expect(const char *key)
{
	struct sqlite_handle *h = sqlite_handle_find(key);

	assert_non_null(h);
	assert_int_equal(h->rows, key - addresses);
}

static void test_few(void **state)
{
	struct sqlite_handle h = value_of(addresses), out;

	(void)state;
	assert_null(sqlite_handle_find(addresses));
	assert_null(sqlite_handle_find(NULL));
	assert_false(sqlite_handle_take(addresses, &out));
	assert_true(sqlite_handle_add(addresses, &h));
	expect(addresses);
	assert_null(sqlite_handle_find(addresses + 1));
	h.sql = 5;
	assert_true(sqlite_handle_add(addresses, &h));
	assert_int_equal(sqlite_handles_used, 1);
	assert_true(sqlite_handle_take(addresses, &out));
	assert_int_equal(out.sql, 5);
	assert_null(sqlite_handle_find(addresses));
	assert_false(sqlite_handle_add(NULL, &h));
	assert_int_equal(sqlite_handles_used, 0);
}

/* More than there is room for: what was taken in is found, and room that is given back is used. */
static void test_full(void **state)
{
	static bool there[MANY];
	struct sqlite_handle out;
	unsigned count = 0, i, round;

	(void)state;
	for (round = 0; round < 3; round++) {
		for (i = 0; i < MANY; i++) {
			struct sqlite_handle h = value_of(addresses + i);

			there[i] = sqlite_handle_add(addresses + i, &h);
			count += there[i];
		}
		assert_int_equal(sqlite_handles_used, count);
		assert_true(count > LINES * KEYS / 2);
		for (i = 0; i < MANY; i++)
			if (there[i])
				expect(addresses + i);
			else
				assert_null(sqlite_handle_find(addresses + i));
		for (i = 0; i < MANY; i++)
			count -= sqlite_handle_take(addresses + i, &out);
		assert_int_equal(count, 0);
		assert_int_equal(sqlite_handles_used, 0);
	}
}

static void *live(void *context)
{
	const char *mine = context;
	unsigned i, lap;

	for (i = 0; i < MANY; i += 16)
		for (lap = 0; lap < 2; lap++) {
			struct sqlite_handle h = value_of(mine + i), out;
			struct sqlite_handle *found;

			if (!sqlite_handle_add(mine + i, &h))
				return context;
			found = sqlite_handle_find(mine + i);
			if (!found || found->rows != h.rows)
				return context;
			if (!sqlite_handle_take(mine + i, &out) || out.rows != h.rows ||
			    sqlite_handle_find(mine + i))
				return context;
		}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];
	unsigned i;

	(void)state;
	for (i = 0; i < THREADS; i++)
		assert_int_equal(
		    pthread_create(&threads[i], NULL, live, addresses + (size_t)i * MANY), 0);
	for (i = 0; i < THREADS; i++) {
		void *bad;

		pthread_join(threads[i], &bad);
		assert_null(bad);
	}
	assert_int_equal(sqlite_handles_used, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_few),
	    cmocka_unit_test(test_full),
	    cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
