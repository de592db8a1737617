/* SPDX-License-Identifier: MIT
 *
 * A gallery of damages without Chroma: what check calls each of them, how many records export still
 * reads, and what recover makes of it, with and without a snapshot.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

#include "chroma_fixture.h"
#include "core/base/names.h"
#include "core/check/diagnose.h"
#include "core/check/verify.h"
#include "core/chroma/chroma.h"
#include "core/export/export.h"
#include "core/recover/recover.h"
#include "core/snapshot/snapshot.h"
#include "damages.h"

struct told {
	char codes[1024];
	bool seen[DIAGNOSE_CODES];
};

static void note_finding(void *context, const struct diagnose_finding *finding)
{
	const struct diagnose_kind *kind = &diagnose_kinds[finding->code];
	struct told *told = context;
	size_t used = strlen(told->codes);

	if (finding->code == DIAGNOSE_SNAPSHOT_NONE || told->seen[finding->code])
		return;
	told->seen[finding->code] = true;
	snprintf(told->codes + used, sizeof(told->codes) - used, "%s%s", used ? " " : "",
		 kind->code);
}

static void assert_found(struct chroma_fixture *f, const char *codes)
{
	struct told told = {.codes = ""};
	struct diagnose_options options = {
	    .full = true, .storefd = f->storefd, .report = note_finding, .context = &told};
	struct diagnose_summary summary;

	assert_int_equal(diagnose_directory(f->data, f->datafd, &options, &summary), 0);
	assert_string_equal(told.codes, codes);
}

static int note_record(void *context, const struct export_record *record)
{
	uint64_t *wrong = context;
	char text[32];

	/* Vector and document are those of this id, if they are there at all. */
	if (record->vector && record->id_size > 1 &&
	    record->vector[0] != (float)strtoul(record->id + 1, NULL, 10))
		++*wrong;
	snprintf(text, sizeof(text), "text of %.*s", (int)record->id_size, record->id);
	if (record->document && strcmp(record->document->text, text) != 0)
		++*wrong;
	return 0;
}

static void note_trouble(void *context, const char *collection, const char *what, int error)
{
	(void)context;
	(void)collection;
	assert_non_null(what);
	assert_true(error <= 0);
}

/* No record that is read may have another one's vector or document. */
static struct export_summary read_all(struct chroma_fixture *f)
{
	struct export_summary summary = {0};
	uint64_t wrong = 0;
	struct export_options options = {.vectors = true,
					 .pages = true,
					 .record = note_record,
					 .trouble = note_trouble,
					 .context = &wrong};
	int fd = openat(f->dir.fd, "data", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	export_directory(f->data, fd, &options, &summary);
	close(fd);
	assert_int_equal(wrong, 0);
	return summary;
}

static void note_sentence(void *context, enum recover_step step, const char *collection,
			  const char *sentence)
{
	(void)context;
	(void)collection;
	assert_in_range(step, 0, RECOVER_STEPS - 1);
	assert_true(strlen(sentence) > 5);
}

struct losses {
	uint64_t records; /* that are gone */
	uint64_t all;	  /* of any kind */
	uint64_t before;  /* records that could be read */
};

static int add_lost(void *context, const struct recover_collection *c)
{
	struct losses *lost = context;

	lost->records += c->lost + c->were_bare;
	lost->before += c->records[0];
	lost->all += c->lost + c->were_bare + c->bare + c->changed;
	return 0;
}

/* The account never tells of less than is lost. */
static void assert_told(struct chroma_fixture *f, const struct recover_result *result,
			const struct export_summary *after, const struct losses *lost)
{
	const struct recover_account *a = &result->account;

	if (!result->healed || result->damage[1])
		return;
	if (after->records - after->without_vector < CHROMA_RECORDS)
		assert_true(lost->all + a->may_lack > 0);
	if (chroma_ask(f, "SELECT count(*) FROM collections WHERE name = 'docs'") != 1)
		assert_true(a->nameless > 0);
	if (chroma_ask(f, "SELECT count(*) FROM embedding_metadata WHERE key = 'chroma:document'") +
		chroma_ask(f, "SELECT count(DISTINCT id) FROM embeddings_queue WHERE metadata GLOB "
			      "'*chroma:document*'") <
	    CHROMA_RECORDS)
		assert_true(lost->all + a->may_lack > 0);
}

static void assert_healed(struct chroma_fixture *f, const struct damage *d,
			  struct snapshot_store *snapshots)
{
	struct recover_job job = {.datafd = f->datafd,
				  .storefd = f->storefd,
				  .outfd = -1,
				  .quarantine = "then",
				  .options = {.steps = RECOVER_ALL,
					      .snapshots = snapshots,
					      .set_aside = true,
					      .said = note_sentence}};
	struct recover_result result;
	struct export_summary after;
	struct losses lost = {0};
	int r;

	r = recover_directory(&job, &result);
	assert_true(r == 0 || r == -EMEDIUMTYPE); /* a copy that went wrong is left alone */
	assert_int_equal(result.damage[1], d->left);
	/* What was there before is there again, or the account says that it is not. */
	if (result.healed)
		assert_int_equal(recover_account_each(&result.account, add_lost, &lost), 0);
	after = read_all(f);
	assert_int_equal(after.records - after.without_vector,
			 snapshots ? d->after_snapshot : d->after);
	assert_true(after.records + lost.records >= d->records);
	assert_told(f, &result, &after, &lost);
	recover_result_free(&result);
}

static void take_snapshot(struct chroma_fixture *f)
{
	struct snapshot_options options = {
	    .path = f->data, .dirfd = f->datafd, .reason = "manual", .idle = true};
	struct snapshot_store store;
	struct snapshot_trouble trouble;
	struct manifest m;

	assert_int_equal(snapshot_store_open(&store, f->storefd, SNAPSHOT_CHANGE, 0), 0);
	assert_int_equal(snapshot_take(&store, &options, &m, &trouble), 0);
	assert_int_equal(verify_snapshot(&store, &m, NULL, NULL, &trouble), 0);
	assert_int_equal(m.header.state, SNAPSHOT_VERIFIED);
	manifest_free(&m);
	snapshot_store_close(&store);
}

/* A directory that is not there any more is one that was emptied, if there are snapshots of it. */
static const char *codes_of(const struct damage *d, bool has_snapshot)
{
	return has_snapshot && d->act == damage_folder_too_deep
		   ? "directory-below directory-emptied"
		   : d->codes;
}

static void play(struct chroma_fixture *f, const struct damage *d, bool has_snapshot)
{
	struct snapshot_store store;
	struct export_summary before;

	print_message("%s%s\n", d->codes, has_snapshot ? ", with a snapshot" : "");
	chroma_make_again(f);
	tree_remove(f->storefd, QUARANTINE_DIR);
	d->act(f);
	assert_found(f, codes_of(d, has_snapshot));
	before = read_all(f);
	assert_int_equal(before.records, d->records);
	assert_int_equal(before.without_vector, d->bare);
	if (has_snapshot)
		assert_int_equal(snapshot_store_open(&store, f->storefd, SNAPSHOT_KEEP, 0), 0);
	assert_healed(f, d, has_snapshot ? &store : NULL);
	if (has_snapshot)
		snapshot_store_close(&store);
}

static void play_all(struct chroma_fixture *f, bool has_snapshot)
{
	const struct damages *const all[] = {&damages_of_segment, &damages_of_rows,
					     &damages_of_database};
	size_t k, i;

	for (k = 0; k < sizeof(all) / sizeof(all[0]); k++)
		for (i = 0; i < all[k]->count; i++)
			play(f, &all[k]->list[i], has_snapshot);
}

static void test_without_snapshots(void **state)
{
	play_all(*state, false);
}

static void test_with_a_snapshot(void **state)
{
	take_snapshot(*state);
	play_all(*state, true);
}

/* Its files are taken as check sees them. */
static void test_linked_segment_in_a_snapshot(void **state)
{
	struct chroma_fixture *f = *state;

	chroma_make_again(f);
	assert_int_equal(renameat(f->datafd, CHROMA_VECTOR, f->datafd, "elsewhere"), 0);
	assert_int_equal(symlinkat("elsewhere", f->datafd, CHROMA_VECTOR), 0);
	assert_found(f, "");
	take_snapshot(f);
}

static void test_nothing_left(void **state)
{
	struct chroma_fixture *f = *state;

	damage_database_gone(f);
	damage_segment_gone(f);
	assert_found(f, "not-chroma");
	chroma_make_again(f);
	take_snapshot(f);
	damage_database_gone(f);
	damage_segment_gone(f);
	assert_found(f, "directory-emptied");
}

/* What could not be read before is no change where all of it comes back. */
static void test_queue_unreadable_before(void **state)
{
	struct chroma_fixture *f = *state;
	struct recover_job job = {.datafd = f->datafd,
				  .storefd = f->storefd,
				  .outfd = -1,
				  .quarantine = "then",
				  .options = {.steps = RECOVER_ALL}};
	struct recover_result result;
	struct export_summary after;
	struct losses lost = {0};

	damage_queue_root(f);
	assert_int_equal(recover_directory(&job, &result), 0);
	assert_true(result.exchanged);
	assert_int_equal(recover_account_each(&result.account, add_lost, &lost), 0);
	after = read_all(f);
	assert_int_equal(after.records - after.without_vector, CHROMA_RECORDS);
	assert_int_equal(lost.before, CHROMA_RECORDS);
	assert_int_equal(lost.all, 0);
	recover_result_free(&result);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    CHROMA_TEST(without_snapshots),
	    CHROMA_TEST(with_a_snapshot),
	    CHROMA_TEST(linked_segment_in_a_snapshot),
	    CHROMA_TEST(nothing_left),
	    CHROMA_TEST(queue_unreadable_before),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
