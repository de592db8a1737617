/* SPDX-License-Identifier: MIT
 *
 * What stands above and has something of its own for each protected directory.
 */
#ifndef PRELOAD_AREA_ROOMS_H
#define PRELOAD_AREA_ROOMS_H

#include <stdbool.h>

/* NULL: nothing to do. */
struct area_room {
	void (*start)(unsigned area);	/* before another thread sees the directory */
	void (*started)(unsigned area); /* it is protected, and what is found can be recorded */
	bool (*is_idle)(unsigned area); /* false: the directory cannot be let go yet */
	void (*stop)(unsigned area);
	bool (*give_back)(
	    void); /* descriptors that are not in use just now; true: there were some */
	bool (*is_lost)(unsigned area); /* after SIGBUS in a map: true, what it had there is gone */
};

/* Lent, once, before the first directory. Started in their order, stopped from the last one on. */
void areas_hand_in(const struct area_room *rooms, unsigned count);

/* All of them. */
void rooms_start(unsigned area);
void rooms_started(unsigned area);
bool rooms_are_idle(unsigned area);
void rooms_stop(unsigned area);
bool rooms_give_back(void);
bool rooms_have_lost(unsigned area);

#endif
