/* SPDX-License-Identifier: MIT
 *
 * The ring of events: the newest stay, each once, and what is damaged is nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "scratch.h"

#include "core/chroma/engine.h"
#include "core/store/events.h"

static struct scratch dir;

static int set_up(void **state)
{
	(void)state;
	scratch_make(&dir);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	scratch_remove(&dir);
	return 0;
}

static void put(unsigned from, unsigned to)
{
	for (; from < to; from++)
		events_note(dir.fd, "test.event", "number %u", from);
}

static void test_newest_stay(void **state)
{
	struct store_event *all;

	(void)state;
	assert_int_equal(events_list(dir.fd, &all), -ENOENT);
	put(1, 4);
	assert_int_equal(events_list(dir.fd, &all), 3);
	assert_string_equal(all[0].text, "number 1");
	assert_string_equal(all[2].text, "number 3");
	free(all);
	put(4, EVENTS_SLOTS + 11);
	assert_int_equal(events_list(dir.fd, &all), EVENTS_SLOTS);
	assert_string_equal(all[0].text, "number 11");
	assert_int_equal(all[EVENTS_SLOTS - 1].number, EVENTS_SLOTS + 10);
	free(all);
}

static void test_told_once(void **state)
{
	struct store_event *all, *again;

	(void)state;
	put(1, 3);
	assert_int_equal(events_list(dir.fd, &all), 2);
	assert_int_equal(all[0].told, 0);
	events_set_told(dir.fd, &all[0]);
	assert_int_equal(events_list(dir.fd, &again), 2);
	assert_int_equal(again[0].told, 1);
	assert_int_equal(again[1].told, 0);
	free(again);
	/* Its slot has another one by now. */
	put(3, EVENTS_SLOTS + 3);
	events_set_told(dir.fd, &all[1]);
	assert_int_equal(events_list(dir.fd, &again), EVENTS_SLOTS);
	assert_int_equal(again[EVENTS_SLOTS - 1].told, 0);
	free(again);
	free(all);
}

static void test_damage_is_nothing(void **state)
{
	struct store_event *all;
	size_t size;
	char *data;

	(void)state;
	put(1, 6);
	data = scratch_get(dir.fd, EVENTS_NAME, &size);
	data[3 * sizeof(*all) + offsetof(struct store_event, text)] ^= 1;
	scratch_put(dir.fd, EVENTS_NAME, data, size - 100);
	free(data);
	assert_int_equal(events_list(dir.fd, &all), 3); /* 1, 2, 4 */
	assert_int_equal(all[2].number, 4);
	free(all);
	put(6, 7);
	assert_int_equal(events_list(dir.fd, &all), 4);
	assert_string_equal(all[3].text, "number 6");
	free(all);
}

static void test_engine_lines(void **state)
{
	struct engine e;
	char good[] =
	    "chromashim-engine 1\nrelease 1.5.9\npython /usr/bin/python3\npackages /a b\n";
	char newer[] = "chromashim-engine 2\nrelease 1.5.9\npython \npackages \n";
	char cut[] = "chromashim-engine 1\nrelease 1.5.9\npython /usr/bin";
	char none[] = "";

	(void)state;
	assert_true(engine_parse(good, &e));
	assert_string_equal(e.release, "1.5.9");
	assert_string_equal(e.python, "/usr/bin/python3");
	assert_string_equal(e.packages, "/a b");
	assert_false(engine_parse(newer, &e));
	assert_false(engine_parse(cut, &e));
	assert_false(engine_parse(none, &e));
}

static void test_engine_of_others(void **state)
{
	struct engine e = {.release = "1.5.9", .python = "/usr/bin/python3", .packages = "/p"}, f;

	(void)state;
	assert_false(engine_read(dir.fd, &f));
	engine_write(dir.fd, &e);
	assert_true(engine_read(dir.fd, &f));
	assert_string_equal(f.packages, "/p");
	/* It names a program: nobody else may have written it. */
	assert_int_equal(fchmodat(dir.fd, ENGINE_NAME, 0666, 0), 0);
	assert_false(engine_read(dir.fd, &f));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_newest_stay, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_told_once, set_up, tear_down),
	    cmocka_unit_test_setup_teardown(test_damage_is_nothing, set_up, tear_down),
	    cmocka_unit_test(test_engine_lines),
	    cmocka_unit_test_setup_teardown(test_engine_of_others, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
