/* SPDX-License-Identifier: MIT
 *
 * Numbers as people read them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "command/base/terminal.h"

static void test_durations(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} cases[] = {
	    {0, "0 ns"},
	    {999, "999 ns"},
	    {1500, "1.5 µs"},
	    {999950, "1.0 ms"},
	    {UINT64_C(12340000000), "12.34 s"},
	    {UINT64_C(600000000000), "10.0 min"},
	    {UINT64_C(5400000000000), "90.0 min"},
	    {UINT64_C(7200000000000), "2.0 h"},
	    {UINT64_C(86400000000000), "24.0 h"},
	    {UINT64_C(604800000000000), "7.0 days"},
	};
	char out[32];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(format_duration(out, sizeof(out), cases[i].ns), cases[i].text);
}

static void test_sizes(void **state)
{
	char out[32];

	(void)state;
	assert_string_equal(format_bytes(out, sizeof(out), 0), "0 B");
	assert_string_equal(format_bytes(out, sizeof(out), 1023), "1023 B");
	assert_string_equal(format_bytes(out, sizeof(out), 1024), "1.0 KiB");
	assert_string_equal(format_bytes(out, sizeof(out), (1u << 20) - 1), "1.0 MiB");
	assert_string_equal(format_bytes(out, sizeof(out), UINT64_MAX), "16.0 EiB");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_durations),
	    cmocka_unit_test(test_sizes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
