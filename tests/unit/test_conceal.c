/* SPDX-License-Identifier: MIT
 *
 * What a bundle for support gives away of names, and the archive that it is in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "command/report/conceal.h"
#include "command/report/tar.h"

static const struct conceal one = {.key = {1, 2, 3}}, other = {.key = {1, 2, 4}};

static void test_texts(void **state)
{
	char a[CONCEAL_SIZE], b[CONCEAL_SIZE];

	(void)state;
	conceal_text(&one, "conversations", a);
	assert_int_equal(strlen(a), 18);
	assert_string_equal(conceal_text(&one, "conversations", b), a);
	assert_string_not_equal(conceal_text(&one, "conversation", b), a);
	assert_string_not_equal(conceal_text(&other, "conversations", b), a);
	assert_int_equal(strlen(conceal_text(&one, "", b)), 18);
}

static void test_paths(void **state)
{
	char out[512], hashed[CONCEAL_SIZE], wanted[512];

	(void)state;
	assert_string_equal(conceal_path(&one, "chroma.sqlite3-journal", out, sizeof(out)),
			    "chroma.sqlite3-journal");
	assert_string_equal(conceal_path(&one, ".", out, sizeof(out)), ".");
	conceal_text(&one, "2cbbe4b1-8adb-4531-84e9-c2c0db676440", hashed);
	snprintf(wanted, sizeof(wanted), "%s/data_level0.bin", hashed);
	assert_string_equal(conceal_path(&one,
					 "2cbbe4b1-8adb-4531-84e9-c2c0db676440/data_level0.bin",
					 out, sizeof(out)),
			    wanted);
	conceal_path(&one, "/home/anna/secret/../x", out, sizeof(out));
	assert_null(strstr(out, "anna"));
	assert_null(strstr(out, "home"));
	conceal_path(&one, "anna/anna/anna/anna", out, 20); /* what does not fit is cut */
	assert_true(strlen(out) < 20);
}

static void expect_sql(const char *sql, const char *wanted)
{
	char out[512];

	assert_string_equal(conceal_sql(&one, sql, out, sizeof(out)), wanted);
}

static void test_statements(void **state)
{
	char out[512], hashed[CONCEAL_SIZE], wanted[512];

	(void)state;
	expect_sql("INSERT INTO embeddings_queue (topic, id) VALUES (?, ?)",
		   "INSERT INTO embeddings_queue (topic, id) VALUES (?, ?)");
	expect_sql("UPDATE collections SET name = 'anna''s' WHERE id = x'00ff' OR 12.5e3",
		   "UPDATE collections SET name = ? WHERE id = ? OR ?");
	expect_sql("SELECT 'never ended", "SELECT ?");
	expect_sql("DELETE FROM \"embeddings\" -- anna", "DELETE FROM embeddings /*");
	expect_sql("", "");
	conceal_text(&one, "anna", hashed);
	snprintf(wanted, sizeof(wanted), "CREATE TABLE %s(%s)", hashed, hashed);
	expect_sql("CREATE TABLE anna(\"anna\")", wanted);
	expect_sql("CREATE TABLE [anna](`anna`)", wanted);
	conceal_sql(&one, "anna anna anna anna anna", out, 30);
	assert_true(strlen(out) < 30);
	assert_null(strstr(out, "anna"));
}

static void test_archive(void **state)
{
	char *data = NULL, content[700];
	size_t size = 0;
	FILE *out = open_memstream(&data, &size);

	(void)state;
	memset(content, 'x', sizeof(content));
	assert_int_equal(tar_put(out, "first.txt", content, sizeof(content), 1000000000), 0);
	assert_int_equal(tar_put(out, "empty", "", 0, 0), 0);
	assert_int_equal(tar_end(out), 0);
	assert_int_equal(fclose(out), 0);
	assert_int_equal(size, 512 + 1024 + 512 + 1024);
	assert_string_equal(data, "first.txt");
	assert_memory_equal(data + 257, "ustar\00000", 8);
	assert_int_equal(strtol(data + 124, NULL, 8), 700);
	assert_int_equal(strtol(data + 136, NULL, 8), 1000000000);
	assert_int_equal(data[512 + 699], 'x');
	assert_int_equal(data[512 + 700], 0);
	assert_string_equal(data + 512 + 1024, "empty");
	free(data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_texts),
	    cmocka_unit_test(test_paths),
	    cmocka_unit_test(test_statements),
	    cmocka_unit_test(test_archive),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
