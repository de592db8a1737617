/* SPDX-License-Identifier: MIT
 *
 * Damages of files of an index, and what becomes of each.
 */
#include "damages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

#include "core/base/names.h"
#include "core/chroma/chroma.h"
#include "core/segment/hnsw.h"
#include "core/segment/pickle.h"

#define IN_SEGMENT(name) CHROMA_VECTOR "/" name
#define STRIDE (4 + 4 * 32 + 4 * CHROMA_DIMENSION + 8)

static void none(struct chroma_fixture *f)
{
	(void)f;
}

static void cut_to_half(struct chroma_fixture *f, const char *path)
{
	chroma_cut(f, path, chroma_size(f, path) / 2);
}

static void pickle_cut(struct chroma_fixture *f)
{
	cut_to_half(f, IN_SEGMENT(PICKLE_FILE));
}

static void pickle_empty(struct chroma_fixture *f)
{
	chroma_cut(f, IN_SEGMENT(PICKLE_FILE), 0);
}

static void pickle_gone(struct chroma_fixture *f)
{
	chroma_unlink(f, IN_SEGMENT(PICKLE_FILE));
}

static void pickle_garbage(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(PICKLE_FILE), 40, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
}

/* The last id of the first map gets another label than the inverse has. */
static void pickle_maps(struct chroma_fixture *f)
{
	size_t size, i;
	char *data = scratch_get(f->datafd, IN_SEGMENT(PICKLE_FILE), &size);

	assert_non_null(data);
	for (i = 0; i + 8 < size && memcmp(data + i, "r51J\x33", 5) != 0; i++)
		;
	chroma_write(f, IN_SEGMENT(PICKLE_FILE), (off_t)i + 4, "\x31", 1);
	free(data);
}

static void header_zeroed(struct chroma_fixture *f)
{
	static const char zeros[HNSW_HEADER_SIZE];

	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 0, zeros, sizeof(zeros));
}

static void header_cut(struct chroma_fixture *f)
{
	chroma_cut(f, IN_SEGMENT(HNSW_HEADER_FILE), 50);
}

static void header_gone(struct chroma_fixture *f)
{
	chroma_unlink(f, IN_SEGMENT(HNSW_HEADER_FILE));
}

static void header_and_pickle_gone(struct chroma_fixture *f)
{
	header_gone(f);
	pickle_gone(f);
}

/* Its room is for 2^40 elements, or its parameters are none. */
static void header_room(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 12 + 5, "\x01", 1);
}

static void header_ef(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 92, "\0", 1);
}

/* It counts ten of fifty, as that of an earlier persist would. */
static void header_count(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 20, "\x0a", 1);
}

/* No element is on a fourth level. */
static void header_level(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 52, "\x04", 1);
}

/* Another than the one on the highest level is the entry point. */
static void header_entry(struct chroma_fixture *f)
{
	uint32_t upper[1 + 17 + CHROMA_PERSISTED - 1] = {68, 0};

	chroma_write(f, IN_SEGMENT(HNSW_LINKS_FILE), 0, upper, sizeof(upper));
	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 52, "\x01", 1);
	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 56, "\x07", 1);
}

static void level0_neighbour(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 10 * STRIDE + 4, "\xff\xff\xff\xff", 4);
}

static void level0_neighbours(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 10 * STRIDE, "\xff\xff", 2);
}

/* The next record would get the label of one that is there. */
static void pickle_total(struct chroma_fixture *f)
{
	size_t size, i;
	char *data = scratch_get(f->datafd, IN_SEGMENT(PICKLE_FILE), &size);

	assert_non_null(data);
	for (i = 0; i + 8 < size && memcmp(data + i, "addedJ", 6) != 0; i++)
		;
	chroma_write(f, IN_SEGMENT(PICKLE_FILE), (off_t)i + 6, "\x08", 1);
	free(data);
}

/* That of an earlier persist was put back. */
static void pickle_older(struct chroma_fixture *f)
{
	struct bytes b = {0};

	chroma_make_pickle(&b, 30);
	chroma_cut(f, IN_SEGMENT(PICKLE_FILE), 0);
	chroma_write(f, IN_SEGMENT(PICKLE_FILE), 0, b.data, b.size);
	bytes_free(&b);
}

static void level0_cut(struct chroma_fixture *f)
{
	chroma_cut(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 20 * STRIDE);
}

static void level0_zeros(struct chroma_fixture *f)
{
	static const char path[] = IN_SEGMENT(HNSW_LEVEL0_FILE);
	off_t size = chroma_size(f, path);

	chroma_cut(f, path, size / 5);
	chroma_cut(f, path, size);
}

static void level0_gone(struct chroma_fixture *f)
{
	chroma_unlink(f, IN_SEGMENT(HNSW_LEVEL0_FILE));
}

static void level0_label_twice(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 10 * STRIDE + STRIDE - 8, "\x01", 1);
}

static void level0_garbage(struct chroma_fixture *f)
{
	char garbage[3 * STRIDE];

	memset(garbage, 0x5a, sizeof(garbage));
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 10 * STRIDE, garbage, sizeof(garbage));
}

/* Twenty elements are taken out of the ring, in both directions. */
static void level0_unreachable(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 9 * STRIDE + 4, "\x1e", 1);
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 30 * STRIDE + 8, "\x09", 1);
}

static void level0_infinite(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LEVEL0_FILE), 10 * STRIDE + 4 + 128 + 4, "\0\0\x80\x7f", 4);
}

static void length_cut(struct chroma_fixture *f)
{
	cut_to_half(f, IN_SEGMENT(HNSW_LENGTH_FILE));
}

static void links_cut(struct chroma_fixture *f)
{
	cut_to_half(f, IN_SEGMENT(HNSW_LINKS_FILE));
}

static void links_garbage(struct chroma_fixture *f)
{
	chroma_write(f, IN_SEGMENT(HNSW_LINKS_FILE), 8, "\xef\xbe\xad\xde", 4);
}

/* The entry point gets a second level, on which it has a neighbour that is none. */
static void links_neighbour(struct chroma_fixture *f)
{
	uint32_t upper[1 + 17 + CHROMA_PERSISTED - 1] = {68, 1, 40000};

	chroma_write(f, IN_SEGMENT(HNSW_LINKS_FILE), 0, upper, sizeof(upper));
	chroma_write(f, IN_SEGMENT(HNSW_HEADER_FILE), 52, "\x01", 1);
}

static void links_runaway(struct chroma_fixture *f)
{
	chroma_cut(f, IN_SEGMENT(HNSW_LINKS_FILE), 1 << 30);
}

void damage_segment_gone(struct chroma_fixture *f)
{
	chroma_unlink(f, CHROMA_VECTOR);
}

static void segment_renamed(struct chroma_fixture *f)
{
	assert_int_equal(renameat(f->datafd, CHROMA_VECTOR, f->datafd, CHROMA_VECTOR ".bak"), 0);
}

static void segment_nameless(struct chroma_fixture *f)
{
	assert_int_equal(renameat(f->datafd, CHROMA_VECTOR, f->datafd, "old_index"), 0);
}

static void segment_below(struct chroma_fixture *f)
{
	int fd = tree_make_directory(f->datafd, "backup");

	assert_int_equal(renameat(f->datafd, CHROMA_VECTOR, fd, CHROMA_VECTOR), 0);
	close(fd);
}

/* What a deleted collection with the same ids may have left is not taken. */
static void segment_of_another(struct chroma_fixture *f)
{
	assert_int_equal(
	    renameat(f->datafd, CHROMA_VECTOR, f->datafd, "0a1b2c3d-0000-4000-8000-0000000000ff"),
	    0);
}

static void files_renamed(struct chroma_fixture *f)
{
	static const char *const names[][2] = {
	    {"header.bin", "HEADER.BIN"},
	    {"data_level0.bin", "data_level0 (1).bin"},
	    {"index_metadata.pickle", "index_metadata.pickle.part"}};
	int fd = file_open_directory_at(f->datafd, CHROMA_VECTOR);
	unsigned i;

	for (i = 0; i < 3; i++)
		assert_int_equal(renameat(fd, names[i][0], fd, names[i][1]), 0);
	close(fd);
}

static const struct damage list[] = {
    {none, "", 60, 0, 0, 60, 60},
    {pickle_cut, "pickle-truncated", 60, 0, 0, 60, 60},
    {pickle_empty, "pickle-truncated", 60, 50, 0, 10, 60},
    {pickle_gone, "pickle-missing", 60, 50, 0, 10, 60},
    {pickle_garbage, "pickle-damaged", 60, 0, 0, 60, 60},
    {pickle_maps, "pickle-not-inverse persist-torn labels-lost", 60, 0, 0, 60, 60},
    {header_zeroed, "header-damaged segment-file-unfinished", 60, 0, 0, 60, 60},
    {header_cut, "header-damaged", 60, 0, 0, 60, 60},
    {header_gone, "segment-file-missing", 60, 0, 0, 60, 60},
    {header_and_pickle_gone, "segment-file-missing pickle-missing", 60, 50, 0, 10, 60},
    {header_room, "header-damaged", 60, 0, 0, 60, 60},
    {header_ef, "header-damaged", 60, 0, 0, 60, 60},
    {header_count, "graph-damaged labels-lost", 60, 0, 0, 60, 60},
    {header_level, "header-damaged", 60, 0, 0, 60, 60},
    {header_entry, "header-damaged", 60, 0, 0, 60, 60},
    {pickle_total, "pickle-damaged", 60, 0, 0, 60, 60},
    {pickle_older, "persist-torn records-without-vector", 60, 0, 0, 60, 60},
    {level0_neighbour, "graph-damaged", 60, 0, 0, 60, 60},
    {level0_neighbours, "graph-damaged", 60, 0, 0, 60, 60},
    {level0_cut, "level0-short labels-lost", 60, 31, 0, 29, 60},
    {level0_zeros, "graph-unreachable labels-damaged segment-file-unfinished labels-lost", 60, 41,
     0, 19, 60},
    {level0_gone, "segment-file-missing", 60, 50, 0, 10, 60},
    {level0_label_twice, "labels-damaged labels-lost", 60, 1, 0, 59, 60},
    {level0_garbage, "labels-damaged labels-lost", 60, 3, 0, 57, 60},
    {level0_unreachable, "graph-unreachable", 60, 0, 0, 60, 60},
    {level0_infinite, "vector-not-finite", 60, 0, 0, 60, 60},
    {length_cut, "length-short", 60, 0, 0, 60, 60},
    {links_cut, "links-short", 60, 0, 0, 60, 60},
    {links_garbage, "links-damaged", 60, 0, 0, 60, 60},
    {links_neighbour, "graph-damaged", 60, 0, 0, 60, 60},
    {links_runaway, "links-runaway", 60, 0, 0, 60, 60},
    {damage_segment_gone, "segment-missing segments-left-behind", 60, 50, 0, 10, 60},
    {segment_renamed, "segment-renamed", 60, 0, 0, 60, 60},
    {segment_nameless, "segment-renamed", 60, 0, 0, 60, 60},
    {segment_below, "segment-renamed", 60, 0, 0, 60, 60},
    {segment_of_another, "segment-missing segments-left-behind leftover-directory", 60, 50, 0, 10,
     60},
    {files_renamed, "segment-file-renamed", 60, 0, 0, 60, 60},
};

const struct damages damages_of_segment = {list, sizeof(list) / sizeof(list[0])};
