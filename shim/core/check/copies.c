/* SPDX-License-Identifier: MIT
 *
 * Copies that went wrong, told by their own signs before anything is judged as damage: the whole
 * thing is elsewhere, and healing what is here would be the loss.
 */
#include <ctype.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/check/internal.h"
#include "core/check/packed.h"
#include "core/sqlite/database.h"

#define LOOKED_AT (1u << 20) /* bytes of a file */
#define LINES_MIN 8	     /* fewer line ends tell nothing */
#define FEEDS_MIN 64	     /* of a database: each of its pages with rows begins with a CR */
#define REPLACED_MIN 64
#define ZEROS_MIN 32768
#define ZEROS_MOST (UINT64_C(1) << 30) /* sparse files have terabytes of them */

bool diagnose_is_bad_copy(enum diagnose_code code)
{
	switch (code) {
	case DIAGNOSE_NOT_DOWNLOADED:
	case DIAGNOSE_PACKED:
	case DIAGNOSE_AS_TEXT:
	case DIAGNOSE_RENAMED:
		return true;
	default:
		return false;
	}
}

/* ---- text ---- */

/* But for a character that the end has cut. */
static bool is_utf8(const unsigned char *p, size_t size)
{
	unsigned more = 0;
	size_t i;

	for (i = 0; i < size; i++) {
		if (more && (p[i] & 0xc0) != 0x80)
			return false;
		if (more)
			more--;
		else if (p[i] >= 0x80 && (p[i] < 0xc2 || p[i] > 0xf4))
			return false;
		else if (p[i] >= 0x80)
			more = p[i] >= 0xf0 ? 3 : p[i] >= 0xe0 ? 2 : 1;
	}
	return true;
}

/* Nothing else, and most of its 64 letters: a file that was filled with one of them is none. */
static bool is_base64(const unsigned char *p, size_t size)
{
	bool seen[256] = {false};
	unsigned letters = 0;
	size_t i;

	for (i = 0; i < size; i++) {
		if (!isalnum(p[i]) && !memchr("+/=\r\n", p[i], 5))
			return false;
		letters += !seen[p[i]];
		seen[p[i]] = true;
	}
	return letters > 32;
}

/*
 * In what is not text, line feeds come in any company. After CR LF for each LF none stands alone;
 * after the other way round, none of many has a CR before it, which chance would give one in 256,
 * or there is no CR at all; and where bytes that are no UTF-8 were replaced, U+FFFD stands in their
 * place everywhere.
 */
static const char *text_kind(const unsigned char *p, size_t size, bool odd_size)
{
	uint64_t feeds = 0, pairs = 0, returns = 0, replaced = 0, high = 0;
	size_t i;

	for (i = 0; i < size; i++) {
		feeds += p[i] == '\n';
		pairs += p[i] == '\n' && i > 0 && p[i - 1] == '\r';
		returns += p[i] == '\r';
		high += p[i] >= 0x80;
		replaced += i + 2 < size && memcmp(p + i, "\xef\xbf\xbd", 3) == 0;
	}
	if (is_base64(p, size))
		return "it is encoded in Base64: base64 -d";
	if (size > 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0)
		return "a byte order mark stands before it";
	if (feeds >= LINES_MIN && feeds == pairs)
		return "each line feed has become CR LF";
	if (replaced >= REPLACED_MIN && is_utf8(p, size))
		return "its bytes were taken for UTF-8 and replaced";
	if (high >= REPLACED_MIN && is_utf8(p, size))
		return "its bytes were taken for another encoding, and converted to UTF-8";
	if (odd_size && is_sqlite(p, size) && feeds >= FEEDS_MIN && returns == 0)
		return "each CR is gone";
	if (odd_size && feeds >= 2048 && pairs == 0)
		return "each CR LF has become a line feed";
	return NULL;
}

/* odd_size: what a file of this kind never has. */
bool diagnose_is_copied_wrong(struct diagnosis *d, struct diagnose_place place,
			      const struct file_source *source, bool may_be_text, bool odd_size)
{
	size_t size = source->size < LOOKED_AT ? (size_t)source->size : LOOKED_AT;
	unsigned char *p = size ? malloc(size) : NULL;
	const char *kind = NULL;
	bool found = false;

	if (p && file_source_read(source, p, size, 0) == 0) {
		if ((kind = pointer_kind(p, size)))
			diagnose_report(d, DIAGNOSE_NOT_DOWNLOADED, place, "%s", kind);
		else if ((kind = packed_kind(p, size)))
			diagnose_report(d, DIAGNOSE_PACKED, place, "%s", kind);
		else if (may_be_text && (kind = text_kind(p, size, odd_size)))
			diagnose_report(d, DIAGNOSE_AS_TEXT, place, "%s", kind);
		found = kind != NULL;
	}
	free(p);
	return found;
}

bool diagnose_is_placeholder(struct diagnosis *d, struct diagnose_place place, int dirfd,
			     const char *file)
{
	char name[NAME_MAX + 1];
	const char *kind;
	unsigned i;

	for (i = 0; (kind = placeholder_name(i, file, name, sizeof(name))); i++) {
		if (faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		diagnose_report(d, DIAGNOSE_NOT_DOWNLOADED, place, "%s: %s", name, kind);
		return true;
	}
	return false;
}

/* Pages are whole, and the first one tells what it is. */
bool diagnose_database_copy(struct diagnosis *d)
{
	static const struct diagnose_place place = {.file = CHROMA_DATABASE};
	unsigned char head[16] = {0};
	static const char *const beside[] = {CHROMA_DATABASE "-journal", CHROMA_DATABASE "-wal"};
	struct file_source source;
	bool found = false;
	int fd, i;

	for (i = 0; i < 2; i++)
		found |= diagnose_is_placeholder(d, (struct diagnose_place){.file = beside[i]},
						 d->dirfd, beside[i]);
	fd = file_open_at(d->dirfd, CHROMA_DATABASE);
	if (fd < 0)
		return found;
	if (file_source_open(&source, fd) == 0 && source.size > 0) {
		bool odd = source.size % 512 != 0 || file_source_read(&source, head, 16, 0) < 0 ||
			   !is_sqlite(head, sizeof(head));

		found |= diagnose_is_copied_wrong(d, place, &source, odd, odd);
	}
	close(fd);
	return found;
}

/* ---- files that were not finished ---- */

uint64_t diagnose_zeros(const struct file_source *source, uint64_t end)
{
	uint64_t zeros = 0;
	unsigned char *p = malloc(LOOKED_AT);
	size_t n = 0, i = 0;

	while (p && i == 0 && zeros < end && zeros < ZEROS_MOST) {
		n = end - zeros < LOOKED_AT ? (size_t)(end - zeros) : LOOKED_AT;
		if (file_source_read(source, p, n, end - zeros - n) < 0)
			break;
		for (i = n; i > 0 && p[i - 1] == 0; i--)
			zeros++;
	}
	free(p);
	return zeros;
}

/* Of a database that is damaged: pages that were never used may be zeros as well. */
void diagnose_database_end(struct diagnosis *d)
{
	int fd = file_open_at(d->dirfd, CHROMA_DATABASE);
	struct file_source source;
	uint64_t zeros;

	if (fd >= 0 && file_source_open(&source, fd) == 0) {
		zeros = diagnose_zeros(&source, source.size);
		if (zeros >= ZEROS_MIN && zeros < source.size)
			diagnose_report(d, DIAGNOSE_DATABASE_UNFINISHED,
					(struct diagnose_place){.file = CHROMA_DATABASE},
					"from byte %llu of %llu on",
					(unsigned long long)(source.size - zeros),
					(unsigned long long)source.size);
	}
	if (fd >= 0)
		close(fd);
}
