/* SPDX-License-Identifier: MIT
 *
 * What the environment says: every CHROMASHIM_ variable that the library reads.
 */
#ifndef PRELOAD_SETTINGS_H
#define PRELOAD_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

enum single_writer {
	SINGLE_WRITER_DENY,
	SINGLE_WRITER_WAIT,
	SINGLE_WRITER_OFF,
};

struct settings {
	bool off;			  /* CHROMASHIM=off, or this is the command itself */
	bool log_sql;			  /* CHROMASHIM_LOG_SQL */
	bool log_reads;			  /* CHROMASHIM_LOG_READS */
	bool closed;			  /* CHROMASHIM_ON_FAILURE=closed */
	bool power;			  /* CHROMASHIM_DURABILITY=power, the default */
	bool fence;			  /* CHROMASHIM_FENCE */
	enum single_writer single_writer; /* CHROMASHIM_SINGLE_WRITER */
	uint64_t wait;			  /* CHROMASHIM_WAIT, ns */
	uint64_t log_size;		  /* CHROMASHIM_LOG_SIZE, bytes */
	uint64_t acts_size;		  /* CHROMASHIM_ACTS_SIZE, bytes; 0: none */
	uint8_t log_ids;		  /* CHROMASHIM_LOG_IDS, enum oplog_ids */
	bool log_caller;		  /* CHROMASHIM_LOG_CALLER=python */
	unsigned log_caller_share;	  /* CHROMASHIM_LOG_CALLER_SHARE, percent */
	uint64_t min_free_bytes;	  /* CHROMASHIM_MIN_FREE: the smaller of the two holds */
	unsigned min_free_percent;
	uint64_t ballast;    /* CHROMASHIM_BALLAST, bytes */
	unsigned warn_full;  /* CHROMASHIM_WARN_FULL, percent of the disk; 0: never */
	bool snapshots;	     /* CHROMASHIM_SNAPSHOTS: pinned by itself before what is risky */
	uint64_t bulk_pages; /* CHROMASHIM_BULK_PAGES */
	uint64_t burst;	     /* CHROMASHIM_BURST, ns */
	uint64_t undo_size;  /* CHROMASHIM_UNDO_SIZE, bytes of pre-images; 0: no limit of its own */
	bool guard;	     /* CHROMASHIM_GUARD: a guardian is started where there is none */
	bool preflight; /* CHROMASHIM_PREFLIGHT: a directory is looked at before its first open */
	bool backend;	/* this is the process that `chromashim run` has become */
	bool backend_is_first; /* that one is process 1, as in a container */
	const char *dir;       /* CHROMASHIM_DIR */
	const char *store;     /* CHROMASHIM_STORE */
};

extern struct settings settings;

/* In the constructor. A value that cannot be read is said, and the default taken. */
void settings_read(void);

#endif
