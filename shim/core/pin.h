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
};

/*
 * Opens pins/ of a store, made if `make`; a state of another boot is made anew, with what was held
 * marked broken. -ENOENT, -EPROTONOSUPPORT a newer version, -EBADMSG damaged.
 */
int pins_open(struct pins *p, int storefd, bool make);
void pins_close(struct pins *p);

static inline uint64_t pins_epoch(const struct pins *p)
{
	return p->state ? __atomic_load_n(&p->state->epoch, __ATOMIC_SEQ_CST) : 0;
}

/* What a pin is to say of itself. */
struct pin_request {
	const char *reason, *description; /* description may be NULL */
	uint64_t database_size, wal_size;
	bool wal;
};

/*
 * Takes a slot with the next number and sets the epoch. From now on every writer saves for it; the
 * caller then gives it the persists under way (pin_add_groups()) and ends with pin_hold() or
 * pin_drop(). -ENOSPC: no slot is free.
 */
int pin_begin(struct pins *p, const struct pin_request *q, struct pin_slot **out);
/* Links the undo files of groups in undo/ (a descriptor, -1: none) that are open now. -EAGAIN: one
 * ended just then; begin again. -EBUSY: a persist is under way that has none. */
int pin_add_groups(struct pins *p, const struct pin_slot *s, int undofd);
void pin_hold(struct pin_slot *s);
/* Lets go of it: its slot is free, the epoch 0 if it was the last. Files stay for pins_sweep(). */
void pin_drop(struct pins *p, struct pin_slot *s);
/* It is worth nothing: says why, once. `s` NULL: all that are held. */
void pin_break(struct pins *p, struct pin_slot *s, int error, const char *detail);
/* One is held, or broke and is to be told. */
bool pins_any(const struct pins *p);

/* ---- who writes ---- */

/* The place among the writers for this process, once; NULL: all are taken. */
struct pin_writer *pins_be_writer(struct pins *p);
/* Whether a process that lives is in the middle of a write. */
bool pins_is_written(const struct pins *p);
/* Whether one that lives is in the middle of a persist of which nothing can be undone. */
bool pins_is_unprotected(const struct pins *p);
/* Something was changed at that time. */
void pins_note_touched(struct pins *p, uint64_t time);

/* ---- saving (by who is about to write) ---- */

/* A pre-image file, open and with its sums mapped. Zero-initialised: closed. */
struct pin_file {
	int fd;
	uint64_t id;
	const struct pin_file_header *header; /* mapped */
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
/* Whether a header may be trusted; file_size is that of its file. */
int pin_file_judge(const struct pin_file_header *h, uint64_t file_size, uint64_t id);

/* ---- letting go (the command's side) ---- */

/* The lock: its descriptor, to be closed; -EAGAIN: somebody else has it (only if !wait). */
int pins_lock(const struct pins *p, bool wait);
/* Removes the files that no held pin needs. Returns how many, or -errno. */
int pins_sweep(struct pins *p);

#endif
