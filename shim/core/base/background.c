/* SPDX-License-Identifier: MIT
 *
 * Work that gives way to the backend's.
 */
#include "core/base/background.h"

#include <pthread.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NICE 10
#define IOPRIO_IDLE (3 << 13)

struct errand {
	int (*run)(void *context);
	void *context;
	int result;
};

void background_enter(void)
{
	/* Linux keeps both for the thread alone. */
	setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
	syscall(SYS_ioprio_set, 1 /* a thread */, 0, IOPRIO_IDLE);
}

static void *run_errand(void *argument)
{
	struct errand *e = argument;

	background_enter();
	e->result = e->run(e->context);
	return NULL;
}

int background_wait_for(int (*run)(void *context), void *context)
{
	struct errand e = {.run = run, .context = context};
	pthread_t thread;

	if (pthread_create(&thread, NULL, run_errand, &e) != 0)
		return run(context);
	pthread_join(thread, NULL);
	return e.result;
}
