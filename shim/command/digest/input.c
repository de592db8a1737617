/* SPDX-License-Identifier: MIT
 *
 * What a digest is made of.
 */
#include "command/digest/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/log/log.h"
#include "core/oplog/oplog.h"
#include "core/segment/pickle.h"

/* ---- tables ---- */

static const char *table_of(void *context, const char *database, uint64_t offset)
{
	struct digest_input *in = context;
	uint32_t size;

	if (strcmp(database, CHROMA_DATABASE) != 0)
		return NULL;
	if (!in->tables)
		in->tables = log_tables_open(in->data.dir, CHROMA_DATABASE);
	size = in->tables ? log_tables_page_size(in->tables) : 0;
	if (!size || offset / size >= UINT32_MAX - 1)
		return NULL;
	return log_tables_find(in->tables, (uint32_t)(offset / size + 1));
}

/* ---- reading ---- */

static int compare_moments(const void *a, const void *b)
{
	const struct digest_moment *x = a, *y = b;

	return x->time < y->time ? -1 : x->time > y->time;
}

/* What came after each snapshot is counted exactly. */
static int set_moments(struct digest_input *in)
{
	struct digest *d = in->digest;
	size_t i;

	d->moments = calloc(in->snapshots.count + 1, sizeof(*d->moments));
	if (!d->moments)
		return -ENOMEM;
	for (i = 0; i < in->snapshots.count; i++)
		d->moments[d->moment_count++].time = in->snapshots.list[i].header.time;
	qsort(d->moments, d->moment_count, sizeof(*d->moments), compare_moments);
	return 0;
}

static void note_segments(struct digest_input *in, struct oplog_reader *reader)
{
	size_t i;

	in->lost = oplog_reader_lost(reader);
	for (i = 0; i < oplog_reader_segments(reader); i++) {
		const struct oplog_segment_info *info = oplog_reader_segment(reader, i);

		in->damaged += info->damaged;
		in->unreadable += info->error && info->error != -ENOENT;
		in->older_gone = in->older_gone || (!info->error && info->header.dropped);
	}
}

static int read_log(struct digest_input *in)
{
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	int r = oplog_reader_open_which(in->data.storefd, OPLOG_BOTH, &reader);

	if (r == 0 && in->digest->since)
		oplog_reader_since(reader, in->digest->since);
	if (r == 0)
		oplog_reader_ahead(reader);
	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0) {
		if (!in->calls_from && e.log == OPLOG_LOG_CALLS)
			in->calls_from = e.time;
		r = collection_names_note(in->names, &e);
		if (r == 0)
			r = digest_add(in->digest, &e);
	}
	if (r == 0)
		note_segments(in, reader);
	oplog_reader_close(reader);
	return r;
}

/* ---- growth ---- */

/* The snapshot nearest to the beginning of the span: the last before it, else the first in it. */
static const struct manifest *manifest_at_begin(const struct digest_input *in)
{
	const struct manifest *best = NULL;
	size_t i;

	for (i = 0; i < in->snapshots.count; i++) {
		const struct manifest *m = &in->snapshots.list[i];

		if (m->file_count && (!best || m->header.time <= in->digest->first))
			best = m;
	}
	return best;
}

/* A file whose size the log does not know is as large as it is now, and was as a snapshot says. */
static void note_growth(struct digest_input *in)
{
	const struct manifest *m = manifest_at_begin(in);
	const struct digest_rows *rows = &in->digest->tables[DIGEST_FILES];
	size_t i;

	for (i = 0; m && !in->digest->until && i < rows->count; i++) {
		struct digest_row *row = rows->list[i];
		const struct manifest_file *f =
		    row->size_known ? NULL : manifest_find(m, row->name);
		struct stat st;

		if (!f || fstatat(in->data.dirfd, row->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		row->size_known = true;
		row->size_before = f->size;
		row->size = (uint64_t)st.st_size;
		row->grown = row->size > f->size ? row->size - f->size : 0;
	}
}

static int open_parts(struct digest_input *in, const struct digest_options *o)
{
	in->digest = digest_new();
	in->names = collection_names_open(in->data.storefd, in->data.dir, in->data.dirfd);
	if (!in->digest || !in->names)
		return -ENOMEM;
	in->digest->since = o->since;
	in->digest->until = o->until;
	if (o->tables) {
		in->digest->table_of = table_of;
		in->digest->table_context = in;
	}
	in->snapshots.data = in->data;
	in->has_snapshots = snapshots_load(&in->snapshots, SNAPSHOT_LOOK, false, 0) == 0;
	return set_moments(in);
}

int digest_input_fail(const struct digest_input *in, int error)
{
	if (error == -ENOENT)
		return fail(EXIT_NO_STORE, 0, "Start Chroma under the shim first.",
			    "there is no op log in '%s'", in->data.store);
	return fail(exit_code_of(error), error,
		    "Check that the directory belongs to you, or free some memory.",
		    "cannot read the op log in '%s/%s'", in->data.store, OPLOG_DIR);
}

int digest_input_nothing(const struct digest_input *in)
{
	const char *dir = in->data.dir;

	if (in->unreadable)
		return fail(EXIT_NOT_FOUND, 0,
			    "`chromashim log` says what is wrong with each of its files.",
			    "the log of '%s' has nothing that can be read", dir);
	if (in->digest->since || in->digest->until)
		return fail(EXIT_NOT_FOUND, 0, "Choose an earlier --since, or leave it out.",
			    "the log of '%s' has nothing of that time", dir);
	return fail(EXIT_NOT_FOUND, 0, "Start Chroma under the shim first.",
		    "the log of '%s' is empty", dir);
}

int digest_input_start(struct digest_input *in, const char *dir, const struct digest_options *o)
{
	int status, r;

	memset(in, 0, sizeof(*in));
	in->snapshots.pins.dirfd = -1;
	status = data_directory_open(&in->data, dir, true);
	if (status)
		return status;
	r = open_parts(in, o);
	return r < 0 ? digest_input_fail(in, r) : 0;
}

int digest_input_open(struct digest_input *in, const char *dir, const struct digest_options *o)
{
	int status, r;

	heap_keep();
	status = digest_input_start(in, dir, o);
	if (status)
		return status;
	r = read_log(in);
	if (r < 0)
		return digest_input_fail(in, r);
	note_growth(in);
	return 0;
}

void digest_input_close(struct digest_input *in)
{
	if (in->has_snapshots)
		snapshots_unload(&in->snapshots);
	log_tables_close(in->tables);
	if (in->names)
		collection_names_close(in->names);
	digest_free(in->digest);
	data_directory_close(&in->data);
}

const char *digest_name(struct digest_input *in, const char *name, char *out, size_t room)
{
	const char *found = collection_names_find(in->names, name), *slash = strchr(name, '/');

	if (!strcmp(name, "."))
		snprintf(out, room, "the directory itself");
	else if (!found)
		snprintf(out, room, "%s", name);
	else
		snprintf(out, room, "%.180s%s%s", found, slash ? ": " : "", slash ? slash + 1 : "");
	return out;
}

bool digest_is_first_making(const struct digest_input *in, const struct digest_open *o)
{
	char pickle[sizeof(o->name) + 32];

	if (!o->is_persist)
		return false;
	snprintf(pickle, sizeof(pickle), "%s/" PICKLE_FILE, o->name);
	return faccessat(in->data.dirfd, pickle, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
}
