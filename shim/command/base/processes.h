/* SPDX-License-Identifier: MIT
 *
 * Other processes, by /proc: which files they map. And what SQLite a file carries.
 */
#ifndef COMMAND_PROCESSES_H
#define COMMAND_PROCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/base/version.h"

/* Does the process map this very file, known by its last path component too? 1, 0 or -errno. */
int process_maps_file(uint32_t pid, uint64_t device, uint64_t inode, const char *name);

/* Does it have one of Chroma's native libraries loaded? */
bool process_is_chroma(uint32_t pid);

/* The pid of its parent, 0: there is none, or no such process. */
uint32_t process_parent(uint32_t pid);

/* By a signal, and not gone on since. */
bool process_is_stopped(uint32_t pid);

/* Whether the file is a version of this library, whatever it is called. */
bool file_is_library(const char *path);
/* The version of the library in that file; false: it is none, or does not say. */
bool file_library_version(const char *path, char out[VERSION_TEXT]);

/* Does it have this library loaded, be it an older file at its path or another version of it? 1, 0
 * or -errno. */
int process_has_library(uint32_t pid, const char *path, const struct stat *file);
/* Does LD_PRELOAD name it where the process began? 1, 0 or -errno. */
int process_names_library(uint32_t pid, const char *path);

enum library_file {
	LIBRARY_UNSEEN,	  /* its maps may not be read, or the library has another name */
	LIBRARY_LOADED,	  /* it has the file loaded that is there */
	LIBRARY_REPLACED, /* another one is there: a restart brings that */
	LIBRARY_REMOVED,  /* none is there */
};

/* What has become of the file of the library that the process has loaded. */
enum library_file process_library_file(uint32_t pid);

/* "2024-05-23 13:25:27 96c92aba…" and "3.46.0" ("" if unknown), as compiled into a file. */
struct sqlite_build {
	char source_id[20 + 64 + 1];
	char version[16];
};

/* Looks for a SQLite in the file, as the process sees it. False if there is none to be found. */
bool process_find_sqlite(uint32_t pid, const char *path, struct sqlite_build *out);

/* The same in memory. */
bool sqlite_build_find(const char *data, size_t size, struct sqlite_build *out);

/* Of this one, at the start, where a backend has started it: what it has inherited goes, but for
 * the standard streams. */
void process_shed_host(void);

#endif
