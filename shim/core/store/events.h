/* SPDX-License-Identifier: MIT
 *
 * What has happened to a directory that somebody should hear of, the newest 256: `events` in the
 * store. The guardian puts in what it tells; whoever else finds or does something (a start that
 * heals, a drill) puts it in for the guardian to tell, who may be another process, or not there
 * yet. `status` and monitoring read it.
 *
 * The file is a ring of slots of 512 bytes, each with a number of its own and a checksum; the
 * machine's byte order. The greatest number is the newest, and the next one goes behind it. A slot
 * that is torn or empty is nothing.
 */
#ifndef CORE_STORE_EVENTS_H
#define CORE_STORE_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EVENTS_NAME "events" /* in the store */
#define EVENTS_SLOTS 256u
#define EVENTS_MAGIC UINT64_C(0x31544e4556454843) /* "CHEVENT1" in little-endian memory */

struct store_event {
	uint64_t magic;
	uint64_t check;	 /* of what follows but `told` */
	uint64_t told;	 /* 1: the hook was called, or there was none */
	uint64_t number; /* from 1 */
	uint64_t time;	 /* ns, CLOCK_REALTIME */
	uint64_t about;	 /* the moment or thing that is meant, as the event has it; 0: none */
	uint64_t snapshot;
	char name[40];	/* "crash.found" */
	char text[416]; /* a whole sentence */
};

_Static_assert(sizeof(struct store_event) == 512, "layout is fixed");

/* Its magic, check, number and, if 0, time are filled in. 0 or -errno. */
int events_add(int storefd, struct store_event *event);
/* The same of a name and a sentence. Nothing depends on it: what cannot be written is missing. */
void events_note(int storefd, const char *name, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Those that can be read, by number. *out is the caller's to free. How many, or -errno; -ENOENT:
 * none ever. */
int events_list(int storefd, struct store_event **out);
void events_set_told(int storefd, const struct store_event *event);

/* A file's bytes: out has room for EVENTS_SLOTS. How many, by number, all texts ended. */
size_t events_read(const void *data, size_t size, struct store_event *out);

#endif
