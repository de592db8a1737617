/* SPDX-License-Identifier: MIT */
/* clang-format off */
/*
 * Snapshots: whole copies of a Chroma directory, in <data>/.chromashim/snapshots/:
 *
 *	<number, 8 digits>.manifest	one for each snapshot
 *	chunks/<2 digits>/<64 digits>	pieces of files, shared by all snapshots; named in lower-case
 *					hexadecimal by the SHA-256 of their plain content, the first
 *					two digits of which name the directory
 *	chunks/…/<64 digits>.bad	a chunk that was found damaged and set aside
 *	chunks/.naming			names of chunks may not have reached the disk yet: who finds
 *					it syncs all directories before a manifest names a chunk that
 *					was there. Gone once they have
 *	known				which files the last snapshot was made of, so that the next one need
 *					not read those that are still the same; may be missing, or of a
 *					snapshot that is gone: then all are read
 *	next				the number of the next snapshot, decimal; numbers are never reused
 *	lock				OFD locks: all of it for writing, who changes the store; byte 0 for
 *					reading, who needs that chunks stay; byte 1 for writing beside
 *					that, who adds, one at a time. An older chromashim locks all of it
 *					for reading as well
 *
 * All numbers are little-endian. Files appear by renaming what is complete and synced; names that
 * begin with a dot are leftovers of a dead process. A chunk is on the disk before any manifest that
 * names it.
 *
 * A reader refuses a version greater than its own.
 *
 *	chunk    := struct snapshot_chunk, one zstd frame with its content checksum; of raw blocks
 *		    where the content would not get smaller
 *	manifest := struct snapshot_header,
 *		    text reason, text description, text trouble,
 *		    u32 count, text*			tags that hold it
 *		    u32 count, collection*
 *		    u32 count, file*
 *		    u64 check				XXH3-64, seed = id, of all bytes before it
 *	text       := u32 size, bytes (UTF-8, not terminated)
 *	collection := text id, text name, u64 records
 *	file       := text path, u32 mode, u32 mtime nanoseconds, i64 mtime seconds, u64 size,
 *		      u8[32] chunk name *		one for each SNAPSHOT_CHUNK_SIZE bytes of size
 *
 *	known      := struct snapshot_known_header, known-file *,
 *		      u64 check				XXH3-64, seed = id, of all bytes before it
 *	known-file := struct snapshot_known,
 *		      u64[2] sum			one for each SNAPSHOT_CHUNK_SIZE bytes of size
 *
 * A chunk name of 32 zero bytes stands for zeros and has no file. A path is a name, or a segment's
 * directory, a slash, and a name. The database is a single file: what its journal or WAL held has
 * been played into it.
 *
 * States. complete: all chunks are there, nobody looked at the content. verified: each chunk was
 * compared with its name, the database opened, and found without damage. broken: `trouble` says what is wrong; what
 * is there can still be restored. hydrating: what a pin of that number holds (chromashim_pin.h) is
 * being copied; files may be missing, and of the one under way there is only the beginning. pinned:
 * never in a manifest; what a pin is of which there is none yet.
 */
#ifndef CHROMASHIM_SNAPSHOT_H
#define CHROMASHIM_SNAPSHOT_H

#include <stddef.h>
#include <stdint.h>

#define SNAPSHOT_MAGIC UINT64_C(0x50414e5353534843) /* "CHSSSNAP" in memory */
#define SNAPSHOT_CHUNK_MAGIC UINT64_C(0x4b4e484353534843) /* "CHSSCHNK" in memory */
#define SNAPSHOT_KNOWN_MAGIC UINT64_C(0x4e574e4b53534843) /* "CHSSKNWN" in memory */
#define SNAPSHOT_VERSION 1u
#define SNAPSHOT_KNOWN_VERSION 2u /* 1: no sums */
#define SNAPSHOT_KNOWN_PATH 64u
#define SNAPSHOT_CHUNK_SIZE (UINT32_C(128) << 10) /* of plain content; a file's last one is shorter */
#define SNAPSHOT_NAME_SIZE 32u
#define SNAPSHOT_TEXT_MAX 4096u /* bytes of a text */
#define SNAPSHOT_COUNT_MAX (UINT32_C(1) << 20) /* of tags, of collections, of files */
#define SNAPSHOT_SIZE_MAX (UINT64_C(1) << 40) /* of one file: 2^23 chunks */

enum snapshot_state {
	SNAPSHOT_PINNED = 1,
	SNAPSHOT_HYDRATING = 2,
	SNAPSHOT_COMPLETE = 3,
	SNAPSHOT_VERIFIED = 4,
	SNAPSHOT_BROKEN = 5,
};

struct snapshot_header {
	uint64_t magic;
	uint32_t version;
	uint32_t state; /* enum snapshot_state */
	uint64_t size;	/* of the manifest, check included */
	uint64_t id;
	uint64_t time;	   /* ns, CLOCK_REALTIME: nothing after it is in the snapshot */
	uint64_t verified; /* when it was checked last, 0: never */
	uint8_t boot_id[16];
	/* From the database's first page, see sqlite.org/fileformat2.html. */
	uint32_t page_size;
	uint32_t page_count;
	uint32_t change_counter;
	uint32_t schema_cookie;
	uint32_t migrations[3]; /* applied: embeddings_queue, metadb, sysdb */
	uint32_t progress; /* percent, of one that is hydrating; else 0 */
};

/*
 * What the manifest of snapshot `id` lists under that path is the content of a file in which nothing
 * of what is said here is another, in the boot in which it was written; of a file of which a later
 * change might not show in the change time, that is 0. And a chunk of it is what has its sum:
 * XXH3-128 with the seed (low, high; 0: not known).
 */
struct snapshot_known_header {
	uint64_t magic;
	uint32_t version; /* a reader knows its own alone */
	uint32_t count; /* of files */
	uint64_t id; /* of the snapshot */
	uint64_t seed; /* at random */
	uint8_t boot_id[16];
};

struct snapshot_known {
	char path[SNAPSHOT_KNOWN_PATH]; /* terminated */
	uint64_t size, dev, ino;
	int64_t birth, changed; /* ns */
};

struct snapshot_chunk {
	uint64_t magic;
	uint32_t version;
	uint32_t plain;	 /* bytes of content */
	uint32_t stored; /* bytes of the frame, up to the end of the file */
	uint32_t check;	 /* XXH3-64 of the fields above, its low half */
};

_Static_assert(sizeof(struct snapshot_header) == 96, "layout is fixed");
_Static_assert(offsetof(struct snapshot_header, page_size) == 64, "layout is fixed");
_Static_assert(sizeof(struct snapshot_chunk) == 24, "layout is fixed");
_Static_assert(sizeof(struct snapshot_known_header) == 48, "layout is fixed");
_Static_assert(sizeof(struct snapshot_known) == 104, "layout is fixed");

#endif
