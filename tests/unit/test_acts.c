/* SPDX-License-Identifier: MIT
 *
 * Acts: what their texts say, two logs read as one, and names of collections.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "core/chroma/collection_names.h"
#include "core/oplog/acts.h"
#include "oplog_fixture.h"

#define COLLECTION "0a1b2c3d-1111-2222-3333-444455556666"
#define SEGMENT "ffeeddcc-1111-2222-3333-444455556666"

static const uint8_t store_id[16] = {9, 8, 7, 6, 5, 4, 3, 2, 1};

static void put(struct fixture *f, uint16_t op, int64_t result, const void *text, size_t size)
{
	struct oplog_name name = {
	    .number = 5, .kind = OPLOG_NAME_COLLECTION, .text = COLLECTION, .length = 36};
	struct oplog_record r = {
	    .op = op, .file = op >= OP_RECORDS ? 5 : 0, .offset = -1, .result = result};

	oplog_put(f->w, &r, text, size, &name, op >= OP_RECORDS ? 1 : 0);
}

/* What the writer made is the log of acts from now on, and oplog/ is empty. */
static void becomes_acts(struct fixture *f)
{
	assert_int_equal(renameat(f->storefd, OPLOG_DIR, f->storefd, OPLOG_ACTS_DIR), 0);
	assert_int_equal(mkdirat(f->storefd, OPLOG_DIR, 0700), 0);
	free(f->w);
	f->w = NULL;
	assert_int_equal(open_writer(f, 8 << 20), 0);
}

/* The operations that are given, in letters. */
static const char *given(struct fixture *f, enum oplog_which which)
{
	static char out[64];
	struct oplog_reader *reader;
	struct oplog_entry e;
	size_t n = 0;

	assert_int_equal(oplog_reader_open_which(f->storefd, which, &reader), 0);
	while (oplog_reader_next(reader, &e) > 0 && n < sizeof(out) - 1)
		out[n++] = e.op == OP_START	   ? 'S'
			   : e.op == OP_RECORDS	   ? 'r'
			   : e.op == OP_TXN_COMMIT ? 't'
			   : e.op == OP_PWRITE	   ? 'w'
						   : '?';
	out[n] = '\0';
	oplog_reader_close(reader);
	return out;
}

static void put_all(struct fixture *f, bool start)
{
	if (start)
		put(f, OP_START, 0, "python3 x.py", 12);
	put_write(f, 0, 1);
	put(f, OP_TXN_COMMIT, 0, "", 0);
}

static void test_old_store(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(open_writer(f, 8 << 20), 0);
	put_all(f, true);
	assert_string_equal(given(f, OPLOG_ACTS), "St");
	assert_string_equal(given(f, OPLOG_BOTH), "Swt");
	assert_string_equal(given(f, OPLOG_CALLS), "Swt");
}

static void test_both_from_the_start(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(open_writer(f, 8 << 20), 0);
	put(f, OP_START, 0, "python3 x.py", 12);
	put(f, OP_TXN_COMMIT, 0, "", 0);
	put(f, OP_RECORDS, 1, "", 0);
	becomes_acts(f);
	put_all(f, true);
	assert_string_equal(given(f, OPLOG_ACTS), "Str");
	assert_string_equal(given(f, OPLOG_BOTH), "rSwt");
	assert_string_equal(given(f, OPLOG_CALLS), "Swt");
}

/* Of the log of acts the beginning is gone: it is taken from oplog/, as far as that goes. */
static void test_acts_from_later_on(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(open_writer(f, 8 << 20), 0);
	put_all(f, true);
	assert_int_equal(renameat(f->storefd, OPLOG_DIR, f->storefd, "first"), 0);
	assert_int_equal(mkdirat(f->storefd, OPLOG_DIR, 0700), 0);
	free(f->w);
	f->w = NULL;
	usleep(1100000);
	assert_int_equal(open_writer(f, 8 << 20), 0);
	put(f, OP_RECORDS, 1, "", 0);
	assert_int_equal(renameat(f->storefd, OPLOG_DIR, f->storefd, OPLOG_ACTS_DIR), 0);
	assert_int_equal(renameat(f->storefd, "first", f->storefd, OPLOG_DIR), 0);
	assert_string_equal(given(f, OPLOG_ACTS), "Str");
	assert_string_equal(given(f, OPLOG_BOTH), "Swtr");
}

static void test_no_log(void **state)
{
	struct fixture *f = *state;
	struct oplog_reader *reader;

	assert_int_equal(unlinkat(f->storefd, OPLOG_DIR, AT_REMOVEDIR), 0);
	assert_int_equal(oplog_reader_open_which(f->storefd, OPLOG_ACTS, &reader), -ENOENT);
	assert_int_equal(mkdirat(f->storefd, OPLOG_ACTS_DIR, 0700), 0);
	assert_int_equal(oplog_reader_open_which(f->storefd, OPLOG_ACTS, &reader), 0);
	oplog_reader_close(reader);
	assert_int_equal(oplog_reader_open_which(f->storefd, OPLOG_CALLS, &reader), -ENOENT);
}

/* Texts of OP_RECORDS with one plain or hashed id. */
static size_t make_records(unsigned char *out, uint8_t form, uint16_t ids, const void *id,
			   size_t size)
{
	struct oplog_records head = {.upserted = 3, .deleted = 1, .ids = ids, .form = form};

	memcpy(out, &head, sizeof(head));
	out[sizeof(head)] = 2;
	out[sizeof(head) + 1] = (unsigned char)size;
	memcpy(out + sizeof(head) + 2, id, size);
	return sizeof(head) + 2 + size;
}

static void test_ids(void **state)
{
	unsigned char text[128];
	struct oplog_entry e = {.op = OP_RECORDS, .text = (const char *)text};
	uint64_t hash = oplog_act_hash(store_id, "doc-7", 5);
	struct oplog_act_records r;
	struct oplog_act_id id;

	(void)state;
	e.text_size = make_records(text, OPLOG_IDS_PLAIN, 1, "doc-7", 5);
	assert_int_equal(oplog_act_records(&e, &r), 0);
	assert_int_equal(r.head.upserted, 3);
	assert_true(oplog_act_next_id(&r, &id));
	assert_int_equal(id.operation, 2);
	assert_memory_equal(id.bytes, "doc-7", 5);
	assert_false(oplog_act_next_id(&r, &id));
	assert_true(oplog_act_has_id(&e, store_id, "doc-7"));
	assert_false(oplog_act_has_id(&e, store_id, "doc-70"));
	e.text_size = make_records(text, OPLOG_IDS_HASH, 1, &hash, 8);
	assert_true(oplog_act_has_id(&e, store_id, "doc-7"));
	assert_false(oplog_act_has_id(&e, store_id, "doc-8"));
	e.text_size = make_records(text, OPLOG_IDS_HASH, 9, &hash, 8); /* says more than there is */
	assert_int_equal(oplog_act_records(&e, &r), 0);
	assert_true(oplog_act_next_id(&r, &id));
	assert_false(oplog_act_next_id(&r, &id));
	e.text_size = make_records(text, OPLOG_IDS_HASH, 1, "short", 5); /* no hash */
	assert_int_equal(oplog_act_records(&e, &r), 0);
	assert_false(oplog_act_next_id(&r, &id));
	e.text_size = 7;
	assert_int_equal(oplog_act_records(&e, &r), -EBADMSG);
}

static void test_names_after_a_deletion(void **state)
{
	struct fixture *f = *state;
	struct collection_names *n;

	assert_int_equal(open_writer(f, 8 << 20), 0);
	put(f, OP_COLLECTION, OPLOG_COLLECTION_CREATED, "talks", 5);
	put(f, OP_SEGMENT, 0, SEGMENT "\0VECTOR", 43);
	put(f, OP_COLLECTION, OPLOG_COLLECTION_RENAMED, "conversations\0talks", 19);
	put(f, OP_COLLECTION, OPLOG_COLLECTION_DELETED, "conversations", 13);
	n = collection_names_open(f->storefd, NULL, -1);
	assert_string_equal(collection_names_find(n, "persistent://default/default/" COLLECTION),
			    "conversations");
	assert_string_equal(collection_names_find(n, SEGMENT "/data_level0.bin"), "conversations");
	assert_null(collection_names_find(n, "12345678-1111-2222-3333-444455556666"));
	assert_null(collection_names_find(n, "chroma.sqlite3"));
	assert_true(collection_names_fits(n, SEGMENT, "talks"));
	assert_true(collection_names_fits(n, SEGMENT, COLLECTION));
	assert_false(collection_names_fits(n, SEGMENT, "others"));
	assert_true(collection_names_has(n, "talks") && !collection_names_has(n, "others"));
	collection_names_close(n);
}

static void test_names_of_the_database(void **state)
{
	struct fixture *f = *state;
	struct collection_names *n;
	char path[128];
	sqlite3 *db;

	snprintf(path, sizeof(path), "%s/chroma.sqlite3", f->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(
	    sqlite3_exec(
		db,
		"CREATE TABLE collections(id, name); CREATE TABLE segments(id, collection);"
		"INSERT INTO collections VALUES('" COLLECTION "', 'now');"
		"INSERT INTO segments VALUES('" SEGMENT "', '" COLLECTION "')",
		NULL, NULL, NULL),
	    SQLITE_OK);
	sqlite3_close(db);
	assert_int_equal(open_writer(f, 8 << 20), 0);
	put(f, OP_COLLECTION, OPLOG_COLLECTION_CREATED, "then", 4);
	n = collection_names_open(f->storefd, f->dir, f->storefd);
	assert_string_equal(collection_names_find(n, SEGMENT), "now");
	assert_true(collection_names_has(n, "then"));
	assert_string_equal(collection_names_find(n, SEGMENT), "now");
	collection_names_close(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_old_store),
	    TEST(test_both_from_the_start),
	    TEST(test_acts_from_later_on),
	    TEST(test_no_log),
	    cmocka_unit_test(test_ids),
	    TEST(test_names_after_a_deletion),
	    TEST(test_names_of_the_database),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
