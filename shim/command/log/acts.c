/* SPDX-License-Identifier: MIT
 *
 * `chromashim log`: acts, one line each, with who, how long and how much.
 *
 * What a commit did comes before the commit itself, which knows how long it took: such acts wait
 * for it. The death of a process has no record; it is told when nothing of it comes any more.
 */
#include "command/log/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/string.h>
#include <bsd/sys/queue.h>

#include "command/base/command.h"
#include "command/base/terminal.h"
#include "command/log/longest.h"
#include "command/log/who.h"
#include "command/log/words.h"
#include "core/oplog/acts.h"
#include "core/oplog/oplog.h"

#define WAITING_MAX 4096u

/* An act that waits for its commit. */
struct waiting {
	TAILQ_ENTRY(waiting) link;
	struct oplog_entry e; /* the texts below, the header of `process` */
	struct oplog_header header;
	char *name, *caller;
	char text[];
};

TAILQ_HEAD(waiting_list, waiting);

struct acts_sink {
	struct log_sink sink;
	const struct log_options *options;
	FILE *out;
	struct log_who who;
	struct words words;
	struct waiting_list waiting;
	unsigned waits;
	uint64_t last; /* for -r */
	uint64_t given;
	struct longest longest; /* --top */
	int width;
};

/* ---- which ---- */

static bool wants(const struct acts_sink *s, const struct oplog_entry *e, uint64_t duration)
{
	struct log_filter f = s->options->filter;

	f.failed = false;
	f.slower_than = 0;
	if (s->options->filter.failed && !words_is_bad(e))
		return false;
	if (duration < s->options->filter.slower_than)
		return false;
	return (f.verbose || f.ops || words_is_news(e)) && log_filter_wants(&f, e);
}

/* ---- how ---- */

static void put_who(FILE *out, const struct who_process *p, uint32_t tid)
{
	const char *thread = log_who_thread(p, tid);
	char text[96], shown[128];

	snprintf(text, sizeof(text), "%s[%" PRIu32 "]%s%s", p->label, p->header.pid,
		 thread ? " " : "", thread ? thread : "");
	terminal_fit(shown, sizeof(shown), text, 0);
	fprintf(out, "  %s%*s", shown,
		terminal_columns(shown) < 24 ? (int)(24 - terminal_columns(shown)) : 0, "");
}

/* In one unit, so that a column can be compared by eye. */
static void put_duration(const struct acts_sink *s, uint64_t duration)
{
	if (s->options->spent)
		return;
	if (duration)
		fprintf(s->out, " %10.1f ms", (double)duration / 1e6);
	else
		fprintf(s->out, " %13s", "");
}

static void put_line(struct acts_sink *s, const struct who_process *p, uint64_t time, uint32_t tid,
		     uint64_t duration, const char *words, enum colour colour)
{
	size_t taken = (s->options->relative ? 12u : 26u) + 28u + (s->options->spent ? 12u : 14u);
	char shown[WORDS_ROOM];

	log_put_time(s->options, s->out, time, &s->last);
	put_who(s->out, p, tid);
	put_duration(s, duration);
	terminal_fit(shown, sizeof(shown), words,
		     !s->width			     ? 0
		     : (size_t)s->width > taken + 40 ? (size_t)s->width - taken
						     : 40);
	fprintf(s->out, "  %s%s%s", terminal_colour(colour), shown, terminal_colour(COLOUR_PLAIN));
	if (s->options->spent)
		fprintf(s->out, " <%.6f>", (double)duration / 1e9);
	fputc('\n', s->out);
}

static void put_ids(struct json *j, const struct oplog_entry *e)
{
	struct oplog_act_records r;
	struct oplog_act_id id;
	uint64_t hash;
	char text[24];

	if (oplog_act_records(e, &r) < 0 || r.head.form == OPLOG_IDS_NONE)
		return;
	json_key(j, "ids");
	json_begin(j, '[');
	while (oplog_act_next_id(&r, &id)) {
		json_begin(j, '{');
		json_key(j, "change");
		json_string(j, oplog_act_word(id.operation));
		json_key(j, id.is_hash ? "hash" : "id");
		if (id.is_hash) {
			memcpy(&hash, id.bytes, sizeof(hash));
			snprintf(text, sizeof(text), "%016" PRIx64, hash);
			json_string(j, text);
		} else {
			json_bytes(j, (const char *)id.bytes, id.size);
		}
		json_end(j, '}');
	}
	json_end(j, ']');
}

static void put_who_members(struct json *j, const struct who_process *p, uint32_t tid)
{
	json_key(j, "process");
	json_string(j, p->label);
	json_key(j, "command");
	json_string(j, p->command);
	json_key(j, "thread");
	json_string(j, log_who_thread(p, tid));
}

static void put_json(struct acts_sink *s, const struct who_process *p, const struct oplog_entry *e,
		     const char *words)
{
	struct json j = {.out = s->out};
	struct log_meaning m;

	log_explain(e, &m);
	json_begin(&j, '{');
	log_put_members(&j, e, &m);
	put_who_members(&j, p, e->tid);
	json_key(&j, "collection");
	json_string(&j, words_collection(&s->words, e));
	if (e->kind == OPLOG_NAME_COLLECTION) {
		json_key(&j, "collection_id");
		json_string(&j, e->name);
	}
	put_ids(&j, e);
	if (e->caller) {
		json_key(&j, "caller");
		json_string(&j, e->caller);
	}
	json_key(&j, "words");
	json_string(&j, words);
	json_end(&j, '}');
	json_newline(&j);
}

/* Its own, or that of its commit, or as a pin tells it. */
static uint64_t duration_of(const struct oplog_entry *e)
{
	return e->op == OP_SNAPSHOT_PIN ? e->length : e->duration;
}

static void put_act(struct acts_sink *s, const struct who_process *p, const struct oplog_entry *e)
{
	char words[WORDS_ROOM];

	words_of(&s->words, e, words);
	if (s->options->json)
		put_json(s, p, e, words);
	else
		put_line(s, p, e->time, e->tid, duration_of(e), words,
			 words_is_bad(e) ? COLOUR_RED : COLOUR_PLAIN);
}

/* Following, it is met in oplog/, and again in acts/ when the process does something. */
static bool is_told(struct who_process *p, const struct oplog_entry *e)
{
	bool told = e->op == OP_START && p->start_told;

	p->start_told |= e->op == OP_START;
	return told;
}

static int emit(struct acts_sink *s, const struct oplog_entry *e)
{
	struct who_process *p = log_who_find(&s->who, e->header);
	uint64_t duration = duration_of(e);

	if (!p || is_told(p, e) || !wants(s, e, duration))
		return 0;
	s->given++;
	if (!s->options->top) {
		put_act(s, p, e);
		return terminal_is_gone() ? -EPIPE : 0;
	}
	s->out = longest_begin(&s->longest, duration);
	if (!s->out)
		return 0;
	put_act(s, p, e);
	return longest_end(&s->longest, duration);
}

/* ---- acts that wait for their commit ---- */

static bool is_of_commit(uint16_t op)
{
	return op >= OP_RECORDS && op <= OP_VACUUM;
}

static int hold(struct acts_sink *s, const struct oplog_entry *e)
{
	struct waiting *w = malloc(sizeof(*w) + e->text_size + 1);

	if (!w)
		return -ENOMEM;
	w->e = *e;
	w->header = *e->header;
	w->name = e->name ? strdup(e->name) : NULL;
	w->caller = e->caller ? strdup(e->caller) : NULL;
	memcpy(w->text, e->text, e->text_size);
	w->text[e->text_size] = '\0';
	w->e.header = &w->header;
	w->e.name = w->name;
	w->e.caller = w->caller;
	w->e.text = w->text;
	TAILQ_INSERT_TAIL(&s->waiting, w, link);
	s->waits++;
	return 0;
}

static void drop(struct acts_sink *s, struct waiting *w)
{
	TAILQ_REMOVE(&s->waiting, w, link);
	s->waits--;
	free(w->name);
	free(w->caller);
	free(w);
}

static bool is_ended_by(const struct waiting *w, const struct oplog_entry *e)
{
	return ((e->op >= OP_TXN_BEGIN && e->op <= OP_TXN_RECOVER) || e->op == OP_EXIT) &&
	       oplog_same_process(&w->header, e->header);
}

/* Those that the end of a transaction (NULL: the end of the log) lets go. */
static int let_go(struct acts_sink *s, const struct oplog_entry *end)
{
	struct waiting *w, *next;
	int r = 0;

	for (w = TAILQ_FIRST(&s->waiting); w && r == 0; w = next) {
		next = TAILQ_NEXT(w, link);
		if (end && !is_ended_by(w, end) && s->waits < WAITING_MAX)
			continue;
		if (end && end->op == OP_TXN_COMMIT && end->arg == w->e.arg && !w->e.duration) {
			w->e.duration = end->duration;
			w->e.time = end->time;
		}
		r = emit(s, &w->e);
		drop(s, w);
	}
	return r;
}

/* ---- deaths ---- */

static bool is_this_boot(const struct oplog_header *h)
{
	uint8_t now[16];

	oplog_boot_id(now);
	return memcmp(now, h->boot_id, sizeof(now)) == 0;
}

static bool wants_death(const struct acts_sink *s, const struct who_process *p)
{
	const struct log_filter *f = &s->options->filter;

	return log_op_fits(f->ops, LOG_DEATH) && p->last >= f->since &&
	       (!f->until || p->last < f->until) && (!f->pid || f->pid == p->header.pid) &&
	       !f->tid && !f->path && !f->collection && !f->id && !f->slower_than && !f->failed &&
	       !f->protected_only && !s->options->top;
}

static void put_death(struct acts_sink *s, struct who_process *p)
{
	const char *words = is_this_boot(&p->header)
				? "died: it did not end by itself (chromashim log --last-crash)"
				: "was cut off: the machine has been started again since";
	struct json j = {.out = s->out};
	char when[40];

	if (!wants_death(s, p))
		return;
	s->given++;
	if (!s->options->json) {
		put_line(s, p, p->last, p->header.pid, 0, words, COLOUR_RED);
		return;
	}
	json_begin(&j, '{');
	json_put_uint(&j, "schema_version", SCHEMA_VERSION);
	json_key(&j, "time");
	json_string(&j, format_time_utc(when, sizeof(when), p->last));
	json_put_uint(&j, "pid", p->header.pid);
	json_put_uint(&j, "tid", p->header.pid);
	json_key(&j, "op");
	json_string(&j, LOG_DEATH);
	put_who_members(&j, p, p->header.pid);
	json_key(&j, "words");
	json_string(&j, words);
	json_end(&j, '}');
	json_newline(&j);
}

/* Of all but `now`. */
static void tell_deaths(struct acts_sink *s, const struct who_process *now)
{
	size_t i;

	for (i = 0; i < s->who.count; i++) {
		struct who_process *p = &s->who.list[i];

		if (p == now || p->exited || p->death_told)
			continue;
		if (oplog_header_life(s->options->storefd, &p->header) == OPLOG_LIVE ||
		    (s->options->reader && oplog_reader_has_more(s->options->reader, &p->header)))
			continue;
		p->death_told = true;
		put_death(s, p);
	}
}

/* ---- the sink ---- */

static int acts_entry(struct log_sink *sink, const struct oplog_entry *e)
{
	struct acts_sink *s = (struct acts_sink *)sink;
	size_t before = s->who.count;
	struct who_process *p = log_who_note(&s->who, e);
	int r = p ? words_note(&s->words, e) : -ENOMEM;

	if (r == 0 && s->who.count != before)
		tell_deaths(s, p);
	if (r == 0 && s->waits)
		r = let_go(s, e);
	if (r < 0)
		return r;
	return is_of_commit(e->op) && !e->duration ? hold(s, e) : emit(s, e);
}

static int acts_end(struct log_sink *sink)
{
	struct acts_sink *s = (struct acts_sink *)sink;
	const struct log_filter *f = &s->options->filter;

	let_go(s, NULL);
	tell_deaths(s, NULL);
	longest_print(&s->longest, stdout);
	if (f->id && !s->given && !s->options->quiet)
		warn("no act names the id '%s'; of a large commit the log has the first ids only, "
		     "and none where CHROMASHIM_LOG_IDS is off",
		     f->id);
	return 0;
}

static void acts_free(struct log_sink *sink)
{
	struct acts_sink *s = (struct acts_sink *)sink;

	while (!TAILQ_EMPTY(&s->waiting))
		drop(s, TAILQ_FIRST(&s->waiting));
	words_free(&s->words);
	longest_free(&s->longest);
	log_who_free(&s->who);
	free(s);
}

struct log_sink *log_acts_sink(const struct log_options *options)
{
	struct acts_sink *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->sink.entry = acts_entry;
	s->sink.end = acts_end;
	s->sink.free = acts_free;
	s->sink.unfiltered = true;
	s->options = options;
	s->out = options->out ? options->out : stdout;
	s->words.names = options->filter.names;
	s->words.utc = options->utc;
	s->width = terminal_width();
	s->longest.max = options->top;
	TAILQ_INIT(&s->waiting);
	return &s->sink;
}
