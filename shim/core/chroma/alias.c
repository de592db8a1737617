/* SPDX-License-Identifier: MIT
 *
 * A segment's directory, or a file in it, by another name. A directory is known by its UUID,
 * however it is spelt and whatever else is in the name; else by the ids in it, where the collection
 * that misses its own has most of them. One with the name of another segment is never taken: it may
 * be what a deleted collection with the same ids has left.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/chroma/chroma.h"
#include "core/segment/hnsw.h"
#include "core/segment/pickle.h"
#include "core/sqlite/database.h"

struct search {
	int dirfd;
	const char *segment;
	sqlite3_stmt *is_record; /* of the collection; NULL: only names count */
	/* the best so far */
	int64_t weight;
	char *out;
	size_t room;
	/* of the pickle that is being read */
	int64_t ids, records;
};

/* ---- names ---- */

static void keep_digits(const char *name, char *out, size_t room)
{
	size_t n = 0;

	for (; *name && n + 1 < room; name++)
		if (isxdigit((unsigned char)*name))
			out[n++] = (char)tolower((unsigned char)*name);
	out[n] = '\0';
}

static bool has_uuid(const char *name, const char *uuid)
{
	char digits[NAME_MAX + 1], wanted[CHROMA_ID_SIZE];

	keep_digits(name, digits, sizeof(digits));
	keep_digits(uuid, wanted, sizeof(wanted));
	return strstr(digits, wanted) != NULL;
}

/* ---- what is in it ---- */

static int count_id(void *context, enum pickle_map map, const char *id, size_t size, int64_t label)
{
	struct search *s = context;

	(void)label;
	if (map != PICKLE_ID_TO_LABEL || !s->is_record)
		return 0;
	s->ids++;
	sqlite3_bind_text(s->is_record, 2, id, (int)size, SQLITE_STATIC);
	s->records += database_step(s->is_record) == 1;
	sqlite3_reset(s->is_record);
	return 0;
}

/* Labels that were handed out; -1: no index is in it. */
static int64_t weigh(struct search *s, int fd)
{
	struct pickle_index index = {0};
	struct file_source source;
	int64_t weight = faccessat(fd, HNSW_HEADER_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -1;
	int pickle = weight < 0 ? -1 : file_open_at(fd, PICKLE_FILE);

	s->ids = s->records = 0;
	if (pickle >= 0 && file_source_open_data(&source, pickle) == 0 &&
	    pickle_read_index(&source, count_id, s, &index) == 0)
		weight = 1 + index.total_elements_added;
	if (pickle >= 0)
		close(pickle);
	return weight;
}

/* A name, a name below another, or "." itself. */
int chroma_open_alias(int dirfd, const char *alias)
{
	const char *slash = strchr(alias, '/');
	char above[NAME_MAX + 1];
	int fd, below;

	if (strcmp(alias, ".") == 0) {
		fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return fd < 0 ? -errno : fd;
	}
	if (!slash)
		return file_open_directory_at(dirfd, alias);
	snprintf(above, sizeof(above), "%.*s", (int)(slash - alias), alias);
	fd = file_open_directory_at(dirfd, above);
	if (fd < 0)
		return fd;
	below = file_open_directory_at(fd, slash + 1);
	close(fd);
	return below;
}

static void look_at(struct search *s, const char *path, bool is_named)
{
	int fd = strlen(path) < s->room ? chroma_open_alias(s->dirfd, path) : -1;
	int64_t weight = fd >= 0 ? weigh(s, fd) : -1;

	if (fd >= 0)
		close(fd);
	if (weight > s->weight && (is_named || s->records * 2 > s->ids)) {
		s->weight = weight;
		snprintf(s->out, s->room, "%s", path);
	}
}

/* ---- where it may be ---- */

static bool is_another_directory(int dirfd, const char *name)
{
	int fd = file_open_directory_at(dirfd, name);
	bool is = fd < 0 || faccessat(fd, CHROMA_DATABASE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

	if (fd >= 0)
		close(fd);
	return is;
}

/* In DIR and, with `below`, in its directories that are no data directories of their own: also in
 * the one that has the name, and nothing but another in it. */
static void search(struct search *s, const char *below)
{
	char path[2 * NAME_MAX + 2];
	DIR *dir;
	const struct dirent *entry;

	if (file_names_at(s->dirfd, below, &dir) < 0)
		return;
	while ((entry = readdir(dir))) {
		const char *name = entry->d_name;
		bool is_named = has_uuid(name, s->segment);

		if (name[0] == '.' || (entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN))
			continue;
		snprintf(path, sizeof(path), "%s%s%s", below ? below : "", below ? "/" : "", name);
		if (is_named ? below || strcmp(name, s->segment) != 0
			     : s->is_record && !chroma_is_uuid(name))
			look_at(s, path, is_named);
		if (!below && (!chroma_is_uuid(name) || strcmp(name, s->segment) == 0) &&
		    !is_another_directory(s->dirfd, name))
			search(s, name);
	}
	closedir(dir);
}

bool chroma_holds_files(int dirfd)
{
	const struct dirent *entry;
	struct stat st;
	bool any = false;
	DIR *dir;

	if (file_names_at(dirfd, NULL, &dir) < 0)
		return true; /* it cannot be told */
	while (!any && (entry = readdir(dir)))
		any = fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		      !S_ISDIR(st.st_mode);
	closedir(dir);
	return any;
}

bool chroma_find_alias(sqlite3 *db, int dirfd, const char *segment, char *out, size_t room)
{
	struct search s = {
	    .dirfd = dirfd, .segment = segment, .weight = -1, .out = out, .room = room};

	search(&s, NULL);
	if (s.weight < 0 && db &&
	    database_prepare(
		db, &s.is_record,
		"SELECT 1 FROM segments v JOIN segments m ON m.collection = "
		"v.collection AND m.scope = 'METADATA' JOIN embeddings e ON e.segment_id "
		"= m.id AND e.embedding_id = ?2 WHERE v.id = ?1") == 0) {
		sqlite3_bind_text(s.is_record, 1, segment, -1, SQLITE_STATIC);
		look_at(&s, ".", false); /* its files, without their directory */
		search(&s, NULL);
	}
	sqlite3_finalize(s.is_record);
	return s.weight >= 0;
}

/* ---- files ---- */

/* In capitals, or with what a download, a synchroniser or an editor has put to it. */
static bool is_name_of(const char *name, const char *file)
{
	size_t stem = strcspn(file, ".");

	return strcmp(name, file) != 0 && strncasecmp(name, file, stem) == 0 &&
	       !isalnum((unsigned char)name[stem]);
}

/* The largest: a download that was begun again has left others. */
bool chroma_find_file_alias(int dirfd, const char *file, char *out, size_t room)
{
	DIR *dir;
	const struct dirent *entry;
	struct stat st;
	off_t largest = 0;

	if (file_names_at(dirfd, NULL, &dir) < 0)
		return false;
	while ((entry = readdir(dir))) {
		if (!is_name_of(entry->d_name, file) || strlen(entry->d_name) >= room ||
		    fstatat(dirfd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISREG(st.st_mode) || st.st_size <= largest)
			continue;
		largest = st.st_size;
		snprintf(out, room, "%s", entry->d_name);
	}
	closedir(dir);
	return largest > 0;
}
