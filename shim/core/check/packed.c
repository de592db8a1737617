/* SPDX-License-Identifier: MIT
 *
 * What a file is instead of one of Chroma's, by its beginning or its name. Bytes that chance could
 * give, as the first of a list of floats, are not believed: each sign is of four bytes or more.
 */
#include "core/check/packed.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

struct sign {
	size_t offset, size;
	const char *bytes, *kind;
};

static const struct sign packed[] = {
    {0, 4, "PK\3\4", "a ZIP archive: unzip"},
    {0, 4, "PK\5\6", "a ZIP archive with nothing in it"},
    {257, 5, "ustar", "a tar archive: tar -xf"},
    {0, 4, "\x28\xb5\x2f\xfd", "compressed by zstd: unzstd"},
    {0, 6,
     "\xfd"
     "7zXZ",
     "compressed by xz: unxz"},
    {0, 4, "\x04\x22\x4d\x18", "compressed by lz4: unlz4"},
    {0, 6, "7z\xbc\xaf\x27\x1c", "a 7-Zip archive: 7z x"},
    {0, 6, "Rar!\x1a\x07", "a RAR archive: unrar x"},
    {0, 10, "\0GITCRYPT\0", "encrypted by git-crypt: git-crypt unlock"},
    {0, 22, "age-encryption.org/v1\n", "encrypted by age: age -d"},
    {0, 27, "-----BEGIN PGP MESSAGE-----", "encrypted by GnuPG: gpg -d"},
    {0, 15, "$ANSIBLE_VAULT;", "encrypted by Ansible: ansible-vault decrypt"},
    {0, 8, "Salted__", "encrypted by OpenSSL: openssl enc -d"},
};

static const struct sign pointers[] = {
    {0, 40, "version https://git-lfs.github.com/spec/", "a pointer of Git LFS: git lfs pull"},
    {0, 39, "version https://hawser.github.com/spec/", "a pointer of Git LFS: git lfs pull"},
    {0, 15, "/annex/objects/", "a pointer of git-annex: git annex get"},
    {0, 12, "outs:\n- md5:", "a pointer of DVC: dvc pull"},
    {0, 13, "outs:\n- hash:", "a pointer of DVC: dvc pull"},
    {0, 14, "# xet version ", "a pointer of git-xet: fetch the file with it"},
    {0, 8, "bplist00", "a placeholder of iCloud: brctl download, or open it in Finder"},
};

static const char *find(const struct sign *list, size_t count, const unsigned char *p, size_t size)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (size >= list[i].offset + list[i].size &&
		    memcmp(p + list[i].offset, list[i].bytes, list[i].size) == 0)
			return list[i].kind;
	return NULL;
}

/* Method, flags, and the system, which is one of 14 or unknown. */
static bool is_gzip(const unsigned char *p, size_t size)
{
	return size >= 10 && p[0] == 0x1f && p[1] == 0x8b && p[2] == 8 && !(p[3] & 0xe0) &&
	       (p[9] <= 13 || p[9] == 255);
}

static bool is_bzip2(const unsigned char *p, size_t size)
{
	return size >= 10 && memcmp(p, "BZh", 3) == 0 && p[3] >= '1' && p[3] <= '9' &&
	       memcmp(p + 4, "1AY&SY", 6) == 0;
}

const char *packed_kind(const unsigned char *p, size_t size)
{
	if (is_gzip(p, size))
		return "compressed by gzip: gunzip, or tar -xzf if it is an archive";
	if (is_bzip2(p, size))
		return "compressed by bzip2: bunzip2, or tar -xjf if it is an archive";
	return find(packed, sizeof(packed) / sizeof(packed[0]), p, size);
}

/* An error page, or one to log in, in place of what was asked for. */
static bool is_web_page(const unsigned char *p, size_t size)
{
	static const char *const starts[] = {"<!doctype html", "<html",	      "<?xml version",
					     "{\"message\":",  "{\"error\":", "{\"errors\":",
					     "{\"detail\":",   "{\"code\":"};
	size_t i, blanks = 0;

	while (blanks < size && memchr(" \t\r\n", p[blanks], 4))
		blanks++;
	for (i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		size_t n = strlen(starts[i]);

		if (size - blanks >= n && strncasecmp((const char *)p + blanks, starts[i], n) == 0)
			return true;
	}
	return false;
}

const char *pointer_kind(const unsigned char *p, size_t size)
{
	if (is_web_page(p, size))
		return "a web page, or an error that the server answered: download it again";
	return find(pointers, sizeof(pointers) / sizeof(pointers[0]), p, size);
}

const char *placeholder_name(unsigned i, const char *file, char *out, size_t room)
{
	static const struct {
		const char *before, *after, *kind;
	} clouds[] = {
	    {".", ".icloud", "a placeholder of iCloud: brctl download, or open it in Finder"},
	    {"", ".nextcloud", "a placeholder of Nextcloud: have its client keep it here always"},
	    {"", ".owncloud", "a placeholder of ownCloud: have its client keep it here always"},
	};

	if (i >= sizeof(clouds) / sizeof(clouds[0]) ||
	    snprintf(out, room, "%s%s%s", clouds[i].before, file, clouds[i].after) >= (int)room)
		return NULL;
	return clouds[i].kind;
}

bool is_sqlite(const unsigned char *p, size_t size)
{
	static const char magic[16] = "SQLite format 3";

	return size >= sizeof(magic) && memcmp(p, magic, sizeof(magic)) == 0;
}
