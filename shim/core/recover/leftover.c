/* SPDX-License-Identifier: MIT
 *
 * Finding directories of deleted collections, and telling what is in them.
 */
#include "core/recover/leftover.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/check/diagnose.h"
#include "core/segment/pickle.h"
#include "core/snapshot/read.h"
#include "core/sqlite/database.h"

struct leftovers {
	int dirfd;
	sqlite3 *db;
	struct leftover *list;
	size_t count;
	const struct manifest *manifest; /* being looked through */
};

/* ---- the distance function ---- */

/* Chroma < 1.0 keeps a segment's settings in rows of their own, which it leaves behind as well. */
static int space_of_rows(sqlite3 *db, const char *segment)
{
	sqlite3_stmt *row = NULL;
	int space = CHROMA_SPACE_OPEN;
	int r = database_prepare(db, &row,
				 "SELECT max(CASE key WHEN 'hnsw:space' THEN str_value END) FROM "
				 "segment_metadata WHERE segment_id = ? AND key GLOB 'hnsw:*' "
				 "HAVING count(*) > 0");

	if (r == 0) {
		sqlite3_bind_text(row, 1, segment, -1, SQLITE_STATIC);
		if (database_step(row) == 1)
			space = (int)chroma_space_of((const char *)sqlite3_column_text(row, 0));
	}
	sqlite3_finalize(row);
	return space;
}

/* ---- its files ---- */

static void read_pickle(struct leftover *l, int dirfd)
{
	struct pickle_index index = {0};
	struct file_source source;
	struct stat st;
	int fd = file_open_at(dirfd, PICKLE_FILE);

	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && file_source_open_data(&source, fd) == 0) {
		pickle_read_index(&source, NULL, NULL, &index);
		l->ids = index.pairs[PICKLE_ID_TO_LABEL];
		l->changed = st.st_mtim.tv_sec;
	}
	close(fd);
}

static int leftover_judge(struct leftovers *x, struct leftover *l)
{
	int dirfd = file_follow_directory_at(x->dirfd, l->segment), r;

	if (dirfd < 0)
		return dirfd;
	read_pickle(l, dirfd);
	r = hnsw_header_read(dirfd, &l->header);
	/* As made, and deleted before its first persist: nothing is in it, nothing is wrong. */
	if (r < 0 || l->changed || l->header.count) {
		r = diagnose_leftover(x->dirfd, l->segment, &l->damage);
		if (r == 0 && !l->damage)
			l->space = chroma_space_of_files(dirfd, &l->header);
	}
	close(dirfd);
	if (r == 0 && space_of_rows(x->db, l->segment) >= 0)
		l->space = space_of_rows(x->db, l->segment);
	return r;
}

static int leftover_add(struct leftovers *x, const char *segment)
{
	struct leftover *more = reallocarray(x->list, x->count + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	x->list = more;
	x->list[x->count] = (struct leftover){.space = CHROMA_SPACE_OPEN};
	snprintf(x->list[x->count].segment, CHROMA_ID_SIZE, "%.40s", segment);
	return leftover_judge(x, &x->list[x->count++]);
}

static int leftover_look(struct leftovers *x)
{
	DIR *dir;
	int r = file_names_at(x->dirfd, NULL, &dir);
	const struct dirent *entry;

	if (r < 0)
		return r;
	while (r == 0 && (entry = readdir(dir)))
		if (chroma_is_segment(x->dirfd, entry->d_name) &&
		    chroma_has_segment(x->db, entry->d_name) == 0)
			r = leftover_add(x, entry->d_name);
	closedir(dir);
	return r;
}

/* ---- snapshots that still have the collection ---- */

/* Its files here are not those that the snapshot has. */
static bool is_newer(const struct leftovers *x, const struct leftover *l)
{
	char path[CHROMA_ID_SIZE + sizeof(PICKLE_FILE) + 1];
	const struct manifest_file *f;
	struct stat st;

	snprintf(path, sizeof(path), "%.40s/" PICKLE_FILE, l->segment);
	f = manifest_find(x->manifest, path);
	return fstatat(x->dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       (!f || f->mtime != st.st_mtim.tv_sec || f->mtime_ns != st.st_mtim.tv_nsec);
}

static int note_collection(void *context, const struct chroma_collection *c)
{
	struct leftovers *x = context;
	size_t i;

	for (i = 0; i < x->count; i++) {
		struct leftover *l = &x->list[i];

		if (l->snapshot || strcmp(l->segment, c->vector_segment) != 0)
			continue;
		l->snapshot = x->manifest->header.id;
		l->is_newer = l->ids && !l->damage && is_newer(x, l);
		l->space = (int)c->space;
		snprintf(l->id, sizeof(l->id), "%s", c->id);
		snprintf(l->name, sizeof(l->name), "%s", c->name);
	}
	return 0;
}

static int ask_snapshot(struct leftovers *x, struct snapshot_store *store, const struct manifest *m)
{
	struct snapshot_database database = {.db = NULL};
	int r = snapshot_database_open(&database, store, m);

	x->manifest = m;
	if (r == 0)
		r = chroma_each_collection(database.db, note_collection, x);
	snapshot_database_close(&database);
	return r;
}

static int ask_snapshots(struct leftovers *x, struct snapshot_store *store)
{
	struct manifest *list = NULL;
	size_t count = 0, i;
	int r = snapshot_list(store, &list, &count);

	for (i = count; i > 0 && r == 0; i--) { /* the newest first */
		uint32_t state = list[i - 1].header.state;

		if (state != SNAPSHOT_COMPLETE && state != SNAPSHOT_VERIFIED)
			continue;
		if (ask_snapshot(x, store, &list[i - 1]) == -ENOMEM)
			r = -ENOMEM; /* one that cannot be read has nothing to give */
	}
	snapshot_list_free(list, count);
	return r;
}

int leftover_list(const char *path, int dirfd, struct snapshot_store *snapshots,
		  struct leftover **out, size_t *count_out)
{
	struct leftovers x = {.dirfd = dirfd};
	int r = database_open_now(path, dirfd, &x.db);

	if (r == 0)
		r = leftover_look(&x);
	if (r == 0 && x.count && snapshots)
		r = ask_snapshots(&x, snapshots);
	sqlite3_close(x.db);
	*out = x.list;
	*count_out = x.count;
	return r;
}
