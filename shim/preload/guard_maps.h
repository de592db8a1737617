/* SPDX-License-Identifier: MIT
 *
 * A log that is emptied under the backend must not end it: a store into a map of a file that was
 * shortened (`: > file`, copytruncate), or that a full btrfs has no room for, is SIGBUS.
 */
#ifndef PRELOAD_GUARD_MAPS_H
#define PRELOAD_GUARD_MAPS_H

/* Once a log is mapped: from now on SIGBUS in it loses records, and no more. Where the host has a
 * handler of its own for the signal, or sets one later, it is the host's. */
void guard_maps(void);

#endif
