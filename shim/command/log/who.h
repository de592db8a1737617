/* SPDX-License-Identifier: MIT
 *
 * Who did it: the processes of a log, what they are called, and their threads.
 */
#ifndef COMMAND_LOG_WHO_H
#define COMMAND_LOG_WHO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/oplog/read.h"

struct who_thread {
	uint32_t tid;
	char name[20];
};

/* A process, from what was given to log_who_note() so far. */
struct who_process {
	struct oplog_header header; /* the newest */
	char *command;		    /* its command line, or NULL */
	char label[40];		    /* in a word: "ingest.py" */
	uint64_t first, last;	    /* of its records, ns */
	uint64_t records, changes;  /* entries in the log; records added, updated, deleted */
	uint64_t commits, persists, refusals;
	bool exited; /* it said so: an exit, or another program in its place */
	bool became; /* the latter */
	bool writer;
	bool start_told, death_told;
	int stopped_by;
	int exit_status; /* of one that ended by itself; -1: not known */ /* the signal, 0: none */
	struct who_thread *threads;
	size_t thread_count;
};

struct log_who {
	struct who_process *list;
	size_t count, room, newest; /* newest: the one asked for last */
};

void log_who_free(struct log_who *w);

/* Every entry, in order. NULL: no memory. The pointer is valid until the next note. */
struct who_process *log_who_note(struct log_who *w, const struct oplog_entry *e);
/* The process of a segment, or NULL. */
struct who_process *log_who_find(struct log_who *w, const struct oplog_header *h);

/* The name of the entry's thread, if it is another than the main one and is known; or NULL. */
const char *log_who_thread(const struct who_process *p, uint32_t tid);

/* "running", "exit", "stop" (by a signal), "exec", "reboot", "death". */
const char *log_who_end(const struct who_process *p, int storefd);

/* "ingest.py" from "/usr/bin/python3 -u /srv/ingest.py --all"; `program` is what runs. */
void log_who_shorten(char *out, size_t room, const char *command, const char *program);

#endif
