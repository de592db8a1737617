/* SPDX-License-Identifier: MIT
 *
 * Export: what a record holds, which records are asked for, a segment alone, a snapshot.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

#include "chroma_fixture.h"
#include "core/base/json.h"
#include "core/base/names.h"
#include "core/export/export.h"
#include "core/segment/pickle.h"
#include "core/snapshot/snapshot.h"

struct seen {
	uint64_t records, vectors, rowless, collections;
	const char *wanted; /* the record whose metadata is kept */
	char json[512];
	int answer;
};

static void keep_json(struct seen *s, const struct export_record *record)
{
	struct json j = {.out = fmemopen(s->json, sizeof(s->json), "w")};

	assert_non_null(j.out);
	export_values_put(&j, record->values, record->value_count);
	assert_int_equal(fclose(j.out), 0);
}

static int note_record(void *context, const struct export_record *record)
{
	struct seen *s = context;

	s->records++;
	s->vectors += record->vector != NULL;
	s->rowless += record->only_index;
	if (s->wanted && record->id_size == strlen(s->wanted) &&
	    !memcmp(record->id, s->wanted, record->id_size))
		keep_json(s, record);
	return s->answer;
}

static int note_collection(void *context, const struct export_collection *c)
{
	struct seen *s = context;

	s->collections++;
	assert_string_equal(c->collection->name, "docs");
	assert_int_equal(c->metadata_count, 1);
	assert_string_equal(c->metadata[0].key, "purpose");
	assert_string_equal(c->metadata[0].text, "a test");
	return 0;
}

static void note_trouble(void *context, const char *collection, const char *what, int error)
{
	(void)context;
	(void)collection;
	(void)what;
	(void)error;
}

static struct export_options options_of(struct seen *s)
{
	return (struct export_options){.vectors = true,
				       .begin = note_collection,
				       .record = note_record,
				       .trouble = note_trouble,
				       .context = s};
}

static int read_all(struct chroma_fixture *f, const struct export_options *options,
		    struct export_summary *summary)
{
	struct seen *s = options->context;

	*summary = (struct export_summary){0};
	s->records = s->vectors = s->rowless = s->collections = 0;
	return export_directory(f->data, f->datafd, options, summary);
}

static void test_what_a_record_holds(void **state)
{
	struct chroma_fixture *f = *state;
	struct seen s = {.wanted = "r7"};
	struct export_options options = options_of(&s);
	struct export_summary summary;

	assert_int_equal(read_all(f, &options, &summary), 0);
	assert_int_equal(s.collections, 1);
	assert_int_equal(s.records, CHROMA_RECORDS);
	assert_int_equal(s.vectors, CHROMA_RECORDS);
	assert_non_null(strstr(s.json, "\"n\":7"));
	assert_non_null(strstr(s.json, "\"half\":3.5"));
	assert_non_null(strstr(s.json, "\"odd\":true"));
	assert_null(strstr(s.json, "chroma:document"));
	options.vectors = false;
	assert_int_equal(read_all(f, &options, &summary), 0);
	assert_int_equal(s.vectors, 0);
	assert_int_equal(summary.without_vector, 0);
}

/* What the queue holds beyond the mark is laid over the rows: an update, a delete, a new record. */
static void test_what_the_queue_adds(void **state)
{
	struct chroma_fixture *f = *state;
	struct seen s = {.wanted = "r7"};
	struct export_options options = options_of(&s);
	struct export_summary summary;

	chroma_run_sql(f, "INSERT INTO embeddings_queue(seq_id, operation, topic, id, vector, "
			  "encoding, metadata) "
			  "VALUES(62, 1, '" CHROMA_TOPIC "', 'r7', NULL, NULL, "
			  "'{\"n\":700,\"half\":null,\"list\":[1,2,3],\"word\":\"a \\u00e9\"}'),"
			  "(63, 3, '" CHROMA_TOPIC "', 'r8', NULL, NULL, NULL),"
			  "(64, 2, '" CHROMA_TOPIC
			  "', 'new', x'0000803f000000400000404000008040', 'FLOAT32', "
			  "'{\"n\":1}')");
	assert_int_equal(read_all(f, &options, &summary), 0);
	assert_int_equal(s.records, CHROMA_RECORDS);
	assert_int_equal(s.vectors, CHROMA_RECORDS);
	assert_non_null(strstr(s.json, "\"n\":700"));
	assert_non_null(strstr(s.json, "\"word\":\"a \xc3\xa9\""));
	assert_null(strstr(s.json, "\"half\":3.5"));
}

static void test_one_collection(void **state)
{
	struct chroma_fixture *f = *state;
	struct seen s = {0};
	struct export_options options = options_of(&s);
	struct export_summary summary;

	options.collection = "docs";
	assert_int_equal(read_all(f, &options, &summary), 0);
	assert_int_equal(s.records, CHROMA_RECORDS);
	options.collection = CHROMA_COLLECTION;
	assert_int_equal(read_all(f, &options, &summary), 0);
	assert_int_equal(s.records, CHROMA_RECORDS);
	options.collection = "others";
	read_all(f, &options, &summary);
	assert_int_equal(s.records, 0);
}

static void test_the_callers_answer_ends_it(void **state)
{
	struct chroma_fixture *f = *state;
	struct seen s = {.answer = -EPIPE};
	struct export_options options = options_of(&s);
	struct export_summary summary;

	assert_int_equal(read_all(f, &options, &summary), -EPIPE);
	assert_int_equal(s.records, 1);
}

static void test_what_has_no_row(void **state)
{
	struct chroma_fixture *f = *state;
	struct seen s = {0};
	struct export_options options = options_of(&s);
	struct export_summary summary;

	chroma_run_sql(f, "DELETE FROM embeddings WHERE id IN (10, 11)");
	assert_int_equal(read_all(f, &options, &summary), 0);
	assert_int_equal(s.records, CHROMA_RECORDS - 2);
	options.only_index = true;
	assert_int_equal(read_all(f, &options, &summary), 0);
	assert_int_equal(s.records, CHROMA_RECORDS);
	assert_int_equal(s.rowless, 2);
}

static void test_a_segment_alone(void **state)
{
	struct chroma_fixture *f = *state;
	struct seen s = {0};
	struct export_options options = options_of(&s);
	struct export_summary summary = {0};

	options.begin = NULL;
	assert_int_equal(
	    export_segment_alone(f->datafd, CHROMA_VECTOR, CHROMA_L2, &options, &summary), 0);
	assert_int_equal(s.records, CHROMA_PERSISTED - 1);
	assert_int_equal(s.vectors, CHROMA_PERSISTED - 1);
}

static void test_a_snapshot(void **state)
{
	struct chroma_fixture *f = *state;
	struct snapshot_options how = {
	    .path = f->data, .dirfd = f->datafd, .reason = "manual", .idle = true};
	struct seen s = {0};
	struct export_options options = options_of(&s);
	struct export_summary summary = {0};
	struct snapshot_store store;
	struct snapshot_trouble trouble;
	struct manifest m;

	assert_int_equal(snapshot_store_open(&store, f->storefd, SNAPSHOT_CHANGE, 0), 0);
	assert_int_equal(snapshot_take(&store, &how, &m, &trouble), 0);
	chroma_run_sql(f, "DELETE FROM embeddings");
	chroma_unlink(f, CHROMA_VECTOR);
	assert_int_equal(export_snapshot(&store, &m, &options, &summary), 0);
	assert_int_equal(s.records, CHROMA_RECORDS);
	assert_int_equal(s.vectors, CHROMA_RECORDS);
	manifest_free(&m);
	snapshot_store_close(&store);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    CHROMA_TEST(what_a_record_holds), CHROMA_TEST(what_the_queue_adds),
	    CHROMA_TEST(one_collection),      CHROMA_TEST(the_callers_answer_ends_it),
	    CHROMA_TEST(what_has_no_row),     CHROMA_TEST(a_segment_alone),
	    CHROMA_TEST(a_snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
