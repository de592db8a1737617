/* SPDX-License-Identifier: MIT
 *
 * A look at a directory before its database is opened, as `chromashim run` has one before a start.
 */
#ifndef PRELOAD_LOOK_H
#define PRELOAD_LOOK_H

/* The database in dirfd is about to be opened for writing. Once for each directory; keeps errno. */
void look_before_open(int dirfd);

/* In a forked child. */
void look_fork(void);

#endif
