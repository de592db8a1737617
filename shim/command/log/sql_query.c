/* SPDX-License-Identifier: MIT
 *
 * Taking a query apart, and making two of it.
 */
#include "command/log/sql_query.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- words ---- */

static size_t string_size(const char *at)
{
	char quote = *at == '[' ? ']' : *at;
	const char *end = at + 1;

	while (*end && (*end != quote || (quote != ']' && end[1] == quote)))
		end += *end == quote ? 2 : 1;
	return *end ? (size_t)(end - at) + 1 : 0;
}

static bool is_word_char(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '$' || (c & 0x80);
}

/* False: too long, a comment, or not closed. */
static bool split(struct parsed *p, const char *at)
{
	int depth = 0;

	for (; *at;) {
		struct token *t = &p->tokens[p->count];

		if (isspace((unsigned char)*at)) {
			at++;
			continue;
		}
		if (p->count == TOKENS_MAX || (at[0] == '-' && at[1] == '-') ||
		    (at[0] == '/' && at[1] == '*'))
			return false;
		*t = (struct token){.at = at, .size = 1, .depth = depth};
		if (strchr("'\"`[", *at)) {
			t->size = string_size(at);
		} else if (is_word_char(*at)) {
			t->word = true;
			while (is_word_char(at[t->size]) ||
			       (at[t->size] == '.' && isdigit((unsigned char)*at)))
				t->size++;
		}
		if (!t->size)
			return false;
		depth += *at == '(';
		if (*at == ')')
			t->depth = --depth;
		at += t->size;
		p->count++;
	}
	if (p->count && *p->tokens[p->count - 1].at == ';')
		p->count--;
	return depth == 0;
}

static bool is(const struct parsed *p, int i, const char *word)
{
	return i < p->count && p->tokens[i].size == strlen(word) &&
	       strncasecmp(p->tokens[i].at, word, p->tokens[i].size) == 0;
}

static bool same_token(const struct token *a, const struct token *b)
{
	return a->size == b->size && (a->word ? strncasecmp(a->at, b->at, a->size) == 0
					      : memcmp(a->at, b->at, a->size) == 0);
}

static bool same_span(const struct parsed *p, struct span a, struct span b)
{
	int i;

	if (a.to - a.from != b.to - b.from)
		return false;
	for (i = 0; i < a.to - a.from; i++)
		if (!same_token(&p->tokens[a.from + i], &p->tokens[b.from + i]))
			return false;
	return true;
}

/* ---- the parts of the query ---- */

/* The first of some words outside of parentheses, from `at` on; p->count if there is none. */
static int find_word(const struct parsed *p, int at, const char *const *words)
{
	int k;

	for (; at < p->count; at++)
		for (k = 0; words[k] && p->tokens[at].depth == 0; k++)
			if (is(p, at, words[k]))
				return at;
	return at;
}

static int split_list(const struct parsed *p, struct span all, struct span *out)
{
	int i, n = 0, from = all.from;

	for (i = all.from; i <= all.to; i++) {
		if (i < all.to && !(p->tokens[i].depth == 0 && *p->tokens[i].at == ','))
			continue;
		if (n == PARTS_MAX || i == from)
			return -1;
		out[n++] = (struct span){from, i};
		from = i + 1;
	}
	return n;
}

/* What cannot be taken apart so. */
static bool has_strange_words(const struct parsed *p)
{
	static const char *const words[] = {
	    "UNION", "INTERSECT", "EXCEPT", "OVER",    "FILTER",       "DISTINCT",  "JOIN",
	    "WITH",  "WINDOW",	  "VALUES", "COLLATE", "group_concat", "string_agg"};
	int selects = 0, i;
	size_t k;

	for (i = 0; i < p->count; i++) {
		selects += is(p, i, "SELECT");
		for (k = 0; k < sizeof(words) / sizeof(words[0]); k++)
			if (is(p, i, words[k]))
				return true;
		if (p->tokens[i].word && (p->tokens[i].size > 10) &&
		    strncasecmp(p->tokens[i].at, "json_group", 10) == 0)
			return true;
	}
	return selects != 1;
}

static bool is_any(const struct parsed *p, int i, const char *const *words)
{
	for (; *words; words++)
		if (is(p, i, *words))
			return true;
	return false;
}

/* "expression name". */
static bool has_bare_alias(const struct parsed *p, struct span item)
{
	static const char *const ends[] = {"END", "NULL", "ISNULL", "NOTNULL", NULL};
	static const char *const operators[] = {
	    "AND",  "OR",   "NOT",  "IS",     "LIKE",	"GLOB",	 "IN",	 "BETWEEN", "ELSE",
	    "THEN", "WHEN", "CASE", "ESCAPE", "REGEXP", "MATCH", "FROM", NULL};
	const struct token *before;

	if (item.to - item.from < 2 || !p->tokens[item.to - 1].word ||
	    isdigit((unsigned char)*p->tokens[item.to - 1].at) || is_any(p, item.to - 1, ends))
		return false;
	before = &p->tokens[item.to - 2];
	return *before->at == ')' || strchr("'\"`[", *before->at) ||
	       (before->word && !is_any(p, item.to - 2, operators));
}

/* "expression AS name", or without AS. */
static void split_alias(struct parsed *p, int n)
{
	struct span *item = &p->items[n];

	p->alias[n] = -1;
	if (item->to - item->from > 2 && is(p, item->to - 2, "AS")) {
		p->alias[n] = item->to - 1;
		item->to -= 2;
	} else if (has_bare_alias(p, *item)) {
		p->alias[n] = --item->to;
	}
}

/* A group may be named by an item's number or by its name. */
static bool resolve_group(struct parsed *p, int n)
{
	struct span *group = &p->groups[n];
	const struct token *t = &p->tokens[group->from];
	int i;

	if (group->to - group->from != 1)
		return true;
	if (isdigit((unsigned char)*t->at)) {
		i = atoi(t->at);
		if (i < 1 || i > p->item_count)
			return false;
		*group = p->items[i - 1];
		return true;
	}
	for (i = 0; i < p->item_count; i++)
		if (p->alias[i] >= 0 && same_token(t, &p->tokens[p->alias[i]]))
			*group = p->items[i];
	return true;
}

static bool parse(struct parsed *p)
{
	static const char *const from[] = {"FROM", NULL}, *const after[] = {"WHERE", "GROUP", NULL},
				 *const group[] = {"GROUP", NULL},
				 *const tail[] = {"HAVING", "ORDER", "LIMIT", NULL},
				 *const order[] = {"ORDER", "LIMIT", NULL},
				 *const limit[] = {"LIMIT", NULL};
	int f = find_word(p, 1, from), w = find_word(p, f + 1, after),
	    g = find_word(p, f + 1, group), h = find_word(p, g + 1, tail),
	    o = find_word(p, g + 1, order), l = find_word(p, g + 1, limit), i;

	if (!is(p, 0, "SELECT") || g + 2 >= p->count || !is(p, g + 1, "BY") || w != f + 2 ||
	    has_strange_words(p))
		return false;
	p->table = (struct span){f + 1, f + 2};
	p->where = is(p, w, "WHERE") ? (struct span){w + 1, g} : (struct span){0, 0};
	p->having = is(p, h, "HAVING") ? (struct span){h + 1, o} : (struct span){0, 0};
	p->order = is(p, o, "ORDER") ? (struct span){o, l} : (struct span){0, 0};
	p->limit = (struct span){l, p->count};
	p->item_count = split_list(p, (struct span){1, f}, p->items);
	p->group_count = split_list(p, (struct span){g + 2, h}, p->groups);
	if (p->item_count < 1 || p->group_count < 1)
		return false;
	for (i = 0; i < p->item_count; i++)
		split_alias(p, i);
	for (i = 0; i < p->group_count; i++)
		if (!resolve_group(p, i))
			return false;
	return true;
}

/* ---- aggregates ---- */

static int aggregate_of(const struct token *t)
{
	static const char *const names[] = {"count", "sum", "total", "avg", "min", "max"};
	int i;

	for (i = 0; i < 6; i++)
		if (t->word && t->size == strlen(names[i]) &&
		    strncasecmp(t->at, names[i], t->size) == 0)
			return i;
	return -1;
}

static int closing(const struct parsed *p, int open)
{
	int i = open + 1;

	while (i < p->count &&
	       !(*p->tokens[i].at == ')' && p->tokens[i].depth == p->tokens[open].depth))
		i++;
	return i;
}

/* All calls of them in a part. False: one is not understood. */
static bool find_calls(struct parsed *p, struct span part)
{
	int i, k, end;

	for (i = part.from; i < part.to; i++) {
		int kind = aggregate_of(&p->tokens[i]);

		if (kind < 0 || i + 1 >= p->count || *p->tokens[i + 1].at != '(')
			continue;
		end = closing(p, i + 1);
		if (end >= p->count || p->call_count == PARTS_MAX || end == i + 2)
			return false;
		for (k = i + 2; k < end; k++)
			if ((*p->tokens[k].at == ',' &&
			     p->tokens[k].depth == p->tokens[i].depth + 1) ||
			    (aggregate_of(&p->tokens[k]) >= 0 && *p->tokens[k + 1].at == '('))
				return false;
		p->calls[p->call_count].kind = (enum aggregate)kind;
		p->calls[p->call_count].call = (struct span){i, end + 1};
		p->calls[p->call_count].argument =
		    *p->tokens[i + 2].at == '*' ? (struct span){0, 0} : (struct span){i + 2, end};
		if (*p->tokens[i + 2].at == '*' && kind != COUNT)
			return false;
		p->call_count++;
		i = end;
	}
	return true;
}

/* ---- the two queries ---- */

static void put_span(FILE *out, const struct parsed *p, struct span s)
{
	int i;

	for (i = s.from; i < s.to; i++)
		fprintf(out, " %.*s", (int)p->tokens[i].size, p->tokens[i].at);
}

/* With groups and aggregates in the place of what they stand for. */
static void put_outer(FILE *out, const struct parsed *p, struct span s)
{
	int i = s.from, k;

	while (i < s.to) {
		int next = i + 1;

		for (k = 0; k < p->call_count && next == i + 1; k++)
			if (p->calls[k].call.from == i) {
				fprintf(out, " a%d", k);
				next = p->calls[k].call.to;
			}
		for (k = 0; k < p->group_count && next == i + 1; k++) {
			struct span here = {i, i + p->groups[k].to - p->groups[k].from};

			if (here.to <= s.to && same_span(p, here, p->groups[k])) {
				fprintf(out, " g%d", k);
				next = here.to > i + 1 ? here.to : -1;
			}
		}
		if (next == i + 1)
			fprintf(out, " %.*s", (int)p->tokens[i].size, p->tokens[i].at);
		i = next < 0 ? i + 1 : next;
	}
}

/* A column is called as it was written. */
static void put_name(FILE *out, const struct parsed *p, int item)
{
	const struct token *first = &p->tokens[p->items[item].from];
	const struct token *last = &p->tokens[p->items[item].to - 1];
	const char *at;

	if (p->alias[item] >= 0) {
		put_span(out, p, (struct span){p->alias[item], p->alias[item] + 1});
		return;
	}
	fputs(" \"", out);
	for (at = first->at; at < last->at + last->size; at++)
		fprintf(out, *at == '"' ? "\"\"" : "%c", *at);
	fputc('"', out);
}

char *sql_query_inner(const struct parsed *p)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int i;

	if (!out)
		return NULL;
	fputs("SELECT chromashim_group(", out);
	for (i = 0; i < p->group_count; i++) {
		fputs(i ? "," : "", out);
		put_span(out, p, p->groups[i]);
	}
	for (i = 0; i < p->call_count; i++) {
		fputs(",", out);
		if (p->calls[i].argument.to)
			put_span(out, p, p->calls[i].argument);
		else
			fputs("1", out);
	}
	fputs(") FROM", out);
	put_span(out, p, p->table);
	if (p->where.to) {
		fputs(" WHERE", out);
		put_span(out, p, p->where);
	}
	fclose(out);
	return text;
}

char *sql_query_outer(const struct parsed *p)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);
	int i;

	if (!out)
		return NULL;
	fputs("SELECT", out);
	for (i = 0; i < p->item_count; i++) {
		fputs(i ? "," : "", out);
		put_outer(out, p, p->items[i]);
		fputs(" AS", out);
		put_name(out, p, i);
	}
	fputs(" FROM temp.grouped", out);
	if (p->having.to) {
		fputs(" WHERE", out);
		put_outer(out, p, p->having);
	}
	if (p->order.to)
		put_outer(out, p, p->order);
	put_span(out, p, p->limit);
	fclose(out);
	return text;
}

bool sql_query_parse(struct parsed *p, const char *query)
{
	bool good = split(p, query) && p->count > 5 && parse(p);
	int i;

	for (i = 0; good && i < p->item_count; i++)
		good = find_calls(p, p->items[i]);
	return good && find_calls(p, p->having) && find_calls(p, p->order);
}
