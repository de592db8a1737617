/* SPDX-License-Identifier: MIT
 *
 * Which Chroma an installation is, told from its files without running it: the release, and the
 * migrations it carries, hence what it does with a database.
 *
 * Chroma >= 1.0 has its migrations compiled into a native library or program, with their file names
 * as plain text; the directory of SQL files that its Python package still ships stands still at
 * 1.0.0 and counts only where there is no such library.
 */
#ifndef CORE_INSTALLATION_H
#define CORE_INSTALLATION_H

#include "core/chroma/migrations.h"

struct installation {
	char file[4096];  /* the library or program, or the directory of SQL files */
	char release[32]; /* as "1.5.9"; "" if nothing says it */
	unsigned counts[MIGRATION_DIRS];
	unsigned unknown; /* migrations of which core/chroma/migrations.c has never heard */
};

/*
 * path: a virtual environment, site-packages, a directory with node_modules or one above it; or a
 * program (python, chroma, a script), whose surroundings are then searched. A word without a slash
 * that is no file here is looked up in PATH. Fills in all of *out. -ENOENT: there is no Chroma, or
 * no such path; -ENOMEM, -EACCES, -EIO.
 */
int installation_find(const char *path, struct installation *out);

/* What it does with a database that has these migrations. */
enum migration_verdict installation_judge(const struct installation *i,
					  const unsigned counts[MIGRATION_DIRS]);

#endif
