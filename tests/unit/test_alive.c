/* SPDX-License-Identifier: MIT
 *
 * Lives: who holds the lock lives, in whatever way it ends.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <signal.h>
#include <sys/wait.h>

#include "core/base/alive.h"
#include "scratch.h"

static struct scratch store;

static void test_own(void **state)
{
	uint64_t life, other;
	int fd = alive_open(store.fd), second = alive_open(store.fd);

	(void)state;
	assert_true(fd >= 0 && second >= 0);
	assert_int_equal(alive_begin(fd, &life), 0);
	assert_int_equal(alive_begin(second, &other), 0);
	assert_true(life && other && life != other);
	assert_int_equal(alive_any(store.fd), ALIVE_LIVES);
	assert_int_equal(alive_is(store.fd, life), ALIVE_LIVES);
	close(second);
	assert_int_equal(alive_is(store.fd, other), ALIVE_DEAD);
	assert_int_equal(alive_is(store.fd, life), ALIVE_LIVES);
	close(fd);
	assert_int_equal(alive_is(store.fd, life), ALIVE_DEAD);
	assert_int_equal(alive_any(store.fd), ALIVE_DEAD);
}

static void test_killed(void **state)
{
	uint64_t life = 0;
	int ends[2], status;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int fd = alive_open(store.fd);

		if (alive_begin(fd, &life) < 0 || write(ends[1], &life, sizeof(life)) < 0)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(ends[0], &life, sizeof(life)), sizeof(life));
	assert_int_equal(alive_is(store.fd, life), ALIVE_LIVES);
	kill(child, SIGSTOP);
	assert_int_equal(alive_is(store.fd, life), ALIVE_LIVES);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(alive_is(store.fd, life), ALIVE_DEAD);
	close(ends[0]);
	close(ends[1]);
}

/* Nobody's number, a file that is not there, and one that nobody can have meant. */
static void test_nobody(void **state)
{
	struct scratch other;

	(void)state;
	scratch_make(&other);
	assert_int_equal(alive_is(store.fd, 0), ALIVE_DEAD);
	assert_int_equal(alive_is(store.fd, UINT64_MAX), ALIVE_DEAD);
	assert_int_equal(alive_is(other.fd, 1), ALIVE_DEAD);
	assert_int_equal(mkfifoat(other.fd, ALIVE_NAME, 0600), 0);
	assert_int_not_equal(alive_is(other.fd, 1), ALIVE_LIVES);
	scratch_remove(&other);
}

static void test_in_use(void **state)
{
	int fd = alive_open(store.fd), second = alive_open(store.fd);
	uint64_t life;

	(void)state;
	assert_int_equal(alive_begin(fd, &life), 0);
	assert_false(alive_in_use(store.fd, -1));
	assert_int_equal(alive_use(fd, 1), 0);
	assert_int_equal(alive_use(second, 1), 0);
	assert_true(alive_in_use(store.fd, -1) && alive_in_use(store.fd, fd));
	assert_int_equal(alive_use(second, 0), 0);
	assert_false(alive_in_use(store.fd, fd)); /* by nobody but its own */
	assert_true(alive_in_use(store.fd, -1));
	close(fd);
	assert_false(alive_in_use(store.fd, -1));
	close(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_own),
	    cmocka_unit_test(test_killed),
	    cmocka_unit_test(test_nobody),
	    cmocka_unit_test(test_in_use),
	};
	int failed;

	scratch_make(&store);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	scratch_remove(&store);
	return failed;
}
