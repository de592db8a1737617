/* SPDX-License-Identifier: MIT
 *
 * calls: what its cases share. The tables end with a case without a name.
 */
#ifndef CALLS_H
#define CALLS_H

#include <fcntl.h>

#define FD_MODE (O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC)

struct call_case {
	const char *name;
	void (*run)(const char *name, void *symbol);
};

extern const struct call_case files_cases[], data_cases[], names_cases[], streams_cases[];

extern int dirfd_; /* of the directory */
extern const char *directory;

/* The path of a case's file, with a suffix; good until the fourth call after this one. */
const char *path_of(const char *name, const char *suffix);
const char *base(const char *path);
/* A file with 16 bytes in it. */
int make(const char *name, const char *suffix);
void leave(const char *name, const char *suffix);
/* Takes the lowest number again, for a file that is nobody's business. */
void elsewhere(void);
/* Writes and closes, if it was opened. */
void put(int fd, const char *text);

/* A case is given its own name and the address of the symbol of that name. */
#define CASE(function)                                                 \
	static void function(const char *name __attribute__((unused)), \
			     void *symbol __attribute__((unused)))
#define AS(ret, ...) ((ret(*)(__VA_ARGS__))symbol)

#endif
