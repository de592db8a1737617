/* SPDX-License-Identifier: MIT
 *
 * Names of the objects of a replica, and lists of them as sftp and rclone give them.
 */
#include "core/replica/names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const folders[REPLICA_FOLDERS] = {"control", "snapshots", "chunks"};
static const char *const marks[] = {
    [REPLICA_OWNER] = ".owner",	  [REPLICA_PRUNE] = ".prune",
    [REPLICA_PRUNED] = ".pruned", [REPLICA_VERIFIED] = ".verified",
    [REPLICA_HELD] = ".held-",	  [REPLICA_RELEASED] = ".released-"};

const char *replica_folder_name(enum replica_folder folder)
{
	return folders[folder];
}

static void format_chunk(char out[REPLICA_NAME_SIZE], const struct replica_chunk_name *name)
{
	int n = snprintf(out, REPLICA_NAME_SIZE, "chunks/%02x/", name->bytes[0]);
	size_t i;

	for (i = 0; i < sizeof(name->bytes); i++)
		n += snprintf(out + n, REPLICA_NAME_SIZE - (size_t)n, "%02x", name->bytes[i]);
}

static void format_control(char out[REPLICA_NAME_SIZE], const struct replica_name *name)
{
	int n = snprintf(out, REPLICA_NAME_SIZE, "control/%06" PRIu32 "-%08" PRIx32, name->epoch,
			 name->line);

	if (name->mark >= REPLICA_VERIFIED)
		n += snprintf(out + n, REPLICA_NAME_SIZE - (size_t)n, "-%012" PRIu64 "-%020" PRIu64,
			      name->id, name->time);
	n += snprintf(out + n, REPLICA_NAME_SIZE - (size_t)n, "%s", marks[name->mark]);
	if (name->mark >= REPLICA_HELD)
		snprintf(out + n, REPLICA_NAME_SIZE - (size_t)n, "%06" PRIu32, name->number);
}

void replica_name_format(char out[REPLICA_NAME_SIZE], const struct replica_name *name)
{
	switch (name->folder) {
	case REPLICA_CONTROL:
		format_control(out, name);
		break;
	case REPLICA_SNAPSHOTS:
		snprintf(out, REPLICA_NAME_SIZE,
			 "snapshots/%06" PRIu32 "-%08" PRIx32 "-%012" PRIu64 "-%020" PRIu64,
			 name->epoch, name->line, name->id, name->time);
		break;
	default:
		format_chunk(out, &name->chunk);
	}
}

/* Exactly n digits of the base, and no overflow. */
static bool take(const char **at, unsigned n, unsigned base, uint64_t *out)
{
	uint64_t value = 0;

	for (; n; n--, ++*at) {
		char c = **at;
		unsigned digit = c >= '0' && c <= '9'	? (unsigned)(c - '0')
				 : c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
							: 16;

		if (digit >= base || __builtin_mul_overflow(value, base, &value) ||
		    __builtin_add_overflow(value, digit, &value))
			return false;
	}
	*out = value;
	return true;
}

static bool take_char(const char **at, char c)
{
	return **at == c && ++*at;
}

/* One of those from `first` to `last`, which ends the text. */
static bool take_mark(struct replica_name *out, const char *text, enum replica_mark first,
		      enum replica_mark last)
{
	uint64_t number;
	unsigned i;

	for (i = first; i <= last; i++) {
		size_t n = strlen(marks[i]);

		if (strncmp(text, marks[i], n) != 0 || (i < REPLICA_HELD && text[n]))
			continue;
		out->mark = (enum replica_mark)i;
		text += n;
		if (i < REPLICA_HELD)
			return true;
		if (!take(&text, 6, 10, &number))
			return false;
		out->number = (uint32_t)number;
		return *text == '\0';
	}
	return false;
}

static bool take_snapshot(struct replica_name *out, const char **text)
{
	return take_char(text, '-') && take(text, 12, 10, &out->id) && take_char(text, '-') &&
	       take(text, 20, 10, &out->time);
}

static bool parse_numbered(struct replica_name *out, const char *text)
{
	uint64_t epoch, line;

	if (!take(&text, 6, 10, &epoch) || !take_char(&text, '-') || !take(&text, 8, 16, &line))
		return false;
	out->epoch = (uint32_t)epoch;
	out->line = (uint32_t)line;
	if (out->folder == REPLICA_SNAPSHOTS)
		return take_snapshot(out, &text) && *text == '\0';
	return *text == '-' ? take_snapshot(out, &text) &&
				  take_mark(out, text, REPLICA_VERIFIED, REPLICA_RELEASED)
			    : take_mark(out, text, REPLICA_OWNER, REPLICA_PRUNED);
}

static bool parse_chunk(struct replica_name *out, const char *text)
{
	uint64_t first, byte;
	size_t i;

	if (!take(&text, 2, 16, &first) || !take_char(&text, '/'))
		return false;
	for (i = 0; i < sizeof(out->chunk.bytes); i++) {
		if (!take(&text, 2, 16, &byte))
			return false;
		out->chunk.bytes[i] = (unsigned char)byte;
	}
	return *text == '\0' && out->chunk.bytes[0] == first;
}

bool replica_name_parse(struct replica_name *out, const char *text)
{
	unsigned i;

	*out = (struct replica_name){.folder = REPLICA_CONTROL};
	for (i = 0; i < REPLICA_FOLDERS; i++) {
		size_t n = strlen(folders[i]);

		if (strncmp(text, folders[i], n) != 0 || text[n] != '/')
			continue;
		out->folder = (enum replica_folder)i;
		return i == REPLICA_CHUNKS ? parse_chunk(out, text + n + 1)
					   : parse_numbered(out, text + n + 1);
	}
	return false;
}

int replica_name_compare(const void *a, const void *b)
{
	const struct replica_name *x = a, *y = b;

	if (x->epoch != y->epoch)
		return x->epoch < y->epoch ? -1 : 1;
	if (x->line != y->line)
		return x->line < y->line ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* The last part of its path, in front of which sftp and rclone say more or less of the folder. */
static bool parse_end(struct replica_name *out, enum replica_folder folder, const char *line,
		      size_t n)
{
	char text[REPLICA_NAME_SIZE];
	size_t start = n;

	while (start > 0 && line[start - 1] != '/' && line[start - 1] != ' ')
		start--;
	if (n - start < 2 || n - start >= sizeof(text) - 16)
		return false;
	if (folder == REPLICA_CHUNKS)
		snprintf(text, sizeof(text), "chunks/%.2s/%.*s", line + start, (int)(n - start),
			 line + start);
	else
		snprintf(text, sizeof(text), "%s/%.*s", folders[folder], (int)(n - start),
			 line + start);
	return replica_name_parse(out, text) && out->folder == folder;
}

/* "-rw-------    1 0        0            1234 Nov 30 01:20 name": the fifth word. */
static bool size_of_ls(const char *line, uint64_t *out)
{
	unsigned word;

	if (line[0] != '-')
		return false;
	for (word = 0; word < 4; word++) {
		line += strcspn(line, " ");
		line += strspn(line, " ");
	}
	return *line >= '0' && *line <= '9' && sscanf(line, "%20" SCNu64, out) == 1;
}

bool replica_listing_parse(const char *line, enum replica_folder folder, bool is_sftp,
			   struct replica_name *out, uint64_t *size_out)
{
	size_t n = strcspn(line, "\r\n");

	*size_out = 0;
	if (is_sftp ? !size_of_ls(line, size_out)
		    : line[0] < '0' || line[0] > '9' || sscanf(line, "%20" SCNu64, size_out) != 1)
		return false;
	return parse_end(out, folder, line, n);
}
