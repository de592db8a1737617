/* SPDX-License-Identifier: MIT */
#include "preload/place/protection_rooms.h"

static const struct protection_room *rooms;
static unsigned count;

void protections_hand_in(const struct protection_room *handed, unsigned n)
{
	rooms = handed;
	count = n;
}

void rooms_start(unsigned protection)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (rooms[i].start)
			rooms[i].start(protection);
}

void rooms_started(unsigned protection)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (rooms[i].started)
			rooms[i].started(protection);
}

bool rooms_are_idle(unsigned protection)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (rooms[i].is_idle && !rooms[i].is_idle(protection))
			return false;
	return true;
}

void rooms_stop(unsigned protection)
{
	unsigned i;

	for (i = count; i > 0; i--)
		if (rooms[i - 1].stop)
			rooms[i - 1].stop(protection);
}

bool rooms_give_back(void)
{
	bool any = false;
	unsigned i;

	for (i = 0; i < count; i++)
		any = (rooms[i].give_back && rooms[i].give_back()) || any;
	return any;
}

bool rooms_have_lost(unsigned protection)
{
	bool lost = false;
	unsigned i;

	for (i = 0; i < count; i++)
		lost = (rooms[i].is_lost && rooms[i].is_lost(protection)) || lost;
	return lost;
}
