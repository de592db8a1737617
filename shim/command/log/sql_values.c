/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --sql`: the values of a row, made when SQLite asks for them.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/terminal.h"
#include "command/log/sql_tables.h"
#include "core/base/clock.h"
#include "core/oplog/acts.h"
#include "core/oplog/oplog.h"

/* Which numbers mean something, by operation: asked of log_explain() once for each. */
enum { HAS_OFFSET = 1, HAS_LENGTH = 2, HAS_RESULT = 4, HAS_ERROR = 8, IS_KNOWN = 16 };

static unsigned meaning_of(uint16_t op)
{
	static unsigned char known[256];
	struct oplog_entry e = {.op = op, .text = "", .result = -EIO};
	struct log_meaning m;

	if (op < 256 && known[op])
		return known[op];
	log_explain(&e, &m);
	e.op = (uint16_t)(IS_KNOWN | (m.has_offset ? HAS_OFFSET : 0) |
			  (m.has_length ? HAS_LENGTH : 0) | (m.has_result ? HAS_RESULT : 0) |
			  (m.error ? HAS_ERROR : 0));
	if (op < 256)
		known[op] = (unsigned char)e.op;
	return e.op;
}

static const struct log_meaning *explained(struct cursor *c)
{
	if (!c->explained)
		log_explain(&c->e, &c->m);
	c->explained = true;
	return &c->m;
}

static void give_text(sqlite3_context *out, const char *text)
{
	if (text)
		sqlite3_result_text(out, text, -1, SQLITE_TRANSIENT);
}

static void give_if(sqlite3_context *out, bool there, int64_t value)
{
	if (there)
		sqlite3_result_int64(out, value);
}

static void give_op(struct cursor *c, sqlite3_context *out)
{
	const char *name = oplog_op_name(c->e.op);

	if (name)
		sqlite3_result_text(out, name, -1, SQLITE_STATIC);
	else
		give_text(out, explained(c)->op);
}

/* {"flags":"O_RDWR","fd":3}, or NULL. */
static void give_details(struct cursor *c, sqlite3_context *out)
{
	const struct log_meaning *m = explained(c);
	struct json j = {.out = NULL};
	char *text = NULL;
	size_t size = 0;
	unsigned i;

	if (!m->details || !(j.out = open_memstream(&text, &size)))
		return;
	json_begin(&j, '{');
	for (i = 0; i < m->details; i++) {
		json_key(&j, m->detail[i].key);
		if (m->detail[i].is_text)
			json_string(&j, m->detail[i].text);
		else
			json_int(&j, m->detail[i].number);
	}
	json_end(&j, '}');
	fclose(j.out);
	sqlite3_result_text(out, text, (int)size, SQLITE_TRANSIENT);
	free(text);
}

/* The ids of records as a list. */
static void give_ids(struct cursor *c, sqlite3_context *out)
{
	struct oplog_act_records r;
	struct oplog_act_id id;
	struct json j = {.out = NULL};
	char *text = NULL, hash[24];
	uint64_t number;
	size_t size = 0;

	if (oplog_act_records(&c->e, &r) < 0 || !r.head.ids ||
	    !(j.out = open_memstream(&text, &size)))
		return;
	json_begin(&j, '[');
	while (oplog_act_next_id(&r, &id)) {
		if (!id.is_hash) {
			json_bytes(&j, (const char *)id.bytes, id.size);
			continue;
		}
		memcpy(&number, id.bytes, sizeof(number));
		snprintf(hash, sizeof(hash), "%016" PRIx64, number);
		json_string(&j, hash);
	}
	json_end(&j, ']');
	fclose(j.out);
	sqlite3_result_text(out, text, (int)size, SQLITE_TRANSIENT);
	free(text);
}

static void give_words(struct cursor *c, sqlite3_context *out)
{
	char words[WORDS_ROOM];

	give_text(out, words_of(&c->words, &c->e, words));
}

static void give_who(struct cursor *c, sqlite3_context *out, bool thread)
{
	const struct who_process *p = log_who_find(&c->who, c->e.header);

	if (p)
		give_text(out, thread ? log_who_thread(p, c->e.tid) : p->label);
}

static void give_outcome(const struct oplog_entry *e, sqlite3_context *out)
{
	const char *name = oplog_op_name(e->op), *dot = name ? strchr(name, '.') : NULL;

	if (dot)
		sqlite3_result_text(out, dot + 1, -1, SQLITE_STATIC);
}

static void give_records(struct cursor *c, sqlite3_context *out, enum column column)
{
	struct oplog_act_records r;

	if (column == C_COUNT)
		give_if(out,
			c->e.op == OP_RECORDS || c->e.op == OP_PURGE ||
			    (c->e.op == OP_PERSIST_COMMIT && c->e.result >= 0),
			c->e.result);
	else if (column == C_FIRST)
		give_if(out, c->e.offset >= 0, c->e.offset);
	else if (column == C_LAST)
		sqlite3_result_int64(out, (int64_t)c->e.length);
	else if (oplog_act_records(&c->e, &r) == 0)
		sqlite3_result_int64(out, column == C_ADDED	 ? r.head.added
					  : column == C_UPDATED	 ? r.head.updated
					  : column == C_UPSERTED ? r.head.upserted
					  : column == C_DELETED	 ? r.head.deleted
					  : column == C_OTHER	 ? r.head.other
								 : r.head.more);
}

static void give_call(struct cursor *c, sqlite3_context *out, enum column column)
{
	const struct oplog_entry *e = &c->e;
	unsigned has = meaning_of(e->op);

	switch (column) {
	case C_PATH:
		if (e->name && (e->kind == OPLOG_NAME_FILE || e->kind == OPLOG_NAME_OBJECT))
			give_text(out, e->name);
		else
			give_text(out, explained(c)->path);
		break;
	case C_PATH2:
		give_text(out, oplog_op_has_two_names(e->op) ? explained(c)->path2 : NULL);
		break;
	case C_SQL:
		give_text(out, e->kind == OPLOG_NAME_SQL ? e->name : NULL);
		break;
	case C_OFFSET:
		give_if(out, has & HAS_OFFSET && e->offset >= 0, e->offset);
		break;
	case C_LENGTH:
		give_if(out, has & HAS_LENGTH, (int64_t)e->length);
		break;
	case C_RESULT:
		give_if(out, has & HAS_RESULT && !e->in_flight, e->result);
		break;
	case C_ERRNO:
		give_text(out, has & HAS_ERROR && e->result < 0 ? explained(c)->error : NULL);
		break;
	case C_TEXT:
		if (e->text_size && e->op != OP_RECORDS)
			give_text(out, e->text);
		break;
	default:
		give_details(c, out);
	}
}

static void give_end(const struct oplog_entry *e, sqlite3_context *out, enum column column)
{
	switch (column) {
	case C_NUMBER:
		sqlite3_result_int64(out, (int64_t)e->arg);
		break;
	case C_PAGES:
		give_if(out, e->offset >= 0, e->offset);
		break;
	case C_BYTES:
		sqlite3_result_int64(out, (int64_t)e->length);
		break;
	case C_COOKIE:
		give_if(out, e->result > 0, e->result);
		break;
	default:
		give_outcome(e, out);
	}
}

/* As format_time_utc() has it; most rows are of the same second as the one before. */
static void give_time(struct cursor *c, sqlite3_context *out)
{
	uint64_t rest = c->e.time % SECOND;
	int i;

	if (!c->when[0] || c->e.time / SECOND != c->second)
		format_time_utc(c->when, sizeof(c->when), c->e.time);
	c->second = c->e.time / SECOND;
	for (i = 28; i > 19; i--, rest /= 10)
		c->when[i] = (char)('0' + rest % 10);
	sqlite3_result_text(out, c->when, 30, SQLITE_TRANSIENT);
}

int sql_value(sqlite3_vtab_cursor *base, sqlite3_context *out, int n)
{
	struct cursor *c = (struct cursor *)base;
	const struct oplog_entry *e = &c->e;
	enum column column = table_of(c)->columns[n].column;

	switch (column) {
	case C_TIME:
		give_time(c, out);
		break;
	case C_TIME_NS:
		sqlite3_result_int64(out, (int64_t)e->time);
		break;
	case C_PID:
		sqlite3_result_int64(out, e->header->pid);
		break;
	case C_TID:
		sqlite3_result_int64(out, e->tid);
		break;
	case C_PROCESS:
	case C_THREAD:
		give_who(c, out, column == C_THREAD);
		break;
	case C_OP:
		give_op(c, out);
		break;
	case C_COLLECTION:
		give_text(out, collection_names_of(c->words.names, e));
		break;
	case C_COLLECTION_ID:
		give_text(out, e->kind == OPLOG_NAME_COLLECTION ? e->name : NULL);
		break;
	case C_DURATION:
		give_if(out, !e->in_flight, (int64_t)e->duration);
		break;
	case C_IN_FLIGHT:
		sqlite3_result_int(out, e->in_flight);
		break;
	case C_FAILED:
		sqlite3_result_int(out,
				   log_has_failed(e) || (oplog_is_act(e->op) && words_is_bad(e)));
		break;
	case C_CALLER:
		give_text(out, e->caller);
		break;
	case C_WORDS:
		give_words(c, out);
		break;
	case C_IDS:
		give_ids(c, out);
		break;
	default:
		if (column >= C_ADDED && column <= C_AT_LEAST)
			give_records(c, out, column);
		else if (column >= C_OUTCOME || column == C_NUMBER)
			give_end(e, out, column);
		else
			give_call(c, out, column);
	}
	return SQLITE_OK;
}
