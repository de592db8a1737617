/* SPDX-License-Identifier: MIT
 *
 * What the verbs about snapshots share: opening them, naming one, asking, telling.
 */
#ifndef COMMAND_SNAPSHOTS_H
#define COMMAND_SNAPSHOTS_H

#include "command/base/command.h"
#include "core/check/verify.h"
#include "core/pin/pin.h"
#include "core/snapshot/retention.h"

/* Options that several of them have. */
struct snapshot_flags {
	bool json, utc, dry, yes, quiet, force;
	int verbose;
};

/* Snapshots of a data directory, read. What is only pinned is in the list as well. */
struct snapshots {
	struct data_directory data;
	struct snapshot_store store;
	struct pins pins; /* state NULL: there are none */
	bool only_heads;  /* set before it is read: the list has no collections and files */
	struct manifest *list;
	size_t count;
};

/*
 * Opens them and reads the list. `make`: where there are none, the store is made; else that is an
 * error. Returns 0, or the exit status after saying why.
 */
int snapshots_open(struct snapshots *s, const char *dir, enum snapshot_access access, bool make);
/* The same for who asks for the latest: the snapshot of a stop that is
 * being taken counts. */
int snapshots_open_at_rest(struct snapshots *s, const char *dir, enum snapshot_access access);
/* For what brings a directory: see data_directory_open_new(). The store is made. */
int snapshots_open_new(struct snapshots *s, const char *dir, const struct stat *like);
/* The same; where there are none nothing is made, and s->store.lockfd is -1. For what may turn out
 * to have nothing to do: snapshots_load_opened() makes them then. */
int snapshots_open_what_is_there(struct snapshots *s, const char *dir, enum snapshot_access access);
/* On s->data, which is open already, and stays so. */
int snapshots_load_opened(struct snapshots *s, enum snapshot_access access, bool make);
void snapshots_close(struct snapshots *s);
/* The same on s->data, which is open already, and without a word: 0 or -errno. */
int snapshots_load(struct snapshots *s, enum snapshot_access access, bool make, unsigned wait_ms);
void snapshots_unload(struct snapshots *s);

/* The index of the one that `spec` names (N, latest, before-schema, @10m, a time), or -1 after
 * saying why. */
long snapshots_find(const struct snapshots *s, const char *spec);

/*
 * list[at] is copied first if it is only pinned, and may then be broken: that is told. 0, or the
 * exit status. The store is then open for SNAPSHOT_ADD, at least.
 */
int snapshots_settle(struct snapshots *s, long at, const struct snapshot_flags *flags);
/* All that are pinned: before the files they rest on are exchanged. */
int snapshots_settle_all(struct snapshots *s, const struct snapshot_flags *flags);

/* It goes, be it a manifest, a pin, or both; its chunks stay. 0 or -errno. */
int snapshots_remove(struct snapshots *s, size_t at);

/* Which directories beside this one were removed under the library, and can be had back; `label`
 * begins the line. Nothing where there are none. */
void snapshots_tell_kept(const struct data_directory *t, const char *label);

/* Whether by its time can be told what came after list[at]: not if the clock was set back since, or
 * before. Their numbers are in the order in which they were taken. */
bool snapshots_time_tells(const struct snapshots *s, size_t at);

/* "verified", "hydrating 42 %". */
const char *snapshots_state(const struct manifest *m, char *out, size_t room);

/* After a failure to take, restore or verify: says it. Returns the exit status. */
int snapshots_fail(const struct snapshots *s, int error, const struct snapshot_trouble *t,
		   const char *what);

/*
 * Asks, unless `yes`; the answer is a line of standard input. 0: go on; else the exit status: 2
 * where that is no terminal and has ended, 1 if the answer is no.
 */
int snapshots_confirm(const struct snapshot_flags *flags, const char *question, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * Takes one and, if wanted, verifies it; says it on stdout unless flags->quiet. The exit status;
 * *id_out is 0 if none was taken.
 */
int snapshots_create(struct snapshots *s, const char *reason, const char *description, bool verify,
		     const struct snapshot_flags *flags, uint64_t *id_out);

/* Its chunks looked at, it says what it found; the exit status. */
int snapshots_verify(struct snapshots *s, struct manifest *m, const struct snapshot_flags *flags);

/*
 * Persists that died half-way are undone, as the next start would do: else they would be torn in
 * what is taken. Nobody has the directory open.
 */
void snapshots_roll_back(const struct data_directory *t);

/* What `snapshot prune` does. */
struct prune_rules {
	struct retention_policy policy; /* without `now` */
	uint64_t max_space, min_free;	/* bytes, 0: no such limit */
};
struct prune_result {
	size_t removed;
	uint64_t freed;
	bool
	    is_short; /* a limit on space was not reached: the rest is held, or the last verified */
};
/* Asks nothing, says nothing. 0 or -errno; -EBADMSG: done, but chunks had to stay. */
int snapshots_prune(struct snapshots *s, const struct prune_rules *rules, struct prune_result *out);

/* The verbs below `chromashim snapshot`. */
int snapshot_command_list(int argc, char **argv);
int snapshot_command_show(int argc, char **argv);
int snapshot_command_diff(int argc, char **argv);
int snapshot_command_verify(int argc, char **argv);
int snapshot_command_hold(int argc, char **argv);
int snapshot_command_release(int argc, char **argv);
int snapshot_command_delete(int argc, char **argv);
int snapshot_command_prune(int argc, char **argv);

#endif
