/* SPDX-License-Identifier: MIT */
/* clang-format off */
/*
 * Pins: a moment of a Chroma directory that is kept, before a copy of it is made. In
 * <data>/.chromashim/pins/:
 *
 *	state				who pins what; mapped shared by every process that changes the
 *					directory under the shim, and by the command
 *	lock				an OFD lock: writing for who makes `state` anew, or lets go of pins
 *	<id>-files			which files there were at the pin, and which they were
 *	<id>-<key>.pre			pre-images of one file since pin <id>
 *	<id>-<key>.whole		that file itself (a hard link), removed or replaced since then
 *	<id>-<name in undo/>		the undo file of a persist that was under way, and what it moved aside
 *
 * <id> is the number of the snapshot that the pin becomes, decimal, 8 digits. <key> is the file's path
 * in the data directory with '.' for '/'. Pinned are chroma.sqlite3, its -wal, and the five files of
 * each vector segment. Byte order is the machine's; `endian` tells.
 *
 * Epochs. `epoch` is the newest pin, 0 if none is held. Who is about to overwrite, cut off, remove or
 * create a pinned file reads it, and saves what the file held in the pre-image file of that epoch:
 * each block once. So a file as of pin P is: the live file (or the .whole of the oldest epoch >= P that
 * has one) with the blocks laid over it that the oldest epoch >= P has saved; its size is the one that
 * the oldest .pre says, and the live one's if there is none. Files of an epoch are kept as long as there
 * is a pin at or before it.
 *
 *	files		:= struct pin_list_header, struct pin_list_entry *
 *	pre-image file	:= struct pin_file_header, zeros up to PIN_LIFE_AT, struct pin_file_life,
 *			   zeros up to PIN_BLOCK, u32 sums[blocks],
 *			   zeros up to a multiple of PIN_BLOCK, image
 *
 * image is as large as the file was, sparse; a block is saved when its sum is not 0. PIN_SUM_BUSY: its
 * saving is under way, and the block in the live file is untouched until it is over; if the process that
 * did it is dead, it stays so. Else the sum is the low half of XXH3-64 of the block (seed = its number)
 * with the lowest two bits set.
 *
 * Order. The image of a block is in the file before its sum, and both before the block is overwritten.
 * Who reads a pin reads the live block first, and looks at the sums then. A group of a persist is in
 * undo/ before the epoch is read for any of its writes; who pins sets the epoch first and looks for
 * groups then. So each write is either seen by the group's undo file, which the pin then has, or has
 * saved for the new epoch.
 *
 * A persist under way at the pin: the segment counts as it was at the group's start. Its undo file
 * goes before all pre-images. Where a persist has none, nothing can be pinned until it is over.
 *
 * A base is a pin whose snapshot is whole already, held on to so that the next one need not read what
 * has not changed: between the two it has, where a block was saved in an epoch from the base on and
 * before the next pin. It has PIN_BASE_REASON. To who knows nothing of bases it is a pin that waits to
 * be copied, whose snapshot is there: it lets go of it.
 *
 * After another boot all pins are lost (nothing here is synced).
 *
 * Whose bytes they are. Blocks that were not saved are read from the live file, so that has to be
 * the one that was pinned, changed since then by nobody but who saves before: device, inode and the
 * moment of its birth are those of the list, and its change time (ctime) is the one that was seen
 * last. The list says what it was at the pin, the header of each .pre what it was before the first
 * change of its epoch, and `seen` what it is after each: from the list over the epochs to the live
 * file each is what the one before it says, or the pin is worth nothing. Times are compared for
 * being the same, never for being later: no clock is asked. `late` is set where the chain cannot be
 * followed into the header: it was made while the pin was being taken, or a write was under way
 * then; and the files of a segment whose persist was under way at the pin are looked at by inode
 * alone up to the first header. A file of which all is saved, or that has a .whole, is not asked
 * for its times.
 *
 * Who changes a file counts itself in (`busy`) before, and out after it has put down the change
 * time it sees then. A count that is left over, while no writer that lives is in the midst of a
 * write, is of one that died in it: whoever finds it takes the file as it is now, and ends the
 * count. Two changes within one tick of the kernel's clock (4 ms before Linux 6.13, which has finer
 * ones where somebody looks) have one change time: a file that somebody else changes in place within
 * the tick of a change of ours is not told from it.
 *
 * The store itself may be copied and put back. `state` is the one that is mapped if it has the inode,
 * the `instance` and not less than the `generation` that are known; else all pins break.
 *
 * Version rule: who meets a greater version leaves everything alone and does without pins.
 */
#ifndef CHROMASHIM_PIN_H
#define CHROMASHIM_PIN_H

#include <stddef.h>
#include <stdint.h>

#define PIN_MAGIC UINT64_C(0x534e495053534843)      /* "CHSSPINS" in little-endian memory */
#define PIN_FILE_MAGIC UINT64_C(0x4552505053534843) /* "CHSSPPRE" */
#define PIN_LIST_MAGIC UINT64_C(0x5453494c53534843) /* "CHSSLIST" */
#define PIN_VERSION 2u /* 1: no lists, writers by pid; its pins are told as broken */
#define PIN_ENDIAN 0x01020304u
#define PIN_BLOCK 4096u
#define PIN_SLOTS 64u
#define PIN_TEXT 192u
#define PIN_PATH 128u
#define PIN_SUM_BUSY 1u
#define PIN_BY_PID (UINT64_C(1) << 63)
#define PIN_WRITERS 64u
#define PIN_WRITERS_AT 2048u /* in `state` */
#define PIN_LIFE_AT 512u     /* in a pre-image file */
#define PIN_LIST_PATH 64u
#define PIN_BASE_REASON "base"

enum pin_state {
	PIN_FREE = 0,
	PIN_TAKING = 1, /* being filled in; of a dead process: free */
	PIN_HELD = 2,
	PIN_BROKEN = 3, /* `error` and `detail` say why; to be told, then freed */
};

/* Written with atomic operations but for what `check` covers. */
struct pin_header {
	uint64_t magic;
	uint32_t version;
	uint32_t endian;
	uint32_t slot_size;
	uint32_t slots;
	uint8_t boot_id[16];
	uint64_t check;	     /* XXH3-64 of everything above */
	uint64_t epoch;
	uint64_t next_id;    /* at least; see snapshots/next */
	uint64_t generation; /* raised whenever a .pre or .whole has come into being */
	uint64_t unused;
	uint64_t saved;	     /* bytes of pre-images in all files that are kept */
	uint64_t limit;	     /* when saved is more, all pins break; 0: none */
	uint64_t shared;     /* the pin that the burst under way shares, 0: none */
	uint64_t sharers;    /* risky steps that have shared it */
	uint64_t instance;   /* at random */
};

/* A process that changes pinned files. */
struct pin_writer {
	uint64_t who;	 /* its life (core/base/alive.h); PIN_BY_PID | pid where there are no locks; 0: free */
	uint64_t writes; /* that are under way */
	uint64_t unprotected; /* persists under way without an undo file */
};

struct pin_slot {
	uint32_t state; /* enum pin_state */
	int32_t error;	/* errno that broke it */
	uint64_t id;
	uint64_t time;	/* ns, CLOCK_REALTIME: nothing after it is in the snapshot */
	uint32_t pid;	/* who pinned */
	uint32_t wal;	/* not 0: WAL mode, the -wal belongs to it */
	uint64_t who; /* as of a writer */
	uint64_t database_size, wal_size; /* of the log, what was written before the transaction
					     in whose midst it was pinned */
	uint64_t held_ns; /* how long the backend was held up */
	char reason[32];  /* "manual", "schedule", "schema", "bulk", "protected", "migration",
			     "damage"; PIN_BASE_REASON */
	char description[PIN_TEXT];
	char detail[PIN_TEXT]; /* what broke it */
};

struct pin_file_header {
	uint64_t magic;
	uint32_t version;
	uint32_t endian;
	uint64_t id;
	int64_t size;	 /* at the pin, -1: there was no such file */
	uint64_t dev;
	uint64_t ino;
	int64_t birth, changed; /* ns; birth 0: not known */
	int64_t mtime;
	uint32_t mtime_ns;
	uint32_t mode;
	uint64_t sums;	 /* where they begin */
	uint64_t image;	 /* where it begins */
	char path[PIN_PATH]; /* in the data directory */
	uint64_t check;	 /* XXH3-64 of everything above */
};

/* Written with atomic operations. */
struct pin_file_life {
	int64_t seen;  /* change time after the last change, ns */
	uint32_t busy; /* changes under way */
	uint32_t late; /* not 0: see above */
};

struct pin_list_header {
	uint64_t magic;
	uint32_t version;
	uint32_t endian;
	uint64_t id;
	uint64_t count; /* of entries */
	uint64_t check; /* XXH3-64 of everything above */
};

struct pin_list_entry {
	char path[PIN_LIST_PATH];
	int64_t size;
	uint64_t dev;
	uint64_t ino;
	int64_t birth, changed;
	uint64_t check; /* XXH3-64 of everything above, seed = id + its index */
};

_Static_assert(sizeof(struct pin_header) == 120, "layout is fixed");
_Static_assert(sizeof(struct pin_list_header) == 40, "layout is fixed");
_Static_assert(sizeof(struct pin_list_entry) == 112, "layout is fixed");
_Static_assert(sizeof(struct pin_slot) == 480, "layout is fixed");
_Static_assert(PIN_WRITERS_AT + PIN_WRITERS * sizeof(struct pin_writer) <= PIN_BLOCK, "before the slots");
_Static_assert(sizeof(struct pin_file_header) == 232, "layout is fixed");

#endif
