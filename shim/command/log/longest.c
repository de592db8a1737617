/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --top N`: the lines that took longest.
 */
#include "command/log/longest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct longest_line {
	uint64_t duration;
	char *text;
};

FILE *longest_begin(struct longest *l, uint64_t duration)
{
	if (l->count == l->max && duration <= l->list[l->count - 1].duration)
		return NULL;
	l->out = open_memstream(&l->text, &l->size);
	return l->out;
}

/* Room for one more, for which the last one goes if there are enough. */
static int make_room(struct longest *l)
{
	struct longest_line *list;

	if (l->count == l->max) {
		free(l->list[--l->count].text);
		return 0;
	}
	list = realloc(l->list, (l->count + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	l->list = list;
	return 0;
}

int longest_end(struct longest *l, uint64_t duration)
{
	uint32_t at;
	int r;

	fclose(l->out);
	l->out = NULL;
	r = l->text ? make_room(l) : -ENOMEM;
	if (r < 0) {
		free(l->text);
		return r;
	}
	for (at = l->count; at > 0 && l->list[at - 1].duration < duration; at--)
		l->list[at] = l->list[at - 1];
	l->list[at].duration = duration;
	l->list[at].text = l->text;
	l->text = NULL;
	l->count++;
	return 0;
}

void longest_print(const struct longest *l, FILE *out)
{
	uint32_t i;

	for (i = 0; i < l->count; i++)
		fputs(l->list[i].text, out);
}

void longest_free(struct longest *l)
{
	uint32_t i;

	for (i = 0; i < l->count; i++)
		free(l->list[i].text);
	free(l->list);
	memset(l, 0, sizeof(*l));
}
