/* SPDX-License-Identifier: MIT
 *
 * Who is in the middle of a write, so that nobody takes what it writes for somebody else's. A
 * process may be stopped between saving and writing for as long as it likes.
 */
#include <string.h>

#include "core/number.h"
#include "core/oplog.h"
#include "core/pin_internal.h"
#include "core/sys.h"

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)
#define TICKS_BITS 40

void pin_raise(uint64_t *word, uint64_t value)
{
	uint64_t old = LOAD(*word);

	while (old < value && !__atomic_compare_exchange_n(word, &old, value, false,
							   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

uint64_t pin_start_ticks(uint32_t pid)
{
	char path[32] = "/proc/", *end = number_put(path + 6, path + 18, pid, 10, 1);

	memcpy(end, "/stat", 6);
	return oplog_start_ticks(path);
}

/* 0: there is no such process. */
static uint64_t number_of(uint32_t pid)
{
	uint64_t ticks = pin_start_ticks(pid);

	return ticks ? (uint64_t)pid << TICKS_BITS | (ticks & ((UINT64_C(1) << TICKS_BITS) - 1))
		     : 0;
}

static bool is_alive(uint64_t who)
{
	return who && number_of((uint32_t)(who >> TICKS_BITS)) == who;
}

static bool take(struct pin_writer *w, uint64_t old, uint64_t who)
{
	if (!__atomic_compare_exchange_n(&w->who, &old, who, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		return false;
	__atomic_store_n(&w->writes, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&w->unprotected, 0, __ATOMIC_SEQ_CST);
	return true;
}

struct pin_writer *pins_be_writer(struct pins *p)
{
	uint64_t who = number_of((uint32_t)sys_getpid());
	unsigned i;

	for (i = 0; who && i < PIN_WRITERS; i++)
		if (take(&p->writers[i], 0, who))
			return &p->writers[i];
	for (i = 0; who && i < PIN_WRITERS; i++) {
		uint64_t old = LOAD(p->writers[i].who);

		if (!is_alive(old) && take(&p->writers[i], old, who))
			return &p->writers[i];
	}
	return NULL;
}

bool pins_is_written(const struct pins *p)
{
	unsigned i;

	for (i = 0; i < PIN_WRITERS; i++)
		if (LOAD(p->writers[i].writes) && is_alive(LOAD(p->writers[i].who)))
			return true;
	return false;
}

bool pins_is_unprotected(const struct pins *p)
{
	unsigned i;

	for (i = 0; i < PIN_WRITERS; i++)
		if (LOAD(p->writers[i].unprotected) && is_alive(LOAD(p->writers[i].who)))
			return true;
	return false;
}

void pins_note_touched(struct pins *p, uint64_t time)
{
	pin_raise(&p->state->touched, time);
}
