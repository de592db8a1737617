/* SPDX-License-Identifier: MIT
 *
 * A Chroma directory without Chroma: one collection with a persisted index, made by hand.
 *
 * Record rN (N from 1) has the vector (N, 1, 2, 3), the document "text of rN" and metadata. The
 * first CHROMA_PERSISTED are in the index; the others wait in the queue. Element r5 of the index is
 * deleted, and so are its rows.
 */
#ifndef UNIT_CHROMA_FIXTURE_H
#define UNIT_CHROMA_FIXTURE_H

#include <sqlite3.h>
#include <stdint.h>

#include "bytes.h"
#include "core/chroma/migrations.h"
#include "scratch.h"

#define CHROMA_COLLECTION "0a1b2c3d-0000-4000-8000-0000000000c0"
#define CHROMA_METADATA "0a1b2c3d-0000-4000-8000-0000000000a0"
#define CHROMA_VECTOR "0a1b2c3d-0000-4000-8000-0000000000b0"
#define CHROMA_TOPIC "persistent://default/default/" CHROMA_COLLECTION
#define CHROMA_RECORDS 60 /* rows of embeddings; the deleted one is not among them */
#define CHROMA_PERSISTED 51
#define CHROMA_DELETED 5
#define CHROMA_DIMENSION 4

struct chroma_fixture {
	struct scratch dir; /* with data and store in it */
	char data[96];
	int datafd, storefd;
};

/* As the newest release writes it. */
void chroma_make(struct chroma_fixture *f);
void chroma_remove(struct chroma_fixture *f);
/* The data directory once more, whole; the store is left. */
void chroma_make_again(struct chroma_fixture *f);

/* For a test of its own directory; *state is the fixture. */
int chroma_set_up(void **state);
int chroma_tear_down(void **state);
#define CHROMA_TEST(name) \
	cmocka_unit_test_setup_teardown(test_##name, chroma_set_up, chroma_tear_down)

void chroma_run_sql(struct chroma_fixture *f, const char *sql);
/* The first column of the first row; -1: none, or it cannot be read. */
int64_t chroma_ask(struct chroma_fixture *f, const char *sql);

/* What Chroma 1.0 and later has in it after so many elements. */
void chroma_make_pickle(struct bytes *b, unsigned persisted);

/* A file of the directory, by its path in it. */
void chroma_write(struct chroma_fixture *f, const char *path, off_t at, const void *data, size_t n);
void chroma_cut(struct chroma_fixture *f, const char *path, off_t size);
off_t chroma_size(struct chroma_fixture *f, const char *path);
void chroma_unlink(struct chroma_fixture *f, const char *path);

#endif
