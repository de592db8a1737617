/* SPDX-License-Identifier: MIT
 *
 * Which Chroma an installation is, in the shapes in which it is installed.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/chroma/installation.h"
#include "scratch.h"

static const char native_names[] =
    "x9 00008-maintenance-log.sqlite.sqlEEE00001-collections.sqlite.sql00002-segments.sqlite.sql"
    "00003-collection-dimension.sqlite.sql00009-segment-collection-not-null.sqlite.sql"
    "00001-embedding-metadata.sqlite.sql00005-max-seq-id-int.sqlite.sql00001-embeddings.sqlite.sql"
    "1200002-embeddings-queue-config.sqlite.sql";

static void put(const char *root, const char *path, const char *content)
{
	char whole[1024], *slash;
	FILE *f;

	snprintf(whole, sizeof(whole), "%s/%s", root, path);
	for (slash = strchr(whole + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(whole, 0755);
		*slash = '/';
	}
	f = fopen(whole, "w");
	assert_non_null(f);
	fputs(content, f);
	fclose(f);
}

static int find(const char *root, const char *path, struct installation *out)
{
	char whole[1024];

	snprintf(whole, sizeof(whole), "%s/%s", root, path);
	return installation_find(whole, out);
}

static void check_counts(const struct installation *i, unsigned queue, unsigned metadb,
			 unsigned sysdb, const char *release)
{
	assert_int_equal(i->counts[MIGRATION_QUEUE], queue);
	assert_int_equal(i->counts[MIGRATION_METADB], metadb);
	assert_int_equal(i->counts[MIGRATION_SYSDB], sysdb);
	assert_string_equal(i->release, release);
}

#define SITE "venv/lib/python3.11/site-packages/"

static void put_sql_files(const char *root)
{
	put(root, SITE "chromadb/migrations/sysdb/00001-collections.sqlite.sql", "");
	put(root, SITE "chromadb/migrations/sysdb/00004-tenants-databases.sqlite.sql", "");
	put(root, SITE "chromadb/migrations/metadb/00003-full-text-tokenize.sqlite.sql", "");
	put(root, SITE "chromadb/migrations/embeddings_queue/00001-embeddings.sqlite.sql", "");
	put(root, SITE "chromadb/migrations/sysdb/__init__.py", "");
}

static void test_python(void **state)
{
	static const char *const ways[] = {"venv", "venv/bin/python", "venv/bin/chroma",
					   "venv/lib/python3.11/site-packages",
					   "venv/lib/python3.11/site-packages/chromadb"};
	struct scratch scratch;
	const char *root = scratch.path;
	struct installation i;
	char link[128];
	size_t k;

	(void)state;
	scratch_make(&scratch);
	put_sql_files(root);
	put(root, SITE "chromadb-0.4.24.dist-info/METADATA", "");
	put(root, "venv/bin/chroma", "#!/bin/sh\n");
	/* The link is not followed: what it leads to is no environment. */
	snprintf(link, sizeof(link), "%s/venv/bin/python", root);
	assert_int_equal(symlink("/bin/sh", link), 0);
	for (k = 0; k < sizeof(ways) / sizeof(ways[0]); k++) {
		assert_int_equal(find(root, ways[k], &i), 0);
		check_counts(&i, 1, 3, 4, "0.4.24");
	}
	/* From 1.0 on the library counts, whatever SQL files are beside it. */
	put(root, SITE "chromadb_rust_bindings/chromadb_rust_bindings.abi3.so", native_names);
	for (k = 0; k < 4; k++) {
		assert_int_equal(find(root, ways[k], &i), 0);
		check_counts(&i, 2, 5, 9, "0.4.24");
		assert_int_equal(i.unknown, 0);
	}
	scratch_remove(&scratch);
}

static void test_node(void **state)
{
	static const char *const ways[] = {"app", "app/node_modules", "app/src/server.js",
					   "app/node_modules/.bin/chroma"};
	struct scratch scratch;
	const char *root = scratch.path;
	char names[sizeof(native_names) + 100];
	struct installation i;
	size_t k;

	(void)state;
	scratch_make(&scratch);
	snprintf(names, sizeof(names), "%s00011-what-comes.sqlite.sql", native_names);
	put(root, "app/node_modules/chromadb-js-bindings-linux-x64-gnu/x.node", names);
	put(root, "app/node_modules/chromadb-js-bindings-linux-x64-gnu/package.json",
	    "{\"name\": \"x\", \"version\" : \"1.2.1\"}");
	put(root, "app/src/server.js", "");
	put(root, "app/node_modules/.bin/chroma", "");
	for (k = 0; k < sizeof(ways) / sizeof(ways[0]); k++) {
		assert_int_equal(find(root, ways[k], &i), 0);
		check_counts(&i, 2, 5, 9, "1.2.1");
		assert_int_equal(i.unknown, 1);
	}
	scratch_remove(&scratch);
}

static void test_nothing(void **state)
{
	struct scratch scratch;
	const char *root = scratch.path;
	struct installation i;

	(void)state;
	scratch_make(&scratch);
	put(root, "empty/file", "");
	put(root, "odd/chromadb_rust_bindings/x.so", ".sqlite.sql 00001-.sqlite.sql");
	assert_int_equal(find(root, "empty", &i), -ENOENT);
	assert_int_equal(find(root, "none", &i), -ENOENT);
	assert_int_equal(find(root, "odd", &i), -ENOENT);
	assert_int_equal(installation_find("no-such-word-anywhere", &i), -ENOENT);
	assert_int_equal(installation_find("", &i), -ENOENT);
	assert_int_equal(installation_find("/dev/null", &i), -ENOENT);
	scratch_remove(&scratch);
}

static void test_judge(void **state)
{
	static const unsigned v105[] = {2, 5, 9}, v134[] = {2, 5, 10}, v063[] = {2, 4, 9};
	struct installation i = {.counts = {2, 5, 9}, .release = "1.0.5"};

	(void)state;
	assert_int_equal(installation_judge(&i, v105), MIGRATION_OPENS);
	assert_int_equal(installation_judge(&i, v134), MIGRATION_PANICS);
	assert_int_equal(installation_judge(&i, v063), MIGRATION_MIGRATES);
	strcpy(i.release, "1.2.2");
	assert_int_equal(installation_judge(&i, v134), MIGRATION_RUNS_ON);
	strcpy(i.release, ""); /* told by what it carries */
	assert_int_equal(installation_judge(&i, v134), MIGRATION_PANICS);
	i.counts[MIGRATION_METADB] = 4;
	assert_int_equal(installation_judge(&i, v105), MIGRATION_FAILS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_python),
	    cmocka_unit_test(test_node),
	    cmocka_unit_test(test_nothing),
	    cmocka_unit_test(test_judge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
