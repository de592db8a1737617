/* SPDX-License-Identifier: MIT
 *
 * An older Chroma on a newer database is told in plain words before it fails.
 */
#ifndef PRELOAD_OLDER_H
#define PRELOAD_OLDER_H

#include "preload/place/protection.h"

/* The host has just opened the database at this descriptor, for the first time. */
void older_report(const struct protection *a, int database);

#endif
