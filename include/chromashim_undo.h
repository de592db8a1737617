/* SPDX-License-Identifier: MIT */
/* clang-format off */
/*
 * The undo log of a persist group: how an HNSW segment was before the persist that is under way.
 *
 * One file a group, in <data>/.chromashim/undo/, named
 *
 *	<segment directory>-<pid>-<number>.undo
 *
 * The file's existence means that the group is not committed: whoever finds one whose process is
 * dead puts the segment back as the file says, and then removes it. A commit removes it.
 *
 *	file   := header (UNDO_HEADER_SIZE bytes) record*
 *	record := struct undo_record, data (length bytes), zeros up to a multiple of 8
 *
 * Byte order is the machine's; `endian` tells. A record's checks are seeded with header.check plus
 * its own offset in the file, so that no record is taken for one of another file or place.
 *
 * Order. Before a grain of a segment file is changed or cut off, its record is in the file (in
 * the kernel's hands; with power durability on the disk). So a record that is torn, or that was
 * never written, speaks of a grain that was never changed: the first record whose own check is
 * wrong is the end, and one whose data alone is wrong is skipped. Pre-images of one file do not
 * overlap; they may be played back in any order and any number of times.
 *
 * Power durability. Such a file has the sticky bit: nothing is overwritten before the file is synced.
 * So what a power cut tore was never synced, and speaks of grains that were never touched: a header
 * of zeros means that there is nothing to undo, and a record whose data lacks whole sectors (they
 * read as zeros) is skipped. Without the bit neither can be told from damage, nor can anything else
 * than zeros.
 *
 * Moved files. A file that is cut to nothing by its open (the pickle) is not copied: the old inode
 * is linked as "<name without .undo>.<index of the file>.moved" and then replaced in the segment by
 * a new one. MOVED says so, before it happens. Playing back renames it over the new one; when there
 * is no such link, the file was not touched yet or is back already.
 *
 * Tentative groups. Chroma 0.4 to 0.6 persists inside its own SQLite transaction. TENTATIVE
 * tells the database's change counter (bytes 24 to 27 of chroma.sqlite3) before the pickle is
 * opened; it counts once the persist is over, which `complete` says. If the process dies then, the
 * group stands only if that transaction was committed: no journal is hot, and the counter is another
 * one. The last TENTATIVE counts.
 *
 * What becomes of it. Whatever is about to be in the files is announced before it is: BECOMES has a
 * checksum of each grain as it will be, LENGTH a length that a file may get, WRITTEN a checksum of
 * what is written into a file that had been emptied; UNKNOWN is a range of which it cannot be told
 * (the kernel copies, or a map is written). `reach` is how far any write goes that lengthens a file.
 * Many may speak of one grain: all its states on the way are announced.
 *
 * Foreign files. A group is played back only over what it was saved from, whatever the inodes and
 * times: each grain that was saved is as it was or as was announced, each length is that of the
 * start, one that was announced or up to `reach`, and the pickle is that of the start (by
 * `pickle_check`) or what was written into it since it was emptied (the last time, or one before:
 * a LENGTH of 0 tells); none is missing. A power cut may lose or tear what was written to an
 * emptied file, and announcements of it: after one its content does not count, nor does `reach`. In
 * a copy they may be of different moments: what was announced is not there, or all of it; or it
 * lacks whole sectors (they read as zeros), since a copy of another inode in the same boot may as
 * well be the image of a disk. Nor does an emptied file's content count once `undoing` is set, which
 * it is before anything is put back. Otherwise somebody else has put files there or written to them;
 * the undo file is put aside as "<name>.foreign", what it moved likewise, and the segment is left as
 * it is.
 *
 * Ended groups. Who cannot remove the undo file of a group that is over sets `ended`: there is
 * nothing to play back.
 *
 * Kept files. The undo file of a persist that is over is kept as "<segment>.last" until the next one:
 * of each grain that it altered it has what it was, and (the last BECOMES) what it became. `ended` is
 * set in it; `counter` is the change counter of the database when the persist was complete, plus 1,
 * or 0 where that tells nothing (WAL mode). Nothing is ever played back from it.
 *
 * Alive. `life` is that of the process (core/base/alive.h). Where it is 0 the pid, its start and the boot
 * have to do. Whoever rolls back holds an OFD lock on "rollback.lock".
 *
 * Versions. In version 1 a grain had 4096 bytes. Up to version 2 the header had 256 bytes: the same
 * up to `files`, then `check` and `touched` (ns, CLOCK_REALTIME: the segment's files were last
 * changed then; 0: ended), and nothing was announced; such a file is played back if no file of the
 * segment was modified more than two seconds after `touched` (a minute in a copy, or after another
 * boot). A reader leaves a file alone whose version is greater than its own.
 */
#ifndef CHROMASHIM_UNDO_H
#define CHROMASHIM_UNDO_H

#include <stddef.h>
#include <stdint.h>

#define UNDO_MAGIC UINT64_C(0x4f444e5550534843) /* "CHSPUNDO" in little-endian memory */
#define UNDO_VERSION 3u
#define UNDO_ENDIAN 0x01020304u
#define UNDO_HEADER_SIZE 512u
#define UNDO_HEADER_SIZE_2 256u		       /* up to version 2 */
#define UNDO_GRAIN 64u		       /* pre-images are whole grains, but for a file's last one */
#define UNDO_LENGTH_MAX (UINT32_C(64) << 10) /* of one record's data */
#define UNDO_FILES 5u

/* The files of a segment, by index. */
#define UNDO_FILE_NAMES \
	{"header.bin", "data_level0.bin", "length.bin", "link_lists.bin", "index_metadata.pickle"}
#define UNDO_PICKLE 4u

struct undo_file {
	int64_t size; /* at the group's start, -1: there was no such file */
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint32_t zero;
};

struct undo_header {
	uint64_t magic;
	uint32_t version;
	uint32_t endian;
	uint32_t header_size;
	uint32_t pid;
	uint64_t start_ticks; /* as in the op log: with the pid and the boot it names the process */
	uint8_t boot_id[16];
	uint64_t number; /* of the group in its process */
	uint64_t time;	 /* ns, CLOCK_REALTIME */
	uint64_t dev;	 /* of this very file: another one is a copy, or a disk's image */
	uint64_t ino;
	char segment[40]; /* directory of the segment, NUL-terminated */
	struct undo_file files[UNDO_FILES];
	uint64_t life;	       /* of the process; 0: this file system has no such locks */
	uint64_t pickle_check; /* of the pickle at the group's start, in chains of 64 KiB */
	uint64_t check;	       /* XXH3-64 of everything above */
	/* Below: written while the group lives (mostly through a shared map), not covered by check. */
	uint64_t ended;		    /* not 0: there is nothing to play back */
	uint64_t complete;	    /* not 0: the persist is; TENTATIVE counts from now on */
	uint64_t undoing;	    /* not 0: it is being played back */
	uint64_t reach[UNDO_FILES]; /* where the last byte of any write to the file was to be, + 1 */
	uint64_t counter;	    /* of the database, + 1, when the persist was complete; or 0 */
};

enum undo_kind {
	UNDO_BLOCK_IMAGE = 1,
	UNDO_MOVED = 2,
	UNDO_TENTATIVE = 3, /* offset = change counter */
	UNDO_BECOMES = 4,   /* data: struct undo_becomes, of grains from offset on */
	UNDO_LENGTH = 5,    /* offset = the length; 0: it is emptied */
	UNDO_WRITTEN = 6,   /* data: one struct undo_written */
	UNDO_UNKNOWN = 7,   /* data: uint64_t, the length of the range */
};

/* The grain that many behind the one at the record's offset, as far as the file went at the start. */
struct undo_becomes {
	uint32_t grain;
	uint32_t check; /* of those of its bytes that will be there */
};

struct undo_written {
	uint32_t length; /* from the record's offset on */
	uint32_t check;
};

struct undo_record {
	uint32_t check; /* of the fields below, never 0 */
	uint16_t kind;	/* enum undo_kind */
	uint8_t file;	/* index */
	uint8_t zero;
	uint64_t offset; /* in that file */
	uint32_t length; /* of the data */
	uint32_t data_check;
};

_Static_assert(sizeof(struct undo_header) <= UNDO_HEADER_SIZE, "header fits");
_Static_assert(offsetof(struct undo_header, life) == 240, "layout is fixed");
_Static_assert(sizeof(struct undo_record) == 24, "layout is fixed");

#endif
