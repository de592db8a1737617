/* SPDX-License-Identifier: MIT
 *
 * What the host blocks, and what it does about SIGBUS: the maps of the store have to know.
 */
#include "preload/calls/call.h"
#include "preload/place/guard_maps.h"

int do_sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	int ret;

	guard_mask_changes();
	ret = real.sigprocmask(how, set, old);
	guard_mask_changes();
	return ret;
}

int do_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	int ret;

	guard_mask_changes();
	ret = real.pthread_sigmask(how, set, old);
	guard_mask_changes();
	return ret;
}

long do_rt_sigprocmask(long how, long set, long old, long size)
{
	long ret;

	guard_mask_changes();
	ret = real.syscall(SYS_rt_sigprocmask, how, set, old, size, 0, 0);
	guard_mask_changes();
	return ret;
}

int do_sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
	return number == SIGBUS ? guard_host_action(action, old)
				: REAL_LATE(sigaction)(number, action, old);
}

/* As libc does it, which would not come by here. */
sighandler_t do_signal(int number, sighandler_t handler)
{
	struct sigaction action = {.sa_flags = SA_RESTART}, old;

	if (number != SIGBUS || handler == SIG_ERR)
		return REAL_LATE(signal)(number, handler);
	action.sa_handler = handler;
	sigaddset(&action.sa_mask, number);
	return guard_host_action(&action, &old) < 0 ? SIG_ERR : old.sa_handler;
}
