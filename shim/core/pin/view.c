/* SPDX-License-Identifier: MIT
 *
 * A pin as a directory: which files there were.
 */
#include "core/pin/view.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/chroma/chroma.h"
#include "core/pin/groups.h"
#include "core/sqlite/database.h"

#define WAL_FILE CHROMA_DATABASE "-wal"
#define LIST_MAX (UINT64_C(256) << 20)

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

/* What follows the number and the dash in pins/. */
static int add_names(struct segments *s, int at)
{
	const struct dirent *entry;
	DIR *dir;
	int r = file_names_at(at, NULL, &dir);

	if (r < 0)
		return r;
	while (r == 0 && (entry = readdir(dir))) {
		const char *name = entry->d_name, *dash = strchr(name, '-');

		if (dash && strspn(name, "0123456789") == (size_t)(dash - name))
			r = add_segment(s, dash + 1);
	}
	closedir(dir);
	return r;
}

/* ---- the list ---- */

static int list_trouble(const struct pin_view *v, const char *name, int error)
{
	snprintf(v->trouble->file, sizeof(v->trouble->file), PINS_DIR "/%s", name);
	snprintf(v->trouble->detail, sizeof(v->trouble->detail), "%s",
		 error == -ENOENT	     ? "the list of what was pinned is lost"
		 : error == -EPROTONOSUPPORT ? "of a newer version"
					     : "the list of what was pinned is damaged");
	return error == -ENOENT ? -ESTALE : error;
}

static int parse_list(struct pin_view *v, const char *data, size_t size)
{
	struct pin_list_header h;
	size_t i;
	int r;

	if (size < sizeof(h))
		return -EBADMSG;
	memcpy(&h, data, sizeof(h));
	r = pin_list_judge(&h, v->id, size);
	if (r < 0)
		return r;
	v->list = calloc((size_t)h.count + 1, sizeof(*v->list));
	if (!v->list)
		return -ENOMEM;
	v->list_count = (size_t)h.count;
	memcpy(v->list, data + sizeof(h), v->list_count * sizeof(*v->list));
	for (i = 0; i < v->list_count; i++)
		if (!pin_list_entry_is_good(&v->list[i], v->id, i))
			return -EBADMSG;
	return 0;
}

static int read_list(struct pin_view *v)
{
	char name[PIN_NAME_MAX], *data;
	size_t size;
	int fd, r = pin_file_name(name, v->id, PIN_LIST, "");

	fd = r < 0 ? r : file_open_at(v->pins->dirfd, name);
	if (fd < 0)
		return list_trouble(v, name, fd == -ENOENT ? fd : -EBADMSG);
	r = file_read_all(fd, LIST_MAX, &data, &size);
	close(fd);
	if (r == 0) {
		r = parse_list(v, data, size);
		free(data);
	}
	return r == -EBADMSG || r == -EPROTONOSUPPORT ? list_trouble(v, name, r) : r;
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
	int r = add_file(v, CHROMA_DATABASE);

	if (r == 0 && v->wal)
		r = add_file(v, WAL_FILE);
	for (i = 0; i < v->list_count && r == 0; i++)
		r = add_segment(&s, v->list[i].path);
	if (r == 0)
		r = add_names(&s, v->pins->dirfd);
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

int pin_view_check(struct pin_view *v)
{
	return pin_groups_check(v);
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
			       .wal_size = slot->wal_size,
			       .wal = slot->wal != 0,
			       .trouble = t};
	pins_adopt(pins, rootfd, NULL);
	r = read_list(v);
	if (r == 0)
		r = pin_groups_open(v);
	if (r == 0)
		r = pin_groups_refresh(v, NULL);
	if (r == 0)
		r = list_files(v);
	if (r == 0 && (v->count == 0 || strcmp(v->files[0].path, CHROMA_DATABASE) != 0))
		r = fail_stale(v, CHROMA_DATABASE, "it is gone");
	if (r == 0 && v->database_size && v->files[0].size != v->database_size)
		r = fail_stale(v, CHROMA_DATABASE, "its size was changed without the shim");
	if (r < 0)
		pin_view_close(v);
	return r;
}

void pin_view_close(struct pin_view *v)
{
	pin_groups_close(v);
	free(v->files);
	free(v->list);
	v->files = NULL;
	v->list = NULL;
	v->count = v->list_count = 0;
}
