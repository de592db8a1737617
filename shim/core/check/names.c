/* SPDX-License-Identifier: MIT
 *
 * A directory without chroma.sqlite3: where its database may be, by other names and by what other
 * files begin with.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/check/internal.h"
#include "core/check/packed.h"
#include "core/sqlite/database.h"

#define HEAD (256u << 10) /* of a database: the texts of its tables are in it */
#define FILES_READ 256	  /* of one directory */
#define DEPTH 2

/* "chroma.sqlite3" as a file system, a browser or a synchroniser has made it. */
static bool is_database_renamed(const char *name)
{
	static const char *const ends[] = {".part",	".partial", ".crdownload", ".filepart",
					   ".download", ".tmp",	    ".!sync"};
	size_t n = strlen(CHROMA_DATABASE);
	unsigned i;

	if (strcasecmp(name, CHROMA_DATABASE) == 0)
		return true;
	for (i = 0; i < sizeof(ends) / sizeof(ends[0]); i++)
		if (strncasecmp(name, CHROMA_DATABASE, n) == 0 &&
		    strcasecmp(name + n, ends[i]) == 0)
			return true;
	if (strncasecmp(name, "chroma", 6) != 0 || !strcasestr(name, "sqlite3"))
		return false;
	return strcasestr(name, "conflict") || strchr(name, '(') ||
	       (strchr(name, ' ') && strcasestr(name, "copy"));
}

static bool is_old_format(const char *name)
{
	return strcmp(name, "chroma-collections.parquet") == 0 ||
	       strcmp(name, "chroma-embeddings.parquet") == 0;
}

/* By its first pages: what tables it has. */
static bool is_chromas(const unsigned char *head, size_t size)
{
	return is_sqlite(head, size) && memmem(head, size, "embeddings_queue", 16) &&
	       memmem(head, size, "max_seq_id", 10);
}

static enum diagnose_code judge_file(int dirfd, const char *name, const char **kind_out)
{
	static unsigned char head[HEAD];
	int fd = file_open_at(dirfd, name);
	ssize_t size = fd < 0 ? fd : file_read_at(fd, head, sizeof(head), 0);
	bool is_about_it = strcasestr(name, CHROMA_DATABASE) != NULL;

	if (fd >= 0)
		close(fd);
	*kind_out = NULL;
	if (size <= 0)
		return DIAGNOSE_CODES;
	if (is_chromas(head, (size_t)size))
		return DIAGNOSE_RENAMED;
	if (is_about_it && (*kind_out = pointer_kind(head, (size_t)size)))
		return DIAGNOSE_NOT_DOWNLOADED;
	if ((*kind_out = packed_kind(head, (size_t)size)))
		return is_about_it ? DIAGNOSE_PACKED : DIAGNOSE_PACKED_BESIDE;
	return DIAGNOSE_CODES;
}

/* ---- directories below ---- */

static bool find_below(int parent, const char *name, int depth, char *out, size_t room)
{
	int fd = file_open_directory_at(parent, name);
	const struct dirent *entry;
	DIR *dir = NULL;
	size_t n = strlen(name);
	bool found;

	if (fd < 0 || n + 2 > room) {
		if (fd >= 0)
			close(fd);
		return false;
	}
	memcpy(out, name, n + 1);
	found = faccessat(fd, CHROMA_DATABASE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	if (!found && depth > 1 && file_names_of(fd, &dir) < 0)
		return false;
	while (dir && !found && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		out[n] = '/';
		found = find_below(dirfd(dir), entry->d_name, depth - 1, out + n + 1, room - n - 1);
	}
	if (dir)
		closedir(dir);
	else
		close(fd);
	return found;
}

/* ---- the directory ---- */

static enum diagnose_code judge_entry(struct diagnosis *d, const struct dirent *entry, char *below,
				      size_t room, const char **kind_out)
{
	const char *name = entry->d_name;

	*kind_out = NULL;
	if (is_database_renamed(name))
		return DIAGNOSE_RENAMED;
	if (is_old_format(name))
		return DIAGNOSE_OLD_FORMAT;
	if (entry->d_type == DT_DIR)
		return name[0] != '.' && find_below(d->dirfd, name, DEPTH, below, room)
			   ? DIAGNOSE_TOO_DEEP
			   : DIAGNOSE_CODES;
	return judge_file(d->dirfd, name, kind_out);
}

/* The smallest code is the nearest: a database here, before one below, before an archive. */
enum diagnose_code diagnose_names(struct diagnosis *d)
{
	enum diagnose_code best = DIAGNOSE_CODES;
	char name[512] = "", below[256];
	const struct dirent *entry;
	const char *kind, *best_kind = NULL;
	unsigned left = FILES_READ;
	DIR *dir;

	if (diagnose_is_placeholder(d, (struct diagnose_place){.file = CHROMA_DATABASE}, d->dirfd,
				    CHROMA_DATABASE))
		return DIAGNOSE_NOT_DOWNLOADED;
	file_names_at(d->dirfd, NULL, &dir);
	while (dir && left-- && (entry = readdir(dir))) {
		enum diagnose_code code = judge_entry(d, entry, below, sizeof(below), &kind);

		if (code >= best)
			continue;
		best = code;
		best_kind = kind;
		snprintf(name, sizeof(name), "%.250s",
			 code == DIAGNOSE_TOO_DEEP ? below : entry->d_name);
	}
	if (dir)
		closedir(dir);
	if (best == DIAGNOSE_CODES &&
	    faccessat(d->dirfd, HNSW_HEADER_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0 &&
	    faccessat(d->dirfd, HNSW_LEVEL0_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		best = DIAGNOSE_TOO_HIGH;
	if (best < DIAGNOSE_CODES)
		diagnose_report(d, best, (struct diagnose_place){0}, "%s%s%s", name,
				best_kind ? ": " : "", best_kind ? best_kind : "");
	return best;
}
