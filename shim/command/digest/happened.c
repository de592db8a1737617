/* SPDX-License-Identifier: MIT
 *
 * The log in numbers: what happened, one by one.
 */
#include "command/digest/digest.h"

#include <string.h>

#include <bsd/string.h>

static enum digest_event_kind kind_of(const struct oplog_entry *e)
{
	switch (e->op) {
	case OP_START:
		return DIGEST_START;
	case OP_EXIT:
		return DIGEST_END;
	case OP_NOTE:
		return DIGEST_NOTE;
	case OP_REFUSE_WRITER:
	case OP_REFUSE_SPACE:
	case OP_REFUSE_DESTROYER:
		return DIGEST_REFUSAL;
	case OP_WARN_SPACE:
		return DIGEST_SPACE;
	case OP_MIGRATION:
		return DIGEST_UPGRADE;
	case OP_TXN_COMMIT:
		return e->result > 0 ? DIGEST_UPGRADE : DIGEST_EVENT_KINDS;
	case OP_TXN_RECOVER:
		return DIGEST_RECOVERED;
	case OP_SNAPSHOT_PIN:
	case OP_SNAPSHOT_STATE:
		return DIGEST_SNAPSHOT;
	case OP_COLLECTION:
		return DIGEST_COLLECTION;
	case OP_PERSIST_ROLLBACK:
	case OP_PERSIST_FREEZE:
		return DIGEST_PERSIST_UNDONE;
	case OP_VACUUM:
		return DIGEST_VACUUM;
	case OP_PROTECT_BEGIN:
		return DIGEST_PROTECTED;
	default:
		return DIGEST_EVENT_KINDS;
	}
}

static void add_event(struct digest *d, enum digest_event_kind kind, const struct oplog_entry *e)
{
	struct digest_events *list = &d->events[kind];
	struct digest_event *event = &list->last[list->count++ % DIGEST_EVENTS];

	event->time = e->time;
	event->pid = e->header->pid;
	event->op = e->op;
	event->number =
	    e->op == OP_COLLECTION || e->op == OP_TXN_COMMIT ? (uint64_t)e->result : e->arg;
	strlcpy(event->name, e->name && e->kind != OPLOG_NAME_SQL ? e->name : "",
		sizeof(event->name));
	digest_text(event->text, sizeof(event->text), e->text, e->text_size);
	list->by_time.at[digest_bucket(d, e->time)]++;
}

int digest_happened(struct digest *d, struct digest_process *p, const struct oplog_entry *e)
{
	enum digest_event_kind kind = kind_of(e);

	if (kind == DIGEST_EVENT_KINDS)
		return 0;
	if (kind == DIGEST_START && e->text_size) {
		digest_text(p->command, sizeof(p->command), e->text, e->text_size);
		p->starts = true;
	}
	if (kind == DIGEST_REFUSAL) {
		d->refused++;
		p->refused++;
	}
	add_event(d, kind, e);
	return 0;
}
