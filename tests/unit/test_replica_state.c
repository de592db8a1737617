/* SPDX-License-Identifier: MIT
 *
 * Where replicas are, and what is known of them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/replica/state.h"
#include "scratch.h"

static void test_targets(void **state)
{
	struct replica_target t;

	(void)state;
	assert_int_equal(replica_target_parse(&t, "/mnt/usb//"), 0);
	assert_int_equal(t.kind, REPLICA_DIRECTORY);
	assert_string_equal(t.path, "/mnt/usb");
	assert_int_equal(replica_target_parse(&t, "sftp://me@there:2222/a/b/"), 0);
	assert_int_equal(t.kind, REPLICA_SFTP);
	assert_string_equal(t.host, "me@there");
	assert_int_equal(t.port, 2222);
	assert_string_equal(t.path, "/a/b");
	assert_int_equal(replica_target_parse(&t, "sftp://[::1]/a"), 0);
	assert_string_equal(t.host, "[::1]");
	assert_int_equal(t.port, 0);
	assert_int_equal(replica_target_parse(&t, "rclone:s3:bucket/chroma/"), 0);
	assert_int_equal(t.kind, REPLICA_RCLONE);
	assert_string_equal(t.path, "s3:bucket/chroma");
}

static void test_bad_targets(void **state)
{
	static const char *const bad[] = {"",
					  "here",
					  "./here",
					  "ftp://a/b",
					  "sftp://",
					  "sftp://host",
					  "sftp:///path",
					  "sftp://-oProxyCommand=x/p",
					  "sftp://u@-x/p",
					  "sftp://host:/p",
					  "sftp://host:0/p",
					  "sftp://host:70000/p",
					  "sftp://[::1/p",
					  "sftp://@host/p",
					  "sftp://h:12x/p",
					  "sftp://h/a\"b",
					  "rclone:",
					  "rclone:remote",
					  "rclone:-x:y",
					  "rclone::local:/x",
					  "sftp://h/a\nrm",
					  "rclone:a:b\"\\*?",
					  "sftp://user@/path"};
	struct replica_target t;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (replica_target_parse(&t, bad[i]) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
}

static void test_lists(void **state)
{
	char wrong[REPLICA_TARGET_SIZE];
	struct replica_targets t;

	(void)state;
	assert_int_equal(replica_targets_parse(&t, "", wrong), 0);
	assert_int_equal(t.count, 0);
	assert_int_equal(replica_targets_parse(&t, " /a, sftp://h/b rclone:r:c ", wrong), 0);
	assert_int_equal(t.count, 3);
	assert_string_equal(t.all[2].path, "r:c");
	assert_int_equal(replica_targets_parse(&t, "/a nowhere /b", wrong), -EINVAL);
	assert_string_equal(wrong, "nowhere");
	assert_int_equal(replica_targets_parse(&t, "/1 /2 /3 /4 /5 /6 /7 /8 /9", wrong), -E2BIG);
}

static void test_state(void **state)
{
	struct replica_state a, b;
	struct scratch s;

	(void)state;
	scratch_make(&s);
	assert_int_equal(replica_state_read(s.fd, "/mnt/a", &a), -ENOENT);
	assert_string_equal(a.target, "/mnt/a");
	a.snapshot = 7;
	a.snapshot_time = 12345;
	strcpy(a.error, "no route");
	assert_int_equal(replica_state_write(s.fd, &a), 0);
	assert_int_equal(replica_state_read(s.fd, "/mnt/a", &b), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_int_equal(replica_state_read(s.fd, "/mnt/b", &b), -ENOENT);
	scratch_remove(&s);
}

static void test_damage(void **state)
{
	char place[REPLICA_PLACE_SIZE], name[64], *data;
	struct replica_state a, b;
	struct scratch s;
	size_t size, i;

	(void)state;
	scratch_make(&s);
	replica_state_read(s.fd, "/mnt/a", &a);
	a.snapshot = 7;
	assert_int_equal(replica_state_write(s.fd, &a), 0);
	replica_place(place, "/mnt/a");
	snprintf(name, sizeof(name), REPLICA_DIR "/%s/state", place);
	data = scratch_get(s.fd, name, &size);
	assert_non_null(data);
	for (i = 0; i < size; i++) {
		data[i] ^= 1;
		assert_true(replica_state_parse(&b, data, size) < 0);
		data[i] ^= 1;
		assert_int_equal(replica_state_parse(&b, data, i), -EBADMSG);
	}
	data[100] ^= 1;
	scratch_put(s.fd, name, data, size);
	assert_int_equal(replica_state_read(s.fd, "/mnt/a", &b), -EBADMSG);
	assert_int_equal(b.snapshot, 0);
	assert_string_equal(b.target, "/mnt/a");
	free(data);
	scratch_remove(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_targets), cmocka_unit_test(test_bad_targets),
	    cmocka_unit_test(test_lists),   cmocka_unit_test(test_state),
	    cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
