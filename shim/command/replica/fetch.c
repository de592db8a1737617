/* SPDX-License-Identifier: MIT
 *
 * A directory from a replica, on a machine that has nothing else: `restore --from`. Chunks are
 * fetched some at a time, in the order in which they are needed, and go when they have been used.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command/base/progress.h"
#include "command/base/terminal.h"
#include "command/replica/remote.h"
#include "command/replica/replica.h"
#include "core/base/tree.h"
#include "core/snapshot/restore.h"

#define KEPT 1024u /* chunks that are there at once */

struct fetching {
	struct remote remote;
	unsigned char names[REPLICA_KEY_SIZE];
	struct snapshot_store store;
	/* What will be asked for, in this order; `at` is how far it is. */
	struct chunk_name *order;
	size_t count, at;
	/* A ring of those that are there. */
	struct chunk_name kept[KEPT];
	size_t kept_at;
	struct chunk_name damaged;
	int error; /* of the link */
};

/* ---- the order ---- */

static int list_file(struct fetching *f, const struct manifest_file *file)
{
	uint64_t count = manifest_chunk_count(file->size), i;
	struct chunk_name *more;

	if (!count)
		return 0;
	more = reallocarray(f->order, f->count + (size_t)count, sizeof(*more));
	if (!more)
		return -ENOMEM;
	f->order = more;
	for (i = 0; i < count; i++)
		if (!chunk_is_zero(&file->chunks[i]))
			f->order[f->count++] = file->chunks[i];
	return 0;
}

/* As restore_build() goes: the database last. */
static int list_all(struct fetching *f, const struct manifest *m)
{
	uint32_t i;
	int last, r = 0;

	for (last = 0; last < 2; last++)
		for (i = 0; i < m->file_count && r == 0; i++)
			if ((strcmp(m->files[i].path, CHROMA_DATABASE) == 0) == last)
				r = list_file(f, &m->files[i]);
	return r;
}

/* ---- fetching ---- */

static bool is_kept(const struct fetching *f, const struct chunk_name *name)
{
	size_t i;

	for (i = 0; i < KEPT; i++)
		if (!memcmp(&f->kept[i], name, sizeof(*name)))
			return true;
	return false;
}

static int accept(struct fetching *f, const struct replica_name *from,
		  const struct chunk_name *name)
{
	unsigned char *data;
	size_t size;
	int r = remote_chunk_fetched(&f->remote, from, &data, &size);

	if (r < 0)
		return r;
	chunks_drop(&f->store.chunks, &f->kept[f->kept_at]);
	f->kept[f->kept_at] = *name;
	f->kept_at = (f->kept_at + 1) % KEPT;
	r = chunks_accept(&f->store.chunks, name, data, size);
	free(data);
	return r;
}

/* From the one that is asked for on. */
static size_t choose(struct fetching *f, const struct chunk_name *first,
		     struct replica_name names[LINK_BATCH], struct chunk_name chunks[LINK_BATCH])
{
	size_t i, n = 0, k;

	for (i = f->at; i < f->count && memcmp(&f->order[i], first, sizeof(*first)) != 0; i++)
		;
	chunks[n++] = *first;
	f->at = i < f->count ? i : f->at;
	for (; i < f->count && n < LINK_BATCH; i++) {
		for (k = 0; k < n && memcmp(&chunks[k], &f->order[i], sizeof(*first)) != 0; k++)
			;
		if (k == n && !is_kept(f, &f->order[i]))
			chunks[n++] = f->order[i];
	}
	for (k = 0; k < n; k++) {
		names[k] = (struct replica_name){.folder = REPLICA_CHUNKS};
		replica_chunk_name_of(f->names, &chunks[k], sizeof(chunks[k]), &names[k].chunk);
	}
	return n;
}

/* What cannot be used of those behind the first is met when it is their turn. */
static int fetch(void *context, const struct chunk_name *name)
{
	struct replica_name names[LINK_BATCH] = {{0}};
	struct chunk_name chunks[LINK_BATCH];
	struct fetching *f = context;
	size_t n = choose(f, name, names, chunks), i;
	int r = link_fetch(&f->remote.link, names, n), one, first = 0;

	f->error = r;
	for (i = 0; i < n && r == 0; i++) {
		one = accept(f, &names[i], &chunks[i]);
		first = i == 0 ? one : first;
		r = one == -ENOMEM || one == -ENOSPC ? one : 0;
	}
	link_clear(&f->remote.link);
	return r < 0 ? r : first == -ENOKEY || first == -EISNAM ? -EBADMSG : first;
}

/* ---- the whole ---- */

static int build(struct fetching *f, const struct replica_wanted *w, const struct manifest *m,
		 int dirfd)
{
	struct snapshot_trouble t = {{0}, {0}};
	struct progress p;
	struct restore_options options = {
	    .owner = w->owner, .progress = progress_step, .context = &p};
	int r;

	f->store.chunks.fetch = fetch;
	f->store.chunks.fetch_context = f;
	progress_start(&p, "restoring", w->quiet);
	r = restore_build(&f->store, m, dirfd, &options, &t, NULL);
	progress_end(&p);
	if (r == 0)
		return 0;
	if (f->error < 0)
		return remote_fail(&f->remote, f->error, "cannot read the replica");
	return fail(
	    exit_code_of(r == -ENOENT ? -EIO : r), 0,
	    "Choose another snapshot: `chromashim replica list`; `chromashim replica check` "
	    "tells which are whole.",
	    "snapshot %" PRIu64 " cannot be restored from '%s': %s%s%s", m->header.id, w->from,
	    t.file, t.file[0] ? ": " : "", t.detail[0] ? t.detail : strerror(-r));
}

static int open_scratch(struct fetching *f, int dirfd)
{
	int fd = tree_make_directory(dirfd, REPLICA_BUILDING), r;

	if (fd < 0)
		return fd;
	r = snapshot_store_open(&f->store, fd, SNAPSHOT_CHANGE, 0);
	close(fd);
	return r;
}

static int restore_found(struct fetching *f, const struct replica_wanted *w, long at, int dirfd,
			 struct manifest *m)
{
	int r = remote_manifest(&f->remote, &f->remote.snapshots[at], m, f->names), status;

	if (r == -EIO || f->remote.link.error[0])
		return remote_fail(&f->remote, r, "cannot read the replica");
	if (r < 0)
		return fail(EXIT_FAILED, 0,
			    r == -ENOKEY && !w->key
				? "It is sealed: give the file of the secret key with --key."
				: "Choose another snapshot: `chromashim replica list`.",
			    "snapshot %" PRIu64 " of '%s' cannot be read: %s",
			    f->remote.snapshots[at].id, w->from, remote_trouble(r));
	r = list_all(f, m);
	if (r == 0)
		r = open_scratch(f, dirfd);
	if (r < 0)
		return fail(exit_code_of(r), r, "Give another directory.",
			    "cannot restore from '%s'", w->from);
	status = build(f, w, m, dirfd);
	snapshot_store_close(&f->store);
	r = tree_remove(dirfd, REPLICA_BUILDING);
	return status ? status : r < 0 ? fail(EXIT_FAILED, r, NULL, "cannot clear up") : 0;
}

int replica_restore(const struct replica_wanted *w, int dirfd, struct manifest *m_out)
{
	struct fetching *f = calloc(1, sizeof(*f));
	int status;
	long at;

	*m_out = (struct manifest){0};
	if (!f)
		return fail(EXIT_FAILED, -ENOMEM, NULL, "cannot restore from '%s'", w->from);
	status = remote_open(&f->remote, w->from, w->key, w->ssh_config);
	if (status == 0 && w->is_empty)
		*w->is_empty = f->remote.count == 0;
	if (status == 0 && w->is_empty && *w->is_empty) {
		remote_close(&f->remote);
	} else if (status == 0) {
		at = remote_find(&f->remote, w->to);
		status = at < 0 ? EXIT_NOT_FOUND : restore_found(f, w, at, dirfd, m_out);
		remote_close(&f->remote);
	}
	free(f->order);
	free(f);
	return status;
}
