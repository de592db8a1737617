/* SPDX-License-Identifier: MIT */
#include "preload/place/area_rooms.h"

static const struct area_room *rooms;
static unsigned count;

void areas_hand_in(const struct area_room *handed, unsigned n)
{
	rooms = handed;
	count = n;
}

void rooms_start(unsigned area)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (rooms[i].start)
			rooms[i].start(area);
}

void rooms_started(unsigned area)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (rooms[i].started)
			rooms[i].started(area);
}

bool rooms_are_idle(unsigned area)
{
	unsigned i;

	for (i = 0; i < count; i++)
		if (rooms[i].is_idle && !rooms[i].is_idle(area))
			return false;
	return true;
}

void rooms_stop(unsigned area)
{
	unsigned i;

	for (i = count; i > 0; i--)
		if (rooms[i - 1].stop)
			rooms[i - 1].stop(area);
}

bool rooms_give_back(void)
{
	bool any = false;
	unsigned i;

	for (i = 0; i < count; i++)
		any = (rooms[i].give_back && rooms[i].give_back()) || any;
	return any;
}

bool rooms_have_lost(unsigned area)
{
	bool lost = false;
	unsigned i;

	for (i = 0; i < count; i++)
		lost = (rooms[i].is_lost && rooms[i].is_lost(area)) || lost;
	return lost;
}
