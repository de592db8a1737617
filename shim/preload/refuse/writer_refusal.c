/* SPDX-License-Identifier: MIT
 *
 * What a process that may not write is told; see writer_refusal.h.
 */
#include "preload/refuse/writer_refusal.h"

#include "preload/place/lives.h"
#include "preload/refuse/refuse.h"
#include "preload/refuse/writer_text.h"

/* What fits the case: the parent's number, if any, is put between the two. */
struct advice {
	const char *before, *after;
	char parent[24];
};

#define USE_ONE_SERVER                                                                       \
	", or let both use one Chroma server (chroma run, and HttpClient in each). If that " \
	"one only searches, stop it, and start it again when this one has written: it then " \
	"searches beside it."

static void advise(struct advice *o, const struct protection *a, const struct writer_text *h)
{
	o->parent[0] = '\0';
	o->after = "";
	if (a->left) {
		o->before = ", make the client after the fork: this process has left the writing "
			    "to one that was forked from it.";
	} else if (a->forked) {
		o->before = ", make the client after the fork: this process was forked from one "
			    "that has written.";
	} else if (writer_text_is_parent(h)) {
		o->before = ", make the client only in the process that serves: that process has "
			    "started this one (a server that reloads itself, or multiprocessing), "
			    "and keeps the right to write while it has its client.";
	} else if (writer_text_parent(h, o->parent)) {
		o->before = ", start one of them only: process ";
		o->after = " has started both" USE_ONE_SERVER;
	} else {
		o->before = ", stop that process, or let this one wait for its end "
			    "(CHROMASHIM_SINGLE_WRITER=wait)" USE_ONE_SERVER;
	}
}

int writer_refusal(const struct change *c, enum intent intent)
{
	struct protection *a = protection_of(c->slot);
	struct advice advice;
	/* SQLite reports EPERM at once; for EAGAIN it would wait as long as its busy timeout. Of a
	 * journal that it may not make it says that the database is read-only. */
	int error = c->op == OP_LOCK					  ? -EPERM
		    : c->slot.role == ROLE_JOURNAL && intent_opens(c->op) ? -EACCES
									  : -EBUSY;
	/* SQLite then opens the database for reading by itself. */
	bool falls_back = intent == MAY_WRITE && c->slot.role == ROLE_DATABASE;
	struct writer_text h;

	record_refused(a);
	writer_text_read(a, &h);
	advise(&advice, a, &h);
	refuse_say(c, OP_REFUSE_WRITER, error,
		   (const char *const[]){
		       a->spelling[0], "/", name_text(name_get(c->slot.name)),
		       falls_back ? ": it is opened for reading only: process "
				  : ": writing is refused: process ",
		       h.pid, " (", h.command, ") has been writing to this directory since ",
		       h.since, "; only one process may write at a time. ",
		       falls_back ? "To write" : "This one can go on reading. To write",
		       advice.before, advice.parent, advice.after, NULL});
	return error;
}
