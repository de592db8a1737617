/* SPDX-License-Identifier: MIT
 *
 * Which line an act is told to come from: of the calls that are under way, those that fit it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "preload/base/settings.h"
#include "preload/place/callers.h"

#define BOOKS "0a1b2c3d-0000-4000-8000-00000000abcd"
#define TALKS "0a1b2c3d-0000-4000-8000-00000000ef01"
#define CALLS 64 /* that there is room for */

static const struct oplog_records three_added = {.added = 3};

static int begin(void **state)
{
	(void)state;
	settings.log_caller = true;
	callers_fork();
	return 0;
}

/* The line that is told with an act of a collection, "": none. */
static const char *line_of(uint16_t op, const char *collection, const struct oplog_records *n)
{
	static char line[OPLOG_CALLER_MAX + 1];
	struct oplog_record r = {.op = op};
	struct caller found;

	if (n)
		r.result = n->added + n->updated + n->upserted + n->deleted;
	callers_find(&r, collection, (const char *)n, n ? sizeof(*n) : 0, &found);
	memcpy(line, found.line, found.size);
	line[found.size] = '\0';
	return line;
}

static void expect_added(const char *line)
{
	assert_string_equal(line_of(OP_RECORDS, BOOKS, &three_added), line);
}

/* What differs in one thing is not meant. */
static void test_what_fits(void **state)
{
	(void)state;
	callers_begin(TALKS, CALLER_ADD, 3, "other collection");
	expect_added("");
	callers_begin(BOOKS, CALLER_UPSERT, 3, "other operation");
	expect_added("");
	callers_begin(BOOKS, CALLER_ADD, 4, "other number");
	expect_added("");
	callers_begin(BOOKS, CALLER_READS, 3, "reads");
	expect_added("");
	callers_begin("", CALLER_CHANGES_COLLECTION, 0, "of none yet");
	expect_added("");
	callers_begin(BOOKS, CALLER_ADD, 3, "this one");
	expect_added("this one");
	/* Before Chroma 1.0 the act names the topic. */
	assert_string_equal(
	    line_of(OP_RECORDS, "persistent://default/default/" BOOKS, &three_added), "this one");
	assert_string_equal(line_of(OP_RECORDS, "ef" BOOKS "01", &three_added), "");
}

static void test_two_that_fit(void **state)
{
	uint32_t other;

	(void)state;
	callers_begin(BOOKS, CALLER_ADD, 3, "one");
	callers_begin(BOOKS, CALLER_ADD, 3, "one");
	expect_added("one");
	other = callers_begin(BOOKS, CALLER_ADD, 0, "one whose number is not known");
	expect_added("");
	callers_end(other);
	expect_added("one");
	callers_end(0);
	callers_end(1);
	callers_end(other); /* once more: nobody else's */
	expect_added("one");
}

/* Where all of what is in an act cannot be told, or came in several ways, nothing is ruled out. */
static void test_what_is_not_known(void **state)
{
	const struct oplog_records both = {.added = 2, .upserted = 1},
				   more = {.added = 3, .more = 1},
				   unknown = {.added = 3, .other = 1};

	(void)state;
	callers_begin(BOOKS, CALLER_UPSERT, 7, "upserts");
	assert_string_equal(line_of(OP_RECORDS, BOOKS, &both), "upserts");
	assert_string_equal(line_of(OP_RECORDS, BOOKS, &unknown), "upserts");
	assert_string_equal(line_of(OP_RECORDS, BOOKS, &more), "");
	callers_begin(BOOKS, CALLER_ADD, 9, "adds");
	assert_string_equal(line_of(OP_RECORDS, BOOKS, &more), "adds");
	assert_string_equal(line_of(OP_RECORDS, BOOKS, &both), "");
}

static void test_acts_without_records(void **state)
{
	(void)state;
	callers_begin("", CALLER_CHANGES_COLLECTION, 0, "makes");
	assert_string_equal(line_of(OP_COLLECTION, BOOKS, NULL), "makes");
	assert_string_equal(line_of(OP_PERSIST_COMMIT, NULL, NULL), "makes");
	assert_string_equal(line_of(OP_SNAPSHOT_PIN, NULL, NULL), "makes");
	assert_string_equal(line_of(OP_PWRITE, NULL, NULL), "");
	settings.log_caller = false;
	assert_string_equal(line_of(OP_COLLECTION, BOOKS, NULL), "");
}

/* The end of it, which has the file's name and the number, and begins with a whole character. */
static void test_a_long_line(void **state)
{
	char line[2 * OPLOG_CALLER_MAX];
	size_t size;

	(void)state;
	memset(line, 'd', sizeof(line));
	strcpy(line + sizeof(line) - sizeof("app.py:12 main"), "app.py:12 main");
	size = strlen(line);
	callers_begin(BOOKS, CALLER_ADD, 3, line);
	expect_added(line + size - OPLOG_CALLER_MAX);
	callers_fork();
	memcpy(line + size - OPLOG_CALLER_MAX - 1, "\xe2\x82\xac", 3);
	callers_begin(BOOKS, CALLER_ADD, 3, line);
	expect_added(line + size - OPLOG_CALLER_MAX + 2);
}

static void test_room(void **state)
{
	uint32_t token = 0, i;

	(void)state;
	for (i = 0; i < CALLS; i++)
		assert_int_not_equal(token = callers_begin(TALKS, CALLER_ADD, 1, "many"), 0);
	assert_int_equal(callers_begin(BOOKS, CALLER_ADD, 3, "too many"), 0);
	callers_end(token);
	assert_int_not_equal(callers_begin(BOOKS, CALLER_ADD, 3, "again"), 0);
	expect_added("again");
	callers_fork();
	expect_added("");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup(test_what_fits, begin),
	    cmocka_unit_test_setup(test_two_that_fit, begin),
	    cmocka_unit_test_setup(test_what_is_not_known, begin),
	    cmocka_unit_test_setup(test_acts_without_records, begin),
	    cmocka_unit_test_setup(test_a_long_line, begin),
	    cmocka_unit_test_setup(test_room, begin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
