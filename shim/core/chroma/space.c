/* SPDX-License-Identifier: MIT
 *
 * The distance function of a collection, told by the files of its index.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "core/chroma/chroma.h"
#include "core/segment/hnsw.h"

/*
 * In cosine space, and only there, Chroma stores vectors at unit length, and their own length in
 * length.bin; in the others that file is memory garbage (zeros, denormals). l2 and ip leave the
 * same files behind.
 */
int chroma_space_of_files(int dirfd, const struct hnsw_header *header)
{
	int level0fd = file_open_at(dirfd, HNSW_LEVEL0_FILE);
	int lengthfd = file_open_at(dirfd, HNSW_LENGTH_FILE);
	uint64_t i, k, dimension = hnsw_dimension(header);
	struct file_source level0, lengths;
	struct file_window window = {0};
	int space = CHROMA_SPACE_OPEN;
	struct hnsw_level0 l = {0};
	struct hnsw_element e;
	bool is_plausible = true;

	if (level0fd < 0 || lengthfd < 0 || file_source_open_data(&level0, level0fd) < 0 ||
	    file_source_open_data(&lengths, lengthfd) < 0 ||
	    file_window_open(&window, &lengths, 64u << 10) < 0)
		goto out;
	if (hnsw_level0_open(&l, header, &level0) < 0)
		goto out_window;
	for (i = 0; i < header->count && hnsw_level0_get(&l, i, &e) == 0; i++) {
		double sum = 0;
		float f;

		for (k = 0; k < dimension; k++) {
			memcpy(&f, e.vector + k * sizeof(f), sizeof(f));
			sum += (double)f * (double)f;
		}
		if (e.deleted || sum == 0)
			continue;
		if (!(fabs(sum - 1) < 1e-3)) {
			space = CHROMA_SPACE_L2_OR_IP;
			break;
		}
		if (hnsw_length_get(&window, i, &f) < 0 || !(f > 1e-4f && f < 1e4f))
			is_plausible = false;
	}
	if (space == CHROMA_SPACE_OPEN && is_plausible && i > 0)
		space = CHROMA_COSINE;
	hnsw_level0_close(&l);
out_window:
	file_window_close(&window);
out:
	if (level0fd >= 0)
		close(level0fd);
	if (lengthfd >= 0)
		close(lengthfd);
	return space;
}
