/* SPDX-License-Identifier: MIT
 *
 * Who has a file open: found by its identity, and nobody else's file system is waited for.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/openers.h"

#define NAME "chroma.sqlite3"
#define LONGEST 20 /* s */

struct place {
	char dir[64];
	struct stat st;
};

static int make_place(void **state)
{
	struct place *p = calloc(1, sizeof(*p));
	int fd;

	strcpy(p->dir, "/tmp/chromashim-openers-XXXXXX");
	*state = p;
	if (!mkdtemp(p->dir) || chdir(p->dir) < 0)
		return -1;
	fd = open(NAME, O_RDWR | O_CREAT, 0600);
	return fd >= 0 && fstat(fd, &p->st) == 0 ? close(fd) : -1;
}

static int remove_place(void **state)
{
	struct place *p = *state;
	char command[128];
	int r;

	snprintf(command, sizeof(command), "rm -rf %s", p->dir);
	r = chdir("/") == 0 ? system(command) : -1;
	free(p);
	return r;
}

/* A child that has the file open, and ends with the test. */
static pid_t hold(const char *name, int flags)
{
	int ready[2];
	char byte;
	pid_t child;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (open(name, flags) < 0 || write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	return child;
}

static void end(pid_t child)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
}

static bool is_found(const struct place *p, pid_t pid)
{
	struct process_opener *list;
	unsigned hidden;
	bool found = false;
	int i, n;

	alarm(LONGEST);
	n = process_find_openers(&p->st, NAME, &list, &hidden);
	alarm(0);
	assert_true(n >= 0);
	for (i = 0; i < n; i++)
		found |= list[i].pid == (uint32_t)pid;
	free(list);
	return found;
}

static void test_every_way_to_have_it_open(void **state)
{
	const struct place *p = *state;
	pid_t reader = hold(NAME, O_RDONLY), writer = hold(NAME, O_RDWR),
	      other = hold(".", O_RDONLY);
	pid_t linked;

	assert_int_equal(link(NAME, "another name"), 0);
	linked = hold("another name", O_RDONLY);
	assert_true(is_found(p, reader) && is_found(p, writer) && is_found(p, linked));
	assert_false(is_found(p, other));
	assert_int_equal(rename(NAME, "moved"), 0);
	assert_true(is_found(p, reader));
	assert_int_equal(unlink("moved"), 0);
	assert_true(is_found(p, reader) && is_found(p, linked));
	end(reader);
	end(writer);
	end(other);
	end(linked);
}

/* A file system in a mount namespace of its own, which nobody serves. */
static pid_t hold_hung(const char *where, bool detached)
{
	int ready[2], fuse;
	char options[96], byte = 0;
	pid_t child;

	assert_int_equal(pipe(ready), 0);
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fuse = open("/dev/fuse", O_RDWR);
		snprintf(options, sizeof(options), "fd=%d,rootmode=100000,user_id=0,group_id=0",
			 fuse);
		if (unshare(CLONE_NEWNS) < 0 ||
		    mount("", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		    mount("hung", where, "fuse", 0, options) < 0 || open(where, O_PATH) < 0 ||
		    (detached && umount2(where, MNT_DETACH) < 0))
			byte = 1;
		if (write(ready[1], &byte, 1) != 1 || byte)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	if (byte == 0)
		return child;
	end(child);
	return 0;
}

/* Also where its name is that of a database. */
static void test_hung_mounts_are_not_waited_for(void **state)
{
	const struct place *p = *state;
	pid_t holder = hold(NAME, O_RDWR), hung[2];
	int i;

	assert_int_equal(mkdir("elsewhere", 0700), 0);
	close(open("elsewhere/" NAME, O_RDWR | O_CREAT, 0600));
	for (i = 0; i < 2; i++)
		hung[i] = hold_hung("elsewhere/" NAME, i == 1);
	if (!hung[0])
		skip();
	assert_true(is_found(p, holder));
	assert_false(is_found(p, hung[0]) || is_found(p, hung[1]));
	end(holder);
	end(hung[0]);
	end(hung[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_every_way_to_have_it_open, make_place,
					    remove_place),
	    cmocka_unit_test_setup_teardown(test_hung_mounts_are_not_waited_for, make_place,
					    remove_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
