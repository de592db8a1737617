/* SPDX-License-Identifier: MIT
 *
 * Two threads for one piece of work.
 */
#include "core/base/crew.h"

#include <pthread.h>
#include <sched.h>
#include <stddef.h>

struct help {
	void (*work)(void *context, bool is_helper);
	void *context;
};

static void *lend_a_hand(void *argument)
{
	const struct help *h = argument;

	h->work(h->context, true);
	return NULL;
}

/* Those that this process may use, which in a container are not all. */
static bool is_room_for_two(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

void crew_run(void (*work)(void *context, bool is_helper), void *context)
{
	struct help h = {work, context};
	pthread_t helper;
	bool helped = is_room_for_two() && pthread_create(&helper, NULL, lend_a_hand, &h) == 0;

	work(context, false);
	if (helped)
		pthread_join(helper, NULL);
}
