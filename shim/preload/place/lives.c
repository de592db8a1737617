/* SPDX-License-Identifier: MIT
 *
 * Beginning a life in a store and keeping it.
 */
#include "preload/place/lives.h"

#include <time.h>

#include "core/base/alive.h"
#include "preload/base/shim.h"
#include "preload/place/turn.h"

static ino_t inode_of(int fd)
{
	struct stat st;

	return sys_fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/*
 * The lock of a life is drawn, and then kept by a map, if that keeps it. Nobody knows of the life
 * yet: where it does not, the same one is locked once more.
 */
static int live_begin(struct protection *a, uint64_t *life)
{
	int fd = alive_open(a->store_fd), r = fd < 0 ? fd : alive_begin(fd, life);

	if (r < 0) {
		if (fd >= 0)
			sys_close(fd);
		return r;
	}
	a->alive_ino = inode_of(fd);
	r = hold_keep(&a->alive, fd, true);
	if (!a->alive.map)
		return r;
	a->maps_hold = alive_is(a->store_fd, *life) == ALIVE_LIVES;
	if (a->maps_hold)
		return 0;
	fd = alive_open(a->store_fd);
	r = fd < 0 ? fd : alive_again(fd, *life);
	return r < 0 ? r : hold_keep(&a->alive, fd, false);
}

/* Once: where there are no such locks, none is tried for again. */
static void begin_life(struct protection *a)
{
	uint64_t life = 0;

	if (live_begin(a, &life) < 0) {
		hold_let_go(&a->alive);
		a->lifeless = true;
		life = 0;
	}
	atomic_store(&a->life, life);
}

uint64_t protection_life(struct protection *a)
{
	static const struct timespec a_little = {0, 1000000};
	uint64_t life = atomic_load(&a->life);
	int tries;

	for (tries = 0; !life && tries < 100; tries++) {
		if (a->store_fd <= 0 || a->lifeless)
			return 0;
		if (atomic_flag_test_and_set(&a->beginning)) {
			SYS2(SYS_nanosleep, &a_little, NULL);
		} else {
			if (!atomic_load(&a->life))
				begin_life(a);
			atomic_flag_clear(&a->beginning);
		}
		life = atomic_load(&a->life);
	}
	return life;
}

void protection_life_look(struct protection *a)
{
	uint64_t life = atomic_load(&a->life);
	int fd;

	if (!life || !hold_is(&a->alive) || !alive_is_gone(a->store_fd, a->alive_ino) ||
	    atomic_flag_test_and_set(&a->beginning))
		return;
	fd = alive_open(a->store_fd);
	if (fd >= 0 && alive_again(fd, life) >= 0) {
		a->alive_ino = inode_of(fd);
		hold_keep(&a->alive, fd, a->maps_hold);
		if (atomic_load(&a->in_use))
			life_use(a, true);
		shim_say(a->spelling[0], ": ", STORE_NAME "/" ALIVE_NAME,
			 " was removed while this process lives; it is made again. Nothing in the "
			 "store may be removed while a backend runs.",
			 NULL);
	} else if (fd >= 0) {
		sys_close(fd);
	}
	atomic_flag_clear(&a->beginning);
}

void life_stop(struct protection *a)
{
	hold_let_go(&a->use);
	hold_let_go(&a->alive);
	a->lifeless = a->maps_hold = false;
	atomic_store(&a->life, 0);
}

void life_fork(struct protection *a)
{
	hold_fork(&a->alive);
	hold_fork(&a->use);
	atomic_store(&a->life, 0);
	atomic_store(&a->using, 0);
	atomic_flag_clear(&a->beginning);
}

/* ---- the database is open ---- */

/* Under the turn. The descriptor that says so, kept by nobody yet; -errno. */
static int say_use(const struct protection *a)
{
	int fd = alive_open(a->store_fd), r = fd < 0 ? fd : alive_use(fd, 1);

	if (r < 0 && fd >= 0)
		sys_close(fd);
	return r < 0 ? r : fd;
}

bool life_use(struct protection *a, bool on)
{
	int fd = 0;

	if (!protection_life(a) || !turn_take(&a->using))
		return false;
	if (on)
		fd = say_use(a);
	if (!on)
		hold_let_go(&a->use);
	else if (fd >= 0)
		fd = hold_keep(&a->use, fd, a->maps_hold);
	turn_give(&a->using);
	return fd >= 0;
}

/* One's own lock is told from others' by its descriptor: for the moment there is one. */
bool life_used_elsewhere(struct protection *a)
{
	bool own = hold_is(&a->use), used;
	int fd;

	if (a->store_fd <= 0 || !turn_take(&a->using))
		return false;
	fd = own ? say_use(a) : -1;
	if (fd >= 0)
		hold_let_go(&a->use);
	used = alive_in_use(a->store_fd, fd);
	if (fd >= 0)
		hold_keep(&a->use, fd, a->maps_hold);
	turn_give(&a->using);
	return used;
}
