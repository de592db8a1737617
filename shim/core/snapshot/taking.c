/* SPDX-License-Identifier: MIT
 *
 * What copies of the database and of the segments share.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/base/fileio.h"
#include "core/snapshot/content.h"
#include "core/snapshot/internal.h"

int taking_fail(struct taking *k, int r, const char *file, const char *detail)
{
	snprintf(k->trouble->file, sizeof(k->trouble->file), "%s", file);
	snprintf(k->trouble->detail, sizeof(k->trouble->detail), "%s", detail);
	return r;
}

const struct content_known *taking_know(struct taking *k, const char *path,
					struct content_known *out)
{
	const struct checksum128 *sums;
	const struct manifest_file *f = known_sums(&k->known, path, &sums);

	if (!f)
		return NULL;
	*out = (struct content_known){
	    .chunks = f->chunks, .sums = sums, .count = manifest_chunk_count(f->size)};
	return out;
}

int taking_chunk(struct taking *k, int fd, uint64_t size, const struct content_known *known,
		 struct chunk_name **chunks_out, struct checksum128 **sums_out)
{
	struct file_source source;
	struct content_meter meter = {.done = k->done,
				      .total = k->total,
				      .progress = k->options->progress,
				      .context = k->options->context};
	struct chunk_name *chunks = NULL;
	struct checksum128 *sums = NULL;
	int r = size > SNAPSHOT_SIZE_MAX ? -EFBIG : file_source_open(&source, fd);

	if (r < 0)
		return r;
	source.size = size;
	r = content_chunk(&k->store->chunks, &source, 0, known, &chunks, &sums, &meter);
	k->done = meter.done;
	if (r < 0) {
		free(chunks);
		free(sums);
		return r;
	}
	free(*chunks_out);
	free(*sums_out);
	*chunks_out = chunks;
	*sums_out = sums;
	return 0;
}
