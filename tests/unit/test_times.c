/* SPDX-License-Identifier: MIT
 *
 * Points in time and spans, as people type them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"

static uint64_t parsed(const char *text)
{
	uint64_t ns = 0;

	assert_true(parse_time(text, &ns));
	return ns;
}

/* The moment in local time, as `format` of strftime has it. */
static const char *shown(uint64_t ns, const char *format)
{
	static char out[64];
	time_t seconds = (time_t)(ns / SECOND);
	struct tm tm;

	localtime_r(&seconds, &tm);
	strftime(out, sizeof(out), format, &tm);
	return out;
}

static void test_days(void **state)
{
	uint64_t now = clock_read(CLOCK_REALTIME), today = parsed("today");
	char printed[64];

	(void)state;
	assert_string_equal(shown(today, "%H:%M:%S"), "00:00:00");
	assert_true(today <= now && now - today < 26 * 3600 * SECOND);
	assert_true(parsed("yesterday") < today &&
		    parsed("yesterday") + 26 * 3600 * SECOND > today);
	assert_string_equal(shown(parsed("yesterday 14:00"), "%H:%M:%S"), "14:00:00");
	assert_true(parsed("yesterday 14:00") < today);
	assert_string_equal(shown(parsed("today 9:05:07"), "%H:%M:%S"), "09:05:07");
	assert_int_equal(parsed(format_time(printed, sizeof(printed), now, false)),
			 now / 1000 * 1000);
	assert_int_equal(parsed(format_time(printed, sizeof(printed), now, true)),
			 now / 1000 * 1000);
}

/* A time of day is the last such moment. */
static void test_clock(void **state)
{
	static const char *const texts[] = {"00:00", "09:30", "14:02", "23:59"};
	uint64_t now = clock_read(CLOCK_REALTIME);
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		uint64_t ns = parsed(texts[i]);

		assert_true(ns <= now + SECOND && now < ns + 26 * 3600 * SECOND);
		assert_string_equal(shown(ns, "%H:%M"), texts[i]);
	}
	assert_string_equal(shown(parsed("14:02:30.5"), "%H:%M:%S"), "14:02:30");
	assert_int_equal(parsed("14:02:30.5") % SECOND, SECOND / 2);
}

static void test_no_times(void **state)
{
	static const char *const texts[] = {"",	       "todayish",    "yesterday14:00",
					    "25:00",   "14:60",	      "yesterday x",
					    "14:02 x", "today 24:01", "tomorrow"};
	uint64_t ns;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		assert_false(parse_time(texts[i], &ns));
}

static void test_spans(void **state)
{
	uint64_t ns;

	(void)state;
	assert_true(parse_duration("100ms", &ns) && ns == 100000000);
	assert_true(parse_duration("1.5 s", &ns) && ns == 1500000000);
	assert_true(parse_duration("250us", &ns) && ns == 250000);
	assert_true(parse_duration("2m", &ns) && ns == 120 * SECOND);
	assert_false(parse_duration("100", &ns) || parse_duration("ms", &ns) ||
		     parse_duration("-1s", &ns) || parse_duration("1e300s", &ns) ||
		     parse_duration("0x10s", &ns));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_days),
	    cmocka_unit_test(test_clock),
	    cmocka_unit_test(test_no_times),
	    cmocka_unit_test(test_spans),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
