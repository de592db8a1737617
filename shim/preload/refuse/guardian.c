/* SPDX-License-Identifier: MIT
 *
 * A guardian for a directory that `chromashim run` did not know of: its path is in the backend's
 * code, or the library was preloaded without `run`.
 */
#include "preload/refuse/guardian.h"

#include <errno.h>
#include <string.h>

#include "preload/base/shim.h"
#include "preload/place/lives.h"
#include "preload/refuse/helper.h"

#define GUARD_LOCK "guard.lock" /* its first byte is locked by the guardian */

/* Whether there is one already; it stays until the last process has let go of the directory. */
static bool has_guardian(const struct protection *a)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	int r, fd = sys_openat(a->store_fd, GUARD_LOCK,
			       O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);

	if (fd < 0)
		return false;
	r = sys_fcntl(fd, F_OFD_GETLK, (unsigned long)&lock);
	sys_close(fd);
	return r == 0 && lock.l_type != F_UNLCK;
}

static void say_none(const struct protection *a, const char *why)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&said))
		shim_say(a->spelling[0], ": no guardian could be started: ", why,
			 ". Writes are protected, but no snapshot is copied, verified or taken by "
			 "the clock; start one: chromashim guard DIR (CHROMASHIM_GUARD=off: none "
			 "is wanted)",
			 NULL);
}

static void fill_in(struct helper *h, const struct protection *a)
{
	static char name[] = "chromashim", verb[] = "guard", while_open[] = "--while-open",
		    background[] = "--background";

	memcpy(h->dir, a->spelling[0], a->spelling_length[0] + 1);
	h->words[0] = name;
	h->words[1] = verb;
	h->words[2] = h->dir;
	h->words[3] = while_open;
	h->words[4] = background;
	h->is_heard = shim_is_heard();
}

/* `run` has started one for this very process, which may not be at work yet on a busy machine. */
static bool comes_from_run(const struct protection *a)
{
	return settings.backend && a->named;
}

void guardian_start(struct protection *a)
{
	const char *why = NULL;
	struct helper *h;
	int saved = errno;

	if (!settings.guard || a->store_fd < 0 || a->failed || shim_borrowed())
		return;
	protection_life(a); /* so that a guardian which is about to end sees this process */
	a->guarded = comes_from_run(a) || has_guardian(a);
	if (a->guarded)
		return;
	h = helper_new(&why);
	if (h) {
		fill_in(h, a);
		why = helper_start(h);
		helper_free(h);
	}
	a->guarded = !why;
	if (why)
		say_none(a, why);
	errno = saved;
}
