/* SPDX-License-Identifier: MIT
 *
 * The interned names of files.
 */
#include "preload/place/files.h"

#include <string.h>
#include <sys/mman.h>

#include "core/base/checksum.h"
#include "core/oplog/oplog.h"
#include "preload/base/bounds.h"
#include "preload/base/shim.h"
#include "preload/place/protection.h"
#include "preload/base/limits.h"

#define NAMES (1u << 20)
#define NAME_CHUNK 1024u /* names are made that many at a time, and never move */
#define BUCKETS 65536u
#define ARENA ((size_t)64 << 20)
#define TEXT_CHUNK ((size_t)256 << 10)

/* Made as they are needed. */
static struct name *_Atomic names[NAMES / NAME_CHUNK];
static char *_Atomic texts[ARENA / TEXT_CHUNK];
static _Atomic uint32_t buckets[BUCKETS];
static _Atomic uint32_t names_used = 1;
static _Atomic uint64_t texts_used;

/* ---- names ---- */

/* The first chunk has the name 0, which is none. */
bool names_setup(void)
{
	return MADE(names[0], NAME_CHUNK * sizeof(struct name)) != NULL;
}

/* One that is not made yet, or no number, is no name. */
struct name *name_get(uint32_t number)
{
	struct name *chunk =
	    number < NAMES ? atomic_load_explicit(&names[number / NAME_CHUNK], memory_order_acquire)
			   : NULL;

	return chunk ? &chunk[number % NAME_CHUNK] : atomic_load(&names[0]);
}

uint32_t names_count(void)
{
	return atomic_load_explicit(&names_used, memory_order_acquire);
}

const char *name_text(const struct name *n)
{
	return n->text ? n->text : "";
}

static bool has_suffix(const char *text, size_t length, const char *suffix)
{
	size_t n = strlen(suffix);

	return length >= n && memcmp(text + length - n, suffix, n) == 0;
}

bool name_is_uuid(const char *text, size_t length)
{
	size_t i;

	if (length != 36)
		return false;
	for (i = 0; i < length; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		bool hex = (text[i] >= '0' && text[i] <= '9') ||
			   (text[i] >= 'a' && text[i] <= 'f') || (text[i] >= 'A' && text[i] <= 'F');

		if (dash ? text[i] != '-' : !hex)
			return false;
	}
	return true;
}

bool name_is_segment(const struct name *n)
{
	return n->kind == OPLOG_NAME_FILE && name_is_uuid(name_text(n), n->length);
}

static uint8_t role_of(const char *text, size_t length)
{
	static const struct {
		const char *file;
		uint8_t role;
	} root_files[] = {{"chroma.sqlite3", ROLE_DATABASE},
			  {"chroma.sqlite3-journal", ROLE_JOURNAL},
			  {"chroma.sqlite3-wal", ROLE_WAL},
			  {"chroma.sqlite3-shm", ROLE_SHM}},
	  segment_files[] = {{"/header.bin", ROLE_HEADER},
			     {"/data_level0.bin", ROLE_LEVEL0},
			     {"/length.bin", ROLE_LENGTH},
			     {"/link_lists.bin", ROLE_LINKS},
			     {"/index_metadata.pickle", ROLE_PICKLE}};
	size_t i;

	for (i = 0; i < sizeof(root_files) / sizeof(root_files[0]); i++)
		if (length == strlen(root_files[i].file) &&
		    memcmp(text, root_files[i].file, length) == 0)
			return root_files[i].role;
	for (i = 0; i < sizeof(segment_files) / sizeof(segment_files[0]); i++)
		if (has_suffix(text, length, segment_files[i].file) &&
		    name_is_uuid(text, length - strlen(segment_files[i].file)))
			return segment_files[i].role;
	return ROLE_OTHER;
}

static bool same_name(uint32_t number, unsigned protection, unsigned kind, uint32_t hash,
		      const char *text, size_t length)
{
	const struct name *n = name_get(number);

	return n->hash == hash && n->length == length && n->protection == protection &&
	       n->kind == kind && memcmp(name_text(n), text, length) == 0;
}

/* Chroma's own files and segments have names of their own, however many others there are. */
static bool is_needed(unsigned kind, const char *text, size_t length)
{
	return kind == OPLOG_NAME_FILE &&
	       (role_of(text, length) != ROLE_OTHER || name_is_uuid(text, length));
}

static bool are_half_used(void)
{
	return atomic_load(&names_used) >= bound_of("names", NAMES) / 2 ||
	       atomic_load(&texts_used) >= ARENA / 2;
}

/* For a text that never moves. NULL: there is none. */
static char *text_room(size_t n)
{
	uint64_t at = atomic_load(&texts_used), from;
	char *chunk;

	do {
		from = at % TEXT_CHUNK + n > TEXT_CHUNK ? at + TEXT_CHUNK - at % TEXT_CHUNK : at;
		if (n > TEXT_CHUNK || from + n > ARENA)
			return NULL;
	} while (!atomic_compare_exchange_weak(&texts_used, &at, from + n));
	chunk = MADE(texts[from / TEXT_CHUNK], TEXT_CHUNK);
	return chunk ? chunk + from % TEXT_CHUNK : NULL;
}

static uint32_t name_add(unsigned protection, unsigned kind, uint32_t hash, const char *text,
			 size_t length)
{
	uint32_t number;
	struct name *n = NULL;
	char *copy;

	if (!is_needed(kind, text, length) && are_half_used()) {
		limit_reached(LIMIT_NEIGHBOURS);
		return 0;
	}
	number = atomic_fetch_add(&names_used, 1);
	copy = number < bound_of("names", NAMES) ? text_room(length + 1) : NULL;
	if (copy)
		n = MADE(names[number / NAME_CHUNK], NAME_CHUNK * sizeof(struct name));
	if (!n) {
		atomic_store(&names_used, NAMES);
		limit_reached(LIMIT_NAMES);
		return 0;
	}
	n += number % NAME_CHUNK;
	memcpy(copy, text, length);
	n->hash = hash;
	n->length = (uint32_t)length;
	n->text = copy;
	n->protection = (uint8_t)protection;
	n->kind = (uint8_t)kind;
	return number;
}

uint32_t name_intern_kind(unsigned protection, const char *text, size_t length, unsigned kind)
{
	uint32_t hash = (uint32_t)checksum64(text, length, protection * 8 + kind);
	_Atomic uint32_t *bucket = &buckets[hash % BUCKETS];
	uint32_t number = 0, first, at;

	for (;;) {
		first = atomic_load_explicit(bucket, memory_order_acquire);
		for (at = first; at; at = name_get(at)->next)
			if (same_name(at, protection, kind, hash, text, length))
				return at;
		if (!number)
			number = name_add(protection, kind, hash, text, length);
		if (!number)
			return 0;
		name_get(number)->next = first;
		if (atomic_compare_exchange_strong(bucket, &first, number))
			return number;
	}
}

uint32_t name_intern(unsigned protection, const char *text, size_t length)
{
	uint32_t number = name_intern_kind(protection, text, length, OPLOG_NAME_FILE);
	struct name *n = name_get(number);

	if (number && n->role == ROLE_NONE) {
		const char *slash = memrchr(text, '/', length);

		if (slash)
			n->directory = name_intern(protection, text, (size_t)(slash - text));
		n->role = role_of(text, length);
	}
	return number;
}

/* ---- renames ---- */

uint32_t name_renamed(const struct name *n, const struct place *from, const struct place *to)
{
	SCRATCH(text);
	size_t old = strlen(from->relative), new = strlen(to->relative);
	const char *rest = name_text(n) + old;

	if (!text || n->protection != from->slot.protection || n->kind != OPLOG_NAME_FILE ||
	    n->length < old || memcmp(name_text(n), from->relative, old) != 0 ||
	    (*rest && *rest != '/') || n->length - old + new >= SCRATCH_SIZE)
		return 0;
	memcpy(text, to->relative, new);
	memcpy(text + new, rest, n->length - old);
	return name_intern(to->slot.protection, text, new + n->length - old);
}
