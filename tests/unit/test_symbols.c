/* SPDX-License-Identifier: MIT
 *
 * Names of errors and signals are libc's, where it has such functions.
 */
#include "core/base/symbols.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

static void assert_same(const char *ours, const char *theirs)
{
	assert_true(!ours == !theirs);
	if (ours)
		assert_string_equal(ours, theirs);
}

static void test_numbers_without_a_name(void **state)
{
	(void)state;
	assert_null(symbol_of_error(0));
	assert_null(symbol_of_error(-ENOENT));
	assert_null(symbol_of_error(4095));
	assert_null(symbol_of_signal(0));
	assert_null(symbol_of_signal(SIGRTMIN));
	assert_null(symbol_of_signal(-1));
	assert_string_equal(symbol_of_error(ENOENT), "ENOENT");
	assert_string_equal(symbol_of_signal(SIGKILL), "KILL");
}

static void test_all_are_as_libc_has_them(void **state)
{
	int i;

	(void)state;
	for (i = 1; i < 4096; i++)
		assert_same(symbol_of_error(i), strerrorname_np(i));
	for (i = 1; i < 32; i++)
		assert_same(symbol_of_signal(i), sigabbrev_np(i));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_numbers_without_a_name),
	    cmocka_unit_test(test_all_are_as_libc_has_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
