/* SPDX-License-Identifier: MIT
 *
 * Copies that went wrong, told by their own signs before anything is judged as damage: the whole
 * thing is elsewhere, and healing what is here would be the loss.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "core/check/internal.h"
#include "core/segment/pickle.h"
#include "core/sqlite/database.h"

#define LOOKED_AT (1u << 20) /* bytes of a file */
#define LINES_MIN 8	     /* fewer line ends tell nothing */
#define REPLACED_MIN 64

bool diagnose_is_bad_copy(enum diagnose_code code)
{
	switch (code) {
	case DIAGNOSE_NOT_DOWNLOADED:
	case DIAGNOSE_AS_TEXT:
	case DIAGNOSE_RENAMED:
		return true;
	default:
		return false;
	}
}

/* ---- what a file begins with ---- */

/* What stands in a repository for a file that is kept outside. */
static const char *pointer_kind(const unsigned char *p, size_t size)
{
	static const struct {
		const char *start, *kind;
	} pointers[] = {
	    {"version https://git-lfs.github.com/spec/", "a pointer of Git LFS: git lfs pull"},
	    {"version https://hawser.github.com/spec/", "a pointer of Git LFS: git lfs pull"},
	    {"/annex/objects/", "a pointer of git-annex: git annex get"},
	};
	unsigned i;

	for (i = 0; i < sizeof(pointers) / sizeof(pointers[0]); i++) {
		size_t n = strlen(pointers[i].start);

		if (size >= n && memcmp(p, pointers[i].start, n) == 0)
			return pointers[i].kind;
	}
	return NULL;
}

/* But for a character that the end has cut. */
static bool is_utf8(const unsigned char *p, size_t size)
{
	unsigned more = 0;
	size_t i;

	for (i = 0; i < size; i++) {
		if (more && (p[i] & 0xc0) != 0x80)
			return false;
		if (more)
			more--;
		else if (p[i] >= 0x80 && (p[i] < 0xc2 || p[i] > 0xf4))
			return false;
		else if (p[i] >= 0x80)
			more = p[i] >= 0xf0 ? 3 : p[i] >= 0xe0 ? 2 : 1;
	}
	return true;
}

/*
 * In what is not text, line feeds come in any company. After CR LF for each LF none stands alone;
 * after the other way round, none of many has a CR before it, which chance would give one in 256;
 * and where bytes that are no UTF-8 were replaced, U+FFFD stands in their place everywhere.
 */
static const char *text_kind(const unsigned char *p, size_t size, bool is_short)
{
	uint64_t feeds = 0, pairs = 0, replaced = 0;
	size_t i;

	for (i = 0; i < size; i++) {
		feeds += p[i] == '\n';
		pairs += p[i] == '\n' && i > 0 && p[i - 1] == '\r';
		replaced += i + 2 < size && memcmp(p + i, "\xef\xbf\xbd", 3) == 0;
	}
	if (feeds >= LINES_MIN && feeds == pairs)
		return "each line feed has become CR LF";
	if (replaced >= REPLACED_MIN && is_utf8(p, size))
		return "its bytes were taken for UTF-8 and replaced";
	if (is_short && feeds >= 2048 && pairs == 0)
		return "each CR LF has become a line feed";
	return NULL;
}

/* odd_size: what a file of this kind never has. */
bool diagnose_is_copied_wrong(struct diagnosis *d, struct diagnose_place place,
			      const struct file_source *source, bool may_be_text, bool odd_size)
{
	size_t size = source->size < LOOKED_AT ? (size_t)source->size : LOOKED_AT;
	unsigned char *p = size ? malloc(size) : NULL;
	const char *kind = NULL;
	bool found = false;

	if (p && file_source_read(source, p, size, 0) == 0) {
		kind = pointer_kind(p, size);
		if (kind)
			diagnose_report(d, DIAGNOSE_NOT_DOWNLOADED, place, "%s", kind);
		else if (may_be_text && (kind = text_kind(p, size, odd_size)))
			diagnose_report(d, DIAGNOSE_AS_TEXT, place, "%s", kind);
		found = kind != NULL;
	}
	free(p);
	return found;
}

/* Pages are whole, and the first one tells what it is. */
bool diagnose_database_copy(struct diagnosis *d)
{
	static const struct diagnose_place place = {.file = CHROMA_DATABASE};
	static const char magic[16] = "SQLite format 3";
	unsigned char head[16] = {0};
	struct file_source source;
	bool found = false;
	int fd = file_open_at(d->dirfd, CHROMA_DATABASE);

	if (fd < 0)
		return false;
	if (file_source_open(&source, fd) == 0 && source.size > 0) {
		bool odd = source.size % 512 != 0 || file_source_read(&source, head, 16, 0) < 0 ||
			   memcmp(head, magic, 16) != 0;

		found = diagnose_is_copied_wrong(d, place, &source, odd, odd);
	}
	close(fd);
	return found;
}

/* ---- names ---- */

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

static bool has_database(int dirfd, const char *name)
{
	int fd = file_open_directory_at(dirfd, name);
	bool has = fd >= 0 && faccessat(fd, CHROMA_DATABASE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

	if (fd >= 0)
		close(fd);
	return has;
}

bool diagnose_names(struct diagnosis *d)
{
	DIR *dir;
	const struct dirent *entry;
	bool found = false;

	file_names_at(d->dirfd, NULL, &dir);
	while (dir && !found && (entry = readdir(dir))) {
		const char *name = entry->d_name;
		enum diagnose_code code = DIAGNOSE_CODES;

		if (is_database_renamed(name))
			code = DIAGNOSE_RENAMED;
		else if (is_old_format(name))
			code = DIAGNOSE_OLD_FORMAT;
		else if (name[0] != '.' && has_database(d->dirfd, name))
			code = DIAGNOSE_TOO_DEEP;
		found = code != DIAGNOSE_CODES;
		if (found)
			diagnose_report(d, code, (struct diagnose_place){0}, "%.200s", name);
	}
	if (dir)
		closedir(dir);
	return found;
}
