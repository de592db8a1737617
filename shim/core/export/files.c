/* SPDX-License-Identifier: MIT
 *
 * Where an export gets its bytes from: the files of a directory, or the chunks of a snapshot.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/export/internal.h"
#include "core/sqlite/database.h"

/* By its own name, or by one that it has been given. */
static int open_segment(struct exporter *x, const char *segment)
{
	char name[CHROMA_ALIAS_SIZE];
	int fd = file_follow_directory_at(x->dirfd, segment);

	if ((fd == -ENOENT || (fd >= 0 && !chroma_holds_files(fd))) && chroma_is_uuid(segment) &&
	    chroma_find_alias(x->db, x->dirfd, segment, name, sizeof(name))) {
		if (fd >= 0)
			close(fd);
		fd = chroma_open_alias(x->dirfd, name);
	}
	return fd;
}

int export_file_open(struct exporter *x, const char *segment, const char *name,
		     struct export_file *out)
{
	char path[CHROMA_ID_SIZE + 64], alias[CHROMA_ALIAS_SIZE];
	int dirfd, r;

	*out = (struct export_file){.fd = -1};
	if (x->manifest) {
		snprintf(path, sizeof(path), "%.40s/%.60s", segment, name);
		r = snapshot_file_open(&out->snapshot, x->store, x->manifest, path, &out->source);
		out->is_open = r == 0;
		return r;
	}
	dirfd = open_segment(x, segment);
	if (dirfd < 0)
		return dirfd;
	out->fd = file_open_at(dirfd, name);
	if (out->fd == -ENOENT && chroma_find_file_alias(dirfd, name, alias, sizeof(alias)))
		out->fd = file_open_at(dirfd, alias);
	close(dirfd);
	if (out->fd < 0)
		return out->fd;
	out->is_open = true;
	r = file_source_open_data(&out->source, out->fd);
	if (r < 0)
		export_file_close(out);
	return r;
}

void export_file_close(struct export_file *f)
{
	if (!f->is_open)
		return;
	if (f->fd >= 0)
		close(f->fd);
	else
		snapshot_file_close(&f->snapshot);
	f->is_open = false;
}

static bool has_segment(const struct manifest *m, const char *segment)
{
	size_t n = strlen(segment);
	uint32_t i;

	for (i = 0; i < m->file_count; i++)
		if (strncmp(m->files[i].path, segment, n) == 0 && m->files[i].path[n] == '/')
			return true;
	return false;
}

int export_find_segment(struct exporter *x, const char *segment)
{
	int fd;

	if (!chroma_is_uuid(segment))
		return -ENOENT;
	if (x->manifest)
		return has_segment(x->manifest, segment) ? 0 : -ENOENT;
	fd = open_segment(x, segment);
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

int export_open_database(struct exporter *x, struct export_file *file)
{
	int r;

	if (!x->manifest) {
		r = faccessat(x->dirfd, CHROMA_DATABASE, F_OK, AT_SYMLINK_NOFOLLOW) < 0 ? -errno
											: 0;
		return r < 0 ? r : database_open_now(x->path, x->dirfd, &x->db);
	}
	r = snapshot_file_open(&file->snapshot, x->store, x->manifest, CHROMA_DATABASE,
			       &file->source);
	file->is_open = r == 0;
	file->fd = -1;
	return r < 0 ? r : database_open_source(&file->source, &x->db);
}

static int each_of_snapshot(struct exporter *x,
			    int (*each)(struct exporter *x, const char *segment))
{
	char segment[CHROMA_ID_SIZE];
	uint32_t i;
	int r = 0;

	for (i = 0; r == 0 && i < x->manifest->file_count; i++) {
		const char *path = x->manifest->files[i].path, *slash = strchr(path, '/');

		if (!slash || strcmp(slash + 1, HNSW_HEADER_FILE) != 0)
			continue;
		snprintf(segment, sizeof(segment), "%.*s", (int)(slash - path), path);
		if (chroma_is_uuid(segment))
			r = each(x, segment);
	}
	return r;
}

int export_each_segment(struct exporter *x, int (*each)(struct exporter *x, const char *segment))
{
	const struct dirent *entry;
	DIR *dir;
	int r = 0;

	if (x->manifest)
		return each_of_snapshot(x, each);
	if (file_names_at(x->dirfd, NULL, &dir) < 0)
		return -EIO;
	while (r == 0 && (entry = readdir(dir)))
		if (chroma_is_uuid(entry->d_name))
			r = each(x, entry->d_name);
	closedir(dir);
	return r;
}
