/* SPDX-License-Identifier: MIT
 *
 * How far Chroma has come with the tables of a new database, by its pages. Python's releases record
 * each migration (migrations.h) behind its statements, each of which is a transaction of its own;
 * first those of the queue, then sysdb, then metadb.
 *
 * Nothing is allocated; thread-safe. The database may be written meanwhile: what is read then says
 * "some" or "none", or what there was or will be.
 */
#ifndef CORE_NEW_TABLES_H
#define CORE_NEW_TABLES_H

#include "core/chroma/table_roots.h"

enum new_tables {
	NEW_TABLES_NONE, /* no table yet */
	NEW_TABLES_SOME, /* as no release leaves them, or being written just now */
	NEW_TABLES_DONE, /* all of some release's; or no tables of Chroma's, or no database */
};

struct new_tables_room {
	struct table_roots roots;
	unsigned char pages[TABLE_ROOTS_ROOM];
};

enum new_tables new_tables_read(const struct file_source *database, struct new_tables_room *room);

#endif
