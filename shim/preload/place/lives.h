/* SPDX-License-Identifier: MIT
 *
 * This process's life in a store (core/base/alive.h), and that it has the database open.
 */
#ifndef PRELOAD_LIVES_H
#define PRELOAD_LIVES_H

#include "preload/place/area.h"

/* What whatever it makes there carries; begun at the first call, anew in a forked child. 0: the
 * file system has no such locks. */
uint64_t area_life(struct area *a);
/* Begins it again where somebody has removed the file: others would take this process for dead. */
void area_life_look(struct area *a);
void life_stop(struct area *a);
void life_fork(struct area *a);

/* Says to others, or says no longer, that the database is open here. False: it could not. */
bool life_use(struct area *a, bool on);
/* Whether another process says so. */
bool life_used_elsewhere(struct area *a);

#endif
