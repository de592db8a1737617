/* SPDX-License-Identifier: MIT
 *
 * The parts of `chromashim run`: settings, the backend's program, its directory, the pre-flight.
 */
#ifndef COMMAND_RUN_H
#define COMMAND_RUN_H

#include <limits.h>
#include <sys/types.h>

#include "command/base/command.h"
#include "core/settings/config.h"

/* The program that is to be started, as far as its files tell. */
struct backend {
	char program[PATH_MAX];	     /* what exec runs */
	char interpreter[PATH_MAX];  /* what is mapped in the end: the program, or its script's */
	char installation[PATH_MAX]; /* where its Chroma is, for installation_find(); "": unknown */
	char trouble[256];	     /* why nothing can be preloaded into it; "": it can */
};

struct run {
	struct config config;
	const char *config_file;    /* --config, or NULL */
	char config_path[PATH_MAX]; /* which file was read; "": none */
	char **command;		    /* CMD... with its NULL */
	char dir[PATH_MAX];	    /* the data directory */
	const char *dir_from;	    /* what named it, for --print-config; NULL: nobody, a guess */
	uid_t uid;		    /* as whom the backend will run */
	gid_t gid;
	char library[PATH_MAX]; /* to preload; "": none */
	char preload[PATH_MAX]; /* as the loader is told it: a path without blanks */
	struct backend backend;
	/* A process of the host waits for this in its first open; NULL: `run` starts one. */
	struct look *look;
	bool quiet, check_only, print_config;
	bool restore_missing, takeover; /* --restore-if-missing, --takeover */
	bool is_newer;			/* the store is of a newer chromashim: it is left alone */
};

/* One line on stderr, unless --quiet; in say.c. */
void run_say(const struct run *r, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- settings.c ---- */

/* Environment and --config FILE; then, once the directory is known, the store's own file. Both
 * return 0 or the exit status after saying why. */
int run_read_settings(struct run *r);
int run_read_store_settings(struct run *r);
void run_print_settings(const struct run *r);
/* What the backend and the guardian shall see. -errno. */
int run_export_settings(const struct run *r);
bool run_is_set_to(const struct run *r, enum config_key key, const char *word);

/* ---- directory.c ---- */

/* Chooses r->dir: the settings, else CMD's own arguments, its environment, ./chroma_data. */
int run_choose_directory(struct run *r);

/* ---- other_user.c ---- */

/* r->uid and r->gid: this user, or the one that CMD is told to become. */
void run_find_user(struct run *r);

/* ---- backend.c ---- */

/* Looks at command[0] and what it leads to. 0, -ENOENT or -EACCES: it cannot be started. */
int backend_find(char *const *command, struct backend *out);
/* Whether anything can be preloaded into b->interpreter: b->trouble. */
void backend_judge(struct backend *b);

/* ---- library.c ---- */

/* Finds libchromashim.so and puts it in front of LD_PRELOAD; says why it cannot. 0 or an exit
 * status. */
int run_preload(struct run *r);

#define RUN_TMP "/tmp/chromashim-%u" /* of a user by number, who has no other place */
/* A directory in which only this user, or root, can put something: a descriptor, or -1. */
int run_open_own(const char *path);

/* ---- memory.c ---- */

/* The directory that this command has used here; false: none is known. What it uses this time is
 * noted by the guardian that its library starts. */
bool memory_recall(char *const *command, char out[PATH_MAX]);
/* By that guardian. */
void memory_keep(const char *dir);

/* ---- preload.c ---- */

/* Puts r->preload in front of LD_PRELOAD, in the place of any other version of it. -errno. */
int preload_set(const struct run *r);

/* ---- preflight.c ---- */

/* 0: go on; else the exit status, after saying why. */
int preflight(struct run *r);

/* Looks and mends, and starts nothing. The exit status. */
int preflight_before_open(struct run *r);

/* ---- before_open.c ---- */

/* The host's word is in that descriptor. 0, or the exit status after saying why. */
int before_open_take(struct run *r, const char *descriptor);

/* ---- restore_missing.c ---- */

/* A new directory from the newest snapshot of a replica, if it has one. 0: go on. */
int run_restore_missing(const struct run *r);

/* ---- guardian.c ---- */

void run_start_guardian(const struct run *r);

#endif
