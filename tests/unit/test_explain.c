/* SPDX-License-Identifier: MIT
 *
 * Error texts as Chroma prints them, and the codes that are named.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "core/diagnose.h"
#include "core/explain.h"

static void test_real_texts(void **state)
{
	static const char *const samples[][2] = {
	    {"thread '<unnamed>' panicked at rust/sqlite/src/db.rs:157:42: range start index 10 "
	     "out "
	     "of range for slice of length 9",
	     "range start index"},
	    {"chromadb.errors.InternalError: Error executing plan: Internal error: Error creating "
	     "hnsw segment reader: Nothing found on disk",
	     "nothing found"},
	    {"Error executing plan: Internal error: Error finding id", "error finding id"},
	    {"error returned from database: (code: 1032) attempt to write a readonly database",
	     "code: 1032"},
	    {"sqlite3.OperationalError: attempt to write a readonly database", "readonly"},
	    {"mismatched types; Rust type `u64` (as SQL type `INTEGER`) is not compatible with SQL "
	     "type `BLOB`",
	     "mismatched"},
	    {"EOFError: Ran out of input", "ran out"},
	    {"sqlite3.OperationalError: table collections already exists", "already exists"},
	    {"no such column: collections.topic", "collections.topic"},
	    {"malformed inverted index for FTS5 table main.embedding_fulltext_search",
	     "malformed inverted"},
	    {"ValueError: Could not connect to tenant default_tenant. Are you sure it exists?",
	     "could not connect"},
	    {"Error sending backfill request to compactor: Failed to apply logs to the hnsw "
	     "segment "
	     "writer",
	     "hnsw segment writer"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		const struct explain_text *found = explain_find(samples[i][0]);

		assert_non_null(found);
		assert_non_null(strstr(found->pattern, samples[i][1]));
	}
	assert_null(explain_find("all is well"));
	assert_null(explain_find(""));
}

/* Every pattern finds itself, not an earlier one; every code named is one of check's. */
static void test_table(void **state)
{
	char codes[256], *code, *rest;
	const struct explain_text *all;
	size_t count, i;
	int k;

	(void)state;
	all = explain_all(&count);
	for (i = 0; i < count; i++) {
		assert_ptr_equal(explain_find(all[i].pattern), &all[i]);
		assert_true(strlen(all[i].codes) < sizeof(codes));
		strcpy(codes, all[i].codes);
		for (code = strtok_r(codes, ", ", &rest); code;
		     code = strtok_r(NULL, ", ", &rest)) {
			for (k = 0; k < DIAGNOSE_CODES; k++)
				if (strcmp(code, diagnose_kinds[k].code) == 0)
					break;
			assert_true(k < DIAGNOSE_CODES);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_real_texts),
	    cmocka_unit_test(test_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
