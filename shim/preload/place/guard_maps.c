/* SPDX-License-Identifier: MIT
 *
 * SIGBUS in the maps of the store's files.
 */
#include "preload/place/guard_maps.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "core/base/shared_map.h"
#include "preload/base/real.h"
#include "preload/base/shim.h"
#include "preload/place/protection.h"
#include "preload/place/protection_rooms.h"

#define BUS (UINT64_C(1) << (SIGBUS - 1))

static struct sigaction hosts_own;
static atomic_bool stands; /* the handler is ours */

/* As it would have been without us: once more, and by what the host has there. */
static void give_back(siginfo_t *info)
{
	atomic_store(&stands, false);
	REAL_LATE(sigaction)(SIGBUS, &hosts_own, NULL);
	if (info->si_code <= 0) /* sent by somebody: it does not come again by itself */
		SYS4(SYS_rt_tgsigqueueinfo, sys_getpid(), sys_gettid(), SIGBUS, info);
}

/* ---- threads that block it ---- */

__thread bool guard_is_open __attribute__((tls_model("initial-exec")));
THREAD_LOCAL bool let_through;	/* by us: the host blocks it */
THREAD_LOCAL siginfo_t waiting; /* what was sent meanwhile */

bool guard_open_slow(void)
{
	uint64_t bus = BUS, before = 0;

	if (!shim_live || shim_borrowed() || !atomic_load(&stands))
		return false;
	let_through = true;
	SYS4(SYS_rt_sigprocmask, SIG_UNBLOCK, &bus, &before, sizeof(bus));
	let_through = before & BUS;
	guard_is_open = true;
	return let_through;
}

/* To the thread, or to any of the process that may have it, as it was sent. */
static void send_again(void)
{
	siginfo_t info = waiting;

	waiting.si_signo = 0;
	if (info.si_code == SI_TKILL)
		SYS4(SYS_rt_tgsigqueueinfo, sys_getpid(), sys_gettid(), SIGBUS, &info);
	else
		SYS3(SYS_rt_sigqueueinfo, sys_getpid(), SIGBUS, &info);
}

void guard_close(const bool *opened)
{
	uint64_t bus = BUS;

	if (__builtin_expect(!*opened, 1))
		return;
	guard_is_open = false;
	SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &bus, NULL, sizeof(bus));
	let_through = guard_is_open = false; /* a handler on top may have asked meanwhile */
	if (waiting.si_signo)
		send_again();
}

/* ---- the handler ---- */

static void say_lost(const char *file)
{
	shim_say(file,
		 " in the store was cut while it was in use, or its disk is full (SIGBUS); "
		 "what it had is lost, and the backend goes on. Files of the store must not "
		 "be changed; make room.",
		 NULL);
}

/* The log goes on in a new file; a persist and a pin see that they cannot go on, and say more. */
static bool patch_log(const siginfo_t *info)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i <= used && i < PROTECTIONS; i++) {
		bool act = protections[i].acts &&
			   oplog_writer_patch(&protections[i].acts->log, info->si_addr);

		if (act || oplog_writer_patch(&protections[i].log, info->si_addr)) {
			if (!atomic_flag_test_and_set(&said))
				say_lost(act ? "a file of acts/" : "a file of oplog/");
			return true;
		}
	}
	return false;
}

static bool patch_map(const siginfo_t *info)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;
	unsigned i, used = atomic_load(&protections_used);
	bool pins = false;

	if (!shared_map_patch(info->si_addr))
		return false;
	for (i = 0; i <= used && i < PROTECTIONS; i++)
		pins = rooms_have_lost(i) || pins;
	if (pins)
		say_lost("pins/state (no snapshot can be pinned until the backend is restarted)");
	else if (!atomic_flag_test_and_set(&said))
		say_lost("a file of undo/ or pins/");
	return true;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	int saved = errno;

	(void)number, (void)context;
	if (info->si_code <= 0 && let_through)
		waiting = *info;
	else if (info->si_code <= 0 || (!patch_log(info) && !patch_map(info)))
		give_back(info);
	errno = saved;
}

static bool same(const struct sigaction *a, const struct sigaction *b)
{
	return a->sa_handler == b->sa_handler && a->sa_flags == b->sa_flags;
}

void guard_maps(void)
{
	static atomic_bool known;
	struct sigaction ours, is;

	if (REAL_LATE(sigaction)(SIGBUS, NULL, &is) < 0 || is.sa_sigaction == on_bus_error)
		return;
	if (!atomic_exchange(&known, true))
		hosts_own = is;
	else if (!same(&is, &hosts_own))
		return;
	memset(&ours, 0, sizeof(ours));
	ours.sa_sigaction = on_bus_error;
	ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	atomic_store(&stands, REAL_LATE(sigaction)(SIGBUS, &ours, NULL) == 0);
}

int guard_host_action(const struct sigaction *action, struct sigaction *old)
{
	struct sigaction had = hosts_own;
	bool borrowed = shim_borrowed(); /* what a vfork child sets is its own */

	if (borrowed || !atomic_load(&stands)) {
		int ret = REAL_LATE(sigaction)(SIGBUS, action, old);

		if (ret == 0 && action && !borrowed)
			hosts_own = *action;
		return ret;
	}
	if (action)
		hosts_own = *action;
	if (old)
		*old = had;
	return 0;
}
