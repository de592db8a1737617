/* SPDX-License-Identifier: MIT
 *
 * One value out of a YAML file, in all styles in which people write it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "command/run/yaml.h"

#define KEY "persist_path"

static const char *const found[] = {
    "persist_path: ./other",
    "persist_path: ./other\r\n",
    "persist_path : ./other",
    "persist_path:    ./other   ",
    "persist_path:\t./other",
    "\"persist_path\": ./other",
    "'persist_path' : './other'",
    "persist_path: \"./other\" # where it is",
    "persist_path: ./other # where it is",
    "persist_path: \"./\\u006fther\"",
    "persist_path: '.''/other'+",
    "? persist_path\n: ./other",
    "persist_path: !!str ./other",
    "persist_path: &here ./other",
    "!!str persist_path: ./other",
    "persist_path:\n  ./other\n",
    "persist_path: # below\n  ./other\n",
    "persist_path: |-\n  ./other\n",
    "persist_path: >-\n  ./other\n\nport: 1\n",
    "\xef\xbb\xbfpersist_path: ./other",
    "# first\n\n---\npersist_path: ./other\n...\n",
    "%YAML 1.2\n---\npersist_path: ./other\n",
    "--- {persist_path: ./other}",
    "  port: 1\n  persist_path: ./other\n",
    "port: 8000\npersist_path: ./other\nlisten: x",
    "a:\n  persist_path: ./no\npersist_path: ./other\n",
    "a:\n- persist_path: ./no\npersist_path: ./other\n",
    "a: {\n  persist_path: ./no\n}\npersist_path: ./other\n",
    "a: \"two\n  persist_path: ./no\"\npersist_path: ./other\n",
    "a: |\n  persist_path: ./no\npersist_path: ./other\n",
    "a: [1, '}', \"]\"]\npersist_path: ./other\n",
    "{port: 1, persist_path: ./other}",
    "{\"persist_path\": \"./other\", \"port\": 8000}",
    "{\"persist_path\":\"./other\"}",
    "{\n  \"port\": 8000, # one\n  \"persist_path\":\n    \"./other\"\n}\n",
    "{a: {persist_path: ./no}, b: [x, y], persist_path: ./other}",
    "{? persist_path : ./other}",
};

static const char *const none[] = {
    "",
    "\n# nothing\n",
    "port: 8000",
    "persist_path:",
    "persist_path: ~\nport: 1",
    "persist_path:\nport: 1",
    "persist_path: ''",
    "{port: 1}",
    "{}",
    "a:\n  persist_path: ./no\n",
    "a: b\n---\npersist_path: ./no\n",
    "persist_path_2: ./no\n",
    "# persist_path: ./no\n",
};

static const char *const unclear[] = {
    "persist_path: *there",	"persist_path: {a: b}",
    "persist_path: [a]",	"persist_path: \"./other",
    "persist_path: ./a\n  b\n", "persist_path",
    "{persist_path: ./other",	"{a: b c",
    "persist_path: \"\\q\"",	"persist_path: \"\\ud83d\\ude00\"",
};

static void test_styles(void **state)
{
	char out[64];
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(found) / sizeof(found[0]); i++) {
		const char *want = strchr(found[i], '+') ? ".'/other" : "./other";
		char text[128];

		strcpy(text, found[i]);
		text[strcspn(text, "+")] = '\0';
		if (yaml_find(text, KEY, out, sizeof(out)) != YAML_FOUND || strcmp(out, want) != 0)
			fail_msg("not read: %s", found[i]);
	}
	for (i = 0; i < sizeof(none) / sizeof(none[0]); i++)
		if (yaml_find(none[i], KEY, out, sizeof(out)) != YAML_NONE)
			fail_msg("there is none: %s", none[i]);
	for (i = 0; i < sizeof(unclear) / sizeof(unclear[0]); i++) {
		enum yaml_answer a = yaml_find(unclear[i], KEY, out, sizeof(out));

		if (a != YAML_NOT_UNDERSTOOD && strncmp(unclear[i], "{persist", 8) != 0)
			fail_msg("%d, not unclear: %s", (int)a, unclear[i]);
	}
	assert_int_equal(yaml_find("persist_path: 0123456789abcdef", KEY, out, 16),
			 YAML_NOT_UNDERSTOOD);
}

/* Whatever it is given, it ends, and reads nothing behind the end. */
static void test_broken_texts(void **state)
{
	static const char letters[] = "persist_path:{}[]\"'\\#\n\r\t -?&!*|>%~,";
	unsigned random = 1, round;
	size_t i, k;

	(void)state;
	for (round = 0; round < 200000; round++) {
		const char *from = found[round % (sizeof(found) / sizeof(found[0]))];
		size_t n = strlen(from);
		char out[16], *text = malloc(n + 1);

		memcpy(text, from, n + 1);
		for (k = 0; n && k < 1 + round % 4; k++) {
			random = random * 1664525u + 1013904223u;
			i = (random >> 8) % n;
			text[i] =
			    round % 3 ? letters[(random >> 20) % (sizeof(letters) - 1)] : '\0';
		}
		yaml_find(text, KEY, out, sizeof(out));
		free(text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_styles),
	    cmocka_unit_test(test_broken_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
