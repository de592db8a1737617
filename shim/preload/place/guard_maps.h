/* SPDX-License-Identifier: MIT
 *
 * A file of the store that is emptied under the backend must not end it: a store into a map of a
 * file that was shortened (`: > file`, copytruncate), or whose disk has no room for the copy of a
 * block (btrfs, reflinks), is SIGBUS.
 */
#ifndef PRELOAD_GUARD_MAPS_H
#define PRELOAD_GUARD_MAPS_H

#include <signal.h>
#include <stdbool.h>

/* Once a file is mapped: from now on SIGBUS in such a map loses what the map was for, and no more.
 * Any other SIGBUS comes to what the host has there, as if for the first time. */
void guard_maps(void);

/* The host asks for, or sets, what it has for SIGBUS; as sigaction(). */
int guard_host_action(const struct sigaction *action, struct sigaction *old);

/*
 * A thread that has SIGBUS blocked would be ended by the kernel all the same. Around whatever
 * touches such a map it is let through; what somebody has sent meanwhile is sent once more. Costs
 * nothing while the thread is known not to block it.
 */
extern __thread bool guard_is_open __attribute__((tls_model("initial-exec")));
bool guard_open_slow(void);
void guard_close(const bool *opened);

static inline bool guard_open(void)
{
	return __builtin_expect(!guard_is_open, 0) && guard_open_slow();
}

/* From here to the end of the block. */
#define MAPS_GUARDED \
	const bool guarded_ __attribute__((cleanup(guard_close), unused)) = guard_open()

/* The host changes what this thread blocks: before and after it. */
static inline void guard_mask_changes(void)
{
	guard_is_open = false;
}

#endif
