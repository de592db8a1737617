/* SPDX-License-Identifier: MIT
 *
 * Whose store a store is, and opening it.
 *
 * A data directory has one store, and a store one directory: both carry the same random id, in a
 * small text file "identity" (identity.c). The directory's own is in <directory>/.chromashim,
 * which is the store as well, unless CHROMASHIM_STORE has it elsewhere; then the file names the
 * place, and there is another one in the store.
 *
 * Device, inode and birth of the directory stand beside the id. Where they are not those of the
 * directory at hand it is a copy, or was moved to another file system, and gets an id of its own:
 * what trusts the live files then knows that these are others. Its store goes with it, unless that
 * is elsewhere and the original is still there to use it.
 *
 * Another store than the directory had takes over only once nothing waits in that one to be undone
 * and nobody lives in it; until then it stays the store, whatever is named (needed.c).
 *
 * A store elsewhere that belongs to another directory is shared: this one gets <store>/<its id>.
 * A directory that is there already is taken only if nothing is in it but what a store has.
 *
 * Raw system calls only, nothing is allocated; for both sides. Errors are -errno.
 */
#ifndef CORE_STORE_H
#define CORE_STORE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#define STORE_NAME ".chromashim"  /* in the data directory */
#define STORE_IDENTITY "identity" /* in the store, and in STORE_NAME */
#define STORE_ID_SIZE 16
#define STORE_ID_TEXT (2 * STORE_ID_SIZE + 1)

struct store_place {
	uint64_t device;
	uint64_t inode;
	uint64_t born; /* ns since 1970, 0 where the file system does not tell */
};

struct store_identity {
	uint8_t id[STORE_ID_SIZE];
	uint32_t version;	      /* of the newest that has used it; 0: it does not say */
	struct store_place directory; /* the data directory, when this was written */
	struct store_place own;	      /* the directory that this file is in */
	char path[PATH_MAX];	      /* of the data directory */
	char store[PATH_MAX];	      /* where the store is; "": here */
};

/* -ENOENT: there is none. -EPROTONOSUPPORT: of a newer format, only out->version is to be relied
 * on. -EBADMSG: damaged. */
int store_identity_read(int fd, struct store_identity *out);
/* is_first: -EEXIST if there is one by now, as another has met the directory at the same moment. */
int store_identity_write(int fd, const struct store_identity *identity, bool is_first);

void store_place_of(int fd, struct store_place *out);
bool store_place_same(const struct store_place *a, const struct store_place *b);
void store_id_draw(uint8_t id[STORE_ID_SIZE]);
void store_id_text(char out[STORE_ID_TEXT], const uint8_t id[STORE_ID_SIZE]);

/*
 * Older versions took a relative store from the working directory. If there is one, which is not
 * `storefd`, and may be of this directory: a descriptor of its undo/, in which there may be what is
 * of others. Else -errno.
 */
int store_stray_undo(struct store_identity *room, int dirfd, const char *named, int storefd);

enum store_access {
	STORE_LOOK, /* nothing is made or changed */
	STORE_MAKE, /* made where there is none; the directory's word of where it is stays */
	STORE_USE,  /* as MAKE, by a backend: from now on the directory says that it is here */
};

/* Whether a store has to stay the directory's: NONE, WAITS or LIVES. */
enum store_former store_needed(int storefd);
/* It has a log or snapshots. */
bool store_has_past(int storefd);

/* How the store was met, for the log. */
enum store_met {
	STORE_KNOWN,
	STORE_NEW,
	STORE_TAKEN_ON, /* it had no identity */
	STORE_ADOPTED,	/* the directory is a copy, or was moved to another file system */
};

/* The store that the directory had until now, where another one is named. */
enum store_former {
	STORE_FORMER_NONE,
	STORE_FORMER_LEFT,  /* it is left as it is: log, snapshots */
	STORE_FORMER_GONE,  /* it is not there, or cannot be read: nor can what waits in it */
	STORE_FORMER_WAITS, /* a persist has to be undone from it: it is used still */
	STORE_FORMER_LIVES, /* a process uses it: so it is used still */
};

struct store {
	int fd;
	bool inside; /* it is <directory>/.chromashim */
	bool lost;   /* the directory names a store elsewhere that is not there, or not its own */
	bool waits;  /* -EPROTONOSUPPORT: and a persist has to be undone from it */
	uint32_t version; /* of the newest chromashim that has used it; 0: it does not say */
	enum store_met met;
	uint8_t id[STORE_ID_SIZE]; /* all zero: it could not be written */
	char path[2 * PATH_MAX];   /* as it is to be shown */
	char from[PATH_MAX];	   /* STORE_ADOPTED: the directory that it was of */
	enum store_former former;
	const char *former_path; /* in `mine`, or STORE_NAME */
	/* Room for the work: callers may have small stacks. */
	struct store_identity mine, theirs;
};

/*
 * Opens the store of the data directory. `named` is CHROMASHIM_STORE, or NULL; a relative one is
 * relative to the data directory, whose absolute path is `path`. The descriptor s->fd is the
 * caller's. -ENOENT: there is no store (LOOK). -ENOTEMPTY: the place that is named is no store, and
 * not empty, or meant for everybody's files (it has the sticky bit). -EINVAL: it is the data
 * directory itself. -EPROTONOSUPPORT: it is of a newer chromashim, and left alone.
 */
int store_open(struct store *s, int dirfd, const char *path, const char *named,
	       enum store_access access);

/* What is in the way of one, in words, where that is neither a right nor the machine: its place is
 * taken, or is no place for one. NULL: something else. */
const char *store_obstacle(int error);

#endif
