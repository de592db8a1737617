/* SPDX-License-Identifier: MIT
 *
 * What writer.lock says of the process that has the right to write: lines "pid N", "since TIME",
 * "generation N" and "command ...". Of one that has only opened the database
 * (opening.h) also "opening".
 */
#ifndef PRELOAD_WRITER_TEXT_H
#define PRELOAD_WRITER_TEXT_H

#include <stdint.h>

#include "core/base/names.h"
#include "preload/place/protection.h"

/* Its lines; "?" where there is none. */
struct writer_text {
	char pid[16];
	char since[32]; /* RFC 3339, UTC */
	char generation[24];
	char command[256]; /* cut */
};

/* Writes what is true of this process, if the file can be opened. */
void writer_text_sign(const struct protection *a, uint64_t generation, bool opens);
void writer_text_read(const struct protection *a, struct writer_text *h);
/* Of it and this process, if one has started both, as a server does its workers; else false. */
bool writer_text_parent(const struct writer_text *h, char out[24]);
/* It is the one that has started this one. */
bool writer_text_is_parent(const struct writer_text *h);
/* Whether the last process that had the right to write has only opened the database. */
bool writer_text_opens(const struct protection *a);
/* Of the last process that had the right to write; 0: there was none. */
uint64_t writer_text_generation(const struct protection *a);

#endif
