/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --sql`: SELECT … FROM a table of the log [WHERE …] GROUP BY …, answered while the
 * log is read. SQLite groups by sorting all rows, which for ten million of them takes ten seconds
 * and half a gigabyte; here memory grows with the groups alone.
 *
 * The query is taken apart at its words (sql_query.c). Rows go through SQLite, which evaluates what
 * is grouped by and what is aggregated, into an aggregate function of ours; its groups become the
 * table `grouped`, of which the query's columns, HAVING, ORDER BY and LIMIT are asked. Whatever is
 * not understood is left to SQLite as it is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/log/sql.h"
#include "command/log/sql_query.h"
#include "core/base/checksum.h"

#define GROUPS_MAX 4000000u

/* ---- groups ---- */

struct sum {
	uint64_t count;
	int64_t whole;
	double real;
	bool is_real, overflown;
	sqlite3_value *least; /* or greatest */
};

struct group {
	uint64_t hash;
	sqlite3_value *keys[PARTS_MAX];
	struct sum sums[];
};

struct sql_groups {
	const struct parsed *parsed;
	struct group **table; /* open addressing; a power of two */
	size_t room, count;
	bool failed;
};

static uint64_t hash_value(sqlite3_value *v, uint64_t seed)
{
	double real;
	int64_t whole;

	switch (sqlite3_value_type(v)) {
	case SQLITE_INTEGER:
		whole = sqlite3_value_int64(v);
		real = (double)whole; /* equal numbers are one group, of whatever type */
		return checksum64(&real, sizeof(real), seed);
	case SQLITE_FLOAT:
		real = sqlite3_value_double(v);
		return checksum64(&real, sizeof(real), seed);
	case SQLITE_NULL:
		return checksum64("", 0, seed + 1);
	default:
		return checksum64(sqlite3_value_blob(v), (size_t)sqlite3_value_bytes(v), seed + 2);
	}
}

static int rank(sqlite3_value *v)
{
	int type = sqlite3_value_type(v);

	return type == SQLITE_NULL ? 0 : type == SQLITE_TEXT ? 2 : type == SQLITE_BLOB ? 3 : 1;
}

static int compare_numbers(sqlite3_value *a, sqlite3_value *b)
{
	if (sqlite3_value_type(a) == SQLITE_INTEGER && sqlite3_value_type(b) == SQLITE_INTEGER) {
		int64_t x = sqlite3_value_int64(a), y = sqlite3_value_int64(b);

		return x < y ? -1 : x > y;
	} else {
		double x = sqlite3_value_double(a), y = sqlite3_value_double(b);

		return x < y ? -1 : x > y;
	}
}

/* As SQLite sorts values. */
static int compare_values(sqlite3_value *a, sqlite3_value *b)
{
	int kind = rank(a), other = rank(b), m, n, order;

	if (kind != other)
		return kind - other;
	if (kind <= 1)
		return kind ? compare_numbers(a, b) : 0;
	m = sqlite3_value_bytes(a);
	n = sqlite3_value_bytes(b);
	order = memcmp(sqlite3_value_blob(a), sqlite3_value_blob(b), (size_t)(m < n ? m : n));
	return order ? order : m - n;
}

static bool grow(struct sql_groups *s)
{
	size_t room = s->room ? 2 * s->room : 256, i, at;
	struct group **table = calloc(room, sizeof(*table));

	if (!table)
		return false;
	for (i = 0; i < s->room; i++) {
		if (!s->table[i])
			continue;
		for (at = s->table[i]->hash & (room - 1); table[at]; at = (at + 1) & (room - 1))
			;
		table[at] = s->table[i];
	}
	free(s->table);
	s->table = table;
	s->room = room;
	return true;
}

static bool same_keys(const struct group *g, sqlite3_value **values, int n)
{
	int i;

	for (i = 0; i < n; i++)
		if (compare_values(g->keys[i], values[i]) != 0)
			return false;
	return true;
}

/* NULL: no memory, or too many. */
static struct group *group_of(struct sql_groups *s, sqlite3_value **values)
{
	const struct parsed *p = s->parsed;
	struct group *g;
	uint64_t hash = 0;
	size_t at;
	int i;

	for (i = 0; i < p->group_count; i++)
		hash = hash_value(values[i], hash);
	for (at = hash & (s->room - 1); s->room && s->table[at]; at = (at + 1) & (s->room - 1))
		if (s->table[at]->hash == hash && same_keys(s->table[at], values, p->group_count))
			return s->table[at];
	if (s->count == GROUPS_MAX || (2 * s->count >= s->room && !grow(s)))
		return NULL;
	g = calloc(1, sizeof(*g) + (size_t)p->call_count * sizeof(g->sums[0]));
	if (!g)
		return NULL;
	g->hash = hash;
	for (i = 0; i < p->group_count; i++)
		g->keys[i] = sqlite3_value_dup(values[i]);
	for (at = hash & (s->room - 1); s->table[at]; at = (at + 1) & (s->room - 1))
		;
	s->table[at] = g;
	s->count++;
	return g;
}

static void add_sum(struct sum *sum, enum aggregate kind, sqlite3_value *v)
{
	int type = sqlite3_value_type(v);

	if (type == SQLITE_NULL)
		return;
	sum->count++;
	if (kind == MIN || kind == MAX) {
		int order = sum->least ? compare_values(v, sum->least) : 0;

		if (sum->least && (kind == MIN ? order >= 0 : order <= 0))
			return;
		sqlite3_value_free(sum->least);
		sum->least = sqlite3_value_dup(v);
	} else if (kind != COUNT) {
		if (type != SQLITE_INTEGER)
			type = sqlite3_value_numeric_type(v);
		sum->real += sqlite3_value_double(v);
		sum->is_real |= type != SQLITE_INTEGER;
		sum->overflown |=
		    __builtin_add_overflow(sum->whole, sqlite3_value_int64(v), &sum->whole);
	}
}

static void group_step(sqlite3_context *context, int argc, sqlite3_value **argv)
{
	struct sql *q = sqlite3_user_data(context);
	const struct parsed *p = q->groups->parsed;
	struct group *g;
	int i;

	(void)argc;
	if (q->groups->failed)
		return;
	g = group_of(q->groups, argv);
	q->groups->failed = !g;
	if (!g) {
		sqlite3_result_error_nomem(context);
		return;
	}
	for (i = 0; i < p->call_count; i++)
		add_sum(&g->sums[i], p->calls[i].kind, argv[p->group_count + i]);
}

static void group_final(sqlite3_context *context)
{
	(void)context;
}

int sql_group_register(struct sql *q)
{
	return sqlite3_create_function_v2(q->db, "chromashim_group", -1, SQLITE_UTF8, q, NULL,
					  group_step, group_final, NULL);
}

static void free_groups(struct sql_groups *s, const struct parsed *p)
{
	size_t i;
	int k;

	for (i = 0; i < s->room; i++) {
		struct group *g = s->table[i];

		for (k = 0; g && k < p->group_count; k++)
			sqlite3_value_free(g->keys[k]);
		for (k = 0; g && k < p->call_count; k++)
			sqlite3_value_free(g->sums[k].least);
		free(g);
	}
	free(s->table);
}

/* ---- the table of them ---- */

/* False: SQLite's sum() fails, and so does this. */
static bool bind_sum(sqlite3_stmt *s, int n, const struct sum *sum, enum aggregate kind)
{
	switch (kind) {
	case COUNT:
		return sqlite3_bind_int64(s, n, (int64_t)sum->count) == SQLITE_OK;
	case SUM:
		if (!sum->count)
			return true;
		if (sum->is_real)
			sqlite3_bind_double(s, n, sum->real);
		else
			sqlite3_bind_int64(s, n, sum->whole);
		return sum->is_real || !sum->overflown;
	case TOTAL:
		return sqlite3_bind_double(s, n, sum->real) == SQLITE_OK;
	case AVG:
		return !sum->count ||
		       sqlite3_bind_double(s, n, sum->real / (double)sum->count) == SQLITE_OK;
	default:
		return !sum->least || sqlite3_bind_value(s, n, sum->least) == SQLITE_OK;
	}
}

static int make_table(struct sql *q, const struct parsed *p, sqlite3_stmt **insert)
{
	char create[512] = "CREATE TEMP TABLE grouped(", values[256] = "";
	int i, n = p->group_count + p->call_count;

	sqlite3_exec(q->db, "DROP TABLE IF EXISTS temp.grouped", NULL, NULL, NULL);
	for (i = 0; i < n; i++) {
		size_t at = strlen(create);
		bool group = i < p->group_count;

		snprintf(create + at, sizeof(create) - at, "%s%c%d", i ? "," : "",
			 group ? 'g' : 'a', group ? i : i - p->group_count);
		strcat(values, i ? ",?" : "?");
	}
	strcat(create, ")");
	i = sqlite3_exec(q->db, create, NULL, NULL, NULL);
	snprintf(create, sizeof(create), "INSERT INTO temp.grouped VALUES(%s)", values);
	return i == SQLITE_OK ? sqlite3_prepare_v2(q->db, create, -1, insert, NULL) : i;
}

static int insert_groups(const struct sql_groups *s, const struct parsed *p, sqlite3_stmt *insert)
{
	size_t i;
	int k, r = SQLITE_OK;

	for (i = 0; i < s->room && r == SQLITE_OK; i++) {
		const struct group *g = s->table[i];

		if (!g)
			continue;
		for (k = 0; k < p->group_count; k++)
			sqlite3_bind_value(insert, k + 1, g->keys[k]);
		for (k = 0; k < p->call_count; k++)
			if (!bind_sum(insert, p->group_count + k + 1, &g->sums[k],
				      p->calls[k].kind))
				return SQLITE_ERROR;
		r = sqlite3_step(insert) == SQLITE_DONE ? SQLITE_OK : SQLITE_ERROR;
		sqlite3_reset(insert);
		sqlite3_clear_bindings(insert);
	}
	return r;
}

/* Both have to compile before a row is read. */
static int run_grouped(struct sql *q, const struct parsed *p, sqlite3_stmt **out)
{
	struct sql_groups groups = {.parsed = p};
	char *inner = sql_query_inner(p), *outer = sql_query_outer(p);
	sqlite3_stmt *insert = NULL, *rows = NULL, *result = NULL;
	int r = 0;

	q->groups = &groups;
	/* What is no column any more must not turn into a text. */
	sqlite3_db_config(q->db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
	if (inner && outer && make_table(q, p, &insert) == SQLITE_OK &&
	    sqlite3_prepare_v2(q->db, inner, -1, &rows, NULL) == SQLITE_OK &&
	    sqlite3_prepare_v2(q->db, outer, -1, &result, NULL) == SQLITE_OK) {
		while ((r = sqlite3_step(rows)) == SQLITE_ROW)
			;
		sqlite3_finalize(rows);
		rows = NULL;
		r = r == SQLITE_DONE ? insert_groups(&groups, p, insert) : r;
		r = r == SQLITE_OK ? 1 : -r;
	}
	if (r == 1)
		*out = result;
	else
		sqlite3_finalize(result);
	sqlite3_finalize(rows);
	sqlite3_finalize(insert);
	free_groups(&groups, p);
	q->groups = NULL;
	sqlite3_db_config(q->db, SQLITE_DBCONFIG_DQS_DML, 1, NULL);
	free(inner);
	free(outer);
	return r;
}

int sql_group(struct sql *q, const char *query, sqlite3_stmt **out)
{
	struct parsed *p = calloc(1, sizeof(*p));
	int r = 0;

	if (p && sql_query_parse(p, query))
		r = run_grouped(q, p, out);
	free(p);
	return r;
}
