/* SPDX-License-Identifier: MIT
 *
 * The parts of the pre-flight of `chromashim run`.
 */
#ifndef COMMAND_PREFLIGHT_H
#define COMMAND_PREFLIGHT_H

#include "command/run/run.h"
#include "core/check/diagnose.h"

struct preflight {
	struct run *run;
	struct data_directory data;
	unsigned warnings; /* said so far */
	bool is_new;	   /* there is no database yet */
	bool is_made;	   /* the directory, just now */
	bool is_unused;	   /* a backend has run here, and there is no database all the same */
	bool alone;	   /* no other process has it open */
	bool others_write; /* a writer or another Chroma has, and that is allowed */
	/* What the diagnosis found. */
	struct diagnose_summary summary;
	unsigned damages;
	bool is_fatal; /* what a start would make worse */
	bool is_copy;  /* that went wrong: what is lost here is elsewhere */
	bool is_gone;  /* the database: there is nothing from which it could be healed */
	bool is_half;  /* something is not there, or of another moment: it may be elsewhere */
	uint64_t loss; /* records that healing would have cost, and was therefore not done */
	bool is_loss;  /* it was not done */
	char first_damage[900];
};

/* say.c: one line, and one with the way on unless it is NULL; counts. */
void preflight_warn(struct preflight *p, const char *todo, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Each returns 0 to go on, or the exit status after saying why not. */

/* preflight_place.c: the directory and its store, their rights, the file system, who is there */
int preflight_open(struct preflight *p);
int preflight_rights(struct preflight *p);
int preflight_room(struct preflight *p);
int preflight_processes(struct preflight *p);
/* Without waiting, and without a word. */
bool preflight_is_alone(struct preflight *p);

/* preflight.c: persists that were cut off are undone, and a restore is ended */
int preflight_roll_back(struct preflight *p);

/* preflight_damage.c */
int preflight_damage(struct preflight *p);
/* Keeps the state as a snapshot; *id_out is its number. */
int preflight_keep(struct preflight *p, const char *reason, const char *description,
		   bool accept_broken, uint64_t *id_out);

/* preflight_migrations.c: what the backend's Chroma does with the database */
int preflight_migrations(struct preflight *p);
/* Which releases wrote the database, for the library to tell an older one: a line in the store. */
void preflight_note_writers(const struct preflight *p);

#endif
