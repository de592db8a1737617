/* SPDX-License-Identifier: MIT
 *
 * Runs statements, with whichever SQLite it is linked to: as a program, `sqlite DATABASE SQL...`,
 * or as a library, for a process that has other SQLites besides.
 */
#include <sqlite3.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

static int run_one(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *stmt;
	int ret = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);

	if (ret != SQLITE_OK)
		return ret;
	while ((ret = sqlite3_step(stmt)) == SQLITE_ROW)
		;
	sqlite3_finalize(stmt);
	return ret == SQLITE_DONE ? SQLITE_OK : ret;
}

/* Opens, runs them one after the other, closes. The first error, or 0. */
EXPORT int run(const char *path, int count, char *const sql[])
{
	sqlite3 *db;
	int ret = sqlite3_open(path, &db), i;

	for (i = 0; ret == SQLITE_OK && i < count; i++)
		ret = run_one(db, sql[i]);
	sqlite3_close(db);
	return ret;
}

/* Not interposed, so it tells whether this copy was in use at all. */
EXPORT long long memory(void)
{
	return sqlite3_memory_highwater(0);
}

int main(int argc, char *argv[])
{
	int ret = run(argv[1], argc - 2, argv + 2);

	if (ret)
		fprintf(stderr, "SQLite error %d\n", ret);
	return ret != 0;
}
