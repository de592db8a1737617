/* SPDX-License-Identifier: MIT
 *
 * Which migrations a database has.
 */
#include "core/chroma/migrations.h"

#include <stdio.h>
#include <string.h>

#include "core/sqlite/database.h"

static const struct migration *migration_find(enum migration_dir dir, unsigned version)
{
	unsigned i, count;
	const struct migration *all = migrations_all(&count);

	for (i = 0; i < count; i++)
		if (all[i].dir == dir && all[i].version == version)
			return &all[i];
	return NULL;
}

static const char *text(sqlite3_stmt *row, int column)
{
	const char *s = (const char *)sqlite3_column_text(row, column);

	return s ? s : "";
}

/* One row: dir, version, filename, hash. */
static void note_row(struct migration_state *out, uint64_t seen[MIGRATION_DIRS], sqlite3_stmt *row)
{
	const char *dir = text(row, 0), *filename = text(row, 2), *hash = text(row, 3);
	sqlite3_int64 version = sqlite3_column_int64(row, 1);
	const struct migration *known;
	unsigned i = 0;
	bool is_odd = true;

	while (i < MIGRATION_DIRS && strcmp(dir, migration_dir_names[i]) != 0)
		i++;
	if (i == MIGRATION_DIRS || version < 1 || version > 63) {
		out->unknown++;
	} else {
		seen[i] |= UINT64_C(1) << version;
		if (version > out->counts[i])
			out->counts[i] = (unsigned)version;
		known = migration_find((enum migration_dir)i, (unsigned)version);
		if (!known || strcmp(filename, known->filename) != 0)
			out->unknown++;
		else if (strlen(hash) == 32 && strcmp(hash, known->md5) != 0)
			out->altered++; /* a hash of another length is SHA-256, which we lack */
		else
			is_odd = false;
	}
	if (is_odd && !out->example[0])
		snprintf(out->example, sizeof(out->example), "%.40s/%.140s", dir, filename);
}

int migrations_read(sqlite3 *db, struct migration_state *out)
{
	uint64_t seen[MIGRATION_DIRS] = {0};
	sqlite3_stmt *rows = NULL;
	unsigned i, version;
	int r;

	*out = (struct migration_state){0};
	r = database_has_table(db, "migrations");
	if (r <= 0)
		return r;
	out->has_table = true;
	r = database_prepare(db, &rows, "SELECT dir, version, filename, hash FROM migrations");
	while (r == 0 && (r = database_step(rows)) == 1) {
		note_row(out, seen, rows);
		r = 0;
	}
	sqlite3_finalize(rows);
	for (i = 0; i < MIGRATION_DIRS; i++)
		for (version = 1; version < out->counts[i]; version++)
			out->missing += !(seen[i] & UINT64_C(1) << version);
	return r;
}
