/* SPDX-License-Identifier: MIT
 *
 * Several threads for one piece of work.
 */
#include "core/base/crew.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>

#define WAITERS 8u /* the disk puts together what is asked for at the same time */

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

/* As many helpers as can be had: the work is done by one alone, too. */
static void crew_work(struct help *h, unsigned helpers)
{
	pthread_t all[WAITERS];
	unsigned count = 0;

	while (count < helpers && pthread_create(&all[count], NULL, lend_a_hand, h) == 0)
		count++;
	h->work(h->context, false);
	while (count)
		pthread_join(all[--count], NULL);
}

void crew_run(void (*work)(void *context, bool is_helper), void *context)
{
	crew_work(&(struct help){work, context}, is_room_for_two());
}

struct pair {
	void (*one)(void *context), (*other)(void *context);
	void *context;
	atomic_bool other_is_taken;
};

static void do_one(void *context, bool is_helper)
{
	struct pair *p = context;

	if (!is_helper)
		p->one(p->context);
	if (!atomic_exchange(&p->other_is_taken, true))
		p->other(p->context);
}

void crew_both(void (*one)(void *context), void (*other)(void *context), void *context)
{
	struct pair p = {.one = one, .other = other, .context = context};

	crew_run(do_one, &p);
}

void crew_wait(unsigned count, void (*work)(void *context, bool is_helper), void *context)
{
	crew_work(&(struct help){work, context}, count < WAITERS ? count : WAITERS);
}
