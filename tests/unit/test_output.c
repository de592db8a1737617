/* SPDX-License-Identifier: MIT
 *
 * Floats written by our own routine read back as the same floats; output appears when complete.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command/base/output.h"

static void assert_same(float value)
{
	char text[32];
	size_t n = output_format_float(text, value);
	float back;

	assert_true(n < 24);
	text[n] = '\0';
	back = strtof(text, NULL);
	if (memcmp(&back, &value, sizeof(value)) != 0)
		fail_msg("%.9g became %s", (double)value, text);
}

static void test_floats_round_trip(void **state)
{
	static const float special[] = {0.0f,	-0.0f,	 1.0f,	     10.0f,	   9999999.0f,
					1e7f,	1e-4f,	 9.9999e-5f, 0.1f,	   0.99999994f,
					1e-45f, 3.4e38f, 1234567.9f, -0.00012345f, 100000.0f};
	uint32_t bits, random = 1;
	size_t i;
	float f;

	(void)state;
	for (i = 0; i < sizeof(special) / sizeof(special[0]); i++)
		assert_same(special[i]);
	for (i = 0; i < 2000000; i++) {
		random = random * 1664525u + 1013904223u;
		bits = random ^ random >> 15;
		if (i % 2) /* the usual size of an embedding's numbers */
			bits = (bits & 0x83ffffff) | 0x3c000000;
		memcpy(&f, &bits, sizeof(f));
		if (isfinite(f))
			assert_same(f);
	}
}

static void test_floats_are_json(void **state)
{
	char text[32];

	(void)state;
	text[output_format_float(text, NAN)] = '\0';
	assert_string_equal(text, "null");
	text[output_format_float(text, -HUGE_VALF)] = '\0';
	assert_string_equal(text, "null");
	text[output_format_float(text, 0.5f)] = '\0';
	assert_string_equal(text, "0.5");
	text[output_format_float(text, -1200.0f)] = '\0';
	assert_string_equal(text, "-1200");
	text[output_format_float(text, 0.000244140625f)] = '\0';
	assert_string_equal(text, "0.000244140625");
}

static void test_file_is_there_when_complete(void **state)
{
	char dir[] = "/tmp/chromashim-output-XXXXXX", path[64];
	struct output o;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/file", dir);
	assert_int_equal(output_open(&o, path, false), 0);
	fputs("half", o.stream);
	assert_int_equal(access(path, F_OK), -1);
	output_abort(&o);
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(output_open(&o, path, true), 0);
	fputs("whole", o.stream);
	assert_int_equal(output_close(&o), 0);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(dir), 0); /* and nothing else is in it */
}

/* ---- where a name leads ---- */

struct place {
	char dir[64];
};

static int make_place(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	strcpy(p->dir, "/tmp/chromashim-output-XXXXXX");
	*state = p;
	return mkdtemp(p->dir) && chdir(p->dir) == 0 ? 0 : -1;
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

static void put(const char *name, const char *text, mode_t mode)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static void assert_holds(const char *name, const char *text)
{
	char buf[64] = "";
	int fd = open(name, O_RDONLY);

	assert_true(fd >= 0);
	assert_true(read(fd, buf, sizeof(buf) - 1) >= 0);
	close(fd);
	assert_string_equal(buf, text);
}

/* Writes `text`; what is there meanwhile is still the old. */
static int write_to(const char *name, const char *text)
{
	struct output o;
	int r = output_open(&o, name, false);

	if (r < 0)
		return r;
	fputs(text, o.stream);
	return output_close(&o);
}

static mode_t mode_of(const char *name)
{
	struct stat st;

	assert_int_equal(lstat(name, &st), 0);
	return st.st_mode;
}

static void test_device_stays_a_device(void **state)
{
	(void)state;
	/* One of the test's own where that may be made; the machine's is never at stake. */
	if (mknod("null", S_IFCHR | 0666, makedev(1, 3)) < 0)
		skip();
	assert_int_equal(write_to("null", "text"), 0);
	assert_true(S_ISCHR(mode_of("null")));
	assert_int_equal(symlink("null", "link"), 0);
	assert_int_equal(write_to("link", "text"), 0);
	assert_true(S_ISCHR(mode_of("null")));
	assert_true(S_ISLNK(mode_of("link")));
	assert_int_equal(mknod("full", S_IFCHR | 0666, makedev(1, 7)), 0);
	assert_int_equal(write_to("full", "text"), -ENOSPC);
	assert_true(S_ISCHR(mode_of("full")));
}

static void test_fifo_is_written_through(void **state)
{
	char buf[16] = "";
	int fd;

	(void)state;
	assert_int_equal(mkfifo("fifo", 0600), 0);
	fd = open("fifo", O_RDONLY | O_NONBLOCK);
	assert_int_equal(write_to("fifo", "text"), 0);
	assert_int_equal(read(fd, buf, sizeof(buf)), 4);
	assert_string_equal(buf, "text");
	close(fd);
	assert_true(S_ISFIFO(mode_of("fifo")));
}

static void test_links_are_followed(void **state)
{
	(void)state;
	assert_int_equal(mkdir("sub", 0700), 0);
	put("sub/file", "old", 0640);
	assert_int_equal(symlink("sub/file", "one"), 0);
	assert_int_equal(symlink("one", "two"), 0);
	assert_int_equal(write_to("two", "new"), 0);
	assert_true(S_ISLNK(mode_of("two")) && S_ISLNK(mode_of("one")));
	assert_holds("sub/file", "new");
	assert_int_equal(mode_of("sub/file"), S_IFREG | 0640);
	assert_int_equal(symlink("sub/missing", "dangling"), 0);
	assert_int_equal(write_to("dangling", "made"), 0);
	assert_true(S_ISLNK(mode_of("dangling")));
	assert_holds("sub/missing", "made");
	assert_int_equal(symlink("ring", "ring"), 0);
	assert_int_equal(write_to("ring", "never"), -ELOOP);
}

static void test_directory_is_refused(void **state)
{
	static const char *const names[] = {"sub", "sub/", "link", ".", "..", "/", "new/"};
	size_t i;

	(void)state;
	assert_int_equal(mkdir("sub", 0700), 0);
	assert_int_equal(symlink("sub", "link"), 0);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(write_to(names[i], "text"), -EISDIR);
	assert_true(S_ISLNK(mode_of("link")));
	assert_int_equal(rmdir("sub"), 0); /* nothing was left in it */
	assert_int_equal(write_to("nowhere/file", "text"), -ENOENT);
}

static void test_file_is_replaced_whole(void **state)
{
	struct output o;

	(void)state;
	put("file", "old", 0604);
	assert_int_equal(output_open(&o, "file", false), 0);
	fputs("new", o.stream);
	fflush(o.stream);
	assert_holds("file", "old");
	output_abort(&o);
	assert_holds("file", "old");
	assert_int_equal(write_to("file", "new"), 0);
	assert_holds("file", "new");
	assert_int_equal(mode_of("file"), S_IFREG | 0604);
}

static void test_file_without_permission(void **state)
{
	pid_t child;
	int status;

	(void)state;
	put("file", "old", 0444);
	assert_int_equal(chmod(".", 0777), 0);
	child = fork();
	if (child == 0) {
		if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
			_exit(2);
		_exit(write_to("file", "new") == -EACCES ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_holds("file", "old");
}

/* `>> file` and a -o that names stdout: what was there stays, and the file is no other one. */
static void test_descriptor_goes_on_where_it_is(void **state)
{
	static const char *const names[] = {"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"};
	int fd, saved = dup(1);
	struct stat before, after;
	size_t i;

	(void)state;
	put("file", "old ", 0600);
	assert_int_equal(stat("file", &before), 0);
	fflush(stdout);
	fd = open("file", O_WRONLY | O_APPEND);
	dup2(fd, 1);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (write_to(names[i], "x") < 0)
			break;
	dup2(saved, 1);
	close(saved);
	close(fd);
	assert_int_equal(i, sizeof(names) / sizeof(names[0]));
	assert_holds("file", "old xxx");
	assert_int_equal(stat("file", &after), 0);
	assert_int_equal(before.st_ino, after.st_ino);
}

#define place_test(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    place_test(test_device_stays_a_device),
	    place_test(test_fifo_is_written_through),
	    place_test(test_links_are_followed),
	    place_test(test_directory_is_refused),
	    place_test(test_file_is_replaced_whole),
	    place_test(test_file_without_permission),
	    place_test(test_descriptor_goes_on_where_it_is),
	    cmocka_unit_test(test_floats_round_trip),
	    cmocka_unit_test(test_floats_are_json),
	    cmocka_unit_test(test_file_is_there_when_complete),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
