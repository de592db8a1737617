/* SPDX-License-Identifier: MIT
 *
 * Which releases wrote the database: the line in the store, read. No memory and no stdio here: the
 * library reads it.
 */
#include "core/chroma/written_by.h"

#include <string.h>

#include "core/base/sys.h"

#define LINE 128
#define SCHEMA_AT 40 /* in the database's header */
#define START "schema "

/* Returns what follows `text`, or NULL. */
static const char *skip(const char *at, const char *text)
{
	size_t n = strlen(text);

	return at && !strncmp(at, text, n) ? at + n : NULL;
}

static const char *take_word(const char *at, char out[WRITTEN_BY_RELEASE])
{
	size_t n = at ? strspn(at, "0123456789.") : 0;

	if (n == 0 || n >= WRITTEN_BY_RELEASE)
		return NULL;
	memcpy(out, at, n);
	out[n] = '\0';
	return at + n;
}

bool written_by_read(int storefd, struct written_by *out)
{
	int fd =
	    sys_openat(storefd, WRITTEN_BY_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	char line[LINE];
	const char *at;
	ssize_t n;

	if (fd < 0)
		return false;
	n = sys_pread(fd, line, sizeof(line) - 1, 0);
	sys_close(fd);
	line[n > 0 ? n : 0] = '\0';
	at = skip(line, START);
	for (out->schema = 0; at && *at >= '0' && *at <= '9'; at++)
		out->schema = out->schema * 10 + (uint32_t)(*at - '0');
	at = take_word(skip(at, " by "), out->first);
	at = take_word(skip(at, " to "), out->last);
	return at && *at == '\n' && written_by_release(out->first) && out->schema;
}

uint32_t written_by_schema(int database)
{
	uint8_t b[4];

	if (sys_pread(database, b, sizeof(b), SCHEMA_AT) != (ssize_t)sizeof(b))
		return 0;
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

uint64_t written_by_release(const char *text)
{
	uint64_t all = 0, part;
	int i;

	for (i = 0; i < 3; i++) {
		if (*text < '0' || *text > '9')
			return 0;
		for (part = 0; *text >= '0' && *text <= '9' && part < 10000; text++)
			part = part * 10 + (uint64_t)(*text - '0');
		all = all << 16 | part;
		if (i < 2 && *text++ != '.')
			return 0;
	}
	return all;
}
