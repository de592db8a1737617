/* SPDX-License-Identifier: MIT
 *
 * This process's life in a store (core/base/alive.h), and that it has the database open.
 */
#ifndef PRELOAD_LIVES_H
#define PRELOAD_LIVES_H

#include "preload/place/protection.h"

/* What whatever it makes there carries; begun at the first call, anew in a forked child. 0: the
 * file system has no such locks. */
uint64_t protection_life(struct protection *a);
/* Begins it again where somebody has removed the file: others would take this process for dead. */
void protection_life_look(struct protection *a);
void life_stop(struct protection *a);
void life_fork(struct protection *a);

/* Says to others, or says no longer, that the database is open here. False: it could not. */
bool life_use(struct protection *a, bool on);
/* Whether another process says so. */
bool life_used_elsewhere(struct protection *a);

#endif
