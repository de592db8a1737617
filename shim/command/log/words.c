/* SPDX-License-Identifier: MIT
 *
 * An act in words.
 */
#include "command/log/words.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/symbols.h"
#include "core/oplog/acts.h"
#include "core/oplog/oplog.h"

#define LATE (60 * SECOND) /* a start that is told so much later says when it was */

/* Records of a collection that no persist has had yet. */
struct words_persists {
	uint8_t id[16];
	uint64_t since, begun; /* since the last persist; of them when the present one began */
	uint64_t told;	       /* of the persist that ended last */
};

static void words_add(char *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void words_add(char *out, const char *format, ...)
{
	size_t n = strlen(out);
	va_list ap;

	va_start(ap, format);
	vsnprintf(out + n, WORDS_ROOM - n, format, ap);
	va_end(ap);
}

/* ---- from act to act ---- */

static struct words_persists *persists_of(struct words *w, const struct oplog_entry *e)
{
	struct words_persists *p;
	uint8_t id[16];
	size_t i;

	if (!collection_names_id(w->names, e->name, id))
		return NULL;
	for (i = 0; i < w->persist_count; i++)
		if (memcmp(w->persists[i].id, id, sizeof(id)) == 0)
			return &w->persists[i];
	p = realloc(w->persists, (w->persist_count + 1) * sizeof(*p));
	if (!p)
		return NULL;
	w->persists = p;
	p += w->persist_count++;
	memset(p, 0, sizeof(*p));
	memcpy(p->id, id, sizeof(id));
	return p;
}

static void note_persist(struct words *w, const struct oplog_entry *e)
{
	struct words_persists *p = persists_of(w, e);

	if (!p)
		return;
	if (e->op == OP_RECORDS && e->result > 0)
		p->since += (uint64_t)e->result;
	if (e->op == OP_PERSIST_BEGIN)
		p->begun = p->since;
	if (e->op == OP_PERSIST_COMMIT) {
		p->told = p->begun;
		p->since -= p->begun < p->since ? p->begun : p->since;
		p->begun = 0;
	}
}

int words_note(struct words *w, const struct oplog_entry *e)
{
	switch (e->op) {
	case OP_RECORDS:
	case OP_PERSIST_BEGIN:
	case OP_PERSIST_COMMIT:
		note_persist(w, e);
		return 0;
	case OP_COLLECTION:
	case OP_SEGMENT:
		return collection_names_note(w->names, e);
	default:
		return 0;
	}
}

void words_free(struct words *w)
{
	free(w->persists);
	w->persists = NULL;
	w->persist_count = 0;
}

/* ---- collections ---- */

const char *words_collection(struct words *w, const struct oplog_entry *e)
{
	bool concerns = (e->op >= OP_PERSIST_BEGIN && e->op <= OP_PERSIST_FREEZE) ||
			(e->op >= OP_RECORDS && e->op <= OP_SEGMENT);
	const char *name = concerns ? collection_names_of(w->names, e) : NULL;

	return name || !concerns ? name : e->name;
}

static void add_collection(struct words *w, const struct oplog_entry *e, char *out)
{
	const char *name = words_collection(w, e);
	char clean[256];

	terminal_fit(clean, sizeof(clean), name ? name : "a collection", 0);
	words_add(out, "%s", clean);
}

/* ---- records ---- */

static void add_count(char *out, bool *comma, uint64_t count, const char *word)
{
	if (!count)
		return;
	words_add(out, "%s%" PRIu64 " %s", *comma ? ", " : "", count, word);
	*comma = true;
}

static void add_sequence(const struct oplog_entry *e, char *out)
{
	if (e->offset < 0)
		return;
	if ((uint64_t)e->offset == e->length)
		words_add(out, " (seq %" PRId64 ")", e->offset);
	else
		words_add(out, " (seq %" PRId64 "-%" PRIu64 ")", e->offset, e->length);
}

static void add_records(struct words *w, const struct oplog_entry *e, char *out)
{
	struct oplog_act_records r;
	bool comma = false;

	add_collection(w, e, out);
	words_add(out, ": ");
	if (oplog_act_records(e, &r) < 0) {
		words_add(out, "%" PRId64 " changed", e->result);
	} else {
		if (r.head.more)
			words_add(out, "at least ");
		add_count(out, &comma, r.head.added, "added");
		add_count(out, &comma, r.head.updated, "updated");
		add_count(out, &comma, r.head.upserted, "upserted");
		add_count(out, &comma, r.head.deleted, "deleted");
		add_count(out, &comma, r.head.other, "of another kind");
		if (!comma)
			words_add(out, "%" PRId64 " changed", e->result);
	}
	add_sequence(e, out);
}

/* ---- the others ---- */

static void add_transaction(const struct oplog_entry *e, char *out)
{
	const char *verb = e->op == OP_TXN_BEGIN    ? "began"
			   : e->op == OP_TXN_COMMIT ? "committed"
						    : "rolled back";
	char bytes[32];

	if (e->op == OP_TXN_RECOVER) {
		words_add(out, "%s: a transaction that was cut off was undone by SQLite",
			  e->name ? e->name : "database");
		return;
	}
	words_add(out, "%s: transaction %" PRIu64 " %s", e->name ? e->name : "database", e->arg,
		  verb);
	if (e->op == OP_TXN_BEGIN)
		return;
	if (e->offset > 0)
		words_add(out, ", %" PRId64 " page%s", e->offset, e->offset == 1 ? "" : "s");
	if (e->length)
		words_add(out, ", %s written", format_bytes(bytes, sizeof(bytes), e->length));
	if (e->result > 0)
		words_add(out, ", the schema changed");
	if (e->result < 0)
		words_add(out, ", and failed: %s", strerror((int)-e->result));
}

/* How many records, and how much of the time was the disk's. */
static void add_persisted(const struct words_persists *p, const struct oplog_entry *e, char *out)
{
	uint64_t count = p && p->told ? p->told : e->result > 0 ? (uint64_t)e->result : 0;

	if (count)
		words_add(out, ": %" PRIu64 " record%s to disk", count, count == 1 ? "" : "s");
	else
		words_add(out, ": index to disk");
	if (e->offset > 0)
		words_add(out, ", %.1f ms of it syncing", (double)e->offset / 1e6);
}

static void add_persist(struct words *w, const struct oplog_entry *e, char *out)
{
	struct words_persists *p = persists_of(w, e);

	words_add(out, "collection ");
	add_collection(w, e, out);
	switch (e->op) {
	case OP_PERSIST_BEGIN:
		words_add(out, ": a persist began");
		break;
	case OP_PERSIST_COMMIT:
		add_persisted(p, e, out);
		break;
	case OP_PERSIST_ROLLBACK:
		words_add(out, e->duration
				   ? ": the persist failed and was undone"
				   : ": a persist that was cut off was undone; its records are in "
				     "the queue");
		break;
	default:
		words_add(out, ": not written to disk any more until the process is restarted");
	}
	if (e->result < 0)
		words_add(out, " (%s)", strerror((int)-e->result));
}

static void add_snapshot(const struct oplog_entry *e, char *out)
{
	if (e->op == OP_SNAPSHOT_STATE)
		words_add(out, "snapshot %" PRIu64 ": %s", e->arg, e->text);
	else if (e->result < 0)
		words_add(out, "no snapshot could be taken (%s): %s", e->text,
			  strerror((int)-e->result));
	else
		words_add(out, "snapshot %" PRIu64 " taken%s%s", e->arg, *e->text ? ": " : "",
			  e->text);
	if (e->op == OP_SNAPSHOT_STATE && e->result < 0)
		words_add(out, " (%s)", strerror((int)-e->result));
}

static void add_configured(const struct oplog_entry *e, char *out)
{
	const char *lead = ": ";

	if (e->offset <= 0)
		return;
	if (e->offset & OPLOG_CONFIGURED_DIMENSION) {
		words_add(out, "%sit has the dimension %" PRIu64 " now", lead, e->length);
		lead = ", ";
	}
	if (e->offset & OPLOG_CONFIGURED_CONFIGURATION) {
		words_add(out, "%sits configuration", lead);
		lead = ", ";
	}
	if (e->offset & OPLOG_CONFIGURED_SCHEMA)
		words_add(out, "%sits schema", lead);
}

static void add_collection_act(struct words *w, const struct oplog_entry *e, char *out)
{
	const char *name, *old;

	oplog_act_collection(e, &name, &old);
	words_add(out, "collection %s %s", *name ? name : "", oplog_act_collection_word(e));
	if (!*name) {
		out[0] = '\0';
		words_add(out, "collection ");
		add_collection(w, e, out);
		words_add(out, " %s", oplog_act_collection_word(e));
	}
	if (old)
		words_add(out, ", it was called %s", old);
	if (e->result == OPLOG_COLLECTION_CONFIGURED)
		add_configured(e, out);
}

static void add_segment(struct words *w, const struct oplog_entry *e, char *out)
{
	const char *id, *scope;

	oplog_act_segment(e, &id, &scope);
	words_add(out, "collection ");
	add_collection(w, e, out);
	words_add(out, " has the segment %s (%s)", id, scope);
}

static void add_end(const struct oplog_entry *e, char *out)
{
	const char *name = e->arg ? symbol_of_signal((int)e->arg) : NULL;

	if (!e->arg)
		words_add(out,
			  e->offset == 0 && e->result ? "ended by itself, with exit status %d"
						      : "ended by itself",
			  (int)e->result);
	else
		words_add(out, "was stopped by SIG%s, and ended in order", name ? name : "?");
}

static void add_vacuum(const struct oplog_entry *e, char *out)
{
	char before[32], after[32];

	words_add(out, "the database was written anew (vacuum): %s before, %s after",
		  format_bytes(before, sizeof(before), e->offset > 0 ? (uint64_t)e->offset : 0),
		  format_bytes(after, sizeof(after), e->length));
}

static void add_disk(const struct oplog_entry *e, char *out)
{
	char left[32], total[32];

	words_add(out, "%s of %s are free on the disk",
		  format_bytes(left, sizeof(left), e->offset > 0 ? (uint64_t)e->offset : 0),
		  format_bytes(total, sizeof(total), e->length));
}

static void add_protected(const struct oplog_entry *e, char *out)
{
	words_add(out, "protected operation %" PRIu64 " %s", e->arg,
		  e->op == OP_PROTECT_BEGIN ? "began" : "ended");
	if (*e->text)
		words_add(out, ": %s", e->text);
	if (e->op == OP_PROTECT_END && e->result)
		words_add(out, " (result %" PRId64 ")", e->result);
}

/* Messages begin with our name, as they stand on stderr. */
static const char *message_of(const struct oplog_entry *e)
{
	static const char prefix[] = "chromashim: ";

	return strncmp(e->text, prefix, sizeof(prefix) - 1) ? e->text
							    : e->text + sizeof(prefix) - 1;
}

/* When the kernel made the process, by its header; 0: it does not tell. */
static uint64_t started_at(const struct oplog_header *h)
{
	uint64_t boot = h->anchor_realtime - h->anchor_monotonic;
	long ticks = sysconf(_SC_CLK_TCK);

	return h->start_ticks && ticks > 0 && h->start_ticks < UINT64_MAX / SECOND
		   ? boot + h->start_ticks * (SECOND / (uint64_t)ticks)
		   : 0;
}

/* acts/ has it from the first act on, which may be hours later. */
static void add_start(const struct words *w, const struct oplog_entry *e, char *out)
{
	uint64_t began = started_at(e->header);
	char when[40];

	words_add(out, "started");
	if (began && began + LATE < e->time)
		words_add(out, " at %.19s", format_time(when, sizeof(when), began, w->utc));
	words_add(out, ": %s", e->text_size ? e->text : e->header->program);
}

static void add_other(struct words *w, const struct oplog_entry *e, char *out)
{
	const char *op = oplog_op_name(e->op);

	switch (e->op) {
	case OP_START:
		add_start(w, e, out);
		break;
	case OP_EXIT:
		add_end(e, out);
		break;
	case OP_EXEC:
		words_add(out, "became %s", e->text_size ? e->text : "another program");
		break;
	case OP_THREAD:
		words_add(out, "thread %" PRIu32 " is %s", e->tid, e->text);
		break;
	case OP_NOTE:
	case OP_WARN_SPACE:
		words_add(out, "%s", message_of(e));
		break;
	case OP_REFUSE_WRITER:
	case OP_REFUSE_SPACE:
	case OP_REFUSE_DESTROYER:
		words_add(out, "refused: %s", message_of(e));
		break;
	case OP_MIGRATION:
		words_add(out, "the database was upgraded: migration %s", e->text);
		break;
	case OP_VACUUM:
		add_vacuum(e, out);
		break;
	case OP_DISK:
		add_disk(e, out);
		break;
	case OP_PURGE:
		add_collection(w, e, out);
		words_add(out, ": %" PRId64 " record%s taken out of the queue", e->result,
			  e->result == 1 ? "" : "s");
		add_sequence(e, out);
		break;
	default:
		if (op)
			words_add(out, "%s", op);
		else
			words_add(out, "operation %u, which this version does not know", e->op);
	}
}

/* Whatever a name or a message had in it: one line, and no controls. */
static void clean(char *out)
{
	char *copy = strdup(out);

	if (copy)
		terminal_fit(out, WORDS_ROOM, copy, 0);
	free(copy);
}

char *words_of(struct words *w, const struct oplog_entry *e, char *out)
{
	out[0] = '\0';
	if (e->op == OP_RECORDS)
		add_records(w, e, out);
	else if (e->op >= OP_TXN_BEGIN && e->op <= OP_TXN_RECOVER)
		add_transaction(e, out);
	else if (e->op >= OP_PERSIST_BEGIN && e->op <= OP_PERSIST_FREEZE)
		add_persist(w, e, out);
	else if (e->op == OP_SNAPSHOT_PIN || e->op == OP_SNAPSHOT_STATE)
		add_snapshot(e, out);
	else if (e->op == OP_COLLECTION)
		add_collection_act(w, e, out);
	else if (e->op == OP_SEGMENT)
		add_segment(w, e, out);
	else if (e->op == OP_PROTECT_BEGIN || e->op == OP_PROTECT_END)
		add_protected(e, out);
	else
		add_other(w, e, out);
	if (e->caller)
		words_add(out, ", by %s", e->caller);
	clean(out);
	return out;
}

bool words_is_news(const struct oplog_entry *e)
{
	switch (e->op) {
	case OP_START: /* each segment of acts/ begins with one */
		return e->arg == 0;
	case OP_COLLECTION: /* a new key in the metadata of records */
		return e->result != OPLOG_COLLECTION_CONFIGURED ||
		       e->offset != OPLOG_CONFIGURED_SCHEMA;
	case OP_THREAD:
	case OP_SEGMENT:
	case OP_DISK:
	case OP_TXN_BEGIN:
	case OP_PERSIST_BEGIN:
		return false;
	case OP_TXN_COMMIT: /* what a commit did has acts of its own, but not in older logs */
		return e->result != 0 || e->log == OPLOG_LOG_CALLS;
	case OP_TXN_ROLLBACK:
		return e->offset > 0;
	default:
		return true;
	}
}

bool words_is_bad(const struct oplog_entry *e)
{
	switch (e->op) {
	case OP_REFUSE_WRITER:
	case OP_REFUSE_SPACE:
	case OP_REFUSE_DESTROYER:
	case OP_WARN_SPACE:
	case OP_TXN_RECOVER:
	case OP_PERSIST_ROLLBACK:
	case OP_PERSIST_FREEZE:
		return true;
	case OP_TXN_COMMIT:
	case OP_TXN_ROLLBACK:
	case OP_SNAPSHOT_PIN:
	case OP_SNAPSHOT_STATE:
		return e->result < 0;
	default:
		return false;
	}
}
