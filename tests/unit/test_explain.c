/* SPDX-License-Identifier: MIT
 *
 * Error texts as Chroma prints them, and the codes that are named.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "core/check/diagnose.h"
#include "core/chroma/explain.h"

static const struct explain_text *first(const char *text)
{
	const struct explain_text *found[4];

	return explain_find(text, found, 4) ? found[0] : NULL;
}

static void test_real_texts(void **state)
{
	static const char *const samples[][2] = {
	    {"thread '<unnamed>' panicked at rust/sqlite/src/db.rs:157:42: range start index 10 "
	     "out of range for slice of length 9",
	     "range start index"},
	    {"pyo3_runtime.PanicException: range start index 6 out of range for slice of length 5",
	     "range start index"},
	    {"Inconsistent version: db=1, source=2", "inconsistent version"},
	    {"Inconsistent hash: db=abc, source=def", "inconsistent hash"},
	    {"Migrations table not initialized", "migrations table"},
	    {"chromadb.errors.InternalError: Unapplied migrations found", "unapplied"},
	    {"chromadb.errors.InternalError: Error executing plan: Internal error: Error creating "
	     "hnsw segment reader: Nothing found on disk",
	     "nothing found"},
	    {"Error executing plan: Internal error: Error creating hnsw segment reader: Error "
	     "deserializing pickle file: EOF",
	     "deserializing"},
	    {"Error executing plan: Internal error: Error creating hnsw segment reader: Error "
	     "loading hnsw index",
	     "loading hnsw"},
	    {"Error executing plan: Internal error: Error finding id", "error finding id"},
	    {"Error executing plan: Internal error: Error getting embedding", "getting embedding"},
	    {"Error sending backfill request to compactor: Failed to apply logs to the hnsw "
	     "segment writer",
	     "hnsw segment writer"},
	    {"Error executing plan: Error sending backfill request to compactor: Failed to apply "
	     "logs to the metadata segment",
	     "metadata segment"},
	    {"Error sending backfill request to compactor: Failed to pull logs from the log store",
	     "pull logs"},
	    {"ValueError: Could not connect to tenant default_tenant. Are you sure it exists?",
	     "could not connect"},
	    {"mismatched types; Rust type `u64` (as SQL type `INTEGER`) is not compatible with SQL "
	     "type `BLOB`",
	     "mismatched"},
	    {"EOFError: Ran out of input", "ran out"},
	    {"_pickle.UnpicklingError: pickle data was truncated", "truncated"},
	    {"RuntimeError: Cannot return the results in a contigious 2D array. Probably ef or M "
	     "is too small",
	     "contigious"},
	    {"RuntimeError: Label not found", "label not found"},
	    {"sqlite3.OperationalError: table collections already exists", "already exists"},
	    {"sqlite3.OperationalError: duplicate column name: bool_value", "duplicate column"},
	    {"malformed inverted index for FTS5 table main.embedding_fulltext_search",
	     "malformed inverted"},
	    {"error returned from database: (code: 267) database disk image is malformed",
	     "code: 267"},
	    {"error returned from database: (code: 1032) attempt to write a readonly database",
	     "code: 1032"},
	    {"error returned from database: (code: 779) database disk image is malformed",
	     "code: 779"},
	    {"error returned from database: (code: 26) file is not a database", "not a database"},
	    {"sqlite3.OperationalError: attempt to write a readonly database", "readonly"},
	    {"sqlite3.OperationalError: database is locked", "locked"},
	    {"error returned from database: (code: 5) database is locked", "locked"},
	    {"sqlite3.OperationalError: disk I/O error", "disk i/o"},
	    {"sqlite3.OperationalError: database or disk is full", "is full"},
	    {"sqlite3.OperationalError: unable to open database file", "unable to open"},
	    {"sqlite3.DatabaseError: database disk image is malformed", "is malformed"},
	    {"sqlite3.DatabaseError: file is not a database", "not a database"},
	    {"sqlite3.OperationalError: no such column: collections.topic", "collections.topic"},
	    {"sqlite3.OperationalError: no such table: embedding_fulltext", "embedding_fulltext"},
	    {"sqlite3.OperationalError: no such table: collections", "no such table"},
	    {"_pickle.UnpicklingError: invalid load key, '\\x00'.", "load key"},
	    {"AttributeError: 'dict' object has no attribute 'dimensionality'", "dimensionality"},
	    {"KeyError: '_type'", "_type"},
	    {"RuntimeError: Cannot open header file", "header file"},
	    {"RuntimeError: Cannot read persisted index: wrong persistence version",
	     "persistence version"},
	    {"RuntimeError: Index seems to be corrupted or unsupported", "corrupted"},
	    {"RuntimeError: Not enough memory: loadIndex failed to allocate level0",
	     "not enough memory"},
	    {"RuntimeError: Not enough memory: loadPersistedIndex failed to allocate level0",
	     "not enough memory"},
	    {"Index with capacity 50 and 50 current entries cannot add 1 records", "capacity"},
	    {"Exception occurred invoking consumer for subscription "
	     "40afcf0a4d5d4f80905fcffc4a8036b0 "
	     "to topic persistent://default/default/71bbda86-38e5-4623-a747-aecb96022ea3",
	     "invoking consumer"},
	    {"MemoryError: std::bad_alloc", "bad_alloc"},
	    {"RuntimeError: The requested to delete element is already deleted", "already deleted"},
	    {"RuntimeError: Can't use addPoint to update a deleted element.", "deleted element"},
	    {"chromadb.errors.InvalidDimensionException: Embedding dimension 384 does not match "
	     "collection dimensionality 768",
	     "dimensionality"},
	    {"InvalidArgumentError: Collection expecting embedding with dimension of 3, got 4",
	     "dimension of"},
	    {"OSError: [Errno 24] Too many open files: 'x/header.bin'", "too many"},
	    {"RuntimeError: Your system has an unsupported version of sqlite3. Chroma requires "
	     "sqlite3 >= 3.35.0.",
	     "sqlite3"},
	    {"ValueError: An instance of Chroma already exists for /data with different settings",
	     "different settings"},
	    {"AttributeError: 'RustBindingsAPI' object has no attribute 'bindings'", "bindings"},
	    {"pyo3_runtime.PanicException: something else", "panicexception"},
	    {"Segmentation fault (core dumped)", "segmentation"},
	    {"OSError: [Errno 28] No space left on device", "no space left"},
	    {"chroma-1 exited with code 137", "code 137"},
	    {"chroma-1 exited with code 139 (restarting)", "code 139"},
	    {"Nov 30 10:11:12 host systemd[1]: chroma.service: Main process exited, code=killed, "
	     "status=9/KILL",
	     "status=9/kill"},
	    {"chroma.service: A process of this unit has been killed by the OOM killer.",
	     "oom killer"},
	    {"PM2      | App [chroma:0] exited with code [0] via signal [SIGKILL]", "sigkill"},
	    {"ERROR: ld.so: object '/usr/local/lib/libchromashim.so' from LD_PRELOAD cannot be "
	     "preloaded (cannot open shared object file): ignored.",
	     "ld_preload"},
	    {"ValueError: Batch size of 50000 is greater than max batch size of 5461",
	     "max batch size"},
	    {"chromadb.errors.DuplicateIDError: Expected IDs to be unique, found duplicates of: a",
	     "unique"},
	    {"Number of requested results 10 is greater than number of elements in index 3, "
	     "updating n_results = 3",
	     "number of elements in index"},
	    {"Failed to send telemetry event ClientStartEvent: capture() takes 1 positional "
	     "argument but 3 were given",
	     "telemetry"},
	    {"ValueError: Could not connect to a Chroma server. Are you sure it is running?",
	     "connect to a chroma server"},
	    {"Error: connect ECONNREFUSED 127.0.0.1:8000", "econnrefused"},
	    {"fatal runtime error: Rust cannot catch foreign exceptions", "foreign exceptions"},
	    {"Nov 30 10:11:12 host chroma[1234]: chromadb.errors.InternalError: Error executing "
	     "plan: Internal error: Error\nNov 30 10:11:12 host chroma[1234]: finding id",
	     "error finding id"},
	    {"2026-11-30T10:11:12+0100 host chroma[12]: InternalError: Internal error: Error "
	     "creating hnsw\n2026-11-30T10:11:12+0100 host chroma[12]: segment reader: Nothing "
	     "found on disk\r",
	     "nothing found"},
	    /* broken by a terminal, a collector, a box, a JSON string */
	    {"Error executing plan: Error sending backfill\nrequest to compactor: Failed to apply "
	     "logs "
	     "to the hnsw\nsegment writer",
	     "hnsw segment writer"},
	    {"chroma-1  | 2026-06-11 03:11:09 ERROR  Internal error: Error creating hnsw\n"
	     "chroma-1  | 2026-06-11 03:11:09        segment reader: Nothing found on\n"
	     "chroma-1  | 2026-06-11 03:11:09        disk",
	     "nothing found on disk"},
	    {"0|chroma  | InternalError: Internal error: Error creating hnsw segment reader: "
	     "Nothing "
	     "found\n0|chroma  | on disk",
	     "nothing found on disk"},
	    {"Internal error:\r\nError creating hnsw segment reader:\r\nNothing found on disk",
	     "nothing found on disk"},
	    {"\xe2\x94\x82 541 \xe2\x94\x82 rust_response = self.bindings.query( \xe2\x94\x82\n"
	     "InternalError: Error executing plan: Internal error: Error creating hnsw segment\n"
	     "reader: Nothing found on disk",
	     "nothing found on disk"},
	    {"{\"error\":\"InternalError\",\"message\":\"Internal error:\\nNothing found on "
	     "disk\"}",
	     "nothing found on disk"},
	    /* of two causes the first of the log; what is harmless never before a cause */
	    {"(code: 13) database or disk is full\nInternal error: Error finding id",
	     "disk is full"},
	    {"Internal error: Error finding id\n(code: 13) database or disk is full", "finding id"},
	    {"WARN Delete of nonexisting embedding ID: abc\nERROR Error finding id", "finding id"},
	    {"Add of existing embedding ID: 14", "add of existing"},
	    /* words of different messages are none */
	    {"INFO  parsed table of contents, 14 rows\nINFO  3 files\nCollection [docs] already "
	     "exists",
	     "collection ? already exists"},
	    {"no such table: embedding_fulltext_search", "fulltext_search"},
	    {"(code: 8) attempt to write a readonly database", "(code: 8)"},
	    {"(code: 1032) attempt to write a readonly database", "1032"},
	    {"(code: 1544) attempt to write a readonly database", "(code: 1544)"},
	    {"error returned from database: (code: 778) disk I/O error", "(code: 778)"},
	    {"sqlite3.OperationalError: attempt to write a readonly database", "readonly"},
	    {"Main process exited, code=dumped, status=11/SEGV; killed by SIGSEGV", "sigsegv"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		const struct explain_text *found = first(samples[i][0]);

		if (!found || !strstr(found->pattern, samples[i][1]))
			fail_msg("%s: taken for %s", samples[i][0], found ? found->pattern : "?");
	}
	assert_null(first("all is well"));
	assert_null(first(""));
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
		if (first(all[i].pattern) != &all[i])
			fail_msg("%s: another one", all[i].pattern);
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
