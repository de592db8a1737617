/* SPDX-License-Identifier: MIT
 *
 * The log in numbers: what the calls did to files.
 */
#include "command/digest/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* A file's size is known once it was cut, made or removed; from then on growth is counted: what
 * comes and goes, like a journal, is none. */
static void set_size(struct digest_row *row, uint64_t size)
{
	if (!row->size_known)
		row->size_before = row->most = size;
	row->size_known = true;
	row->size = size;
	row->grown = size > row->size_before ? size - row->size_before : 0;
}

/* Whether a file comes and goes with each transaction. */
static bool is_passing(const char *name)
{
	const char *dash = strrchr(name, '-');

	return dash &&
	       (!strcmp(dash, "-journal") || !strcmp(dash, "-wal") || !strcmp(dash, "-shm"));
}

static void note_size(struct digest *d, struct digest_row *row, const struct oplog_entry *e,
		      uint64_t size)
{
	unsigned bucket = digest_bucket(d, e->time);

	set_size(row, size);
	if (size <= row->most || is_passing(e->name))
		return;
	row->grown_by_time.at[bucket] += size - row->most;
	d->grown_by_time.at[bucket] += size - row->most;
	d->grown += size - row->most;
	row->most = size;
}

static void note_write(struct digest *d, struct digest_process *p, struct digest_row *row,
		       const struct oplog_entry *e)
{
	uint64_t n = e->result > 0 ? (uint64_t)e->result : 0;

	row->writes++;
	row->written += n;
	row->by_time.at[digest_bucket(d, e->time)] += n;
	d->written += n;
	d->written_by_time.at[digest_bucket(d, e->time)] += n;
	d->op_bytes[e->op] += n;
	p->written += n;
	if (row->size_known && e->offset >= 0 && (uint64_t)e->offset + n > row->size)
		note_size(d, row, e, (uint64_t)e->offset + n);
}

static void note_sync(struct digest *d, struct digest_process *p, struct digest_row *row,
		      const struct oplog_entry *e)
{
	row->syncs++;
	row->sync_ns += e->duration;
	d->syncs++;
	d->sync_ns += e->duration;
	d->syncs_by_time.at[digest_bucket(d, e->time)]++;
	p->syncs++;
	p->sync_ns += e->duration;
}

static int note_rename(struct digest *d, struct digest_row *from, const struct oplog_entry *e)
{
	struct digest_row *to = e->name2 ? digest_row(d, DIGEST_FILES, e->name2) : NULL;

	if (!e->name2)
		return 0;
	if (!to)
		return -ENOMEM;
	to->size_before = from->size_before;
	to->size_known = from->size_known;
	to->most = from->most > to->most ? from->most : to->most;
	if (from->size_known)
		set_size(to, from->size);
	from->size_before = 0;
	set_size(from, 0);
	return 0;
}

static int note_length(struct digest *d, struct digest_row *row, const struct oplog_entry *e)
{
	switch (e->op) {
	case OP_FTRUNCATE:
	case OP_TRUNCATE:
		note_size(d, row, e, e->length);
		return 0;
	case OP_OPEN:
	case OP_OPENAT:
		if (e->arg & O_TRUNC || (e->arg & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
			set_size(row, 0);
		return 0;
	case OP_CREAT:
	case OP_MKSTEMP:
	case OP_UNLINK:
	case OP_UNLINKAT:
		set_size(row, 0);
		return 0;
	case OP_RENAME:
	case OP_RENAMEAT:
	case OP_RENAMEAT2:
		return note_rename(d, row, e);
	default:
		return 0;
	}
}

int digest_call(struct digest *d, struct digest_process *p, const struct oplog_entry *e)
{
	struct digest_row *row;

	/* What SQLite and transactions say would count a file's bytes twice. */
	if (e->op < OP_OPEN || e->op >= OP_SQL_COPY || !e->name || e->kind != OPLOG_NAME_FILE ||
	    e->in_flight)
		return 0;
	row = digest_row(d, DIGEST_FILES, e->name);
	if (!row)
		return -ENOMEM;
	row->calls++;
	row->call_ns += e->duration;
	row->max_ns = e->duration > row->max_ns ? e->duration : row->max_ns;
	row->first = row->first ? row->first : e->time;
	row->last = e->time;
	if (e->result < 0) {
		d->op_failed[e->op]++;
		return 0;
	}
	if (digest_is_write(e->op))
		note_write(d, p, row, e);
	if (digest_is_sync(e->op))
		note_sync(d, p, row, e);
	return note_length(d, row, e);
}
