/* SPDX-License-Identifier: MIT
 *
 * What the last snapshot was made of: a file that is still the very same need not be read for the
 * next, and of one that is another a chunk with the same sum need not be hashed. The format is
 * specified in chromashim_snapshot.h.
 *
 * Why it can be trusted. A file is noted only if a later change of it cannot have the change time
 * that it has: on a file system that is known to put one down with each change, of this boot (after
 * a power cut data may be there whose time is not), older than any tick of the clock when it was
 * looked at, written out before it was read (a page that is still dirty takes stores through a map
 * without a new time), and unchanged when it had been read. Nobody can set a change time but by
 * setting the clock, and has to hit the nanosecond. And it is not only trusted: with each snapshot
 * some of the chunks are read all the same, others each time.
 */
#ifndef CORE_SNAPSHOT_KNOWN_H
#define CORE_SNAPSHOT_KNOWN_H

#include "core/pin/pin.h"
#include "core/snapshot/store.h"

#define KNOWN_FILE "known" /* in snapshots/ */

/* ---- using it ---- */

struct known_file {
	struct snapshot_known is;
	const struct checksum128 *sums;
};

struct known {
	struct manifest manifest; /* of the snapshot that it is about */
	char *data;
	struct known_file *files;
	size_t count, last; /* the one found last: they are asked for in order */
	uint64_t every;	    /* of so many chunks one is read all the same */
	bool is_open;
	bool is_of_this_boot;
};

/* Where there is none that fits, it knows nothing. To be closed in any case. Sums that are made in
 * the store from now on have its seed, or a new one. */
void known_open(struct known *k, struct snapshot_store *s);
void known_close(struct known *k);
/* It was wrong once: nothing of it is trusted any more, in this snapshot or the next; and that is
 * to be told, in these words. */
void known_forget(struct known *k, struct snapshot_store *s);
#define KNOWN_CONTRADICTED                                                                       \
	"a file of an index has changed and its change time has not, so all of them were read. " \
	"Snapshots before this one may have it as it was earlier. Look after the disk, and run " \
	"`chromashim check`."
/* The list of chunks of a file, lent; NULL: it has to be read. */
const struct manifest_file *known_find(struct known *k, const char *path,
				       const struct pin_identity *is);
/* The list of what was a file of that name, with its sums, and how many they are; all are lent.
 * NULL: nothing is known. */
const struct manifest_file *known_sums(struct known *k, const char *path,
				       const struct checksum128 **sums_out);
/* Whether chunk i of that file is read all the same. */
bool known_is_tried(const struct known *k, const struct manifest_file *f, uint64_t i);

/* ---- noting it ---- */

struct known_notes {
	struct snapshot_known *files;
	size_t count;
};

/*
 * Before a file is read, and when it has been read: whether it is (still) the one that it was at a
 * moment (ns of CLOCK_REALTIME), and may be noted as that. `path` in dirfd.
 */
bool known_settle(int dirfd, const char *path, const struct pin_identity *was, uint64_t at);
/* -ENOMEM. A path that is too long is left out. */
int known_note(struct known_notes *n, const char *path, const struct pin_identity *is);
/* The snapshot is there. What cannot be written is not known. */
void known_write(const struct snapshot_store *s, const struct manifest *m,
		 const struct known_notes *n);
void known_notes_free(struct known_notes *n);

#endif
