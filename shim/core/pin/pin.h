/* SPDX-License-Identifier: MIT
 *
 * Pins: the shared state and the pre-image files, for both sides; the format and its order are
 * specified in chromashim_pin.h.
 *
 * Raw system calls, no malloc; all give -errno.
 */
#ifndef CORE_PIN_H
#define CORE_PIN_H

#include <stdbool.h>
#include <sys/types.h>

#include "chromashim_pin.h"

#define PINS_DIR "pins" /* in the store */
#define PIN_NAME_MAX 192
#define PIN_LIST "files" /* of what a pin's list is called */

/* "<id>-<key of path>" + suffix (".pre", ".whole"); -ENAMETOOLONG. */
int pin_file_name(char out[PIN_NAME_MAX], uint64_t id, const char *path, const char *suffix);
/* 0: it is no name of a pin's file. */
uint64_t pin_id_of_name(const char *name);

/* ---- the state ---- */

struct pins {
	int dirfd;		  /* pins/; the owner may move it */
	struct pin_header *state; /* mapped, the slots behind it; NULL: no pins here */
	struct pin_slot *slots;
	struct pin_writer *writers;
	uint64_t ino, instance; /* of the state that is mapped */
	uint64_t generation;	/* it had at least */
};

/*
 * Opens pins/ of a store, made if `make`; a state of another boot is made anew, with what was held
 * marked broken. -ENOENT, -EPROTONOSUPPORT a newer version, -EBADMSG damaged.
 */
int pins_open(struct pins *p, int storefd, bool make);
void pins_close(struct pins *p);
/* Whether what is mapped is still what stands in the store, and no copy of a moment before. */
bool pins_are_current(struct pins *p);
/* Whether SIGBUS has taken the map. The file goes then: others must not count on this process to
 * see what they write there. In a handler, too. */
bool pins_state_lost(const struct pins *p);

static inline uint64_t pins_epoch(const struct pins *p)
{
	return p->state ? __atomic_load_n(&p->state->epoch, __ATOMIC_SEQ_CST) : 0;
}

/* What a pin is to say of itself. */
struct pin_request {
	const char *reason, *description; /* description may be NULL */
	uint64_t database_size, wal_size;
	bool wal;
	uint64_t life; /* of who takes it (core/base/alive.h), 0: there are no such locks */
};

/*
 * Takes a slot with the next number and sets the epoch. From now on every writer saves for it; the
 * caller then gives it the persists under way (pin_add_groups()) and the list of what is there
 * (pin_list_make()), and ends with pin_hold() or pin_drop(). -ENOSPC: no slot is free.
 */
int pin_begin(struct pins *p, const struct pin_request *q, struct pin_slot **out);
/* Links the undo files of groups in undo/ (a descriptor, -1: none) that are open now; rootfd is the
 * data directory. -EAGAIN: one
 * ended just then; begin again. -EBUSY: a persist is under way that has none. */
int pin_add_groups(struct pins *p, const struct pin_slot *s, int undofd, int rootfd);
int pin_list_make(const struct pins *p, uint64_t id, int rootfd);
void pin_hold(struct pin_slot *s);
/* Lets go of it: its slot is free, the epoch 0 if it was the last. Files stay for pins_sweep(). */
void pin_drop(struct pins *p, struct pin_slot *s);
/* The same, of the pin with that number: it has become a snapshot, and a burst may go on sharing
 * it. */
void pin_let_go(struct pins *p, struct pin_slot *s, uint64_t id);
/* Of the automatic pins that are held, one is given up if there are `most`: never the oldest, which
 * has the state before all, nor the newest; of the others the one between whose neighbours the
 * least time lies. */
void pins_thin(struct pins *p, unsigned most);
/* No number is given again that a file in pins/ has. */
void pins_skip_known(struct pins *p);
/* Writes that are under way in processes that live. */
uint64_t pins_count_writes(const struct pins *p);
/* It is worth nothing: says why, once. `s` NULL: all that are held. */
void pin_break(struct pins *p, struct pin_slot *s, int error, const char *detail);
/* Its snapshot is whole; it is held on to for what changes after it (base.h). */
static inline bool pin_is_base(const struct pin_slot *s)
{
	return __builtin_strncmp(s->reason, PIN_BASE_REASON, sizeof(s->reason)) == 0;
}
/* One is held that is to become a snapshot, or broke and is to be told. */
bool pins_any(const struct pins *p);

/* ---- who writes ---- */

/* The place among the writers for this process, once; NULL: all are taken. */
struct pin_writer *pins_be_writer(struct pins *p, uint64_t life);
/* Whether one that lives is among them: it has this very state mapped. */
bool pins_have_writer(const struct pins *p);
/* Whether a process that lives is in the middle of a write. */
bool pins_is_written(const struct pins *p);
/* Whether one that lives is in the middle of a persist of which nothing can be undone. */
bool pins_is_unprotected(const struct pins *p);
/*
 * Files were changed by who knows what it does, after their old content had been saved: those of a
 * segment whose persist was undone. NULL: those that a dead process was in the midst of changing;
 * nothing is done while a living one is. What they are now is what was seen last.
 */
void pins_adopt(struct pins *p, int rootfd, const char *segment);

/* A persist that was cut off has been undone by this process: pins stay good, since what that wrote
 * over had been saved for them. */
void pins_segment_undone(int storefd, int rootfd, const char *segment);

/* ---- which file it is ---- */

struct pin_identity {
	int64_t size;
	uint64_t dev, ino;
	int64_t birth, changed, mtime;
	uint32_t mtime_ns, mode;
};

/* -ENOENT also if it is no regular file. */
int pin_identify(int dirfd, const char *path, struct pin_identity *out);
/* The same file, whatever was written to it. */
bool pin_identity_same(const struct pin_identity *a, const struct pin_identity *b);

/* A list's header, of a file of that size: 0, -EBADMSG, -EPROTONOSUPPORT. */
int pin_list_judge(const struct pin_list_header *h, uint64_t id, uint64_t file_size);
bool pin_list_entry_is_good(const struct pin_list_entry *e, uint64_t id, uint64_t index);

/* ---- saving (by who is about to write) ---- */

/* A pre-image file, open and with its sums mapped. Zero-initialised: closed. */
struct pin_file {
	int fd;
	uint64_t id;
	const struct pin_file_header *header; /* mapped */
	struct pin_file_life *life;
	uint32_t *sums;
	size_t mapped;
};

/* Opens or makes the one of epoch `id` for `path`; the file as it is now gives size, inode, times.
 */
int pin_file_open(struct pin_file *f, const struct pins *p, uint64_t id, int rootfd,
		  const char *path);
void pin_file_close(struct pin_file *f);
/* Saves what [offset, offset + length) of the file holds, read from `from`, block by block, each
 * once. Ignored if `from` is another inode than the header's. */
int pin_file_save(struct pin_file *f, const struct pins *p, int from, uint64_t offset,
		  uint64_t length);
/* SIGBUS has taken its map: what is kept there, nobody will read. */
bool pin_file_is_lost(const struct pin_file *f);
/* Around a change, after its pin_file_save(): what the file is then is what was seen last. */
void pin_file_enter(struct pin_file *f);
void pin_file_leave(struct pin_file *f, int rootfd);
/* A change began before the pin was taken, and ended after it. */
void pin_file_set_late(struct pin_file *f);
/* The one of an epoch, if there is one. */
int pin_file_open_existing(struct pin_file *f, const struct pins *p, uint64_t id, const char *path);
/* A file is about to be removed or replaced: it gets its second name in pins/. */
int pin_file_keep(const struct pins *p, uint64_t id, int rootfd, const char *path);

/* ---- reading (by who copies a pin) ---- */

/* -ENOENT: nothing of the file was changed in that epoch. -EBADMSG, -EPROTONOSUPPORT. */
int pin_file_read_open(struct pin_file *f, const struct pins *p, uint64_t id, const char *path);
/*
 * The block as it was, zeros behind the file's end: 1; 0 if it is not saved, so that what was read
 * from the file before this call is what counts; -EBADMSG if it does not agree with its sum.
 */
int pin_file_read(const struct pin_file *f, uint64_t number, void *block);
/* Whether a block is saved. */
bool pin_file_has(const struct pin_file *f, uint64_t number);
/* Whether all of them are: nothing is read from the file itself any more. */
bool pin_file_has_all(const struct pin_file *f);
/* Whether a header may be trusted; file_size is that of its file. */
int pin_file_judge(const struct pin_file_header *h, uint64_t file_size, uint64_t id);

/* ---- letting go (the command's side) ---- */

/* The lock: its descriptor, to be closed; -EAGAIN: somebody else has it (only if !wait). */
int pins_lock(const struct pins *p, bool wait);
/* Removes the files that no held pin needs. Returns how many, or -errno. */
int pins_sweep(struct pins *p);

#endif
