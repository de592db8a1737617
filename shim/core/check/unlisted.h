/* SPDX-License-Identifier: MIT
 *
 * Collections that have lost their own row and those of their segments. Up to 0.5.5 a deleted one
 * leaves its queue, and before 1.0 its records: where a database has been of both, only the log of
 * acts tells one from the other.
 */
#ifndef CORE_UNLISTED_H
#define CORE_UNLISTED_H

#include <sqlite3.h>

/* temp.unlisted(collection): those that the queue tells of, and of which there are records that
 * no deletion leaves, or that the store's log has and does not call deleted. storefd 0 or less:
 * none. 0 or -errno. */
int unlisted_find(sqlite3 *db, int storefd);

#endif
