/* SPDX-License-Identifier: MIT
 *
 * What stdout is: colour, width, and a reader that has gone away.
 */
#ifndef COMMAND_TERMINAL_H
#define COMMAND_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum colour { COLOUR_PLAIN, COLOUR_DIM, COLOUR_BOLD, COLOUR_RED, COLOUR_GREEN, COLOUR_YELLOW };

/* Once, before anything is printed. */
void terminal_start(void);
/* Signals as they were before, for a program that takes this one's place. */
void terminal_give_back(void);

/* Columns, 0 if stdout is no terminal: then nothing is cut. */
int terminal_width(void);

/* The escape sequence, or "" where there shall be no colour. */
const char *terminal_colour(enum colour colour);

/* True when whoever read stdout has gone (`| head`): the verb stops and exits as if done. */
bool terminal_is_gone(void);

/* Flushes stdout. The exit status: `status`, or 1 after a message if the output was not written. */
int terminal_finish(int status);

/* Columns that a string takes, where each character takes one. */
size_t terminal_columns(const char *text);

/* Text of unknown origin: control characters, and bytes that are no UTF-8, as \xNN. */
void terminal_put_text(FILE *out, const char *text, size_t size);

/* The same into a buffer, cut in the middle to at most `columns` (0: not cut). */
void terminal_fit(char *out, size_t room, const char *text, size_t columns);

/* A path as the shell takes it: in quotes where it needs them. The second into a buffer, returned.
 */
void terminal_put_quoted(FILE *out, const char *path);
char *format_quoted(char *out, size_t room, const char *path);

/* 12.3 KiB; at least 16 bytes. 1.2 ms; at least 16 bytes. Both return out. */
char *format_bytes(char *out, size_t room, uint64_t bytes);
char *format_duration(char *out, size_t room, uint64_t ns);

/* RFC 3339 with nanoseconds in UTC; at least 32 bytes. */
char *format_time_utc(char *out, size_t room, uint64_t ns);
/* For people: date and time with microseconds, local or UTC; at least 32 bytes. */
char *format_time(char *out, size_t room, uint64_t ns, bool utc);

/*
 * A point in time: RFC 3339 ("2026-01-31T10:00:00Z", also without zone: local, with a space, or the
 * date alone), a time of day ("14:02", the last such moment), "today 9:00", "yesterday",
 * "yesterday 14:00", "now", or an age ("10m", "1h30m", "@2d"). ns of CLOCK_REALTIME. False if it is
 * none of these.
 */
bool parse_time(const char *text, uint64_t *ns_out);
/* "100ms", "1.5s", "250us", "2m", "1h": ns. */
bool parse_duration(const char *text, uint64_t *ns_out);
/* A number from 1 on, in digits alone, such as a process id. */
bool parse_number(const char *text, uint32_t *out);

#endif
