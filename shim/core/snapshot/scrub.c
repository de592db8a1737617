/* SPDX-License-Identifier: MIT
 *
 * Reading every chunk.
 */
#include "core/snapshot/scrub.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct need {
	struct chunk_name name;
	uint32_t size, owner; /* of plain content; index in the list */
};

static uint64_t count_chunks(const struct manifest *m)
{
	uint64_t n = 0;
	uint32_t i;

	for (i = 0; i < m->file_count; i++)
		n += manifest_chunk_count(m->files[i].size);
	return n;
}

static int compare_needs(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct chunk_name));
}

static size_t add_needs(struct need *all, size_t at, const struct manifest *m, size_t owner)
{
	uint64_t k;
	uint32_t i;

	for (i = 0; i < m->file_count; i++)
		for (k = 0; k < manifest_chunk_count(m->files[i].size); k++) {
			if (chunk_is_zero(&m->files[i].chunks[k]))
				continue;
			all[at].name = m->files[i].chunks[k];
			all[at].size = manifest_chunk_size(&m->files[i], k);
			all[at++].owner = (uint32_t)owner;
		}
	return at;
}

/* What is only pinned has no chunks yet; what is broken is told of already. */
static bool is_whole(const struct manifest *m)
{
	return m->header.state == SNAPSHOT_COMPLETE || m->header.state == SNAPSHOT_VERIFIED;
}

static int find_needs(const struct manifest *list, size_t count, struct need **out, size_t *n_out)
{
	uint64_t n = 0;
	size_t i;

	for (i = 0; i < count; i++)
		n += is_whole(&list[i]) ? count_chunks(&list[i]) : 0;
	*n_out = 0;
	*out = calloc(n + 1, sizeof(**out));
	if (!*out)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		if (is_whole(&list[i]))
			*n_out = add_needs(*out, *n_out, &list[i], i);
	qsort(*out, *n_out, sizeof(**out), compare_needs);
	return 0;
}

static bool is_trouble(int r)
{
	return r == -ENOENT || r == -ENODATA || r == -EBADMSG || r == -EPROTONOSUPPORT;
}

static void note_damage(struct scrub_result *out, const struct need *need, int r)
{
	if (out->damaged++)
		return;
	snprintf(out->first, sizeof(out->first), "chunk %02x%02x%02x%02x… %s", need->name.bytes[0],
		 need->name.bytes[1], need->name.bytes[2], need->name.bytes[3],
		 r == -ENOENT	 ? "is not there"
		 : r == -ENODATA ? "is cut short"
		 : r == -EBADMSG ? "is damaged"
				 : "is of a newer version");
}

int snapshot_scrub(struct snapshot_store *s, const struct manifest *list, size_t count, bool *hurt,
		   snapshot_progress_fn *progress, void *context, struct scrub_result *out)
{
	unsigned char *data = malloc(SNAPSHOT_CHUNK_SIZE);
	struct need *all = NULL;
	size_t n = 0, i, next;
	int r = data ? find_needs(list, count, &all, &n) : -ENOMEM;

	assert(s->access >= SNAPSHOT_KEEP);
	memset(out, 0, sizeof(*out));
	for (i = 0; i < n && r == 0; i = next) {
		r = chunks_get(&s->chunks, &all[i].name, data, all[i].size);
		out->chunks++;
		out->bytes += all[i].size;
		if (is_trouble(r))
			note_damage(out, &all[i], r);
		for (next = i; next < n && !compare_needs(&all[i], &all[next]); next++)
			hurt[all[next].owner] |= is_trouble(r);
		if (is_trouble(r))
			r = 0;
		if (progress)
			progress(context, next, n);
	}
	free(all);
	free(data);
	return r;
}
