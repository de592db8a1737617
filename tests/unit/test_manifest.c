/* SPDX-License-Identifier: MIT
 *
 * Manifests: written and read back; cut, flipped, from elsewhere or from the future, and refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/checksum.h"
#include "core/snapshot/store.h"
#include "scratch.h"

#define UUID "0a1b2c3d-0000-4000-8000-00000000000f"

static void make(struct manifest *m)
{
	struct manifest_file *f;

	*m = (struct manifest){0};
	m->header.id = 12;
	m->header.time = 34;
	m->header.state = SNAPSHOT_COMPLETE;
	m->header.migrations[2] = 10;
	assert_int_equal(manifest_set_text(&m->reason, "manual"), 0);
	assert_int_equal(
	    manifest_set_text(&m->description, "vor dem Umzug \xe2\x80\x94 n\xc3\xa4mlich"), 0);
	assert_int_equal(manifest_set_text(&m->trouble, ""), 0);
	assert_int_equal(manifest_add_tag(m, "audit"), 0);
	assert_int_equal(manifest_add_tag(m, "boss"), 0);
	assert_int_equal(manifest_add_collection(m, "c-1", "books", 420), 0);
	f = manifest_add_file(m, "chroma.sqlite3");
	assert_non_null(f);
	f->mode = 0640;
	f->mtime = -5;
	f->mtime_ns = 999999999;
	f->size = SNAPSHOT_CHUNK_SIZE + 1;
	f->chunks = calloc(2, sizeof(*f->chunks));
	f->chunks[1].bytes[3] = 9;
	f = manifest_add_file(m, UUID "/header.bin");
	assert_non_null(f);
}

static void test_round_trip(void **state)
{
	struct manifest m, back;
	char *data, *again;
	size_t size, size_again;

	(void)state;
	make(&m);
	assert_int_equal(manifest_format(&m, &data, &size), 0);
	assert_int_equal(manifest_parse(&back, data, size), 0);
	assert_string_equal(back.description, m.description);
	assert_string_equal(back.tags[1], "boss");
	assert_int_equal(back.collections[0].records, 420);
	assert_int_equal(back.files[0].mtime, -5);
	assert_int_equal(manifest_chunk_size(&back.files[0], 1), 1);
	assert_int_equal(manifest_total_size(&back), SNAPSHOT_CHUNK_SIZE + 1);
	assert_int_equal(manifest_format(&back, &again, &size_again), 0);
	assert_int_equal(size, size_again);
	assert_memory_equal(data, again, size);
	free(data);
	free(again);
	manifest_free(&m);
	manifest_free(&back);
}

static void test_every_cut_and_flip(void **state)
{
	struct manifest m, back;
	size_t size, i;
	char *data;
	int r;

	(void)state;
	make(&m);
	assert_int_equal(manifest_format(&m, &data, &size), 0);
	for (i = 0; i < size; i++) {
		assert_int_equal(manifest_parse(&back, data, i), -ENODATA);
		manifest_free(&back);
		data[i] ^= (char)(1 << i % 8);
		r = manifest_parse(&back, data, size);
		assert_true(r == -EBADMSG || r == -ENODATA || r == -EPROTONOSUPPORT);
		manifest_free(&back);
		data[i] ^= (char)(1 << i % 8);
	}
	free(data);
	manifest_free(&m);
}

/* What a file would lead to that is not below the directory. */
static void test_paths(void **state)
{
	static const char *const good[] = {"chroma.sqlite3", UUID "/a", "..a"};
	static const char *const bad[] = {"",	       "..",	       ".",	 "/etc/passwd",
					  "../x",      "a/b",	       UUID "/", UUID "/..",
					  UUID "/a/b", ".chromashim/x"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(manifest_path_is_valid(good[i]));
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(manifest_path_is_valid(bad[i]));
}

static void seal(char *data, size_t size, uint64_t id)
{
	uint64_t check = checksum64(data, size - 8, id);

	memcpy(data + size - 8, &check, 8);
}

static void test_newer_version(void **state)
{
	struct manifest m, back;
	uint32_t version = SNAPSHOT_VERSION + 1;
	size_t size;
	char *data;

	(void)state;
	make(&m);
	assert_int_equal(manifest_format(&m, &data, &size), 0);
	memcpy(data + offsetof(struct snapshot_header, version), &version, 4);
	seal(data, size, 12);
	assert_int_equal(manifest_parse(&back, data, size), -EPROTONOSUPPORT);
	manifest_free(&back);
	free(data);
	manifest_free(&m);
}

/* Checksums that are right do not make numbers right: counts beyond the bytes that are there. */
static void test_lying_counts(void **state)
{
	struct manifest m, back;
	uint32_t huge = SNAPSHOT_COUNT_MAX;
	size_t size, at;
	char *data;
	int r;

	(void)state;
	make(&m);
	assert_int_equal(manifest_format(&m, &data, &size), 0);
	for (at = sizeof(struct snapshot_header); at + 12 <= size; at++) {
		char kept[4];

		memcpy(kept, data + at, 4);
		memcpy(data + at, &huge, 4);
		seal(data, size, 12);
		r = manifest_parse(&back, data, size);
		assert_true(r == 0 || r == -EBADMSG);
		manifest_free(&back);
		memcpy(data + at, kept, 4);
	}
	free(data);
	manifest_free(&m);
}

static void test_tags(void **state)
{
	struct manifest m;

	(void)state;
	make(&m);
	assert_true(manifest_has_tag(&m, "boss"));
	assert_int_equal(manifest_remove_tag(&m, "nobody"), 0);
	assert_int_equal(manifest_remove_tag(&m, "audit"), 1);
	assert_string_equal(m.tags[0], "boss");
	assert_int_equal(manifest_remove_tag(&m, NULL), 1);
	assert_int_equal(m.tag_count, 0);
	manifest_free(&m);
}

static void test_file_names(void **state)
{
	char name[MANIFEST_NAME_SIZE];

	(void)state;
	manifest_file_name(name, 7);
	assert_string_equal(name, "00000007.manifest");
	assert_int_equal(manifest_id_of_name(name), 7);
	assert_int_equal(manifest_id_of_name("123456789.manifest"), 123456789);
	assert_int_equal(manifest_id_of_name("7.manifest"), 0);
	assert_int_equal(manifest_id_of_name(".00000007.manifest.5.tmp"), 0);
	assert_int_equal(manifest_id_of_name("00000007.manifest~"), 0);
}

/* ---- the store ---- */

static void add(struct snapshot_store *s, uint64_t id)
{
	struct manifest m;

	make(&m);
	m.files[0].size = 0;
	assert_int_equal(snapshot_add(s, &m), 0);
	assert_int_equal(m.header.id, id);
	manifest_free(&m);
}

static void test_numbers_are_not_used_again(void **state)
{
	struct snapshot_store s;
	struct scratch dir;

	(void)state;
	scratch_make(&dir);
	assert_int_equal(snapshot_store_open(&s, dir.fd, SNAPSHOT_CHANGE, 0), 0);
	add(&s, 1);
	add(&s, 2);
	assert_int_equal(snapshot_remove(&s, 2), 0);
	add(&s, 3);
	assert_int_equal(snapshot_remove(&s, 3), 0);
	assert_int_equal(snapshot_remove(&s, 1), 0);
	add(&s, 4);
	/* A counter that was lost or damaged. */
	scratch_put(s.dirfd, "next", "what?", 5);
	add(&s, 5);
	assert_int_equal(unlinkat(s.dirfd, "next", 0), 0);
	add(&s, 6);
	snapshot_store_close(&s);
	scratch_remove(&dir);
}

static void test_locks(void **state)
{
	struct snapshot_store change, second, keep, look;
	struct scratch dir;

	(void)state;
	scratch_make(&dir);
	assert_int_equal(snapshot_store_open(&look, dir.fd, SNAPSHOT_LOOK, 0), -ENOENT);
	assert_int_equal(snapshot_store_open(&change, dir.fd, SNAPSHOT_CHANGE, 0), 0);
	assert_int_equal(snapshot_store_open(&second, dir.fd, SNAPSHOT_CHANGE, 40), -EBUSY);
	assert_int_equal(snapshot_store_open(&keep, dir.fd, SNAPSHOT_KEEP, 0), -EBUSY);
	assert_int_equal(snapshot_store_open(&look, dir.fd, SNAPSHOT_LOOK, 0), 0);
	snapshot_store_close(&look);
	snapshot_store_close(&change);
	assert_int_equal(snapshot_store_open(&keep, dir.fd, SNAPSHOT_KEEP, 0), 0);
	assert_int_equal(snapshot_store_open(&look, dir.fd, SNAPSHOT_KEEP, 0), 0);
	assert_int_equal(snapshot_store_open(&change, dir.fd, SNAPSHOT_CHANGE, 0), -EBUSY);
	snapshot_store_close(&keep);
	snapshot_store_close(&look);
	scratch_remove(&dir);
}

/* Who adds does it beside those who read, one at a time; what is removed is removed alone. */
static void test_adding_beside_readers(void **state)
{
	struct snapshot_store add, second, keep, change;
	struct scratch dir;

	(void)state;
	scratch_make(&dir);
	assert_int_equal(snapshot_store_open(&add, dir.fd, SNAPSHOT_ADD, 0), 0);
	assert_int_equal(snapshot_store_open(&keep, dir.fd, SNAPSHOT_KEEP, 0), 0);
	assert_int_equal(snapshot_store_open(&second, dir.fd, SNAPSHOT_ADD, 0), -EBUSY);
	assert_int_equal(snapshot_store_open(&change, dir.fd, SNAPSHOT_CHANGE, 0), -EBUSY);
	assert_int_equal(snapshot_store_claim(&add), -EBUSY);
	/* While it only reads, another one adds, and keeps it from going on. */
	snapshot_store_share(&add);
	assert_int_equal(snapshot_store_open(&second, dir.fd, SNAPSHOT_ADD, 0), 0);
	assert_int_equal(snapshot_store_open(&change, dir.fd, SNAPSHOT_CHANGE, 0), -EBUSY);
	snapshot_store_close(&second);
	assert_int_equal(snapshot_store_unshare(&add), 0);
	assert_int_equal(snapshot_store_open(&second, dir.fd, SNAPSHOT_ADD, 0), -EBUSY);
	snapshot_store_close(&keep);
	assert_int_equal(snapshot_store_claim(&add), 0);
	assert_int_equal(snapshot_store_open(&keep, dir.fd, SNAPSHOT_KEEP, 0), -EBUSY);
	snapshot_store_close(&add);
	scratch_remove(&dir);
}

/* One that cannot be read is listed, the others are unharmed, and no chunk is removed. */
static void test_damaged_is_listed(void **state)
{
	struct snapshot_store s;
	struct manifest *list;
	struct scratch dir;
	uint64_t freed;
	size_t count;

	(void)state;
	scratch_make(&dir);
	assert_int_equal(snapshot_store_open(&s, dir.fd, SNAPSHOT_CHANGE, 0), 0);
	add(&s, 1);
	add(&s, 2);
	scratch_put(s.dirfd, "00000001.manifest", "CHSSSNAP", 8);
	assert_int_equal(snapshot_list(&s, &list, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(list[0].header.id, 1);
	assert_int_equal(list[0].header.state, SNAPSHOT_BROKEN);
	assert_string_equal(list[0].trouble, "its manifest is cut short");
	assert_int_equal(list[1].header.state, SNAPSHOT_COMPLETE);
	snapshot_list_free(list, count);
	assert_int_equal(snapshot_collect(&s, false, &freed), -EBADMSG);
	/* A manifest under another number is not believed either. */
	assert_int_equal(renameat(s.dirfd, "00000002.manifest", s.dirfd, "00000003.manifest"), 0);
	assert_int_equal(snapshot_list(&s, &list, &count), 0);
	assert_string_equal(list[1].trouble, "its manifest is damaged");
	snapshot_list_free(list, count);
	snapshot_store_close(&s);
	scratch_remove(&dir);
}

/* A snapshot of chunks [from, to) of a kind that zstd cannot make smaller. */
static void add_chunks(struct snapshot_store *s, unsigned from, unsigned to)
{
	static unsigned char data[512];
	struct manifest_file *f;
	struct manifest m;
	unsigned i, k;

	make(&m);
	manifest_forget_contents(&m);
	f = manifest_add_file(&m, "chroma.sqlite3");
	f->size = (uint64_t)(to - from) * SNAPSHOT_CHUNK_SIZE;
	f->chunks = calloc(to - from, sizeof(*f->chunks));
	for (i = from; i < to; i++) {
		for (k = 0; k < sizeof(data); k += 8)
			memcpy(data + k, &(uint64_t){checksum64(&i, sizeof(i), k)}, 8);
		assert_int_equal(chunks_put(&s->chunks, data, 64 + i % 400, &f->chunks[i - from]),
				 0);
	}
	assert_int_equal(snapshot_add(s, &m), 0);
	manifest_free(&m);
}

/* What each alone needs, from the list or from its heads; and only what nobody needs goes. */
static void test_uses(void **state)
{
	static const unsigned spans[][2] = {{0, 500}, {250, 700}, {650, 1100}, {0, 60}};
	uint64_t used[4], of_heads[4], all, again, bytes, expected[4] = {0}, total = 0, stored;
	struct manifest *list, *heads;
	struct snapshot_store s;
	struct scratch dir;
	size_t count, i, k;
	unsigned n;

	(void)state;
	scratch_make(&dir);
	assert_int_equal(snapshot_store_open(&s, dir.fd, SNAPSHOT_CHANGE, 0), 0);
	for (i = 0; i < 4; i++)
		add_chunks(&s, spans[i][0], spans[i][1]);
	assert_int_equal(snapshot_list(&s, &list, &count), 0);
	assert_int_equal(snapshot_list_heads(&s, &heads, &count), 0);
	assert_int_equal(count, 4);
	for (n = 0; n < 1100; n++) {
		unsigned users = 0, last = 0;

		for (i = 0; i < 4; i++)
			if (n >= spans[i][0] && n < spans[i][1]) {
				users++;
				last = (unsigned)i;
			}
		chunks_stat(&s.chunks, &list[last].files[0].chunks[n - spans[last][0]], &stored);
		total += stored;
		expected[last] += users == 1 ? stored : 0;
	}
	assert_int_equal(snapshot_sizes(&s, list, 4, NULL, used, &all), 0);
	assert_int_equal(snapshot_sizes(&s, heads, 4, NULL, of_heads, &again), 0);
	assert_int_equal(snapshot_bytes(&s, &bytes), 0);
	assert_int_equal(all, total);
	assert_int_equal(again, total);
	assert_int_equal(bytes, total);
	for (i = 0; i < 4; i++) {
		assert_int_equal(heads[i].file_count + heads[i].collection_count, 0);
		assert_int_equal(used[i], expected[i]);
		assert_int_equal(of_heads[i], expected[i]);
	}
	assert_int_equal(
	    snapshot_sizes(&s, heads, 4, (bool[]){false, true, false, false}, used, &again), 0);
	assert_int_equal(again, total - expected[1]);
	assert_int_equal(snapshot_remove(&s, 2), 0);
	assert_int_equal(snapshot_collect(&s, false, &bytes), 0);
	assert_int_equal(bytes, expected[1]);
	for (i = 0; i < 4; i++)
		for (k = 0; i != 1 && k < spans[i][1] - spans[i][0]; k++) {
			chunks_stat(&s.chunks, &list[i].files[0].chunks[k], &stored);
			assert_int_not_equal(stored, 0);
		}
	snapshot_list_free(list, count);
	snapshot_list_free(heads, count);
	snapshot_store_close(&s);
	scratch_remove(&dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round_trip),
	    cmocka_unit_test(test_every_cut_and_flip),
	    cmocka_unit_test(test_paths),
	    cmocka_unit_test(test_newer_version),
	    cmocka_unit_test(test_lying_counts),
	    cmocka_unit_test(test_tags),
	    cmocka_unit_test(test_file_names),
	    cmocka_unit_test(test_numbers_are_not_used_again),
	    cmocka_unit_test(test_locks),
	    cmocka_unit_test(test_adding_beside_readers),
	    cmocka_unit_test(test_damaged_is_listed),
	    cmocka_unit_test(test_uses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
