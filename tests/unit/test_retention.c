/* SPDX-License-Identifier: MIT
 *
 * Retention against a straightforward reading of restic's rules: for each rule, go back from the
 * newest and keep whatever begins a period that the one before it (later in time) was not in.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "core/snapshot/retention.h"

#define SECOND UINT64_C(1000000000)
#define DAY (86400 * SECOND)
#define START (UINT64_C(1767225600) * SECOND) /* 2026-01-01, a Thursday */
#define ITEMS 60

static uint64_t seed = 1;

static uint64_t random_below(uint64_t n)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (seed >> 33) % n;
}

/* The period as text, as restic's documentation has it. */
static void name_period(unsigned rule, uint64_t time, size_t number, char out[32])
{
	static const char *const forms[] = {"", "%Y-%m-%d %H", "%Y-%m-%d", "%G-%V", "%Y-%m", "%Y"};
	time_t seconds = (time_t)(time / SECOND);
	struct tm tm;

	localtime_r(&seconds, &tm);
	if (rule == RETENTION_LAST)
		snprintf(out, 32, "%zu", number);
	else
		strftime(out, 32, forms[rule], &tm);
}

static bool oracle_rule(const struct retention_policy *p, unsigned rule,
			const struct retention_item *items, size_t count, size_t which)
{
	int64_t left = p->count[rule];
	char last[32] = "", here[32];
	size_t i, oldest = 0;

	while (oldest < count && items[oldest].broken)
		oldest++;
	for (i = count; i-- > 0;) {
		if (items[i].broken || left == 0)
			continue;
		name_period(rule, items[i].time, i, here);
		if (strcmp(here, last) == 0 && i != oldest)
			continue;
		strcpy(last, here);
		left -= left > 0;
		if (i == which)
			return true;
	}
	return false;
}

static bool oracle(const struct retention_policy *p, const struct retention_item *items,
		   size_t count, size_t which)
{
	uint64_t newest = 0;
	bool last_verified = items[which].verified, last_broken = items[which].broken;
	unsigned rule;
	size_t i;

	for (i = 0; i < count; i++)
		if (items[i].time <= p->now && items[i].time > newest)
			newest = items[i].time;
	for (i = which + 1; i < count; i++)
		last_verified = last_verified && !items[i].verified;
	for (i = which + 1; i < count; i++)
		last_broken = last_broken && !items[i].broken;
	if (items[which].held || last_verified || items[which].time > p->now)
		return true;
	if (last_broken && p->now - items[which].time < 7 * DAY)
		return true;
	if (p->unasked && items[which].by_hand && !items[which].broken &&
	    p->now - items[which].time < 90 * DAY)
		return true;
	if (p->within && items[which].time + p->within > newest)
		return true;
	for (rule = 0; rule < RETENTION_RULES; rule++)
		if (oracle_rule(p, rule, items, count, which))
			return true;
	return false;
}

static size_t make_items(struct retention_item *items)
{
	size_t count = (size_t)random_below(ITEMS + 1), i;
	uint64_t time = START + random_below(400) * DAY, step = 1 + random_below(5 * DAY);

	for (i = 0; i < count; i++) {
		/* Now and then the clock is put back. */
		time += random_below(20) ? random_below(step) : 0;
		time -= random_below(30) ? 0 : random_below(2 * DAY);
		items[i] = (struct retention_item){.time = time,
						   .held = random_below(15) == 0,
						   .verified = random_below(2) == 0,
						   .by_hand = random_below(5) == 0};
		items[i].broken = !items[i].verified && random_below(4) == 0;
	}
	return count;
}

static void test_oracle(void **state)
{
	struct retention_item items[ITEMS];
	int round;

	(void)state;
	for (round = 0; round < 4000; round++) {
		struct retention_policy p = {.within = random_below(3) ? 0 : random_below(60) * DAY,
					     .unasked = random_below(2) == 0};
		size_t count = make_items(items), i;
		unsigned rule;

		for (rule = 0; rule < RETENTION_RULES; rule++)
			p.count[rule] = random_below(2) ? 0 : (int64_t)random_below(8) - 1;
		if (!retention_has_rule(&p))
			continue;
		p.now = count ? items[count - 1].time + SECOND - random_below(3) * DAY : START;
		retention_apply(&p, items, count);
		for (i = 0; i < count; i++)
			if ((items[i].reasons != 0) != oracle(&p, items, count, i))
				fail_msg("round %d, item %zu of %zu: reasons %x", round, i, count,
					 items[i].reasons);
	}
}

/* What restic's manual shows: a snapshot a day, --keep-last, --keep-weekly. */
static void test_example(void **state)
{
	struct retention_policy p = {.now = START + 400 * DAY};
	struct retention_item items[20];
	unsigned kept = 0;
	size_t i;

	(void)state;
	for (i = 0; i < 20; i++) /* Thursday 1st to Tuesday 20th of January */
		items[i] = (struct retention_item){.time = START + i * DAY + DAY / 2};
	p.count[RETENTION_LAST] = 1;
	p.count[RETENTION_WEEKLY] = 2;
	retention_apply(&p, items, 20);
	for (i = 0; i < 20; i++)
		kept += items[i].reasons != 0;
	assert_int_equal(kept, 2);
	assert_int_equal(items[19].reasons, 1 << RETENTION_LAST | 1 << RETENTION_WEEKLY);
	assert_int_equal(items[17].reasons, 1 << RETENTION_WEEKLY); /* Sunday the 18th */
}

static void test_never_all(void **state)
{
	struct retention_policy p = {.now = START};
	struct retention_item items[3] = {{.time = 1, .verified = true}, {.time = 2}, {.time = 3}};

	(void)state;
	/* No rule: nothing goes. */
	retention_apply(&p, items, 3);
	assert_int_equal(items[1].reasons, RETENTION_NO_RULE);
	p.count[RETENTION_LAST] = 1;
	retention_apply(&p, items, 3);
	assert_int_equal(items[0].reasons, RETENTION_LAST_VERIFIED);
	assert_int_equal(items[1].reasons, 0);
	assert_string_equal(retention_reason(items[0].reasons), "last verified");
	retention_apply(&p, items, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_oracle),
	    cmocka_unit_test(test_example),
	    cmocka_unit_test(test_never_all),
	};

	setenv("TZ", "Europe/Berlin", 1);
	tzset();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
