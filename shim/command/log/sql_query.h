/* SPDX-License-Identifier: MIT
 *
 * A query that groups one table, taken apart at its words.
 */
#ifndef COMMAND_LOG_SQL_QUERY_H
#define COMMAND_LOG_SQL_QUERY_H

#include <stdbool.h>
#include <stddef.h>

#define PARTS_MAX 16 /* columns, groups, aggregates: each */
#define TOKENS_MAX 512

enum aggregate { COUNT, SUM, TOTAL, AVG, MIN, MAX };

struct token {
	const char *at;
	size_t size;
	bool word; /* a name or a keyword */
	int depth; /* of parentheses, outside of them */
};

/* A stretch of tokens, end not included. */
struct span {
	int from, to;
};

struct parsed {
	struct token tokens[TOKENS_MAX];
	int count;
	struct span items[PARTS_MAX], groups[PARTS_MAX];
	int alias[PARTS_MAX]; /* of an item: its token, or -1 */
	int item_count, group_count;
	struct span table, where, having, order, limit;
	struct {
		enum aggregate kind;
		struct span call, argument; /* argument empty: count(*) */
	} calls[PARTS_MAX];
	int call_count;
};

/* *p is zero; it points into the query. False: it is of another kind, or not understood. */
bool sql_query_parse(struct parsed *p, const char *query);
/* What gives chromashim_group() its rows, and what is asked of the groups; to be freed. NULL: no
 * memory. */
char *sql_query_inner(const struct parsed *p);
char *sql_query_outer(const struct parsed *p);

#endif
