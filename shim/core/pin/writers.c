/* SPDX-License-Identifier: MIT
 *
 * Who is in the middle of a write, so that nobody takes what it writes for somebody else's. A
 * process may be stopped between saving and writing for as long as it likes.
 */
#include <string.h>

#include "core/base/alive.h"
#include "core/base/number.h"
#include "core/base/sys.h"
#include "core/oplog/oplog.h"
#include "core/pin/internal.h"

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)

void pin_raise(uint64_t *word, uint64_t value)
{
	uint64_t old = LOAD(*word);

	while (old < value && !__atomic_compare_exchange_n(word, &old, value, false,
							   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

uint64_t pin_who(uint64_t life)
{
	return life ? life : PIN_BY_PID | (uint32_t)sys_getpid();
}

/* Used where the file system has no locks. */
static bool has_process(uint32_t pid)
{
	char path[32] = "/proc/", *end = number_put(path + 6, path + 18, pid, 10, 1);

	memcpy(end, "/stat", 6);
	return oplog_start_ticks(path) != 0;
}

bool pin_is_alive(const struct pins *p, uint64_t who)
{
	enum alive is;
	int storefd;

	if (!who || who & PIN_BY_PID)
		return who && has_process((uint32_t)who);
	storefd = sys_openat(p->dirfd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	is = storefd < 0 ? ALIVE_UNKNOWN : alive_is(storefd, who);
	if (storefd >= 0)
		sys_close(storefd);
	return is != ALIVE_DEAD;
}

static bool writer_take(struct pin_writer *w, uint64_t old, uint64_t who)
{
	if (!__atomic_compare_exchange_n(&w->who, &old, who, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		return false;
	__atomic_store_n(&w->writes, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&w->unprotected, 0, __ATOMIC_SEQ_CST);
	return true;
}

struct pin_writer *pins_be_writer(struct pins *p, uint64_t life)
{
	uint64_t who = pin_who(life);
	unsigned i;

	for (i = 0; i < PIN_WRITERS; i++)
		if (writer_take(&p->writers[i], 0, who))
			return &p->writers[i];
	for (i = 0; i < PIN_WRITERS; i++) {
		uint64_t old = LOAD(p->writers[i].who);

		if (!pin_is_alive(p, old) && writer_take(&p->writers[i], old, who))
			return &p->writers[i];
	}
	return NULL;
}

bool pins_have_writer(const struct pins *p)
{
	unsigned i;

	for (i = 0; i < PIN_WRITERS; i++)
		if (LOAD(p->writers[i].who) && pin_is_alive(p, LOAD(p->writers[i].who)))
			return true;
	return false;
}

uint64_t pins_count_writes(const struct pins *p)
{
	uint64_t n = 0, writes;
	unsigned i;

	for (i = 0; i < PIN_WRITERS; i++) {
		writes = LOAD(p->writers[i].writes);
		if (writes && pin_is_alive(p, LOAD(p->writers[i].who)))
			n += writes;
	}
	return n;
}

bool pins_is_written(const struct pins *p)
{
	return pins_count_writes(p) != 0;
}

bool pins_is_unprotected(const struct pins *p)
{
	unsigned i;

	for (i = 0; i < PIN_WRITERS; i++)
		if (LOAD(p->writers[i].unprotected) && pin_is_alive(p, LOAD(p->writers[i].who)))
			return true;
	return false;
}
