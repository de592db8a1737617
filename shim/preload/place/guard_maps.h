/* SPDX-License-Identifier: MIT
 *
 * A file of the store that is emptied under the backend must not end it: a store into a map of a
 * file that was shortened (`: > file`, copytruncate), or whose disk has no room for the copy of a
 * block (btrfs, reflinks), is SIGBUS.
 */
#ifndef PRELOAD_GUARD_MAPS_H
#define PRELOAD_GUARD_MAPS_H

/* Once a file is mapped: from now on SIGBUS in such a map loses what the map was for, and no more.
 * Any other SIGBUS comes to what the host had there, as if for the first time; a handler that the
 * host sets later stands alone. */
void guard_maps(void);

#endif
