/* SPDX-License-Identifier: MIT */
#include "core/chroma/new_tables.h"

#include <string.h>

#include "core/chroma/migrations.h"
#include "core/sqlite/page.h"
#include "core/sqlite/walk.h"

#define PAGES_MOST 64 /* of migrations: their texts lie on pages that are not read */

/* migrations(dir, version, ...): the highest version of each directory. */
static int count_row(void *context, const struct sqlite_tree_cell *cell)
{
	unsigned *counts = context;
	struct sqlite_record row;
	const struct sqlite_value *dir = &row.values[0], *version = &row.values[1];
	unsigned i;

	if (sqlite_record_parse(&row, cell->local, cell->local_size, cell->size) < 0 ||
	    row.columns < 2 || !dir->bytes || version->type != SQLITE_VALUE_INTEGER)
		return 0;
	for (i = 0; i < MIGRATION_DIRS; i++)
		if (dir->size == strlen(migration_dir_names[i]) &&
		    memcmp(dir->bytes, migration_dir_names[i], dir->size) == 0 &&
		    version->integer > counts[i])
			counts[i] = (unsigned)version->integer;
	return 0;
}

static bool are_of_a_release(const struct file_source *database, struct new_tables_room *room,
			     uint32_t root)
{
	unsigned counts[MIGRATION_DIRS] = {0}, count;
	struct sqlite_walk walk = {.source = database,
				   .room = room->pages,
				   .page_size = room->roots.page_size,
				   .usable = room->roots.page_size,
				   .left = PAGES_MOST,
				   .row = count_row,
				   .context = counts};
	const struct migration_era *eras = migrations_eras(&count);
	unsigned i, newer = 0;

	if (room->roots.page_size > sizeof(room->pages) / SQLITE_WALK_LEVELS ||
	    sqlite_walk(&walk, root, INT64_MIN, INT64_MAX) < 0)
		return false;
	for (i = 0; i < MIGRATION_DIRS; i++)
		newer += counts[i] >= eras[count - 1].counts[i];
	return newer == MIGRATION_DIRS || migrations_find_era(counts);
}

/* A file with something else in it is nobody's who makes tables. */
static bool is_database(const struct file_source *database)
{
	char magic[sizeof(SQLITE_MAGIC)];

	return database->read(database, magic, sizeof(magic), 0) == sizeof(magic) &&
	       memcmp(magic, SQLITE_MAGIC, sizeof(magic)) == 0;
}

enum new_tables new_tables_read(const struct file_source *database, struct new_tables_room *room)
{
	uint32_t i;

	if (database->size == 0)
		return NEW_TABLES_NONE;
	if (!is_database(database))
		return NEW_TABLES_DONE;
	if (!table_roots_read(&room->roots, database, room->pages))
		return NEW_TABLES_SOME;
	if (room->roots.count == 0)
		return NEW_TABLES_NONE;
	/* The table's own root comes before that of its index. */
	for (i = 0; i < room->roots.count; i++)
		if (room->roots.at[i].kind == TABLE_MIGRATIONS)
			return are_of_a_release(database, room, room->roots.at[i].page)
				   ? NEW_TABLES_DONE
				   : NEW_TABLES_SOME;
	return NEW_TABLES_DONE;
}
