/* SPDX-License-Identifier: MIT
 *
 * A guardian for a directory that `chromashim run` did not know of.
 */
#ifndef PRELOAD_GUARDIAN_H
#define PRELOAD_GUARDIAN_H

#include "preload/place/protection.h"

/* Once this process writes the directory: starts one unless there is one, or none is wanted. */
void guardian_start(struct protection *a);

#endif
