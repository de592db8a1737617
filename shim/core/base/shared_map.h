/* SPDX-License-Identifier: MIT
 *
 * Shared maps of the store's files. A store into one whose file was shortened, or whose disk has no
 * room for the copy of a block, is SIGBUS: the handler of the library finds the map here and puts
 * memory in its place.
 */
#ifndef CORE_SHARED_MAP_H
#define CORE_SHARED_MAP_H

#include <stdbool.h>
#include <stddef.h>

/* Of a file from its start. NULL: it cannot be mapped. */
void *shared_map(size_t size, int prot, int fd);
void shared_unmap(void *map, size_t size);

/*
 * In a handler of SIGBUS: if the address is in one of these maps, zeros are put in the place of all
 * of it. Whoever uses it sees by the magic number that it is lost, and deals with that. True if so.
 */
bool shared_map_patch(const void *address);

#endif
