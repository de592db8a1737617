/* SPDX-License-Identifier: MIT
 *
 * Sending to one replica: snapshots, the newest first, chunk by chunk and then the manifest. What
 * is sent is sealed into a batch of bounded size, for which alone the store is held.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command/replica/sender.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"

#define STORE_WAIT_MS 10000

static const struct replica_keys *seal_keys(const struct sender *s)
{
	return s->remote.is_sealed ? &s->remote.keys : NULL;
}

static struct replica_name snapshot_name(const struct sender *s, const struct manifest *m)
{
	return (struct replica_name){.folder = REPLICA_SNAPSHOTS,
				     .epoch = (uint32_t)(s->state.line >> 32),
				     .line = (uint32_t)s->state.line,
				     .id = m->header.id,
				     .time = m->header.time};
}

/* ---- batches ---- */

static int open_store(struct sender *s)
{
	int r = s->is_store_open ? 0
				 : snapshot_store_open(&s->store, s->data->storefd, SNAPSHOT_KEEP,
						       STORE_WAIT_MS);

	s->is_store_open = r == 0;
	return r < 0 ? link_fail(&s->remote.link, r, "the snapshots cannot be read: %s",
				 r == -EBUSY ? "the store is busy" : strerror(-r))
		     : 0;
}

static void close_store(struct sender *s)
{
	if (s->is_store_open)
		snapshot_store_close(&s->store);
	s->is_store_open = false;
}

/* The store is not held meanwhile. */
static int flush_batch(struct sender *s)
{
	struct replica_chunk_name names[LINK_BATCH];
	size_t i, count = s->waiting;
	int r;

	close_store(s);
	r = link_send(&s->remote.link, s->batch, count);
	for (i = 0; i < count; i++)
		names[i] = s->batch[i].chunk;
	if (r == 0)
		r = replica_sent_add(&s->sent, names, count);
	if (r == 0) {
		s->state.bytes += s->waiting_bytes;
		r = replica_state_write(s->data->storefd, &s->state);
	}
	s->waiting = 0;
	s->waiting_bytes = 0;
	return r;
}

/* Sealed into the batch. */
static int stage(struct sender *s, const struct replica_name *name, const struct iovec *body,
		 int count)
{
	char text[REPLICA_NAME_SIZE];
	uint64_t size = 0;
	int fd = link_stage(&s->remote.link, name), r = fd;

	replica_name_format(text, name);
	if (fd >= 0) {
		r = replica_seal(seal_keys(s), text, body, count, fd, &size);
		close(fd);
	}
	if (r < 0)
		return link_fail(&s->remote.link, r, "cannot write in the store: %s", strerror(-r));
	s->batch[s->waiting++] = *name;
	s->waiting_bytes += size;
	return 0;
}

static int batch_if_full(struct sender *s)
{
	return s->waiting == LINK_BATCH || s->waiting_bytes >= LINK_BYTES ? flush_batch(s) : 0;
}

/* ---- a snapshot ---- */

static int fail_chunk(struct sender *s, int r, const struct manifest *m,
		      const struct manifest_file *f)
{
	return link_fail(&s->remote.link, r, "snapshot %" PRIu64 " is not sent: a chunk of %s %s",
			 m->header.id, f->path,
			 r == -ENOENT	 ? "is missing"
			 : r == -EBADMSG ? "is damaged"
					 : strerror(-r));
}

/* Looked at before it is sent: what is damaged here is not passed on. */
static int stage_chunk(struct sender *s, const struct manifest *m, const struct manifest_file *f,
		       uint64_t i, const struct replica_name *name)
{
	struct replica_body head = {.type = REPLICA_CHUNK};
	struct iovec body[2] = {{&head, sizeof(head)}};
	const void *file;
	int r = open_store(s);

	if (r < 0)
		return r;
	r = chunks_get_file(&s->store.chunks, &f->chunks[i], s->data_room,
			    manifest_chunk_size(f, i), &file, &body[1].iov_len);
	if (r < 0)
		return fail_chunk(s, r, m, f);
	body[1].iov_base = (void *)(uintptr_t)file;
	r = stage(s, name, body, 2);
	if (r == 0)
		r = replica_sent_note(&s->sent, &name->chunk); /* once in a batch will do */
	return r == 0 ? batch_if_full(s) : r;
}

/* 1: what has its name there is only the beginning of it. */
static int is_cut(struct sender *s, const struct manifest_file *f, uint64_t i,
		  const struct replica_name *name)
{
	uint64_t stored;
	int r = s->size_count ? open_store(s) : 0;

	/* What is damaged here is no reason to send it, or to say that it is. */
	if (r < 0 || !s->size_count || chunks_stat(&s->store.chunks, &f->chunks[i], &stored) < 0)
		return r;
	return sender_has_cut(
	    s, &name->chunk, replica_seal_size(seal_keys(s), sizeof(struct replica_body) + stored));
}

static int send_file(struct sender *s, const struct manifest *m, const struct manifest_file *f)
{
	struct replica_name name = {.folder = REPLICA_CHUNKS};
	uint64_t count = manifest_chunk_count(f->size), i;
	int r = 0;

	for (i = 0; i < count && r == 0; i++) {
		if (chunk_is_zero(&f->chunks[i]))
			continue;
		replica_chunk_name_of(s->remote.keys.names, &f->chunks[i], sizeof(f->chunks[i]),
				      &name.chunk);
		r = 1;
		if (replica_sent_has(&s->sent, &name.chunk))
			r = is_cut(s, f, i, &name);
		if (r != 1)
			continue;
		r = stage_chunk(s, m, f, i, &name);
		if (r == 0)
			s->state.pending -= s->state.pending > manifest_chunk_size(f, i)
						? manifest_chunk_size(f, i)
						: s->state.pending;
	}
	return r;
}

/* The second copy goes with the chunks; what is called the snapshot comes alone, and last. */
static int stage_manifest(struct sender *s, struct manifest *m, const struct replica_name *as)
{
	struct replica_name name = snapshot_name(s, m);
	int64_t size = remote_stage_manifest(&s->remote, as, &name, m, s->remote.keys.names);

	if (size < 0)
		return (int)size;
	s->batch[s->waiting++] = *as;
	s->waiting_bytes += (uint64_t)size;
	return 0;
}

static int stage_copy(struct sender *s, struct manifest *m)
{
	struct replica_name name = snapshot_name(s, m), copy = {.folder = REPLICA_CHUNKS};
	char text[REPLICA_NAME_SIZE];

	replica_name_format(text, &name);
	replica_chunk_name_of(s->remote.keys.names, text, strlen(text), &copy.chunk);
	/* Of what may be cut rclone compares the sizes. */
	return replica_sent_has(&s->sent, &copy.chunk) && !s->size_count
		   ? 0
		   : stage_manifest(s, m, &copy);
}

static int send_manifest(struct sender *s, struct manifest *m)
{
	struct replica_name name = snapshot_name(s, m);
	uint64_t size;
	int r = sender_still_may(s);

	s->state.intent = m->header.id;
	if (r == 0)
		r = replica_state_write(s->data->storefd, &s->state);
	if (r == 0)
		r = stage_manifest(s, m, &name);
	size = s->waiting_bytes;
	s->waiting = 0;
	s->waiting_bytes = 0;
	if (r == 0)
		r = link_send(&s->remote.link, &name, 1);
	/* A prune that began meanwhile may not have seen it. */
	if (r == 0)
		r = sender_still_may(s);
	s->state.bytes += r == 0 ? size : 0;
	return r;
}

/* What is not there yet, as plain bytes. */
static uint64_t pending_of(const struct sender *s, const struct manifest *m)
{
	struct replica_chunk_name name;
	uint64_t i, total = 0;
	uint32_t f;

	for (f = 0; f < m->file_count; f++) {
		const struct manifest_file *file = &m->files[f];

		for (i = 0; i < manifest_chunk_count(file->size); i++) {
			if (chunk_is_zero(&file->chunks[i]))
				continue;
			replica_chunk_name_of(s->remote.keys.names, &file->chunks[i],
					      sizeof(file->chunks[i]), &name);
			if (!replica_sent_has(&s->sent, &name))
				total += manifest_chunk_size(file, i);
		}
	}
	return total;
}

/* By the list that was read at the beginning. Of the one that was being sent the name may stand for
 * a part, where things are not named when they are whole. */
static bool is_there(const struct sender *s, const struct manifest *m)
{
	struct replica_name name = snapshot_name(s, m);
	size_t i;

	if (m->header.id == s->state.intent && s->remote.link.target.kind == REPLICA_RCLONE)
		return false;
	for (i = 0; i < s->remote.count; i++)
		if (replica_name_compare(&s->remote.snapshots[i], &name) == 0)
			return true;
	return false;
}

static int send_read(struct sender *s, struct manifest *m)
{
	uint32_t f;
	int r = 0;

	s->state.pending = pending_of(s, m);
	replica_state_write(s->data->storefd, &s->state);
	for (f = 0; f < m->file_count && r == 0; f++)
		r = send_file(s, m, &m->files[f]);
	if (r == 0)
		r = stage_copy(s, m);
	if (r == 0)
		r = flush_batch(s);
	if (r == 0 && !is_there(s, m))
		r = send_manifest(s, m);
	close_store(s);
	if (r < 0)
		return r;
	s->state.pending = 0;
	s->state.intent = 0;
	s->state.snapshots++;
	s->state.done = clock_read(CLOCK_REALTIME);
	if (m->header.id > s->state.snapshot) {
		s->state.snapshot = m->header.id;
		s->state.snapshot_time = m->header.time;
	}
	return replica_state_write(s->data->storefd, &s->state);
}

int sender_send(struct sender *s, uint64_t id)
{
	struct manifest m;
	int r = open_store(s);

	if (r < 0)
		return r;
	r = manifest_read(s->store.dirfd, id, &m);
	close_store(s);
	if (r == 0 && m.header.state != SNAPSHOT_COMPLETE && m.header.state != SNAPSHOT_VERIFIED)
		r = 1;
	if (r == 0)
		r = send_read(s, &m);
	else if (r == -ENOENT)
		r = 1;
	manifest_free(&m);
	return r;
}
