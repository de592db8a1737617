/* SPDX-License-Identifier: MIT
 *
 * Files that nobody vouches for: links, FIFOs, sizes; windows; publishing.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/chroma/chroma.h"

static char dir[] = "/tmp/chromashim-fileio-XXXXXX";
static int fd_of_dir;

static void test_open(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(mkdirat(fd_of_dir, "sub", 0700), 0);
	assert_int_equal(mkfifoat(fd_of_dir, "fifo", 0600), 0);
	assert_int_equal(symlinkat("/etc/passwd", fd_of_dir, "link"), 0);
	assert_int_equal(symlinkat("/etc", fd_of_dir, "dirlink"), 0);
	fd = openat(fd_of_dir, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	fd = file_open_at(fd_of_dir, "file");
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	assert_int_equal(file_open_at(fd_of_dir, "none"), -ENOENT);
	assert_int_equal(file_open_at(fd_of_dir, "sub"), -EISDIR);
	assert_int_equal(file_open_at(fd_of_dir, "fifo"), -ENOTSUP);
	assert_int_equal(file_open_at(fd_of_dir, "link"), -ELOOP);
	assert_int_equal(file_open_at(fd_of_dir, "../file"), -EINVAL);
	assert_int_equal(file_open_at(fd_of_dir, ".."), -EINVAL);
	assert_int_equal(file_open_at(fd_of_dir, ""), -EINVAL);
	assert_int_equal(file_open_directory_at(fd_of_dir, "file"), -ENOTDIR);
	assert_true(file_open_directory_at(fd_of_dir, "dirlink") < 0);
	fd = file_open_directory_at(fd_of_dir, "sub");
	assert_true(fd >= 0);
	close(fd);
}

static void test_publish(void **state)
{
	struct file_publish p;
	char *data;
	size_t size;
	int fd;

	(void)state;
	assert_int_equal(file_publish_begin(&p, fd_of_dir, "out", 0600), 0);
	assert_int_equal(file_write_all(p.fd, "hello", 5), 0);
	assert_int_equal(faccessat(fd_of_dir, "out", F_OK, 0), -1);
	assert_int_equal(file_publish_commit(&p), 0);
	fd = file_open_at(fd_of_dir, "out");
	assert_true(fd >= 0);
	assert_int_equal(file_read_all(fd, 4, &data, &size), -EFBIG);
	assert_int_equal(file_read_all(fd, 5, &data, &size), 0);
	assert_string_equal(data, "hello");
	free(data);
	close(fd);
	assert_int_equal(file_publish_begin(&p, fd_of_dir, "out", 0600), 0);
	file_publish_abort(&p);
	assert_int_equal(faccessat(fd_of_dir, "out", F_OK, 0), 0);
	assert_int_equal(faccessat(fd_of_dir, p.temporary, F_OK, 0), -1);
	assert_int_equal(file_publish_begin(&p, fd_of_dir, "a/b", 0600), -EINVAL);
	assert_int_equal(file_publish_begin(&p, fd_of_dir, "out", 0600), 0);
	close(p.fd); /* and its process dies */
	assert_int_equal(faccessat(fd_of_dir, p.temporary, F_OK, 0), 0);
	file_publish_sweep(fd_of_dir);
	assert_int_equal(faccessat(fd_of_dir, p.temporary, F_OK, 0), -1);
	assert_int_equal(faccessat(fd_of_dir, "out", F_OK, 0), 0);
}

static void test_window(void **state)
{
	unsigned char data[1000];
	struct file_source source;
	struct file_window w;
	const unsigned char *p;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(i * 7);
	file_source_memory(&source, data, sizeof(data));
	assert_int_equal(file_window_open(&w, &source, 64), 0);
	for (i = 0; i + 10 <= sizeof(data); i++) { /* forward, and at random */
		assert_int_equal(file_window_get(&w, i, 10, &p), 0);
		assert_memory_equal(p, data + i, 10);
		assert_int_equal(file_window_get(&w, i * 37 % 990, 10, &p), 0);
		assert_memory_equal(p, data + i * 37 % 990, 10);
	}
	assert_int_equal(file_window_get(&w, 991, 10, &p), -ENODATA);
	assert_int_equal(file_window_get(&w, UINT64_MAX, 10, &p), -ENODATA);
	assert_int_equal(file_window_get(&w, 0, 65, &p), -EMSGSIZE);
	assert_int_equal(file_window_get(&w, 1000, 0, &p), 0);
	file_window_close(&w);
}

/* The poisoned mark of a real report, and what may not be touched. */
static void test_marks(void **state)
{
	(void)state;
	assert_int_equal(chroma_mark_restore(1229822654365841720), 502498);
	assert_int_equal(chroma_mark_restore(502498), 502498);
	assert_int_equal(chroma_mark_restore(UINT64_C(0x3132333435363738)), 12345678);
	assert_true(chroma_mark_restore(UINT64_MAX) == UINT64_MAX);
	assert_true(chroma_is_uuid("614518a2-6de7-4521-b3e3-bf27e03fdc2d"));
	assert_false(chroma_is_uuid("614518a2-6de7-4521-b3e3-bf27e03fdc2"));
	assert_false(chroma_is_uuid("614518a2-6de7-4521-b3e3-bf27e03fdc2d0"));
	assert_false(chroma_is_uuid("../../../../../../../../../etc/passw"));
	assert_false(chroma_is_uuid(""));
}

static int remove_files(void **state)
{
	static const char *const names[] = {"file", "fifo", "link", "dirlink", "out"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlinkat(fd_of_dir, names[i], 0);
	unlinkat(fd_of_dir, "sub", AT_REMOVEDIR);
	close(fd_of_dir);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_open),
	    cmocka_unit_test(test_publish),
	    cmocka_unit_test(test_window),
	    cmocka_unit_test(test_marks),
	};

	if (!mkdtemp(dir))
		return 1;
	fd_of_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return cmocka_run_group_tests(tests, NULL, remove_files);
}
