/* SPDX-License-Identifier: MIT
 *
 * Loading an index beside the process that persists it.
 */
#include "preload/place/loads.h"

#include <fcntl.h>
#include <time.h>

#include "core/base/checksum.h"
#include "preload/base/shim.h"
#include "preload/place/turn.h"

#define LOADS_LOCK "loads.lock"
#define LOADER_WAITS UINT64_C(5000000000)  /* ns; a persist of a large index */
#define PERSIST_WAITS UINT64_C(1000000000) /* ns */
#define BYTES (UINT64_C(1) << 62)	   /* more than there are indexes */
#define QUESTIONS_MOST 64 /* while nothing is read: it was no load, or has failed */

/* The load that began last in a directory: one that began before it has mostly ended. */
static struct load {
	_Atomic bool is_on;
	_Atomic bool has_read;
	_Atomic unsigned questions;
	_Atomic uint32_t owner;
	struct hold lock;
} loads[PROTECTIONS];

/* A persist has waited in vain: whoever loads does not end, so the next ones do not wait. */
static _Atomic bool impatient[PROTECTIONS];

static off_t byte_of(uint32_t directory)
{
	const struct name *n = name_get(directory);

	return (off_t)(checksum64(name_text(n), n->length, 0) % BYTES);
}

/* 0: locked within that many ns. */
static int lock_within(int fd, short type, uint32_t directory, uint64_t ns)
{
	static const struct timespec a_little = {0, 1000000};
	struct flock lock = {
	    .l_type = type, .l_whence = SEEK_SET, .l_start = byte_of(directory), .l_len = 1};
	uint64_t until = oplog_now() + ns;
	int r;

	while ((r = sys_fcntl(fd, F_OFD_SETLK, (unsigned long)&lock)) == -EAGAIN || r == -EACCES) {
		if (oplog_now() >= until)
			return -EAGAIN;
		SYS2(SYS_nanosleep, &a_little, NULL);
	}
	return r;
}

/* ---- who loads ---- */

static void let_go(struct load *l)
{
	if (turn_take_within(&l->owner, 0) <= 0)
		return;
	hold_let_go(&l->lock);
	atomic_store(&l->is_on, false);
	turn_give(&l->owner);
}

void load_begins(union slot s)
{
	struct load *l = &loads[s.protection];
	struct protection *a = protection_of(s);
	int fd = spare_open(a->store_fd, LOADS_LOCK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);

	if (fd < 0)
		return; /* nothing was persisted yet, or the store is another user's */
	if (lock_within(fd, F_RDLCK, name_get(s.name)->directory, LOADER_WAITS) < 0 ||
	    turn_take_within(&l->owner, 0) <= 0) {
		sys_close(fd);
		return;
	}
	hold_keep(&l->lock, fd, a->maps_hold);
	atomic_store(&l->has_read, false);
	atomic_store(&l->questions, 0);
	atomic_store(&l->is_on, true);
	turn_give(&l->owner);
}

void load_has_read(unsigned protection)
{
	atomic_store(&loads[protection].has_read, true);
}

void load_has_asked(unsigned protection)
{
	struct load *l = &loads[protection];

	if (__builtin_expect(atomic_load(&l->is_on), 0) &&
	    (atomic_load(&l->has_read) || atomic_fetch_add(&l->questions, 1) >= QUESTIONS_MOST))
		let_go(l);
}

void loads_fork(void)
{
	unsigned i;

	for (i = 0; i < PROTECTIONS; i++) {
		hold_fork(&loads[i].lock);
		atomic_store(&loads[i].is_on, false);
		atomic_store(&loads[i].owner, 0);
	}
}

void loads_stop(unsigned protection)
{
	if (atomic_load(&loads[protection].is_on))
		let_go(&loads[protection]);
	atomic_store(&impatient[protection], false);
}

/* ---- who persists ---- */

void loads_keep_out(struct hold *h, unsigned protection, uint32_t directory)
{
	struct protection *a = &protections[protection];
	bool is_patient;
	int r, fd;

	if (atomic_load(&loads[protection].is_on))
		let_go(&loads[protection]); /* this process has become the writer since */
	is_patient = !atomic_load(&impatient[protection]);
	fd = spare_open(a->store_fd, LOADS_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return;
	r = lock_within(fd, F_WRLCK, directory, is_patient ? PERSIST_WAITS : 0);
	atomic_store(&impatient[protection], r == -EAGAIN);
	if (r < 0)
		sys_close(fd);
	else
		hold_keep(h, fd, a->maps_hold);
}
