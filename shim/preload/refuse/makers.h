/* SPDX-License-Identifier: MIT
 *
 * A new directory that several processes open at once. Chroma looks which tables are missing before
 * it has SQLite's lock, so whoever looks while another process makes them fails with "table …
 * already exists". The process whose open made the database makes its tables; the others wait in
 * their first open until they are there, nobody else has it open, or a bounded time is over.
 */
#ifndef PRELOAD_MAKERS_H
#define PRELOAD_MAKERS_H

#include "preload/place/protection.h"

/* The database is about to be opened: once for each directory that has one. */
void maker_wait(unsigned protection);
/* There was none yet. */
bool maker_is_wanted(unsigned protection);
/* It was made by an open of this process. */
void maker_made(unsigned protection);
void maker_stop(unsigned protection);

#endif
