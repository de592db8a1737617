/* SPDX-License-Identifier: MIT
 *
 * `chromashim run --before-open`: the look for a process of a backend that waits in its first open
 * of a directory. What it may change, it may only as long as that one waits.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/base/processes.h"
#include "command/base/terminal.h"
#include "command/run/preflight.h"
#include "core/store/look.h"

#define LOCK_NAME "look.lock"

int before_open_take(struct run *r, const char *descriptor)
{
	uint32_t number;
	struct stat st;
	void *map;

	if (!parse_number(descriptor, &number) || number > INT_MAX || fstat((int)number, &st) < 0 ||
	    !S_ISREG(st.st_mode) || st.st_size != sizeof(struct look))
		return fail(EXIT_USAGE, 0, "It is for the library alone; --check-only looks.",
			    "--before-open: '%s' is no descriptor of a look", descriptor);
	map = mmap(NULL, sizeof(struct look), PROT_READ | PROT_WRITE, MAP_SHARED, (int)number, 0);
	if (map == MAP_FAILED)
		return fail(EXIT_FAILED, -errno, NULL, "--before-open");
	r->look = map;
	process_shed_host();
	dup2(STDERR_FILENO, STDOUT_FILENO); /* which is the backend's */
	return 0;
}

/*
 * Workers are started together: one looks, and the others wait for what it does. Where there is no
 * lock all of them look, and whoever finds another in the directory changes nothing.
 */
static void wait_for_others(struct preflight *p)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd;

	if (data_directory_make_store(&p->data) < 0)
		return;
	fd = openat(p->data.storefd, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES))
		return; /* it is held until this process ends */
	if (look_go_on(p->run->look, LOOK_HEALS))
		fcntl(fd, F_OFD_SETLKW, &lock);
	look_go_on(p->run->look, LOOK_READS);
}

/* In the order of preflight(); who is there is asked when the others are done. */
static void look_at(struct preflight *p)
{
	struct look *l = p->run->look;

	wait_for_others(p);
	if (!preflight_is_alone(p) || !look_go_on(l, LOOK_CHANGES))
		return;
	preflight_roll_back(p);
	if (look_go_on(l, LOOK_READS))
		preflight_damage(p);
	preflight_note_writers(p);
}

int preflight_before_open(struct run *r)
{
	struct preflight p = {.run = r};
	int status = preflight_open(&p);

	if (status == 0)
		look_at(&p);
	/* The lock goes after this word: who waits for it finds the directory open, or whole. */
	atomic_store(&r->look->state, LOOK_IS_OVER);
	data_directory_close(&p.data);
	return status < 0 ? EXIT_DONE : status;
}
