/* SPDX-License-Identifier: MIT
 *
 * Who did it: the processes of a log, what they are called, and their threads.
 */
#include "command/log/who.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bsd/string.h>

#include "core/oplog/oplog.h"

#define THREADS_MAX 4096u /* of one process */

/* ---- in a word ---- */

/* Takes the next word of a command line; false: there is none. */
static bool next_word(const char **at, char *out, size_t room)
{
	size_t n;

	*at += strspn(*at, " ");
	n = strcspn(*at, " ");
	snprintf(out, room, "%.*s", (int)(n < room ? n : room - 1), *at);
	*at += n;
	return n > 0;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash && slash[1] ? slash + 1 : path;
}

/* Programs that are known by what they run. */
static bool is_interpreter(const char *name)
{
	static const char *const names[] = {"python", "pypy", "node", "bun",  "deno",
					    "ruby",   "perl", "sh",   "bash", "dash"};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t n = strlen(names[i]);

		/* "python3.12" as well, and not "shred" */
		if (strncmp(name, names[i], n) == 0 &&
		    name[n + strspn(name + n, "0123456789.-")] == '\0')
			return true;
	}
	return false;
}

void log_who_shorten(char *out, size_t room, const char *command, const char *program)
{
	char word[512], name[64];
	const char *at = command ? command : "";

	strlcpy(name, last_part(*program ? program : "?"), sizeof(name));
	if (next_word(&at, word, sizeof(word)))
		strlcpy(name, last_part(word), sizeof(name));
	strlcpy(out, name, room);
	if (!is_interpreter(name))
		return;
	while (next_word(&at, word, sizeof(word))) {
		if (strcmp(word, "-m") == 0 && next_word(&at, word, sizeof(word))) {
			strlcpy(out, word, room);
			return;
		}
		if (strcmp(word, "-c") == 0 || strcmp(word, "-e") == 0) {
			snprintf(out, room, "%s %s", name, word);
			return;
		}
		if (strcmp(word, "-X") == 0 || strcmp(word, "-W") == 0 || strcmp(word, "-r") == 0)
			next_word(&at, word, sizeof(word));
		else if (*word != '-') {
			strlcpy(out, last_part(word), room);
			return;
		}
	}
}

/* ---- the table ---- */

static struct who_process *add_process(struct log_who *w, const struct oplog_header *h)
{
	struct who_process *p;

	if (w->count == w->room) {
		size_t room = w->room ? 2 * w->room : 16;

		p = realloc(w->list, room * sizeof(*p));
		if (!p)
			return NULL;
		w->list = p;
		w->room = room;
	}
	p = &w->list[w->count];
	memset(p, 0, sizeof(*p));
	p->header = *h;
	log_who_shorten(p->label, sizeof(p->label), NULL, h->program);
	w->newest = w->count++;
	return p;
}

struct who_process *log_who_find(struct log_who *w, const struct oplog_header *h)
{
	size_t i;

	if (w->newest < w->count && oplog_same_process(&w->list[w->newest].header, h))
		return &w->list[w->newest];
	for (i = w->count; i-- > 0;)
		if (oplog_same_process(&w->list[i].header, h)) {
			w->newest = i;
			return &w->list[i];
		}
	return NULL;
}

static int note_thread(struct who_process *p, const struct oplog_entry *e)
{
	struct who_thread *t;
	size_t i;

	for (i = 0; i < p->thread_count; i++)
		if (p->threads[i].tid == e->tid)
			break;
	if (i == p->thread_count) {
		if (i >= THREADS_MAX)
			return 0;
		t = realloc(p->threads, (i + 1) * sizeof(*t));
		if (!t)
			return -ENOMEM;
		p->threads = t;
		p->threads[i].tid = e->tid;
		p->thread_count++;
	}
	strlcpy(p->threads[i].name, e->text, sizeof(p->threads[i].name));
	return 0;
}

static int note_start(struct who_process *p, const struct oplog_entry *e)
{
	char *command = e->text_size ? strdup(e->text) : NULL;

	if (e->text_size && !command)
		return -ENOMEM;
	free(p->command);
	p->command = command;
	p->header = *e->header; /* after an exec it is another program */
	log_who_shorten(p->label, sizeof(p->label), command, p->header.program);
	return 0;
}

static void count_act(struct who_process *p, const struct oplog_entry *e)
{
	p->records++;
	p->commits += e->op == OP_TXN_COMMIT;
	p->persists += e->op == OP_PERSIST_COMMIT;
	p->refusals += e->op >= OP_REFUSE_WRITER && e->op <= OP_REFUSE_DESTROYER;
	if (e->op == OP_RECORDS && e->result > 0)
		p->changes += (uint64_t)e->result;
}

struct who_process *log_who_note(struct log_who *w, const struct oplog_entry *e)
{
	struct who_process *p = log_who_find(w, e->header);
	int r = 0;

	if (!p)
		p = add_process(w, e->header);
	if (!p)
		return NULL;
	if (!p->first)
		p->first = e->time;
	p->last = e->time > p->last ? e->time : p->last;
	/* That acts say whose they are is no sign of life: it may come with the very end. */
	if (e->op != OP_THREAD && !(e->op == OP_START && e->arg)) {
		p->exited = e->op == OP_EXIT || e->op == OP_EXEC;
		p->became = e->op == OP_EXEC;
		p->stopped_by = e->op == OP_EXIT ? (int)e->arg : 0;
		p->exit_status = e->op == OP_EXIT && e->offset == 0 ? (int)e->result : -1;
	}
	/* The header says what is now: at its end it has given the right to write back. */
	p->writer |=
	    (e->header->features & OPLOG_HAS_WRITER) != 0 || (e->op == OP_TXN_COMMIT && e->length);
	if (e->op == OP_START)
		r = note_start(p, e);
	else if (e->op == OP_THREAD)
		r = note_thread(p, e);
	count_act(p, e);
	return r < 0 ? NULL : p;
}

const char *log_who_thread(const struct who_process *p, uint32_t tid)
{
	size_t i;

	if (tid == p->header.pid)
		return NULL;
	for (i = 0; i < p->thread_count; i++)
		if (p->threads[i].tid == tid)
			return *p->threads[i].name ? p->threads[i].name : NULL;
	return NULL;
}

const char *log_who_end(const struct who_process *p, int storefd)
{
	uint8_t now[16];

	if (p->became)
		return "exec";
	if (p->exited)
		return p->stopped_by ? "stop" : "exit";
	if (oplog_header_life(storefd, &p->header) == OPLOG_LIVE)
		return "running";
	oplog_boot_id(now);
	return memcmp(now, p->header.boot_id, sizeof(now)) ? "reboot" : "death";
}

void log_who_free(struct log_who *w)
{
	size_t i;

	for (i = 0; i < w->count; i++) {
		free(w->list[i].command);
		free(w->list[i].threads);
	}
	free(w->list);
	memset(w, 0, sizeof(*w));
}
