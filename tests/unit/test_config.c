/* SPDX-License-Identifier: MIT
 *
 * Settings: values, the file, and who is stronger.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/filesystem.h"
#include "core/settings/config.h"

static void test_defaults_are_valid(void **state)
{
	unsigned i, k;

	(void)state;
	for (i = 0; i < CONFIG_KEYS; i++) {
		assert_true(config_is_valid((enum config_key)i, config_settings[i].otherwise));
		assert_int_equal(
		    config_find(config_settings[i].name, strlen(config_settings[i].name)), i);
		for (k = 0; k < i; k++)
			assert_string_not_equal(config_settings[i].name, config_settings[k].name);
	}
	assert_int_equal(config_find("CHROMASHIM_", 11), CONFIG_KEYS);
}

static void test_values(void **state)
{
	unsigned percent;
	uint64_t n;

	(void)state;
	assert_true(config_read_size("256M", &n) && n == UINT64_C(256) << 20);
	assert_true(config_read_size("1 GiB", &n) && n == UINT64_C(1) << 30);
	assert_true(config_read_size("12", &n) && n == 12);
	assert_false(config_read_size("", &n) || config_read_size("12Q", &n) ||
		     config_read_size("-1", &n) || config_read_size("99999999999999T", &n));
	assert_true(config_read_time("500ms", &n) && n == 500000000);
	assert_true(config_read_time("6h", &n) && n == UINT64_C(21600000000000));
	assert_true(config_read_time("2", &n) && n == 2000000000);
	assert_false(config_read_time("2 weeks", &n) || config_read_time("99999999999d", &n));
	assert_true(config_read_percent("80%", &percent) && percent == 80);
	assert_false(config_read_percent("101", &percent));
	assert_true(config_read_room("5%,1G", &percent, &n) && percent == 5 && n == 1u << 30);
	assert_true(config_read_room("2G", &percent, &n) && percent == 100);
	assert_false(config_read_room("lots", &percent, &n));
	assert_true(config_is_valid(CONFIG_SINGLE_WRITER, "wait"));
	assert_true(config_is_valid(CONFIG_SINGLE_WRITER, "off"));
	assert_false(config_is_valid(CONFIG_SINGLE_WRITER, "or"));
	assert_false(config_is_valid(CONFIG_SINGLE_WRITER, "den"));
	assert_false(config_is_valid(CONFIG_SINGLE_WRITER, ""));
}

/* One reader for all: what it does not understand to the end is no size and no time. */
static void test_sizes(void **state)
{
	static const char *const bad[] = {
	    "",	     " ",     "1 ",    " 1",   "1  B", "1BB",	 "1i",
	    "1Ki",   "1iB",   "1KiBs", "1B ",  "K",    "-1",	 "+1",
	    "1.",    ".5",    "1.5",   "1.5B", "0x1",  "1e3",	 "1,5G",
	    "1 000", "1G 1M", "inf",   "nan",  "1\n",  "16384P", "18446744073709551616",
	    "1 .5G", "1G\t",
	};
	static const struct {
		const char *text;
		uint64_t size;
	} good[] = {
	    {"0", 0},
	    {"1B", 1},
	    {"1 B", 1},
	    {"1K", 1024},
	    {"1k", 1024},
	    {"1 KB", 1024},
	    {"1KiB", 1024},
	    {"1.5G", UINT64_C(3) << 29},
	    {"0.25 MiB", UINT64_C(1) << 18},
	    {"16383P", UINT64_C(16383) << 50},
	    {"18446744073709551615", UINT64_MAX},
	};
	uint64_t n;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (config_read_size(bad[i], &n))
			fail_msg("'%s' is no size", bad[i]);
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!config_read_size(good[i].text, &n) || n != good[i].size)
			fail_msg("'%s' is %llu", good[i].text, (unsigned long long)good[i].size);
}

static void test_times(void **state)
{
	static const char *const bad[] = {
	    "",	   " ",	     "1 s",  "1s ", " 1s",
	    "-1s", "+1s",    "1.s",  ".5s", "1x",
	    "1S",  "inf",    "1e3",  "0x1", "ms",
	    "1h ", "1h 30m", "1h30", "s1",  "18446744073709551615w",
	    "1ss", "1.5",
	};
	static const struct {
		const char *text;
		uint64_t ns;
	} good[] = {
	    {"0", 0},
	    {"0s", 0},
	    {"30", UINT64_C(30000000000)},
	    {"1h30m", UINT64_C(5400000000000)},
	    {"1.5h", UINT64_C(5400000000000)},
	    {"250ms", 250000000},
	    {"1w", UINT64_C(604800000000000)},
	    {"0.001s", 1000000},
	};
	uint64_t n;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (config_read_time(bad[i], &n))
			fail_msg("'%s' is no time", bad[i]);
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		if (!config_read_time(good[i].text, &n) || n != good[i].ns)
			fail_msg("'%s' is %llu ns", good[i].text, (unsigned long long)good[i].ns);
	assert_false(config_read_span("30", &n)); /* of what? */
}

static void test_rooms(void **state)
{
	static const char *const bad[] = {"5%,", ",5%", "5%6%",	  "5%,6%", "1G,2G", "101%",
					  " 5%", "5% ", "5%,,1G", "",	   "5 %"};
	unsigned percent;
	uint64_t n;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (config_read_room(bad[i], &percent, &n))
			fail_msg("'%s' is no room", bad[i]);
	assert_true(config_read_room("1G, 5%", &percent, &n) && percent == 5 && n == 1u << 30);
	assert_true(config_read_room("1G 5%", &percent, &n) && percent == 5 && n == 1u << 30);
}

static int parse(struct config *c, const char *text, struct config_trouble *trouble)
{
	memset(c, 0, sizeof(*c));
	return config_parse(c, text, strlen(text), trouble);
}

static void test_file(void **state)
{
	struct config_trouble trouble;
	struct config c;

	(void)state;
	assert_int_equal(parse(&c,
			       "\xef\xbb\xbf# first\n\n  CHROMASHIM_LOG_SIZE = 512M  # more\r\n"
			       "CHROMASHIM_HOOK=\"/opt/my # hooks/tell\" # why\n"
			       "CHROMASHIM_WAIT\t=\t5s",
			       &trouble),
			 0);
	assert_string_equal(config_get(&c, CONFIG_LOG_SIZE), "512M");
	assert_int_equal(c.values[CONFIG_LOG_SIZE].line, 3);
	assert_string_equal(config_get(&c, CONFIG_HOOK), "/opt/my # hooks/tell");
	assert_string_equal(config_get(&c, CONFIG_WAIT), "5s");
	assert_string_equal(config_get(&c, CONFIG_FENCE), "on");
	config_free(&c);
}

static void refused(const char *text, unsigned line, const char *part)
{
	struct config_trouble trouble;
	struct config c;

	assert_int_equal(parse(&c, text, &trouble), -EINVAL);
	assert_int_equal(trouble.line, line);
	if (!strstr(trouble.text, part))
		fail_msg("'%s' does not say '%s'", trouble.text, part);
	config_free(&c);
}

static void test_bad_files(void **state)
{
	(void)state;
	refused("\nCHROMASHIM_LOG = 1M\n", 2, "no setting 'CHROMASHIM_LOG'");
	refused("CHROMASHIM_LOG_SIZE 1M\n", 1, "NAME = value");
	refused("CHROMASHIM_LOG_SIZE = lots\n", 1, "'lots' is not a size such as 256M");
	refused("CHROMASHIM_FENCE = on\n#\nCHROMASHIM_FENCE = off\n", 3, "already, in line 1");
	refused("CHROMASHIM_HOOK = \"abc\n", 1, "quote");
	refused("CHROMASHIM_HOOK = \"abc\" d\n", 1, "behind it");
	refused("= 3\n", 1, "no setting");
}

static void test_precedence(void **state)
{
	struct config_trouble trouble;
	static const char text[] = "CHROMASHIM_WAIT = 1s\nCHROMASHIM_BALLAST = 1M\n"
				   "CHROMASHIM_EVERY = 1h\n";
	enum config_key key;
	struct config c = {0};

	(void)state;
	setenv("CHROMASHIM_WAIT", "2s", 1);
	setenv("CHROMASHIM_BALLAST", "2M", 1);
	setenv("CHROMASHIM_FENCE", "", 1);
	assert_int_equal(config_set(&c, CONFIG_WAIT, "3s", CONFIG_FROM_OPTION), 0);
	assert_int_equal(config_read_environment(&c, &key), 0);
	assert_int_equal(config_parse(&c, text, sizeof(text) - 1, &trouble), 0);
	assert_string_equal(config_get(&c, CONFIG_WAIT), "3s");
	assert_string_equal(config_get(&c, CONFIG_BALLAST), "2M");
	assert_string_equal(config_get(&c, CONFIG_EVERY), "1h");
	assert_null(c.values[CONFIG_FENCE].text);
	setenv("CHROMASHIM_BALLAST", "much", 1);
	assert_int_equal(config_read_environment(&c, &key), -EINVAL);
	assert_int_equal(key, CONFIG_BALLAST);
	config_free(&c);
}

static void test_filesystems(void **state)
{
	(void)state;
	assert_true(filesystem_find(0xef53)->locks);
	assert_false(filesystem_find(0x6969)->locks);
	assert_true(filesystem_find(0x6969)->network);
	assert_string_equal(filesystem_find(0x65735546)->name, "FUSE");
	assert_null(filesystem_find(0x12345));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults_are_valid),
	    cmocka_unit_test(test_values),
	    cmocka_unit_test(test_sizes),
	    cmocka_unit_test(test_times),
	    cmocka_unit_test(test_rooms),
	    cmocka_unit_test(test_file),
	    cmocka_unit_test(test_bad_files),
	    cmocka_unit_test(test_precedence),
	    cmocka_unit_test(test_filesystems),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
