/* SPDX-License-Identifier: MIT
 *
 * SIGBUS in the log's maps.
 */
#include "preload/guard_maps.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>

#include "preload/area.h"
#include "preload/shim.h"

/* As it would have been without us: once more, and by the default. */
static void give_back(const siginfo_t *info)
{
	struct sigaction plain;

	memset(&plain, 0, sizeof(plain));
	plain.sa_handler = SIG_DFL;
	sigaction(SIGBUS, &plain, NULL);
	if (info->si_code <= 0) /* sent by somebody: it does not come again by itself */
		SYS3(SYS_tgkill, sys_getpid(), sys_gettid(), SIGBUS);
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	unsigned i, used = atomic_load(&areas_used);

	(void)number, (void)context;
	for (i = 0; i <= used && i < AREAS && info->si_code > 0; i++)
		if (oplog_writer_patch(&areas[i].log, info->si_addr))
			return;
	give_back(info);
}

void guard_maps(void)
{
	static atomic_flag done = ATOMIC_FLAG_INIT;
	struct sigaction ours, before;

	if (atomic_flag_test_and_set(&done) || sigaction(SIGBUS, NULL, &before) < 0 ||
	    (before.sa_flags & SA_SIGINFO) || before.sa_handler != SIG_DFL)
		return;
	memset(&ours, 0, sizeof(ours));
	ours.sa_sigaction = on_bus_error;
	ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	sigaction(SIGBUS, &ours, NULL);
}
