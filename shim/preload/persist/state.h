/* SPDX-License-Identifier: MIT
 *
 * One persist group as its rooms share it: groups.c (the table), persists.c (what it meets),
 * end.c (how it ends), preimage.c (what is saved), announce.c (what becomes of it),
 * withheld.c (what waits for the disk). All under the group's lock.
 */
#ifndef PRELOAD_PERSIST_STATE_H
#define PRELOAD_PERSIST_STATE_H

#include <time.h>

#include "core/undo/undo.h"
#include "preload/persist/persists.h"
#include "preload/place/protection.h"

#define GROUPS 4096
#define HELD_BYTES ((size_t)4 << 20)
#define HELD_PIECES 32768u

enum group_state {
	GROUP_FREE,
	GROUP_OPEN,
	GROUP_TENTATIVE,   /* complete, but for the transaction it is part of */
	GROUP_UNPROTECTED, /* its pre-images cannot be saved; until the pickle is closed */
	GROUP_FROZEN,
};

/* A piece that is held back: bytes of one file, without a gap. */
struct held {
	uint64_t offset;
	uint32_t length;
	uint32_t file;
	uint32_t at;	 /* in the group's withheld_bytes */
	uint32_t before; /* 1 + the number of the piece of this file that came before; 0: none */
};

struct group_file {
	int fd;	       /* hidden, read and (mostly) write; -1: not open */
	bool readonly; /* hidden, read only: it may not be opened for writing any more */
	bool foreign;  /* what the host has open under this name is another file */
	bool moved;    /* the old inode is aside */
	bool emptied;  /* its old content counts no more: what is written to it is new */
	bool cut;      /* it was shorter than at the group's start: its size is not known */
	bool withheld_disorder; /* what is held back of it does not go from start to end */
	uint32_t withheld_last; /* 1 + the number of its last piece; 0: nothing is held back */
	uint64_t withheld_end;	/* of that piece */
	uint64_t *saved;	/* a bit for each grain of the file at the group's start */
	uint64_t written;	/* end of what was written since it was emptied */
	/* What was read of it last, and is in it still; up to its size at the group's start. */
	unsigned char *window;
	uint64_t window_at, window_length;
};

#define ANNOUNCED 512u /* grains whose announcements wait for the undo file */

struct group {
	_Atomic uint32_t owner; /* thread that has the lock, 0: none */
	_Atomic uint8_t state;
	uint8_t protection;
	bool power;		 /* as the durability is */
	bool creation;		 /* there was no file when it began, or nothing in them */
	bool remade;		 /* there were some, of another process */
	bool undo_synced;	 /* all that was put into the undo file is on the disk */
	bool undo_known;	 /* its directory entry, too */
	bool pickle_opened;	 /* for writing */
	bool together;		 /* when it began several files of its index were open */
	bool heard;		 /* by Chroma: the error of the pickle that is about to fail it */
	bool changed;		 /* some call of the host has gone through */
	bool expected;		 /* its undo file knows the transaction it is part of; before 1.0 */
	int error;		 /* that froze it */
	uint32_t directory;	 /* name of the segment's directory */
	uint32_t thread;	 /* whose transaction it waits for */
	uint64_t since, syncing; /* ns of it waiting for the disk */
	uint64_t elements;	 /* in the index before */
	struct undo_header header;
	struct undo_writer undo;
	struct hold loads_kept_out; /* nobody loads the index meanwhile */
	struct undo_header *page;   /* the undo file's start, mapped: for what is below `check` */
	struct group_file files[UNDO_FILES];
	/* One map: the undo writer's buffer, what a write meets, what is held back and where it
	 * belongs, the bitmaps. */
	unsigned char *memory;
	size_t memory_size;
	unsigned char *old; /* UNDO_LENGTH_MAX bytes */
	unsigned char *withheld_bytes;
	struct held *held;
	uint32_t withheld_used, withheld_count;
	bool holding;
	/* Of one file, from one grain on. */
	struct undo_becomes *announced;
	uint32_t announced_count, announced_file;
	uint64_t announced_from;
};

/* What a protected directory needs for its groups. */
struct persist_store {
	_Atomic unsigned groups; /* in use */
	uint64_t number;
	uint32_t round; /* the protection's place was taken that many times */
	bool known;	/* with power durability: the names that lead to undo/ are on the disk */
};

extern struct group groups[GROUPS];
extern _Atomic unsigned groups_top; /* no group is at this place or behind it */
extern struct persist_store persist_stores[PROTECTIONS];

static inline bool grain_is_saved(const struct group_file *f, uint64_t grain)
{
	return f->saved[grain / 64] >> (grain % 64) & 1;
}

static inline unsigned file_index(union slot s)
{
	return (unsigned)s.role - ROLE_HEADER;
}

_Static_assert(ROLE_PICKLE - ROLE_HEADER == UNDO_PICKLE, "roles and files have one order");

static inline bool brings_bytes(const struct change *c)
{
	return c->iov && c->iov_count > 0;
}

/* ---- groups.c, begin.c ---- */

/* The group of a segment's directory, locked; NULL if it has none, or this thread is in it. */
struct group *group_lock(uint32_t directory);
void group_unlock(struct group *g);
/* A new one for a segment's directory, locked. NULL: nothing to protect, or not possible. */
struct group *group_begin(unsigned protection, uint32_t directory);
void group_release(struct group *g); /* gives up all it has; it is free then */
/*
 * A segment that was made and never persisted: nothing of it has to be saved, and its undo file
 * says so. It needs no group until its pickle comes, which may be never: thousands of them take no
 * place.
 */
void group_park(struct group *g);
/* It was cut, or SIGBUS has taken it: what is put there does not reach the undo file. */
bool group_page_lost(const struct group *g);
bool group_is_parked(unsigned protection, uint32_t directory);
/* Its undo file has still to reach the disk; and that it does. */
#define PARKED_UNSYNCED (UINT64_C(1) << 31) /* in the ticket, above the number */
bool group_is_parked_unsynced(unsigned protection, uint32_t directory);
void group_sync_parked(unsigned protection, uint32_t directory);
/* Tells the undo file of that number, of this process, from any other one. */
uint64_t group_ticket(unsigned protection, uint64_t number);

/* ---- fail.c, end.c ---- */

const char *persist_error_text(int error);
void group_record(const struct group *g, enum oplog_op op, uint64_t length, int64_t result);
/* It is on the disk: how long that took, and how many elements the index has more than before. */
void group_record_commit(const struct group *g);
/* What began then was waiting for the disk. */
static inline void group_synced(struct group *g, uint64_t since)
{
	g->syncing += oplog_now() - since;
}

void group_reopen(struct group *g); /* a tentative one goes on */
/* Its pickle is about to be opened: the undo file knows the transaction it is part of. 0 or -errno.
 */
int group_expect(struct group *g);
/* What was written of its files is on its way to the disk, and gets there; else it fails. */
void group_write_out(struct group *g);
/* The pickle is complete. */
void group_complete(struct group *g);
void group_commit(struct group *g);
/* Puts the segment back, and freezes it: by an error, or with other words for it. */
void group_fail(struct group *g, int error);
void group_fail_as(struct group *g, int error, const char *why);
void group_set_state(struct group *g, enum group_state state);
bool persists_tentative(void);	      /* some group waits for its transaction */
void persists_forget_tentative(void); /* in a forked child */
/* Its files are going away by the host's will: there is nothing to put back. */
void group_abandon(struct group *g);
/* Who has written it is done: he copies an index file by file (tar, rsync, copytree), and no pickle
 * need come last. Chroma has the files of an index open together. */
void group_let_go(struct group *g);
/* Its undo file goes; of a persist that is complete it is kept as the last one's. */
void group_remove_undo(const struct group *g, bool persisted);
/* The undo file cannot be written: goes on without, and says so. */
void group_unprotect(struct group *g, int error);

/* ---- equip.c, preimage.c: 0 or -errno ---- */

int group_make_memory(struct group *g);
/* Descriptor and memory of the undo file, which a group that only creates does without. */
int group_equip(struct group *g);
int group_open_undo(const struct group *g); /* its undo file */
/* undo/ for a moment: the caller closes it. */
int group_undo_folder(const struct group *g);
/* "<segment>/<file>"; out has room for both. */
/* In its index as it is on the disk; false: that cannot be told. */
bool group_elements(const struct group *g, uint64_t *elements_out);
void group_file_path(char *out, const struct group *g, unsigned file);
/* The number of a file's name; 0: no room any more. */
uint32_t group_file_name(const struct group *g, unsigned file);
/* A descriptor of a file for a moment. */
int group_open_in(const struct group *g, unsigned file, int flags);
/* Own descriptor of a file; -ENOENT if it is not the one that the host has open as hostfd. */
int group_open_file(struct group *g, unsigned file, int hostfd);
/*
 * What the range held at the group's start is in the undo file or its buffer; with `write`, which
 * brings its own bytes, only what it alters.
 */
int preimage_save(struct group *g, unsigned file, int hostfd, uint64_t offset, uint64_t length,
		  const struct change *write);
/* Up to UNDO_LENGTH_MAX bytes of the file as it is, without what is held back. Whole pages are
 * read, for the writes that come next. How many there are, or -errno. */
ssize_t window_get(struct group *g, unsigned file, uint64_t from, uint64_t to,
		   const unsigned char **out);
/* A write is about to go through to the file; or it may become anything. */
void window_write(struct group *g, unsigned file, const struct change *c);
void window_drop(struct group *g, unsigned file);
/* Anything of the range is in it. */
bool preimage_has(const struct group *g, unsigned file, uint64_t offset, uint64_t length);
/* A file is about to be cut to nothing by its open, or to be replaced. */
int preimage_aside(struct group *g, unsigned file, bool replace);
/* The open failed after all. */
void preimage_aside_undo(struct group *g, unsigned file);

/* ---- announce.c: what is about to be in the files, before it is; 0 or -errno ---- */

/* The grains that a write alters, which preimage_save() has seen. */
int announce_write(struct group *g, unsigned file, const struct change *c);
/* What the kernel brings, or a map. */
int announce_unknown(struct group *g, unsigned file, uint64_t offset, uint64_t length);
int announce_length(struct group *g, unsigned file, uint64_t length);
/* A write to a file that was cut: at its end, wherever that is, or behind it with a gap. */
int announce_end(struct group *g, unsigned file, const struct change *c);
/* How far a write goes. -EIO: that cannot be said any more. */
int announce_reach(struct group *g, const struct change *c);
/* A write to a file that had been emptied. */
int announce_written(struct group *g, unsigned file, const struct change *c);
/* Into the undo file's buffer. */
int announce_flush(struct group *g);

/* ---- withheld.c, release.c ---- */

/* n bytes of the write, from `skip` on. */
void withheld_take_bytes(const struct change *c, uint64_t skip, unsigned char *to, uint64_t n);

/* Keeps for later what a write alters, which preimage_save() has seen; false: it does not fit in,
 * let go first. */
bool withheld_put(struct group *g, unsigned file, const struct change *c);
/* What is held back of n bytes at offset, which were read into buf from the file. */
void withheld_lay_over(const struct group *g, unsigned file, uint64_t offset, void *buf, size_t n);
/* The undo file and its name to the disk. */
int withheld_sync_undo(struct group *g);
/* The undo file to the disk (with power durability), then what is held back to its files. */
int withheld_release(struct group *g);
void withheld_drop(struct group *g);

#endif
