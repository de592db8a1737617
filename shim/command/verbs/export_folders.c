/* SPDX-License-Identifier: MIT
 *
 * An export as a directory with a folder for each collection.
 */
#include "command/verbs/export_folders.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/command.h"
#include "core/base/owner.h"
#include "core/base/tree.h"

void export_put_metadata(struct json *j, const struct export_value *values, size_t count)
{
	json_key(j, "metadata");
	if (count == 0)
		json_null(j);
	else
		export_values_put(j, values, count);
}

/* The export is the caller's own. 0 or -errno. */
static int make_own(const char *path)
{
	int r;

	owner_pause();
	r = mkdir(path, 0777) < 0 ? -errno : 0;
	owner_resume();
	return r;
}

int folders_open(struct folders *f, const char *path, bool zstd)
{
	struct output_place place;
	int r = output_place_find(&place, path);

	*f = (struct folders){.zstd = zstd};
	if (r == 0 && place.kind != OUTPUT_NEW)
		r = -EEXIST;
	if (place.fd >= 0)
		close(place.fd);
	if (r < 0)
		return r;
	strlcpy(f->path, place.path, sizeof(f->path));
	if (snprintf(f->partial, sizeof(f->partial), "%s.partial-%d", f->path, (int)getpid()) >=
	    (int)sizeof(f->partial))
		return -ENAMETOOLONG;
	return make_own(f->partial);
}

/* Names of a healthy database are plain; one that is not must not lead elsewhere. */
static bool is_plain(const char *name)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789._-";

	return *name && *name != '.' && strlen(name) < 256 && name[strspn(name, plain)] == '\0';
}

/* Its name; with its id where that is taken (by another tenant's) or cannot be a folder's. */
static int make_folder(const struct folders *f, const struct chroma_collection *c, char *out,
		       size_t room)
{
	int r;

	if (is_plain(c->name)) {
		if (snprintf(out, room, "%s/%s", f->partial, c->name) >= (int)room)
			return -ENAMETOOLONG;
		r = make_own(out);
		if (r != -EEXIST)
			return r;
	}
	if (!is_plain(c->id))
		return -EINVAL;
	if (snprintf(out, room, "%s/%s", f->partial, c->id) >= (int)room)
		return -ENAMETOOLONG;
	return make_own(out);
}

static void put(struct json *j, const char *key, const char *value)
{
	json_key(j, key);
	json_string(j, value);
}

static int export_folder_describe(const char *folder, const struct export_collection *told)
{
	static const char *const spaces[] = {
	    [CHROMA_L2] = "l2", [CHROMA_COSINE] = "cosine", [CHROMA_IP] = "ip"};
	const struct chroma_collection *c = told->collection;
	char path[4096];
	struct output o;
	struct json j = {0};
	int r;

	if (snprintf(path, sizeof(path), "%s/collection.json", folder) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	r = output_open(&o, path, false);
	if (r < 0)
		return r;
	j.out = o.stream;
	json_begin(&j, '{');
	json_key(&j, "schema_version");
	json_uint(&j, SCHEMA_VERSION);
	put(&j, "name", c->name);
	put(&j, "id", c->id);
	put(&j, "tenant", c->tenant);
	put(&j, "database", c->database);
	json_key(&j, "dimension");
	if (c->dimension)
		json_int(&j, c->dimension);
	else
		json_null(&j);
	put(&j, "space", c->topic[0] ? spaces[c->space] : NULL); /* else no database told it */
	json_key(&j, "hnsw");
	export_values_put(&j, told->index, told->index_count);
	export_put_metadata(&j, told->metadata, told->metadata_count);
	json_end(&j, '}');
	json_newline(&j);
	return output_close(&o);
}

static int end_folder(struct folders *f)
{
	int r = f->is_writing ? output_close(&f->output) : 0;

	f->is_writing = false;
	return r;
}

int folders_next(struct folders *f, const struct export_collection *told, FILE **stream_out)
{
	char folder[4096], path[4096];
	int r = end_folder(f);

	if (r == 0)
		r = make_folder(f, told->collection, folder, sizeof(folder));
	if (r == 0)
		r = export_folder_describe(folder, told);
	if (r < 0)
		return r;
	if (snprintf(path, sizeof(path), "%s/records.jsonl%s", folder, f->zstd ? ".zst" : "") >=
	    (int)sizeof(path))
		return -ENAMETOOLONG;
	r = output_open(&f->output, path, f->zstd);
	if (r < 0)
		return r;
	f->is_writing = true;
	*stream_out = f->output.stream;
	return 0;
}

int folders_close(struct folders *f)
{
	int r = end_folder(f);

	if (r == 0 && renameat2(AT_FDCWD, f->partial, AT_FDCWD, f->path, RENAME_NOREPLACE) < 0)
		r = -errno;
	/* Not every file system knows RENAME_NOREPLACE. */
	if (r == -EINVAL)
		r = rename(f->partial, f->path) < 0 ? -errno : 0;
	if (r < 0)
		folders_abort(f);
	return r;
}

void folders_abort(struct folders *f)
{
	char *slash;
	int parent;

	if (f->is_writing)
		output_abort(&f->output);
	f->is_writing = false;
	slash = strrchr(f->partial, '/'); /* it is absolute */
	*slash = '\0';
	parent = open(*f->partial ? f->partial : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*slash = '/';
	if (parent < 0)
		return;
	tree_remove(parent, slash + 1);
	close(parent);
}
