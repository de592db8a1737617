/* SPDX-License-Identifier: MIT
 *
 * What stands above and has something of its own for each protected directory.
 */
#ifndef PRELOAD_PROTECTION_ROOMS_H
#define PRELOAD_PROTECTION_ROOMS_H

#include <stdbool.h>

/* NULL: nothing to do. */
struct protection_room {
	void (*start)(unsigned protection); /* before another thread sees the directory */
	void (*started)(
	    unsigned protection); /* it is protected, and what is found can be recorded */
	bool (*is_idle)(unsigned protection); /* false: the directory cannot be let go yet */
	void (*stop)(unsigned protection);
	bool (*give_back)(
	    void); /* descriptors that are not in use just now; true: there were some */
	bool (*is_lost)(
	    unsigned protection); /* after SIGBUS in a map: true, what it had there is gone */
};

/* Lent, once, before the first directory. Started in their order, stopped from the last one on. */
void protections_hand_in(const struct protection_room *rooms, unsigned count);

/* All of them. */
void rooms_start(unsigned protection);
void rooms_started(unsigned protection);
bool rooms_are_idle(unsigned protection);
void rooms_stop(unsigned protection);
bool rooms_give_back(void);
bool rooms_have_lost(unsigned protection);

#endif
