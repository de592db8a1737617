/* SPDX-License-Identifier: MIT
 *
 * Names that are not given away.
 */
#include "command/report/conceal.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <sqlite3.h>

#include "core/base/names.h"
#include "core/chroma/migrations.h"
#include "core/snapshot/chunks.h"

#define WORD_MAX 64u

char *conceal_text(const struct conceal *c, const char *text, char out[CONCEAL_SIZE])
{
	struct chunk_name hash;
	char keyed[4096];
	size_t n = strnlen(text, sizeof(keyed) - sizeof(c->key) - 1), i;

	/* With the key before and the length bound, a dictionary is of no use without the store. */
	memcpy(keyed, c->key, sizeof(c->key));
	keyed[sizeof(c->key)] = 1; /* not all zeros, whatever the key */
	memcpy(keyed + sizeof(c->key) + 1, text, n);
	chunk_name_of(keyed, sizeof(c->key) + 1 + n, &hash);
	snprintf(out, CONCEAL_SIZE, "x-");
	for (i = 0; i < 8; i++)
		snprintf(out + 2 + 2 * i, 3, "%02x", hash.bytes[i]);
	return out;
}

/* ---- paths ---- */

static bool is_chromas_file(const char *name)
{
	static const char *const known[] = {".",
					    CHROMA_DATABASE,
					    CHROMA_DATABASE "-journal",
					    CHROMA_DATABASE "-wal",
					    CHROMA_DATABASE "-shm",
					    "header.bin",
					    "data_level0.bin",
					    "length.bin",
					    "link_lists.bin",
					    "index_metadata.pickle",
					    ".chromashim"};
	size_t i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i], name))
			return true;
	return false;
}

char *conceal_path(const struct conceal *c, const char *path, char *out, size_t room)
{
	char part[4096], hashed[CONCEAL_SIZE];
	size_t n = 0, size;

	*out = '\0';
	while (*path && n < room) {
		size = strcspn(path, "/");
		snprintf(part, sizeof(part), "%.*s", (int)size, path);
		n += (size_t)snprintf(out + n, room - n, "%s%s", n ? "/" : "",
				      is_chromas_file(part) ? part : conceal_text(c, part, hashed));
		path += size + (path[size] == '/');
	}
	return out;
}

/* ---- SQL ---- */

static bool is_word_in(const char *text, const char *word)
{
	size_t n = strlen(word);
	const char *at;

	for (at = strcasestr(text, word); at; at = strcasestr(at + 1, word)) {
		bool begins = at == text || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');

		if (begins && !(isalnum((unsigned char)at[n]) || at[n] == '_'))
			return true;
	}
	return false;
}

/* SQL's, or of a table that Chroma makes. */
static bool is_known_word(const char *word)
{
	static const char own[] =
	    "migrations acquire_write lock_status dir version filename sql hash "
	    "sqlite_schema sqlite_master maintenance_log count max min coalesce "
	    "length rowid main integer text blob real";
	const struct migration *all;
	unsigned count, i;

	if (sqlite3_keyword_check(word, (int)strlen(word)) || is_word_in(own, word))
		return true;
	all = migrations_all(&count);
	for (i = 0; i < count; i++) {
		const char *text = migrations_text(all[i].dir, all[i].version);

		if (text && is_word_in(text, word))
			return true;
	}
	return false;
}

/* The end of what begins with a quote, which may be doubled in it. */
static const char *skip_quoted(const char *at, char quote)
{
	for (at++; *at; at++) {
		if (*at == quote && at[1] != quote)
			return at + 1;
		at += *at == quote;
	}
	return at;
}

struct concealed {
	const struct conceal *c;
	char *out;
	size_t size, room;
};

static void put(struct concealed *o, const char *text)
{
	size_t n = strlen(text);

	if (o->size + n + 1 > o->room)
		n = 0;
	memcpy(o->out + o->size, text, n);
	o->size += n;
	o->out[o->size] = '\0';
}

static void put_word(struct concealed *o, const char *at, size_t n)
{
	char word[WORD_MAX + 1], hashed[CONCEAL_SIZE], whole[4096];

	snprintf(word, sizeof(word), "%.*s", (int)(n < WORD_MAX ? n : WORD_MAX), at);
	if (n <= WORD_MAX && is_known_word(word)) {
		put(o, word);
		return;
	}
	snprintf(whole, sizeof(whole), "%.*s", (int)n, at);
	put(o, conceal_text(o->c, whole, hashed));
}

static bool is_word(char ch)
{
	return isalnum((unsigned char)ch) || ch == '_' || ch == '$' || (unsigned char)ch >= 0x80;
}

char *conceal_sql(const struct conceal *c, const char *sql, char *out, size_t room)
{
	struct concealed o = {.c = c, .out = out, .room = room};

	*out = '\0';
	while (*sql) {
		const char *end = sql + 1;

		if (*sql == '\'' || ((*sql | 0x20) == 'x' && sql[1] == '\'')) { /* a text, a blob */
			end = skip_quoted(sql + (*sql != '\''), '\'');
			put(&o, "?");
		} else if (*sql == '"' || *sql == '`' || *sql == '[') {
			end = *sql == '[' ? sql + strcspn(sql, "]") : skip_quoted(sql, *sql);
			end += *sql == '[' && *end == ']';
			put_word(&o, sql + 1, end > sql + 2 ? (size_t)(end - sql - 2) : 0);
		} else if (isdigit((unsigned char)*sql)) {
			while (is_word(*end) || *end == '.')
				end++;
			put(&o, "?");
		} else if (!strncmp(sql, "--", 2) || !strncmp(sql, "/*", 2)) { /* who knows what */
			put(&o, "/*");
			break;
		} else if (is_word(*sql)) {
			while (is_word(*end))
				end++;
			put_word(&o, sql, (size_t)(end - sql));
		} else {
			put(&o, (char[]){*sql, '\0'});
		}
		sql = end;
	}
	return out;
}
