/* SPDX-License-Identifier: MIT
 *
 * What is made in a store belongs to the store's owner, whoever runs this: root's snapshot must not
 * lock the owner out of his own store.
 *
 * Inside the backend, whose identity is the host's, a file is given away as soon as it is made:
 * sys_openat() and sys_mkdirat() do it, so nothing in the library can forget it. The command, which
 * also leaves files to SQLite and to libc, takes on the owner's identity for all that it makes.
 */
#ifndef CORE_OWNER_H
#define CORE_OWNER_H

#include <stdbool.h>
#include <sys/stat.h>

/*
 * From now on this thread, and those that it starts, make files that belong to the owner of `st`,
 * and may do all that they could before. Only root can, and does; ends with exec. True if so.
 */
bool owner_act(const struct stat *st);

/* What is made for the caller, and in no store: in between, files belong to whoever runs this. */
void owner_pause(void);
void owner_resume(void);

#endif
