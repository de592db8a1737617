/* SPDX-License-Identifier: MIT
 *
 * What the verbs of the chromashim command share: the table, exit codes, messages, the data
 * directory.
 */
#ifndef COMMAND_COMMAND_H
#define COMMAND_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "chromashim.h"
#include "core/base/names.h"
#include "core/store/store.h"

#define SCHEMA_VERSION 1 /* of everything printed as JSON */

enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_WARNINGS = 3,
	EXIT_NO_STORE = 10,
	EXIT_BUSY = 11,
	EXIT_NOT_FOUND = 12,
	EXIT_NO_SPACE = 13,
	EXIT_IN_THE_WAY = 14,
};

/* What `status --check` and `check` give, as monitoring plugins do. */
enum check_code { CHECK_FINE = 0, CHECK_WARNING = 1, CHECK_DAMAGE = 2, CHECK_UNKNOWN = 3 };

#define COMMAND_READ_ONLY 0x1u
#define COMMAND_JSON 0x2u
#define COMMAND_DRY_RUN 0x4u

/* A verb. argv[0] is its name; returns the exit status. */
struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary; /* one line */
	const char *usage;   /* all of `chromashim help NAME` */
	unsigned flags;
};

int command_blame(int argc, char **argv);
int command_check(int argc, char **argv);
int command_drill(int argc, char **argv);
int command_doctor(int argc, char **argv);
int command_explain(int argc, char **argv);
int command_export(int argc, char **argv);
int command_guard(int argc, char **argv);
int command_log(int argc, char **argv);
int command_recover(int argc, char **argv);
int command_replica(int argc, char **argv);
int command_report(int argc, char **argv);
int command_restore(int argc, char **argv);
int command_run(int argc, char **argv);
int command_snapshot(int argc, char **argv);
int command_status(int argc, char **argv);
int command_support(int argc, char **argv);
int command_top(int argc, char **argv);

extern const char blame_usage[];
extern const char check_usage[];
extern const char doctor_usage[];
extern const char drill_usage[];
extern const char explain_usage[];
extern const char export_usage[];
extern const char guard_usage[];
extern const char log_usage[];
extern const char recover_usage[];
extern const char replica_usage[];
extern const char report_usage[];
extern const char restore_usage[];
extern const char run_usage[];
extern const char snapshot_usage[];
extern const char status_usage[];
extern const char support_usage[];
extern const char top_usage[];

/* For what reads a long log and ends then: what is freed is not given back meanwhile. */
void heap_keep(void);

/* ---- messages, on stderr ---- */

/*
 * "chromashim: <message>: <reason of error>" and a line with what to do (NULL: none). error is an
 * -errno, or 0 for no reason. Returns `code`, so that a verb can `return fail(…)`.
 */
int fail(enum exit_code code, int error, const char *todo, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The exit status that says why, for an -errno. */
enum exit_code exit_code_of(int error);

/* getopt_long() has complained; points to the usage. */
int fail_usage(const char *verb);

/* A verb of a verb: argv[1] names it. */
struct sub_verb {
	const char *name;
	int (*run)(int argc, char **argv);
};

int run_sub_verb(const char *verb, const struct sub_verb *verbs, size_t count, int argc,
		 char **argv);

/* ---- the data directory ---- */

struct data_directory {
	char dir[4096];		  /* the data directory as given */
	char store[2 * PATH_MAX]; /* its store */
	uint8_t store_id[STORE_ID_SIZE];
	uint32_t store_version; /* of the newest chromashim that has used it; 0: it does not say */
	bool store_is_newer;	/* than this command: it is left alone, and storefd is -1 */
	bool store_waits;	/* and a persist has to be undone from it */
	bool made, made_store;	/* by this command: what does nothing takes them out again */
	int dirfd;		/* -1: none */
	int storefd;
	int strayfd; /* undo/ that an older version has left elsewhere; -1: none */
};

/*
 * Opens the data directory (NULL: the first of CHROMASHIM_DIR, or ./chroma_data) and its store. A
 * missing store is an error only if `need_store`. Returns 0, or the exit status after saying why.
 */
int data_directory_open(struct data_directory *t, const char *dir, bool need_store);
/* Takes out what was made of it, as far as nothing has come into it. */
void data_directory_leave_nothing(struct data_directory *t);
/* Only the directory, whatever is in it: for verbs that judge a directory and need no store. */
int data_directory_open_only(struct data_directory *t, const char *dir);
/*
 * For what brings one: it may be empty, too, and has no store then; and where there is none, it is
 * made with mode and owner of `like`. NULL: nothing is made, and t->dirfd is -1 then.
 */
int data_directory_open_new(struct data_directory *t, const char *dir, const struct stat *like);
/* Then the store, if there is one that can be opened; nothing is changed, or said but that it is
 * another one than is named. 0 or -errno. */
int data_directory_find_store(struct data_directory *t);
/* Says why there is none; the exit status. */
int data_directory_fail_store(const struct data_directory *t, int error);
#define STORE_OBSTACLE_HELPS \
	"Move away what is there, or name a directory of its own as CHROMASHIM_STORE."
/* store_is_newer: "the store … was made by a newer chromashim …", in a static room. */
const char *data_directory_newer(const struct data_directory *t);
/* The same when CHROMASHIM_STORE is not in the environment yet; "": it is not set. */
void data_directory_find_named_store(struct data_directory *t, const char *named);
/* The store, made where there is none. 0 or -errno. */
int data_directory_make_store(struct data_directory *t);
void data_directory_close(struct data_directory *t);

#endif
