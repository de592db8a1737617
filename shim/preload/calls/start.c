/* SPDX-License-Identifier: MIT
 *
 * Start and end: settings, inherited descriptors, fork. Nothing here may stop the host.
 */
#include <string.h>

#include "preload/base/limits.h"
#include "preload/calls/call.h"
#include "preload/persist/persists.h"
#include "preload/pin/pins.h"
#include "preload/place/protection_rooms.h"
#include "preload/place/callers.h"
#include "preload/place/named.h"
#include "preload/refuse/helper.h"
#include "preload/refuse/look.h"
#include "preload/refuse/makers.h"
#include "preload/refuse/refuse.h"
#include "preload/refuse/touched.h"
#include "preload/sqlite/calls.h"
#include "preload/sqlite/transactions.h"

static void adopt_inherited(int fd)
{
	A_PLACE(place);
	int flags = sys_fcntl(fd, F_GETFL, 0);

	if (flags < 0 || !place_of_descriptor(&place, fd, true))
		return;
	if (place.slot.role == ROLE_STORE) {
		slot_set(fd, place.slot);
		return;
	}
	if ((flags & O_ACCMODE) != O_RDONLY)
		place.slot.writable |= SLOT_WRITABLE;
	if (flags & O_APPEND)
		place.slot.writable |= SLOT_APPEND;
	place.slot.writable |= SLOT_INHERITED;
	slot_set(fd, place.slot);
	record_end(record_begin(place.slot, OP_INHERIT, -1, 0, (unsigned)flags), fd);
	if (place.slot.writable & SLOT_WRITABLE)
		streams_adopt(fd);
}

static void read_inherited(void)
{
	char buf[2048] __attribute__((aligned(8)));
	int dirfd = sys_openat(AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	ssize_t n, at;

	while (dirfd >= 0 && (n = sys_getdents(dirfd, buf, sizeof(buf))) > 0) {
		const struct linux_dirent64 *d;

		for (at = 0; at < n; at += d->length) {
			const char *p;
			int fd = 0;

			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			for (p = d->name; *p >= '0' && *p <= '9' && fd < SLOTS; p++)
				fd = fd * 10 + (*p - '0');
			if (p != d->name && fd != dirfd && !slot_of(fd).all)
				adopt_inherited(fd);
		}
	}
	if (dirfd >= 0)
		sys_close(dirfd);
}

/*
 * What pthread_atfork() calls, with this library's handle; without one it stays for good, and so
 * does the library. Only glibc has it: the child of a protected host that uses musl gets the
 * preload with its environment, and would not even start if the symbol had to be there.
 */
extern int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void),
			     void *library) __attribute__((weak));

static const struct protection_room rooms[] = {
    {.stop = space_stop},
    {.stop = transactions_stop},
    {.stop = touched_stop},
    {.stop = maker_stop},
    {.start = persists_start,
     .started = persists_started,
     .is_idle = persists_none,
     .stop = persists_stop},
    {.start = pins_start, .stop = pins_stop, .give_back = pins_give_back, .is_lost = pins_are_lost},
};

/* What the lower floors call of the upper ones. */
static void hand_in(void)
{
	limits_hand_in(record_limit);
	places_hand_in(protection_claim, look_before_open);
	protections_hand_in(rooms, sizeof(rooms) / sizeof(*rooms));
	transactions_hand_in((struct transaction_listener){
	    .committed = pins_transaction_committed,
	    .ended = persists_transaction_ended,
	});
}

__attribute__((constructor)) static void start(void)
{
	int saved = errno;

	real_bind();
	shim_stderr_is_now();
	settings_read();
	if (settings.log_caller && !settings.off)
		callers_bind();
	if (!settings.off && !__register_atfork) {
		settings.off = true;
		shim_say("this program uses another C library than glibc: it runs UNPROTECTED",
			 NULL);
	}
	if (settings.off)
		return;
	shim_pid = sys_getpid();
	process_remember();
	helper_find_command();
	__register_atfork(process_forks, NULL, process_forked, NULL);
	hand_in();
	shim_live = true;
	named_read(settings.dir, !settings.backend, protection_claim);
	read_inherited();
	errno = saved;
}

__attribute__((destructor)) static void end(void)
{
	if (shim_live && !shim_borrowed())
		protections_finish(0);
}
