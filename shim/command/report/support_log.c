/* SPDX-License-Identifier: MIT
 *
 * `chromashim support`: what the log says, in numbers and in acts without names.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/terminal.h"
#include "command/report/support.h"
#include "core/oplog/oplog.h"

#define ACTS 20000u
#define ROWS 200u /* of a table */

void support_put_hash(struct support *s, const char *key, const char *text)
{
	char hashed[CONCEAL_SIZE];

	json_put_text(&s->json, key,
		      text && *text ? conceal_text(&s->conceal, text, hashed) : NULL);
}

void support_put_path(struct support *s, const char *key, const char *path)
{
	char hashed[512];

	json_put_text(&s->json, key,
		      path ? conceal_path(&s->conceal, path, hashed, sizeof(hashed)) : NULL);
}

void support_put_time(struct json *j, const char *key, uint64_t ns)
{
	char text[40];

	json_put_text(j, key, ns ? format_time_utc(text, sizeof(text), ns) : NULL);
}

static void put_latency(struct json *j, const char *key, const struct latency *l)
{
	json_key(j, key);
	json_begin(j, '{');
	json_put_uint(j, "count", l->count);
	json_put_uint(j, "total_ns", l->total);
	json_put_uint(j, "p50_ns", latency_percentile(l, 50));
	json_put_uint(j, "p99_ns", latency_percentile(l, 99));
	json_put_uint(j, "max_ns", l->max);
	json_end(j, '}');
}

/* How a table's names are told. */
static void put_row_name(struct support *s, enum digest_table table, const struct digest_row *row)
{
	char hashed[1024];

	if (table == DIGEST_STATEMENTS || table == DIGEST_PAGES)
		json_put_text(&s->json, "name",
			      conceal_sql(&s->conceal, row->name, hashed, sizeof(hashed)));
	else
		support_put_path(s, "name", row->name);
	if (table == DIGEST_FILES || table == DIGEST_COLLECTIONS || table == DIGEST_SEGMENTS)
		support_put_hash(s, "collection", collection_names_find(s->in.names, row->name));
}

static void put_rows(struct support *s, const char *key, enum digest_table table, digest_key *best)
{
	const struct digest_row *rows[ROWS];
	size_t count = digest_best(s->d, table, best, rows, ROWS), i, k;

	json_key(&s->json, key);
	json_begin(&s->json, '[');
	for (i = 0; i < count; i++) {
		const struct digest_row *r = rows[i];
		const struct {
			const char *key;
			uint64_t value;
		} numbers[] = {
		    {"calls", r->calls},     {"ns", r->call_ns},	{"max_ns", r->max_ns},
		    {"writes", r->writes},   {"bytes", r->written},	{"syncs", r->syncs},
		    {"sync_ns", r->sync_ns}, {"grown", r->grown},	{"added", r->added},
		    {"updated", r->updated}, {"upserted", r->upserted}, {"deleted", r->deleted},
		    {"purged", r->purged},   {"commits", r->commits},	{"rows", r->rows}};

		json_begin(&s->json, '{');
		put_row_name(s, table, r);
		for (k = 0; k < sizeof(numbers) / sizeof(numbers[0]); k++)
			if (numbers[k].value)
				json_put_uint(&s->json, numbers[k].key, numbers[k].value);
		json_end(&s->json, '}');
	}
	json_end(&s->json, ']');
}

static uint64_t by_calls(const struct digest_row *row)
{
	return row->calls + row->writes;
}

static uint64_t by_changes(const struct digest_row *row)
{
	return digest_changes(row) + row->purged;
}

static void put_transactions(struct support *s, const char *key,
			     const struct digest_transaction *list, unsigned count)
{
	char hashed[1024];
	unsigned i, k;

	json_key(&s->json, key);
	json_begin(&s->json, '[');
	for (i = 0; i < count; i++) {
		json_begin(&s->json, '{');
		support_put_time(&s->json, "begin", list[i].begin);
		json_put_uint(&s->json, "pid", list[i].pid);
		json_put_uint(&s->json, "ns", list[i].duration);
		json_put_uint(&s->json, "sync_ns", list[i].sync_ns);
		json_put_uint(&s->json, "pages", list[i].pages);
		json_put_uint(&s->json, "bytes", list[i].bytes);
		json_put_text(&s->json, "statement",
			      conceal_sql(&s->conceal, list[i].statement, hashed, sizeof(hashed)));
		json_key(&s->json, "tables");
		json_begin(&s->json, '[');
		for (k = 0; k < list[i].table_count; k++)
			json_string(&s->json, conceal_sql(&s->conceal, list[i].tables[k], hashed,
							  sizeof(hashed)));
		json_end(&s->json, ']');
		json_end(&s->json, '}');
	}
	json_end(&s->json, ']');
}

static void put_processes(struct support *s)
{
	struct json *j = &s->json;
	size_t i;

	json_key(j, "processes");
	json_begin(j, '[');
	for (i = 0; i < s->d->process_count; i++) {
		const struct digest_process *p = s->d->processes[i];

		json_begin(j, '{');
		json_put_uint(j, "pid", p->header.pid);
		support_put_hash(s, "command", p->command);
		support_put_time(j, "first", p->first);
		support_put_time(j, "last", p->last);
		json_put_uint(j, "wrote", p->wrote);
		json_put_uint(j, "ended_in_order", p->exited);
		json_put_uint(j, "signal", (uint64_t)p->stopped_by);
		json_put_uint(j, "alive",
			      oplog_header_life(s->in.data.storefd, &p->header) == OPLOG_LIVE);
		json_put_uint(j, "entries", p->calls);
		json_put_uint(j, "in_flight", p->in_flight);
		json_put_uint(j, "open", p->open_count);
		json_put_uint(j, "records", p->records);
		json_put_uint(j, "transactions", p->commits);
		json_put_uint(j, "bytes", p->written);
		json_put_uint(j, "sync_ns", p->sync_ns);
		json_put_uint(j, "refused", p->refused);
		json_end(j, '}');
	}
	json_end(j, ']');
}

int support_make_log(struct support *s)
{
	const struct digest *d = s->d;
	struct json *j = &s->json;
	unsigned op;

	json_begin(j, '{');
	support_put_time(j, "from", d->first);
	support_put_time(j, "to", d->last);
	support_put_time(j, "calls_from", s->in.calls_from);
	json_put_uint(j, "entries", d->entries);
	json_put_uint(j, "lost", s->in.lost);
	json_put_uint(j, "damaged", s->in.damaged);
	json_put_uint(j, "unreadable_segments", s->in.unreadable);
	json_put_uint(j, "records", d->records);
	json_put_uint(j, "transactions", d->commits);
	json_put_uint(j, "rolled_back", d->rolled_back);
	json_put_uint(j, "bytes", d->written);
	put_latency(j, "sync", &d->sync);
	put_latency(j, "transaction", &d->transaction);
	put_latency(j, "persist", &d->persist);
	json_key(j, "operations");
	json_begin(j, '{');
	for (op = 1; op < 256; op++)
		if (d->ops[op].count && oplog_op_name(op))
			put_latency(j, oplog_op_name(op), &d->ops[op]);
	json_end(j, '}');
	put_rows(s, "files", DIGEST_FILES, by_calls);
	put_rows(s, "collections", DIGEST_COLLECTIONS, by_changes);
	put_rows(s, "indexes", DIGEST_SEGMENTS, by_calls);
	put_rows(s, "statements", DIGEST_STATEMENTS, by_calls);
	put_rows(s, "pages", DIGEST_PAGES, by_calls);
	put_transactions(s, "slowest", d->slow, d->slow_count);
	put_transactions(s, "largest", d->large, d->large_count);
	put_processes(s);
	json_end(j, '}');
	return 0;
}

/* An act without its texts, which have names and ids. */
struct kept_act {
	uint64_t time, duration, length, arg;
	int64_t offset, result;
	uint32_t pid, tid;
	uint16_t op;
	bool in_flight;
	char name[96]; /* concealed */
};

static void keep_act(struct support *s, struct kept_act *a, const struct oplog_entry *e)
{
	*a = (struct kept_act){.time = e->time,
			       .duration = e->duration,
			       .length = e->length,
			       .arg = e->arg,
			       .offset = e->offset,
			       .result = e->result,
			       .pid = e->header->pid,
			       .tid = e->tid,
			       .op = e->op,
			       .in_flight = e->in_flight};
	if (e->name && e->kind != OPLOG_NAME_SQL)
		conceal_path(&s->conceal, e->name, a->name, sizeof(a->name));
}

static void put_act(struct support *s, const struct kept_act *a)
{
	struct json *j = &s->json;

	json_begin(j, '{');
	support_put_time(j, "time", a->time);
	json_put_uint(j, "pid", a->pid);
	json_put_uint(j, "tid", a->tid);
	json_put_text(j, "op", oplog_op_name(a->op));
	json_put_text(j, "name", a->name);
	json_put_uint(j, "duration_ns", a->duration);
	json_key(j, "offset");
	json_int(j, a->offset);
	json_put_uint(j, "length", a->length);
	json_key(j, "result");
	json_int(j, a->result);
	json_put_uint(j, "arg", a->arg);
	json_key(j, "in_flight");
	json_bool(j, a->in_flight);
	json_end(j, '}');
	json_newline(j);
}

/* The newest ones. */
int support_make_acts(struct support *s)
{
	struct kept_act *ring = calloc(ACTS, sizeof(*ring));
	struct oplog_reader *reader = NULL;
	struct oplog_entry e;
	uint64_t count = 0, i;
	int r = ring ? oplog_reader_open_which(s->in.data.storefd, OPLOG_ACTS, &reader) : -ENOMEM;

	while (r == 0 && (r = oplog_reader_next(reader, &e)) > 0) {
		r = 0;
		if (e.time >= s->d->since && (!s->d->until || e.time < s->d->until) &&
		    e.op != OP_TXN_BEGIN)
			keep_act(s, &ring[count++ % ACTS], &e);
	}
	oplog_reader_close(reader);
	for (i = count > ACTS ? count - ACTS : 0; r == 0 && i < count; i++)
		put_act(s, &ring[i % ACTS]);
	free(ring);
	return r;
}
