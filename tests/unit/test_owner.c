/* SPDX-License-Identifier: MIT
 *
 * What root makes in somebody's directory belongs to him, and root loses nothing by it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>

#include "core/base/owner.h"
#include "core/base/sys.h"
#include "scratch.h"

#define USER 65534u
#define GROUP 65533u

static struct scratch store;

static uid_t owner_of(const char *name)
{
	struct stat st;

	assert_int_equal(fstatat(store.fd, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(st.st_gid, st.st_uid == USER ? GROUP : getegid());
	return st.st_uid;
}

static void *put_by_thread(void *name)
{
	scratch_put(store.fd, name, "x", 1);
	return NULL;
}

static void need_root(void)
{
	if (geteuid() != 0)
		skip();
	assert_int_equal(fchown(store.fd, USER, GROUP), 0);
}

static void test_library(void **state)
{
	(void)state;
	need_root();
	sys_close(sys_openat(store.fd, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	assert_int_equal(sys_mkdirat(store.fd, "directory", 0700), 0);
	assert_int_equal(owner_of("file"), USER);
	assert_int_equal(owner_of("directory"), USER);
}

static void test_command(void **state)
{
	static char by_thread[] = "by a thread";
	pthread_t thread;
	struct stat st;
	char *data;
	size_t size;
	int fd;

	(void)state;
	need_root();
	scratch_put(store.fd, "root's", "secret", 6);
	assert_int_equal(fstat(store.fd, &st), 0);
	assert_true(owner_act(&st));
	scratch_put(store.fd, "his", "x", 1);
	fd = tree_make_directory(store.fd, "his too");
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(pthread_create(&thread, NULL, put_by_thread, by_thread), 0);
	pthread_join(thread, NULL);
	owner_pause();
	scratch_put(store.fd, "output", "x", 1);
	owner_resume();
	scratch_put(store.fd, "his again", "x", 1);
	assert_int_equal(owner_of("his"), USER);
	assert_int_equal(owner_of("his too"), USER);
	assert_int_equal(owner_of(by_thread), USER);
	assert_int_equal(owner_of("his again"), USER);
	assert_int_equal(owner_of("output"), 0);
	/* Root can do what it could. */
	data = scratch_get(store.fd, "root's", &size);
	assert_non_null(data);
	free(data);
	assert_int_equal(fchownat(store.fd, "his", 0, 0, 0), 0);
	assert_int_equal(fchmodat(store.fd, "root's", 0644, 0), 0);
	memset(&st, 0, sizeof(st));
	assert_true(owner_act(&st));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_library),
	    cmocka_unit_test(test_command),
	};
	int failed;

	scratch_make(&store);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	scratch_remove(&store);
	return failed;
}
