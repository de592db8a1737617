/* SPDX-License-Identifier: MIT
 *
 * What the kernel's log and counters tell about a death.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "command/base/crash_cause.h"

static void expect(const char *line, enum crash_cause cause, uint64_t when)
{
	uint64_t us;

	assert_int_equal(crash_judge_kernel_line(line, 123, &us), cause);
	if (cause != CRASH_UNKNOWN)
		assert_int_equal(us, when);
}

static void test_kernel_lines(void **state)
{
	(void)state;
	expect("3,900,5000000,-;Out of memory: Killed process 123 (python3) total-vm:1kB, anon",
	       CRASH_OOM, 5000000);
	expect("3,900,7,-;Memory cgroup out of memory: Killed process 123 (chroma) total-vm:1kB",
	       CRASH_OOM, 7);
	expect("6,1,8,-;oom-kill:constraint=CONSTRAINT_MEMCG,task=python3,pid=123,uid=0", CRASH_OOM,
	       8);
	expect("3,900,7,-;Out of memory: Killed process 1234 (python3)", CRASH_UNKNOWN, 0);
	expect("3,900,7,-;Out of memory: Killed process 12 (python3)", CRASH_UNKNOWN, 0);
	expect("6,1,9,-;python3[123]: segfault at 0 ip 0000 sp 0000 error 4 in x.so", CRASH_FAULT,
	       9);
	expect("6,1,9,-;traps: node[123] general protection fault ip:1 sp:2", CRASH_FAULT, 9);
	expect("6,1,9,-;traps: node[123] trap invalid opcode ip:1 sp:2", CRASH_FAULT, 9);
	expect("6,1,9,-;python3[1123]: segfault at 0", CRASH_UNKNOWN, 0);
	expect("6,1,9,-;eth0: link up", CRASH_UNKNOWN, 0);
	expect(" SUBSYSTEM=pci;", CRASH_UNKNOWN, 0);
	expect("", CRASH_UNKNOWN, 0);
	expect(";,,", CRASH_UNKNOWN, 0);
}

static void test_counters(void **state)
{
	(void)state;
	assert_int_equal(crash_read_oom_kills("low 0\nhigh 0\nmax 9\noom 1\noom_kill 3\n"), 3);
	assert_int_equal(crash_read_oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 12\n"),
			 12);
	assert_int_equal(crash_read_oom_kills("oom_kill 4"), 4);
	assert_int_equal(crash_read_oom_kills("oom_group_kill 4\n"), 0);
	assert_int_equal(crash_read_oom_kills("\n\n"), 0);
	assert_int_equal(crash_read_oom_kills(""), 0);
}

static void test_memory(void **state)
{
	struct crash_memory m = {0};

	(void)state;
	crash_read_memory("6,1,2,-;memory: usage 65536kB, limit 65536kB, failcnt 12", &m);
	crash_read_memory("3,2,3,-;Memory cgroup out of memory: Killed process 123 (python3) "
			  "total-vm:81920kB, anon-rss:61440kB, file-rss:1024kB, shmem-rss:0kB",
			  &m);
	crash_read_memory("6,3,4,-;kmem: usage 5kB, limit 9007199254740988kB, failcnt 0", &m);
	crash_read_memory("6,3,4,-;eth0: link up", &m);
	assert_int_equal(m.usage, 64 << 20);
	assert_int_equal(m.limit, 64 << 20);
	assert_int_equal(m.total, 80 << 20);
	assert_int_equal(m.resident, 61 << 20);
}

/* Figures are of the death that is told, and of no other one before it. */
static void test_memory_of_others(void **state)
{
	static const char *const lines[] = {
	    "4,9,9,-;python3 invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=0",
	    "6,9,9,-;python3[123]: segfault at 8 ip 00007f sp 00007f error 4 in libc.so.6",
	    "6,9,9,-;traps: node[123] general protection fault ip:1 sp:2",
	    "6,9,9,-;traps: node[123] trap invalid opcode ip:1 sp:2",
	    "6,9,9,-;python3[123]: bus error at 8",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		struct crash_memory m = {0};

		crash_read_memory("6,1,2,-;memory: usage 65536kB, limit 65536kB, failcnt 1", &m);
		crash_read_memory("3,2,3,-;Memory cgroup out of memory: Killed process 7 (a) "
				  "total-vm:81920kB, anon-rss:61440kB, file-rss:1024kB",
				  &m);
		crash_read_memory(lines[i], &m);
		assert_int_equal(m.limit | m.usage | m.total | m.resident, 0);
	}
}

static void test_pm2(void **state)
{
	(void)state;
	assert_true(
	    crash_is_ended_by_pm2("2026-01-31T10:00:00: PM2 log: pid=123 msg=process killed", 123));
	assert_false(crash_is_ended_by_pm2(
	    "2026-01-31T10:00:00: PM2 log: pid=1234 msg=process killed", 123));
	assert_false(crash_is_ended_by_pm2("PM2 | App [chroma:0] online", 123));
}

static void test_systemd(void **state)
{
	char out[160] = "";

	(void)state;
	assert_false(
	    crash_read_systemd("Started chromashim@docs.service - Chroma.", out, sizeof(out)));
	assert_false(crash_read_systemd("chromashim@docs.service: Control process exited, "
					"code=exited, status=1/FAILURE",
					out, sizeof(out)));
	assert_string_equal(out, "");
	assert_true(crash_read_systemd("chromashim@docs.service: State 'stop-sigterm' timed out. "
				       "Killing.",
				       out, sizeof(out)));
	assert_true(crash_read_systemd("chromashim@docs.service: Main process exited, code=killed, "
				       "status=9/KILL",
				       out, sizeof(out)));
	assert_string_equal(out, "systemd killed it, since it had not stopped in time; systemd: "
				 "code=killed, status=9/KILL");
	assert_true(crash_read_systemd("x: Main process exited, code=exited, status=3/"
				       "NOTIMPLEMENTED",
				       out, 90));
	assert_int_equal(strlen(out), 89);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_kernel_lines), cmocka_unit_test(test_counters),
	    cmocka_unit_test(test_memory),	 cmocka_unit_test(test_memory_of_others),
	    cmocka_unit_test(test_pm2),		 cmocka_unit_test(test_systemd),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
