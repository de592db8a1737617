/* SPDX-License-Identifier: MIT
 *
 * The distance function of a collection, told by the files of its index.
 */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "core/chroma/chroma.h"
#include "core/chroma/migrations.h"
#include "core/segment/hnsw.h"
#include "core/sqlite/database.h"

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

/* Before 1.0 the settings in its own row are of another form, and not used. */
int chroma_make_cosine(sqlite3 *db, const char *collection)
{
	static const char in_row[] =
	    "UPDATE collections SET config_json_str = '{\"vector_index\":{\"hnsw\":{\"space\":"
	    "\"cosine\"}}}' WHERE id = %Q AND config_json_str IS NULL";
	static const char in_metadata[] =
	    "INSERT INTO collection_metadata(collection_id, key, str_value) SELECT c.id, "
	    "'hnsw:space', 'cosine' FROM collections c WHERE c.id = %Q AND NOT EXISTS (SELECT 1 "
	    "FROM collection_metadata WHERE collection_id = c.id AND key = 'hnsw:space') AND NOT "
	    "EXISTS (SELECT 1 FROM segment_metadata WHERE key = 'hnsw:space' AND segment_id IN "
	    "(SELECT id FROM segments WHERE collection = c.id))";
	struct migration_state migrations;
	bool is_rust = migrations_read(db, &migrations) == 0 &&
		       migrations.counts[MIGRATION_METADB] >= MIGRATION_METADB_OF_RUST;
	char *sql = sqlite3_mprintf(is_rust ? in_row : in_metadata, collection);
	int r = sql ? database_error(sqlite3_exec(db, sql, NULL, NULL, NULL)) : -ENOMEM;

	sqlite3_free(sql);
	return r;
}
