/* SPDX-License-Identifier: MIT
 *
 * The log in numbers: texts, tables of rows with a name, and stretches of time.
 */
#include "command/digest/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PLACES (4 * DIGEST_ROWS)

/* ---- texts ---- */

void digest_text(char *out, size_t room, const char *text, size_t size)
{
	size_t n = 0, i;

	for (i = 0; i < size && n < room - 4; i++) {
		bool blank = text[i] == ' ' || text[i] == '\n' || text[i] == '\t' ||
			     text[i] == '\r' || text[i] == '\0';

		if (!blank)
			out[n++] = text[i];
		else if (n && out[n - 1] != ' ')
			out[n++] = ' ';
	}
	if (i < size) { /* not within a character */
		while (n && ((unsigned char)out[n - 1] & 0xc0) == 0x80)
			n--;
		n -= n && (unsigned char)out[n - 1] >= 0xc0;
		memcpy(out + n, "\xe2\x80\xa6", 3);
		n += 3;
	}
	while (n && out[n - 1] == ' ')
		n--;
	out[n] = '\0';
}

/* ---- rows ---- */

static uint64_t hash_of(const char *name)
{
	uint64_t h = UINT64_C(14695981039346656037);

	for (; *name; name++)
		h = (h ^ (unsigned char)*name) * UINT64_C(1099511628211);
	return h;
}

/* The place of a name, or the free one where it would be. */
static uint32_t *rows_place(const struct digest_rows *rows, const char *name)
{
	size_t i = hash_of(name) % rows->place_count;

	while (rows->places[i] && strcmp(rows->list[rows->places[i] - 1]->name, name) != 0)
		i = (i + 1) % rows->place_count;
	return &rows->places[i];
}

static int rows_open(struct digest_rows *rows)
{
	rows->list = calloc(DIGEST_ROWS + 1, sizeof(*rows->list));
	rows->places = calloc(PLACES, sizeof(*rows->places));
	rows->place_count = PLACES;
	return rows->list && rows->places ? 0 : -ENOMEM;
}

struct digest_row *digest_row(struct digest *d, enum digest_table table, const char *name)
{
	struct digest_rows *rows = &d->tables[table];
	struct digest_row *row;
	uint32_t *place;

	if (!rows->places && rows_open(rows) < 0)
		return NULL;
	place = rows_place(rows, name);
	if (!*place && rows->count >= DIGEST_ROWS) { /* the last one is of all others */
		name = DIGEST_OTHERS;
		place = rows_place(rows, name);
	}
	if (*place)
		return rows->list[*place - 1];
	row = calloc(1, sizeof(*row));
	if (!row || !(row->name = strdup(name))) {
		free(row);
		return NULL;
	}
	rows->list[rows->count++] = row;
	*place = (uint32_t)rows->count;
	return row;
}

const struct digest_row *digest_find(const struct digest *d, enum digest_table table,
				     const char *name)
{
	const struct digest_rows *rows = &d->tables[table];
	uint32_t *place = rows->places ? rows_place(rows, name) : NULL;

	return place && *place ? rows->list[*place - 1] : NULL;
}

void digest_rows_free(struct digest_rows *rows)
{
	size_t i;

	for (i = 0; i < rows->count; i++) {
		free(rows->list[i]->name);
		free(rows->list[i]);
	}
	free(rows->list);
	free(rows->places);
}

size_t digest_best(const struct digest *d, enum digest_table table, digest_key *key,
		   const struct digest_row **out, size_t room)
{
	const struct digest_rows *rows = &d->tables[table];
	size_t count = 0, i, at;

	for (i = 0; i < rows->count; i++) {
		uint64_t value = key(rows->list[i]);

		for (at = count; at > 0 && key(out[at - 1]) < value; at--)
			;
		if (!value || at >= room)
			continue;
		if (count < room)
			count++;
		memmove(out + at + 1, out + at, (count - at - 1) * sizeof(*out));
		out[at] = rows->list[i];
	}
	return count;
}

/* ---- time ---- */

enum folding { SUM, GREATEST, LEAST };

static void fold_series(struct digest_series *s, enum folding how)
{
	unsigned i;

	for (i = 0; i < DIGEST_BUCKETS; i++) {
		uint64_t a = 2 * i < DIGEST_BUCKETS ? s->at[2 * i] : 0;
		uint64_t b = 2 * i < DIGEST_BUCKETS ? s->at[2 * i + 1] : 0;

		if (how == LEAST)
			s->at[i] = a && b && b < a ? b : a ? a : b;
		else if (how == GREATEST)
			s->at[i] = a > b ? a : b;
		else
			s->at[i] = a + b;
	}
}

static void fold(struct digest *d)
{
	size_t i, table;

	for (table = 0; table < DIGEST_TABLE_COUNT; table++)
		for (i = 0; i < d->tables[table].count; i++) {
			fold_series(&d->tables[table].list[i]->by_time, SUM);
			fold_series(&d->tables[table].list[i]->grown_by_time, SUM);
		}
	for (i = 0; i < DIGEST_EVENT_KINDS; i++)
		fold_series(&d->events[i].by_time, SUM);
	fold_series(&d->entries_by_time, SUM);
	fold_series(&d->written_by_time, SUM);
	fold_series(&d->records_by_time, SUM);
	fold_series(&d->commits_by_time, SUM);
	fold_series(&d->syncs_by_time, SUM);
	fold_series(&d->slowest_by_time, GREATEST);
	fold_series(&d->grown_by_time, SUM);
	fold_series(&d->free_by_time, LEAST);
	d->width *= 2;
}

void digest_reach(struct digest *d, uint64_t time)
{
	while (time > d->start && (time - d->start) / d->width >= DIGEST_BUCKETS)
		fold(d);
}
