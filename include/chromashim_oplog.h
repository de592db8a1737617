/* SPDX-License-Identifier: MIT */
/* clang-format off */
/*
 * The op log: what a protected process did to its data directory.
 *
 * A flight recorder. Each process writes its own segments, files below
 * <data>/.chromashim/oplog/ named
 *
 *	<start, 16 hex digits of CLOCK_REALTIME ns>-<pid>-<sequence, 6 digits>.oplog
 *
 * so that sorting by name sorts by time. A segment is mapped MAP_SHARED and filled with plain
 * stores: the kernel owns the pages, so everything recorded is there after kill -9. (It is not
 * synced: after a power failure the newest records may be missing or torn.) A finished segment may
 * be replaced by "<name>.zst", one zstd frame with zstd's own content checksum over the same bytes.
 *
 *	segment := header (OPLOG_HEADER_SIZE bytes) slot*        slots 0 .. capacity-1
 *	slot    := record | text | free (all zero)               64 bytes each
 *
 * Byte order is the machine's (little-endian on every supported one); `endian` tells.
 *
 * Writing. A slot is claimed by one atomic add to header.claimed (n slots for a record that is
 * followed by n-1 texts), filled in with `check` still 0, and finished by storing `check` last
 * with release order. Records of calls are claimed before the call and finished after it, hence:
 *	- check == 0 and op == 0: claimed or free, nothing known;
 *	- check == 0 and op != 0: in flight. In the segment of a dead process these are the calls that
 *	  were under way when it died; result and duration mean nothing;
 *	- check != 0: finished; oplog_slot_check() must agree, else the slot is damaged and is skipped.
 * Slots are independent of each other: a reader never loses more than the damaged slot.
 *
 * Reading. claimed may exceed capacity (claims that came too late; they are counted in `lost` or
 * went to the next segment). Time order within a segment is by record.time, not by slot.
 *
 * Names. A record names files by number. The name of a number is told by an OP_NAME record
 * somewhere in the same segment (not always before its first use), so every segment stands alone.
 *
 * Acts. What matters for weeks (oplog_is_act()) goes into a second, smaller log of the same format
 * as well: acts/ in the store, with a bound of its own. It has the starts and ends of processes,
 * ends of transactions (with how long they took; their beginnings are in oplog/), persists,
 * snapshots, refusals, and what a commit has done in Chroma's words. The calls themselves are in
 * oplog/ only. A process that has done nothing has no segment there. Each segment begins with
 * whose it is (OP_START), and tells a thread's name (OP_THREAD) before its first record.
 *
 * Who lives. `life` is the number under which the process holds a lock in the store's alive.lock
 * (see core/base/alive.h): a segment belongs to a living process as long as that is held. Pids repeat, and
 * mean nothing in another container; they are for people, and for where there is no such lock
 * (life 0, which is also what version 1 has).
 *
 * Version rule: a reader refuses a segment whose version is greater than its own; record kinds it
 * does not know are shown by number.
 */
#ifndef CHROMASHIM_OPLOG_H
#define CHROMASHIM_OPLOG_H

#include <stddef.h>
#include <stdint.h>

#define OPLOG_MAGIC UINT64_C(0x474f4c504f534843) /* "CHSOPLOG" in little-endian memory */
#define OPLOG_VERSION 2u
#define OPLOG_ENDIAN 0x01020304u
#define OPLOG_HEADER_SIZE 4096u
#define OPLOG_SLOT_SIZE 64u
#define OPLOG_TEXT_BYTES 52u
#define OPLOG_TEXTS_MAX 250u /* texts after one record: 13 000 bytes at most */
#define OPLOG_CAPACITY_MAX (UINT32_C(1) << 24)

/* All operations: number, C name, printed name. Numbers are never reused. */
#define OPLOG_OPS(X)                                                                               \
	/* the log itself */                                                                       \
	X(1, NAME, "log.name")       /* file = number, arg = enum oplog_name_kind, texts = name */ \
	X(2, TEXT, "log.text")       /* never printed alone */                                     \
	X(3, START, "log.start")     /* first record of a process: texts = its command line; in acts/ of each segment, with arg = 1 in a later one */ \
	X(4, NOTE, "log.note")       /* texts = a message */                                       \
	X(5, EXIT, "log.exit")       /* it left through exit(), or by signal arg that it was sent; offset 0: result = its exit status */ \
	X(7, EXEC, "exec")           /* texts = program */                                         \
	X(8, THREAD, "log.thread")   /* texts = the name of the thread tid; acts only */           \
	/* open and close */                                                                       \
	X(16, OPEN, "open")          /* arg = open flags, result = descriptor */                   \
	X(17, OPENAT, "openat")                                                                    \
	X(18, CREAT, "creat")                                                                      \
	X(19, MKSTEMP, "mkstemp")                                                                  \
	X(20, CLOSE, "close")        /* arg = descriptor */                                        \
	X(21, DUP, "dup")            /* arg = old descriptor, result = new one */                  \
	X(22, INHERIT, "inherit")    /* a descriptor found open at start; arg = open flags */      \
	X(23, OPEN_BY_HANDLE_AT, "open_by_handle_at")                                              \
	/* data */                                                                                 \
	X(32, READ, "read")          /* the reads only with CHROMASHIM_LOG_READS=on */             \
	X(33, PREAD, "pread")                                                                      \
	X(34, READV, "readv")                                                                      \
	X(35, PREADV, "preadv")                                                                    \
	X(36, WRITE, "write")                                                                      \
	X(37, PWRITE, "pwrite")                                                                    \
	X(38, WRITEV, "writev")                                                                    \
	X(39, PWRITEV, "pwritev")                                                                  \
	X(40, SENDFILE, "sendfile")                                                                \
	X(41, COPY_FILE_RANGE, "copy_file_range")                                                  \
	X(42, SPLICE, "splice")                                                                    \
	X(43, AIO_WRITE, "aio_write")                                                              \
	X(44, CLONE_RANGE, "ioctl.ficlone") /* arg = request */                                    \
	X(45, IOCTL, "ioctl")               /* arg = request; those that change a file */          \
	/* length and allocation */                                                                \
	X(48, FTRUNCATE, "ftruncate") /* length = new size */                                      \
	X(49, TRUNCATE, "truncate")                                                                \
	X(50, FALLOCATE, "fallocate") /* arg = mode */                                             \
	/* sync */                                                                                 \
	X(56, FSYNC, "fsync")                                                                      \
	X(57, FDATASYNC, "fdatasync")                                                              \
	X(58, SYNC_FILE_RANGE, "sync_file_range")                                                  \
	X(59, SYNCFS, "syncfs")                                                                    \
	X(60, MSYNC, "msync")                                                                      \
	/* names; arg = number of the second name where there is one */                           \
	X(64, RENAME, "rename")                                                                    \
	X(65, RENAMEAT, "renameat")                                                                \
	X(66, RENAMEAT2, "renameat2") /* length = flags */                                         \
	X(67, UNLINK, "unlink")                                                                    \
	X(68, UNLINKAT, "unlinkat") /* length = flags */                                           \
	X(69, RMDIR, "rmdir")                                                                      \
	X(70, MKDIR, "mkdir") /* length = mode */                                                  \
	X(71, MKDIRAT, "mkdirat")                                                                  \
	X(72, LINK, "link")                                                                        \
	X(73, LINKAT, "linkat")                                                                    \
	X(74, SYMLINK, "symlink")                                                                  \
	X(75, SYMLINKAT, "symlinkat")                                                              \
	X(76, MKNOD, "mknod")                                                                      \
	X(77, MKNODAT, "mknodat")                                                                  \
	/* metadata */                                                                             \
	X(80, CHMOD, "chmod") /* arg = mode */                                                     \
	X(81, CHOWN, "chown") /* arg = uid, length = gid */                                        \
	X(82, UTIME, "utime")                                                                      \
	X(83, SETXATTR, "setxattr")                                                                \
	X(84, REMOVEXATTR, "removexattr")                                                          \
	/* locks; offset and length = range, arg = enum oplog_lock */                              \
	X(88, LOCK, "lock")     /* fcntl record locks */                                           \
	X(89, FLOCK, "flock")   /* arg = operation */                                              \
	/* maps */                                                                                 \
	X(92, MMAP, "mmap")     /* writable shared maps only; arg = protection */                  \
	X(93, MUNMAP, "munmap")                                                                    \
	X(94, MPROTECT, "mprotect") /* a shared map made writable */                               \
	/* SQLite seen from above; file = statement text or database */                            \
	X(112, SQL_COPY, "sqlite.copy") /* a SQLite in this process; file = its library, arg = enum oplog_copy */ \
	X(113, SQL_OPEN, "sqlite.open")                                                            \
	X(114, SQL_CLOSE, "sqlite.close")                                                          \
	X(115, SQL_PREPARE, "sqlite.prepare") /* only failures; result = -SQLite code */           \
	X(116, SQL_STEP, "sqlite.step") /* a statement's run: length = rows given, offset = rows changed, result = -SQLite code or 0 */ \
	X(117, SQL_EXEC, "sqlite.exec")       /* as step */                                        \
	X(118, SQL_BACKUP, "sqlite.backup")                                                        \
	X(119, SQL_CHECKPOINT, "sqlite.checkpoint")                                                \
	X(120, SQL_LOAD, "sqlite.load_extension")                                                  \
	/* transactions, from the file protocol; file = the database, arg = number in this process */ \
	X(128, TXN_BEGIN, "txn.begin")       /* RESERVED (or the WAL write lock) taken */          \
	X(129, TXN_COMMIT, "txn.commit")     /* duration = since begin, length = bytes to database or WAL, offset = pages, result = schema cookie if changed else 0 */ \
	X(130, TXN_ROLLBACK, "txn.rollback") /* as commit */                                       \
	X(131, TXN_RECOVER, "txn.recover")   /* a hot journal was played back */                   \
	/* persists of an HNSW segment; file = the segment directory, arg = group number */        \
	X(144, PERSIST_BEGIN, "persist.begin")                                                     \
	X(145, PERSIST_COMMIT, "persist.commit") /* length = bytes of pre-images, offset = ns of its duration that it waited for the disk, result = how many elements the index has more than before */ \
	X(146, PERSIST_ROLLBACK, "persist.rollback")                                               \
	X(147, PERSIST_FREEZE, "persist.freeze")                                                   \
	X(160, SNAPSHOT_PIN, "snapshot.pin") /* arg = snapshot number */                           \
	X(161, SNAPSHOT_STATE, "snapshot.state")                                                   \
	/* refusals; texts = the line that went to stderr, result = -errno given to the caller */  \
	X(176, REFUSE_WRITER, "refuse.writer")                                                     \
	X(177, REFUSE_SPACE, "refuse.space")                                                       \
	X(178, REFUSE_DESTROYER, "refuse.destroyer")                                               \
	X(179, WARN_SPACE, "warn.space")                                                           \
	/* protected operations announced through chromashim.h; texts = name */                    \
	X(192, PROTECT_BEGIN, "protect.begin") /* arg = token */                                   \
	X(193, PROTECT_END, "protect.end")     /* arg = token, result as given by the caller */    \
	/* what a commit has done, in Chroma's words, read from the pages that it wrote; acts only. */ \
	/* arg = the transaction's number, duration = how long it took, file = the collection's id (OPLOG_NAME_COLLECTION) */ \
	X(208, RECORDS, "records")       /* rows put into the queue, one collection: offset, length = first, last sequence number; result = how many; texts = struct oplog_records, ids */ \
	X(209, PURGE, "records.purge")   /* rows taken out of the queue, as above, without texts; also those that the same transaction has put there, as Chroma before 1.0 does */ \
	X(210, COLLECTION, "collection") /* result = enum oplog_collection; texts = its name, after a rename NUL and the old one; length = its dimension, 0: none yet; offset = of a configured one bits of enum oplog_configured */ \
	X(211, SEGMENT, "segment")       /* a segment's row was made; texts = its id, NUL, its scope */ \
	X(212, MIGRATION, "migration")   /* texts = what it is of and its file's name: "sysdb 00003-…"; offset = its number */ \
	X(213, VACUUM, "vacuum")         /* the database was written anew: offset, length = its size before and after */ \
	X(214, DISK, "disk")             /* its room, each minute in which somebody writes; acts only: offset = free bytes, length = all of them */

enum oplog_op {
#define X(number, name, text) OP_##name = number,
	OPLOG_OPS(X)
#undef X
};

enum oplog_name_kind {
	OPLOG_NAME_FILE = 1, /* relative to the data directory; "." is the directory itself */
	OPLOG_NAME_SQL = 2,  /* statement text without bound values */
	OPLOG_NAME_OBJECT = 3, /* path of a shared object or program */
	OPLOG_NAME_COLLECTION = 4, /* a collection's id, as Chroma has it in its queue's topics */
};

/* Whether a record goes into acts/ as well. */
static inline int oplog_is_act(uint16_t op)
{
	return op > OP_TXN_BEGIN || (op >= OP_START && op <= OP_THREAD);
}

/* record.result of OP_COLLECTION. */
enum oplog_collection {
	OPLOG_COLLECTION_CREATED = 1,
	OPLOG_COLLECTION_RENAMED = 2,
	OPLOG_COLLECTION_CONFIGURED = 3, /* its configuration, schema or dimension */
	OPLOG_COLLECTION_DELETED = 4,
};

/* record.offset of OP_COLLECTION, when it was configured: what has changed. */
enum oplog_configured {
	OPLOG_CONFIGURED_DIMENSION = 1, /* by its first record */
	OPLOG_CONFIGURED_CONFIGURATION = 2,
	OPLOG_CONFIGURED_SCHEMA = 4, /* also when a record brings a new metadata key */
};

/* How the ids of OP_RECORDS are told: CHROMASHIM_LOG_IDS. */
enum oplog_ids {
	OPLOG_IDS_NONE = 0,
	OPLOG_IDS_HASH = 1,  /* XXH3, 64 bits, seeded with the first eight bytes of the store's id */
	OPLOG_IDS_PLAIN = 2, /* as they are, cut at 255 bytes */
};

/* The texts of OP_RECORDS begin with it; `ids` struct oplog_id follow, the first ones of the commit. */
struct oplog_records {
	uint32_t added, updated, upserted, deleted;
	uint32_t other; /* operations that this version does not know */
	uint16_t ids; /* how many follow: the first of the commit, as many as there is room for */
	uint8_t form; /* enum oplog_ids */
	uint8_t more; /* 1: it is at least so many; some pages could not be told */
	/*
	 * Chroma before 1.0 brings rows to its queue and purges them in one transaction. How many
	 * there were is told by the numbers of the rows that stay, what they were by the first of
	 * these behind them; their ids are not known.
	 */
};

struct oplog_id {
	uint8_t operation; /* as in Chroma's queue: 0 add, 1 update, 2 upsert, 3 delete */
	uint8_t size;	   /* of bytes: 8 for a hash */
	unsigned char bytes[];
};

/*
 * The line of the program that called Chroma, with CHROMASHIM_LOG_CALLER: "/srv/app.py:12 add_message",
 * cut at its beginning if it is longer. It stands at the end of an act's texts (OPLOG_F_CALLER): NUL,
 * the line, and one byte that says how long the line is.
 */
#define OPLOG_CALLER_MAX 200u

/* record.arg of OP_LOCK: what was asked (low byte) and how (bits above). */
enum oplog_lock {
	OPLOG_LOCK_READ = 0,
	OPLOG_LOCK_WRITE = 1,
	OPLOG_LOCK_UNLOCK = 2,
	OPLOG_LOCK_WAIT = 0x100, /* F_SETLKW, F_OFD_SETLKW */
	OPLOG_LOCK_OFD = 0x200,
};

/* record.arg of OP_SQL_COPY: how this SQLite is seen. */
enum oplog_copy {
	OPLOG_COPY_BELOW = 0, /* static: through the file protocol only */
	OPLOG_COPY_ABOVE = 1, /* its entry points are interposed as well */
};

/* record.flags */
#define OPLOG_F_STDIO 0x01u    /* through a stdio stream */
#define OPLOG_F_SYSCALL 0x02u  /* through syscall() */
#define OPLOG_F_CUT 0x04u      /* the text was longer than what is recorded */
#define OPLOG_F_CALLER 0x08u   /* of an act: its texts end with the line that called Chroma */
#define OPLOG_F_RESERVED 0xf0u /* zero */

struct oplog_record {
	uint32_t check; /* 0 until finished, then oplog_slot_check() */
	uint16_t op;    /* enum oplog_op */
	uint8_t flags;
	uint8_t texts;     /* how many slots after this one are its texts */
	uint64_t time;     /* ns, CLOCK_MONOTONIC, when the call was entered */
	uint64_t duration; /* ns */
	uint32_t tid;
	uint32_t file;  /* name number, 0 if none */
	int64_t offset; /* bytes; -1 where it has no meaning */
	uint64_t length;
	int64_t result; /* as the call returned it, or -errno */
	uint64_t arg;   /* see OPLOG_OPS */
};

struct oplog_text {
	uint32_t check;
	uint16_t op;  /* OP_TEXT */
	uint8_t size; /* bytes used */
	uint8_t part; /* 0 .. texts-1 */
	uint32_t zero;
	char bytes[OPLOG_TEXT_BYTES];
};

/* header.features */
#define OPLOG_HAS_WRITER UINT64_C(0x01)    /* this process is the writer (writer.lock) */
#define OPLOG_HAS_OFD_LOCKS UINT64_C(0x02) /* SQLite's locks are carried by OFD locks */
#define OPLOG_HAS_FENCE UINT64_C(0x04)     /* RESERVED is kept between transactions */
#define OPLOG_HAS_GROUPS UINT64_C(0x08)    /* persists can be rolled back */
#define OPLOG_HAS_BALLAST UINT64_C(0x10)   /* the ballast file is there */
#define OPLOG_SPACE_LOW UINT64_C(0x20)     /* new transactions are refused for want of space */
#define OPLOG_WAL_MODE UINT64_C(0x40)      /* the database is in WAL mode: no fence */
#define OPLOG_IDLE UINT64_C(0x80)          /* nothing was changed so far: its file goes with its process */
#define OPLOG_LIMIT UINT64_C(0x100)        /* a limit of the library's was reached; a NOTE says which */

struct oplog_header {
	uint64_t magic;
	uint32_t version;
	uint32_t endian;
	uint32_t header_size;
	uint32_t slot_size;
	uint32_t capacity; /* slots */
	uint32_t sequence; /* from 0; a forked child counts on from its parent's */
	uint32_t pid;
	uint32_t parent_pid;
	uint32_t uid;
	uint32_t shim_version; /* major << 16 | minor << 8 | patch */
	uint64_t start_ticks;  /* field 22 of /proc/<pid>/stat: with the pid it names the process */
	uint64_t anchor_monotonic; /* ns: these two clocks were read together */
	uint64_t anchor_realtime;
	uint8_t boot_id[16];   /* /proc/sys/kernel/random/boot_id without dashes */
	uint64_t protected_since; /* ns, CLOCK_REALTIME: when this process took the directory */
	char program[256];     /* /proc/self/exe, NUL-terminated, cut if longer */
	char data_dir[1024];   /* absolute, NUL-terminated, cut if longer */
	uint64_t check;        /* oplog_header_check(): everything above, and life */
	/* Below: written while the segment lives, not covered by check. */
	uint64_t claimed; /* atomic: slots claimed */
	uint64_t lost;    /* atomic: records this process could not write, since it started */
	uint64_t finished; /* 1 once the process has gone on to the next segment */
	uint64_t features; /* OPLOG_HAS_ bits: what protects the directory in this process now */
	uint64_t refused;  /* ns, CLOCK_REALTIME: when it was first refused as a writer; 0: never */
	/* Since version 2: */
	uint64_t life;     /* does not change, and is covered by check */
	uint64_t dropped;  /* segments that this process has removed by then, to keep the log's bound */
};

_Static_assert(sizeof(struct oplog_record) == OPLOG_SLOT_SIZE, "record is one slot");
_Static_assert(sizeof(struct oplog_text) == OPLOG_SLOT_SIZE, "text is one slot");
_Static_assert(sizeof(struct oplog_records) == 24, "layout is fixed");
_Static_assert(sizeof(struct oplog_header) <= OPLOG_HEADER_SIZE, "header fits");
_Static_assert(offsetof(struct oplog_header, check) == 1376, "layout is fixed");

#endif
