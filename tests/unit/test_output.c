/* SPDX-License-Identifier: MIT
 *
 * Floats written by our own routine read back as the same floats; output appears when complete.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command/output.h"

static void assert_same(float value)
{
	char text[32];
	size_t n = output_format_float(text, value);
	float back;

	assert_true(n < 24);
	text[n] = '\0';
	back = strtof(text, NULL);
	if (memcmp(&back, &value, sizeof(value)) != 0)
		fail_msg("%.9g became %s", (double)value, text);
}

static void test_floats_round_trip(void **state)
{
	static const float special[] = {0.0f,	-0.0f,	 1.0f,	     10.0f,	   9999999.0f,
					1e7f,	1e-4f,	 9.9999e-5f, 0.1f,	   0.99999994f,
					1e-45f, 3.4e38f, 1234567.9f, -0.00012345f, 100000.0f};
	uint32_t bits, random = 1;
	size_t i;
	float f;

	(void)state;
	for (i = 0; i < sizeof(special) / sizeof(special[0]); i++)
		assert_same(special[i]);
	for (i = 0; i < 2000000; i++) {
		random = random * 1664525u + 1013904223u;
		bits = random ^ random >> 15;
		if (i % 2) /* the usual size of an embedding's numbers */
			bits = (bits & 0x83ffffff) | 0x3c000000;
		memcpy(&f, &bits, sizeof(f));
		if (isfinite(f))
			assert_same(f);
	}
}

static void test_floats_are_json(void **state)
{
	char text[32];

	(void)state;
	text[output_format_float(text, NAN)] = '\0';
	assert_string_equal(text, "null");
	text[output_format_float(text, -HUGE_VALF)] = '\0';
	assert_string_equal(text, "null");
	text[output_format_float(text, 0.5f)] = '\0';
	assert_string_equal(text, "0.5");
	text[output_format_float(text, -1200.0f)] = '\0';
	assert_string_equal(text, "-1200");
	text[output_format_float(text, 0.000244140625f)] = '\0';
	assert_string_equal(text, "0.000244140625");
}

static void test_file_is_there_when_complete(void **state)
{
	char dir[] = "/tmp/chromashim-output-XXXXXX", path[64];
	struct output o;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	assert_int_equal(output_open(&o, path, false), 0);
	fputs("half", o.stream);
	assert_int_equal(access(path, F_OK), -1);
	output_abort(&o);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(output_open(&o, path, true), 0);
	fputs("whole", o.stream);
	assert_int_equal(output_close(&o), 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0); /* and nothing else is in it */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_floats_round_trip),
	    cmocka_unit_test(test_floats_are_json),
	    cmocka_unit_test(test_file_is_there_when_complete),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
