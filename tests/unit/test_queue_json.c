/* SPDX-License-Identifier: MIT
 *
 * Metadata that is no JSON, as Python writes it, and what becomes of it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "core/chroma/queue_json.h"

static void check(const char *text, const char *mended, size_t places)
{
	char out[256];
	size_t size;

	assert_int_equal(queue_json_mend(text, strlen(text), out, &size), places);
	assert_int_equal(size, strlen(mended));
	assert_memory_equal(out, mended, size);
}

static void test_words(void **state)
{
	(void)state;
	check("{\"a\": NaN}", "{\"a\": null}", 1);
	check("{\"a\": Infinity, \"b\": -Infinity, \"c\": [NaN, 1]}",
	      "{\"a\": null, \"b\": null, \"c\": [null, 1]}", 3);
	check("{\"NaN\": \"Infinity, NaN and \\\" NaN\", \"b\": -1.5e3}",
	      "{\"NaN\": \"Infinity, NaN and \\\" NaN\", \"b\": -1.5e3}", 0);
}

static void test_surrogates(void **state)
{
	(void)state;
	check("{\"a\": \"\\ud83d\\ude00\"}", "{\"a\": \"\\ud83d\\ude00\"}", 0);
	check("{\"a\": \"\\ud83d\"}", "{\"a\": \"\\ufffd\"}", 1);
	check("{\"a\": \"\\ude00\\ud83d x\"}", "{\"a\": \"\\ufffd\\ufffd x\"}", 2);
	check("{\"a\": \"\\\\ud83d\"}", "{\"a\": \"\\\\ud83d\"}", 0); /* a backslash, and letters */
}

static void test_cut_short(void **state)
{
	static const char text[] = "{\"a\": \"\\ud83d\\\", NaN";
	char out[2 * sizeof(text)];
	size_t n, size;

	(void)state;
	for (n = 0; n < sizeof(text); n++) {
		queue_json_mend(text, n, out, &size);
		assert_true(size <= 2 * n);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_words),
	    cmocka_unit_test(test_surrogates),
	    cmocka_unit_test(test_cut_short),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
