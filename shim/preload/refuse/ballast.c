/* SPDX-License-Identifier: MIT
 *
 * The ballast; see ballast.h.
 */
#include "preload/refuse/ballast.h"

#include "preload/base/bounds.h"
#include "preload/base/shim.h"
#include "preload/place/lives.h"
#include "preload/place/record.h"

#define BALLAST "ballast"
#define BALLASTS 4 /* on one disk by one process: what one gives up is there for all */

static _Atomic uint64_t sizes[PROTECTIONS]; /* bytes that are there */

uint64_t ballast_size(uint64_t total)
{
	return settings.ballast < total / 20 ? settings.ballast : total / 20;
}

void ballast_find(const struct protection *a)
{
	struct stat st;

	if (a->store_fd < 0)
		return;
	if (sys_fstatat(a->store_fd, BALLAST, &st, AT_SYMLINK_NOFOLLOW) < 0)
		st.st_blocks = 0;
	atomic_store(&sizes[protection_number(a)], (uint64_t)st.st_blocks * 512);
}

/* The next directory on the same disk that has one, from `i` on; protections_used: there is none.
 */
static unsigned next_on_disk(const struct protection *a, unsigned i)
{
	unsigned used = atomic_load(&protections_used);

	while (i < used && !(atomic_load(&protections[i].ready) && protections[i].dev == a->dev &&
			     atomic_load(&sizes[i])))
		i++;
	return i;
}

/* Others have enough of them: a program with a directory for each tenant would fill the disk. */
static bool are_enough(const struct protection *a)
{
	unsigned i, n = 0, used = atomic_load(&protections_used);

	for (i = next_on_disk(a, 0); i < used; i = next_on_disk(a, i + 1))
		n += &protections[i] != a;
	return n >= bound_of("ballasts", BALLASTS);
}

uint64_t ballast_at_hand(unsigned protection)
{
	uint64_t own = atomic_load(&sizes[protection]);
	unsigned i = own ? protection : next_on_disk(&protections[protection], 0);

	return i < atomic_load(&protections_used) ? atomic_load(&sizes[i]) : own;
}

void ballast_make(struct protection *a, uint64_t size, uint64_t spare)
{
	_Atomic uint64_t *there = &sizes[protection_number(a)];
	struct stat st;
	int fd;

	if (!size || a->store_fd < 0 || atomic_load(there) >= size || spare < 2 * size ||
	    are_enough(a))
		return;
	fd = sys_openat(a->store_fd, BALLAST, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return;
	if (sys_fallocate(fd, 0, 0, (off_t)size) == 0 && sys_fstat(fd, &st) == 0)
		atomic_store(there, (uint64_t)st.st_size);
	else
		sys_ftruncate(fd, 0);
	sys_close(fd);
	record_feature(a, OPLOG_HAS_BALLAST, atomic_load(there) > 0);
}

bool ballast_remove(struct protection *a)
{
	struct stat st;

	if (a->store_fd < 0 || sys_fstatat(a->store_fd, BALLAST, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    sys_unlinkat(a->store_fd, BALLAST, 0) < 0)
		return false;
	atomic_store(&sizes[protection_number(a)], 0);
	record_feature(a, OPLOG_HAS_BALLAST, false);
	return true;
}

void ballast_forget(unsigned protection)
{
	atomic_store(&sizes[protection], 0);
}

bool ballast_give_up(unsigned protection)
{
	struct protection *a = &protections[protection];
	struct oplog_record record = {.op = OP_NOTE, .offset = -1};
	static const char text[] = "the ballast is given up: the disk is full";
	unsigned i = next_on_disk(a, 0);

	if (!ballast_remove(a) &&
	    (i >= atomic_load(&protections_used) || !ballast_remove(&protections[i])))
		return false;
	shim_say(a->spelling[0],
		 ": the disk is full; the ballast is given up so that what has begun can end. "
		 "Make room now: new writes are refused until there is.",
		 NULL);
	record_put(protection, &record, text, sizeof(text) - 1);
	return true;
}
