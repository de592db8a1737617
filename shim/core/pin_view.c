/* SPDX-License-Identifier: MIT
 *
 * A pin as a directory: which files there were, and whether somebody else has been at them.
 */
#include "core/pin_view.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/chroma.h"
#include "core/database.h"
#include "core/pin_groups.h"

#define SECOND UINT64_C(1000000000)
#define SLACK (2 * SECOND) /* clocks of files are coarse */
#define WAL_FILE DATABASE_FILE "-wal"

/* ---- which segments ---- */

struct segments {
	char (*ids)[CHROMA_ID_SIZE];
	size_t count;
};

static int add_segment(struct segments *s, const char *id)
{
	char text[CHROMA_ID_SIZE], (*more)[CHROMA_ID_SIZE];
	size_t i;

	snprintf(text, sizeof(text), "%.36s", id);
	if (!chroma_is_uuid(text))
		return 0;
	for (i = 0; i < s->count; i++)
		if (!strcmp(s->ids[i], text))
			return 0;
	more = reallocarray(s->ids, s->count + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	s->ids = more;
	memcpy(more[s->count++], text, sizeof(text));
	return 0;
}

/* Names of directories, or what follows the number and the dash in pins/. */
static int add_names(struct segments *s, int at, bool pins)
{
	int fd = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;

	if (!dir)
		return -errno;
	while (r == 0 && (entry = readdir(dir))) {
		const char *name = entry->d_name, *dash = pins ? strchr(name, '-') : NULL;

		if (!pins)
			r = chroma_is_uuid(name) ? add_segment(s, name) : 0;
		else if (dash && strspn(name, "0123456789") == (size_t)(dash - name))
			r = add_segment(s, dash + 1);
	}
	closedir(dir);
	return r;
}

static int compare_ids(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* ---- which files ---- */

static int add_file(struct pin_view *v, const char *path)
{
	struct pin_view_file *more;
	struct pin_reader r;
	int e = pin_reader_open(&r, v, path);

	if (e == 0) {
		more = reallocarray(v->files, v->count + 1, sizeof(*more));
		e = more ? 0 : -ENOMEM;
		if (more) {
			v->files = more;
			more[v->count++] = r.file;
		}
	}
	pin_reader_close(&r);
	return e == -ENOENT ? 0 : e;
}

static int list_files(struct pin_view *v)
{
	char path[PIN_PATH];
	struct segments s = {0};
	size_t i;
	unsigned k;
	int r = add_file(v, DATABASE_FILE);

	if (r == 0 && v->wal)
		r = add_file(v, WAL_FILE);
	if (r == 0)
		r = add_names(&s, v->rootfd, false);
	if (r == 0)
		r = add_names(&s, v->pins->dirfd, true);
	if (r == 0 && s.count)
		qsort(s.ids, s.count, sizeof(*s.ids), compare_ids);
	for (i = 0; i < s.count && r == 0; i++) {
		for (k = 0; k < UNDO_FILES && r == 0; k++) {
			snprintf(path, sizeof(path), "%s/%s", s.ids[i], undo_file_names[k]);
			r = add_file(v, path);
		}
	}
	free(s.ids);
	return r;
}

/* ---- is it still worth something? ---- */

static int fail_stale(const struct pin_view *v, const char *path, const char *detail)
{
	snprintf(v->trouble->file, sizeof(v->trouble->file), "%s", path);
	snprintf(v->trouble->detail, sizeof(v->trouble->detail), "%s", detail);
	return -ESTALE;
}

static int check_untouched(struct pin_view *v)
{
	size_t i;
	int r = 0;

	for (i = 0; i < v->count && r == 0; i++) {
		struct stat st;
		uint64_t limit;
		bool under_way;

		if (fstatat(v->rootfd, v->files[i].path, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue; /* it was removed, and is kept */
		/* In this order: what was written by now is told, or not ended. */
		under_way = pins_is_written(v->pins);
		limit = __atomic_load_n(&v->pins->state->touched, __ATOMIC_SEQ_CST);
		limit = (limit > v->time ? limit : v->time) + SLACK;
		if (!under_way &&
		    (uint64_t)st.st_mtim.tv_sec * SECOND + (uint64_t)st.st_mtim.tv_nsec > limit)
			r = fail_stale(v, v->files[i].path, "it was written to without the shim");
	}
	return r;
}

int pin_view_check(struct pin_view *v)
{
	int r = check_untouched(v);

	return r == 0 ? pin_groups_check(v) : r;
}

int pin_view_open(struct pin_view *v, struct pins *pins, const struct pin_slot *slot, int rootfd,
		  struct snapshot_trouble *t)
{
	int r;

	*t = (struct snapshot_trouble){{0}, {0}};
	*v = (struct pin_view){.pins = pins,
			       .rootfd = rootfd,
			       .id = slot->id,
			       .time = slot->time,
			       .database_size = slot->database_size,
			       .wal = slot->wal != 0,
			       .trouble = t};
	r = pin_groups_open(v);
	if (r == 0)
		r = pin_groups_refresh(v, NULL);
	if (r == 0)
		r = list_files(v);
	if (r == 0 && (v->count == 0 || strcmp(v->files[0].path, DATABASE_FILE) != 0))
		r = fail_stale(v, DATABASE_FILE, "it is gone");
	if (r == 0 && v->database_size && v->files[0].size != v->database_size)
		r = fail_stale(v, DATABASE_FILE, "its size was changed without the shim");
	if (r == 0)
		r = check_untouched(v);
	if (r < 0)
		pin_view_close(v);
	return r;
}

void pin_view_close(struct pin_view *v)
{
	pin_groups_close(v);
	free(v->files);
	v->files = NULL;
	v->count = 0;
}
