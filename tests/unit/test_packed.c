/* SPDX-License-Identifier: MIT
 *
 * What a file is instead of one of Chroma's, by its beginning.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

#include "core/check/packed.h"

static bool is_packed(const char *bytes, size_t size, const char *word)
{
	const char *kind = packed_kind((const unsigned char *)bytes, size);

	return kind && strstr(kind, word);
}

static void test_packed(void **state)
{
	char tar[PACKED_LOOKED_AT] = "chroma/";

	(void)state;
	assert_true(is_packed("PK\3\4....", 8, "ZIP"));
	assert_true(is_packed("\x1f\x8b\x08\0....\0\x03", 10, "gzip"));
	assert_true(is_packed("BZh91AY&SY", 10, "bzip2"));
	assert_true(is_packed("\x28\xb5\x2f\xfd", 4, "zstd"));
	assert_true(is_packed("\xfd"
			      "7zXZ\0",
			      6, "xz"));
	assert_true(is_packed("\0GITCRYPT\0\1", 11, "git-crypt unlock"));
	assert_true(is_packed("age-encryption.org/v1\n->", 24, "age -d"));
	assert_true(is_packed("-----BEGIN PGP MESSAGE-----\n", 28, "gpg -d"));
	memcpy(tar + 257, "ustar", 5);
	assert_true(is_packed(tar, sizeof(tar), "tar"));
}

/* Nor what is cut in the midst of a sign. */
static void test_none(void **state)
{
	unsigned char zeros[PACKED_LOOKED_AT] = {0}, level0[16] = {0x1f, 0x8b};

	(void)state;
	assert_null(packed_kind(zeros, sizeof(zeros)));
	assert_null(pointer_kind(zeros, sizeof(zeros)));
	assert_null(packed_kind(level0, sizeof(level0)));
	assert_null(packed_kind((const unsigned char *)"PK\3\4", 3));
	assert_null(packed_kind((const unsigned char *)"\x1f\x8b\x08", 3));
	assert_null(pointer_kind((const unsigned char *)"   ", 3));
	assert_null(pointer_kind(zeros, 0));
	assert_false(is_sqlite(zeros, sizeof(zeros)));
}

static void test_pointers(void **state)
{
	static const char lfs[] = "version https://git-lfs.github.com/spec/v1\r\noid sha256:7";
	static const char page[] = "\r\n <!doctype HTML><p>";
	static const char answer[] = "{\"message\":\"Not Found\"}", xet[] = "# xet version 0\n";

	(void)state;
	assert_non_null(strstr(pointer_kind((const unsigned char *)lfs, sizeof(lfs)), "git lfs"));
	assert_non_null(pointer_kind((const unsigned char *)page, sizeof(page)));
	assert_non_null(pointer_kind((const unsigned char *)answer, sizeof(answer)));
	assert_non_null(strstr(pointer_kind((const unsigned char *)xet, sizeof(xet)), "git-xet"));
	assert_true(is_sqlite((const unsigned char *)"SQLite format 3\0", 16));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_packed),
	    cmocka_unit_test(test_none),
	    cmocka_unit_test(test_pointers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
