/* SPDX-License-Identifier: MIT
 *
 * Undo logs of persist groups, written and read; the format is specified in chromashim_undo.h.
 *
 * The writer runs inside the backend: raw system calls, no malloc. The reader is bounded and tells
 * what is wrong: -EBADMSG a check that does not agree, -EPROTONOSUPPORT a newer version, -ENODATA
 * the end, whole or torn. Both give -errno.
 */
#ifndef CORE_UNDO_H
#define CORE_UNDO_H

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#include "chromashim_undo.h"

#define UNDO_DIR "undo" /* in the store */
#define UNDO_SUFFIX ".undo"
#define UNDO_LAST_SUFFIX ".last" /* of a persist that is over, until the next one */
#define UNDO_NAME_MAX 128

extern const char *const undo_file_names[UNDO_FILES];

/* "<segment>-<pid>-<number>" + suffix; of a moved file. */
void undo_name(char out[UNDO_NAME_MAX], const struct undo_header *h, const char *suffix);
void undo_moved_name(char out[UNDO_NAME_MAX], const struct undo_header *h, unsigned file);
void undo_last_name(char out[UNDO_NAME_MAX], const char *segment);

/* ---- writing ---- */

#define UNDO_BUFFER (UNDO_LENGTH_MAX * 4)

/* Zero-initialised memory plus undo_create(). */
struct undo_writer {
	int fd;	     /* -1 when closed; the owner may move it */
	uint64_t at; /* where the next record goes */
	uint64_t seed;
	uint64_t bytes;	       /* of pre-images */
	uint64_t used;	       /* of the buffer, at `at` in the file */
	unsigned char *buffer; /* UNDO_BUFFER bytes, lent by the owner */
	bool durable;	       /* the caller syncs it: what is flushed is on its way by then */
};

/*
 * Makes the file of h, whose number is raised until the name is free; magic, versions and check are
 * filled in. w->fd is open on it. durable: the caller syncs it before it overwrites anything.
 */
int undo_create(struct undo_writer *w, int undofd, struct undo_header *h, bool durable);
/*
 * The pre-image of length bytes (up to UNDO_LENGTH_MAX) at offset of the file that `from` is open
 * on, read and put into the buffer. Less than that is there: what is there.
 */
int undo_save(struct undo_writer *w, unsigned file, int from, uint64_t offset, uint32_t length);
/* The same, of bytes that were read before. */
int undo_save_bytes(struct undo_writer *w, unsigned file, const void *data, uint64_t offset,
		    uint32_t length);
/* Any other record, with its data or without. */
int undo_put(struct undo_writer *w, enum undo_kind kind, unsigned file, uint64_t offset);
int undo_put_data(struct undo_writer *w, enum undo_kind kind, unsigned file, uint64_t offset,
		  const void *data, uint32_t length);
/* Its persist is complete: from now on TENTATIVE counts. */
int undo_complete(const struct undo_writer *w);
/* The buffer to the kernel. */
int undo_flush(struct undo_writer *w);

/* ---- reading ---- */

struct undo_reader {
	int fd;
	uint64_t start; /* of the first record */
	uint64_t at, size;
	uint64_t skipped; /* records whose data was damaged */
	uint64_t torn;	  /* of them, in a durable file: as a power cut leaves them, or may be */
	bool durable;
	uint64_t touched_2; /* `touched` of a file up to version 2, whose `ended` is made of it */
	struct undo_header header;
};

/* Takes no hold of fd. -ENODATA: torn at its birth, so nothing was changed yet. */
int undo_open(struct undo_reader *r, int fd);
/* The group of that name in undo/ is over, and only its file could not be removed. */
bool undo_is_ended(int undofd, const char *name);
/*
 * The next record; data has room for UNDO_LENGTH_MAX bytes. 0, or -ENODATA at the end. Damaged data
 * is skipped and counted; what a record says is within the file as it was at the group's start.
 */
int undo_next(struct undo_reader *r, struct undo_record *record, void *data);

#define UNDO_SECTOR 512u /* what a disk writes wholly or not at all */
/* Data at `at` in its file, of which a sector, or the part of one that it has, is all zeros: so a
 * power cut, or the image of a disk, leaves what had not reached it. */
bool undo_lacks_a_sector(const unsigned char *data, uint64_t length, uint64_t at);

/* Of the whole pickle that fd is open on; buf has UNDO_LENGTH_MAX bytes. 0 or -errno. */
int undo_sum_pickle(int fd, void *buf, uint64_t *sum);

#endif
