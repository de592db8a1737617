/* SPDX-License-Identifier: MIT
 *
 * Which snapshots are kept.
 */
#include "core/snapshot/retention.h"

#include <time.h>

#include "core/base/clock.h"

#define DAY (86400 * SECOND)
#define BROKEN_STAYS (7 * DAY)
#define BY_HAND_STAYS (90 * DAY)

bool retention_has_rule(const struct retention_policy *policy)
{
	unsigned i;

	for (i = 0; i < RETENTION_RULES; i++)
		if (policy->count[i])
			return true;
	return policy->within != 0;
}

const char *retention_reason(unsigned reasons)
{
	static const char *const names[] = {
	    "last", "hourly",	     "daily",  "weekly",  "monthly",	   "yearly",	 "within",
	    "held", "last verified", "future", "no rule", "taken by hand", "last broken"};

	return reasons ? names[__builtin_ctz(reasons)] : "";
}

/* The year and week that a day counts to, by ISO 8601: weeks begin on Monday. */
static int64_t iso_week(const struct tm *tm)
{
	char text[16];
	int64_t value = 0;
	const char *p;

	strftime(text, sizeof(text), "%G%V", tm);
	for (p = text; *p; p++)
		value = value * 10 + (*p - '0');
	return value;
}

/* What two snapshots of the same period have in common. */
static int64_t period_of(enum retention_rule rule, uint64_t time, size_t number)
{
	time_t seconds = (time_t)(time / SECOND);
	int64_t day;
	struct tm tm;

	localtime_r(&seconds, &tm);
	day = ((int64_t)tm.tm_year * 12 + tm.tm_mon) * 31 + tm.tm_mday;
	switch (rule) {
	case RETENTION_HOURLY:
		return day * 24 + tm.tm_hour;
	case RETENTION_DAILY:
		return day;
	case RETENTION_WEEKLY:
		return iso_week(&tm);
	case RETENTION_MONTHLY:
		return (int64_t)tm.tm_year * 12 + tm.tm_mon;
	case RETENTION_YEARLY:
		return tm.tm_year;
	case RETENTION_LAST:
	default:
		return (int64_t)number;
	}
}

static uint64_t newest_time(const struct retention_policy *policy,
			    const struct retention_item *items, size_t count)
{
	uint64_t newest = 0;
	size_t i;

	for (i = 0; i < count; i++)
		if (items[i].time > newest && items[i].time <= policy->now)
			newest = items[i].time;
	return newest;
}

static void apply_rule(const struct retention_policy *policy, enum retention_rule rule,
		       struct retention_item *items, size_t count)
{
	int64_t left = policy->count[rule], last = -1;
	size_t i, oldest = count;

	for (i = count; i-- > 0;)
		if (!items[i].broken)
			oldest = i;
	for (i = count; i-- > 0 && left != 0;) {
		int64_t period = period_of(rule, items[i].time, i);

		if (items[i].broken || (period == last && i != oldest))
			continue;
		items[i].reasons |= 1u << rule;
		last = period;
		left -= left > 0;
	}
}

static void keep_last_verified(struct retention_item *items, size_t count)
{
	while (count-- > 0) {
		if (!items[count].verified)
			continue;
		items[count].reasons |= RETENTION_LAST_VERIFIED;
		return;
	}
}

static void keep_last_broken(const struct retention_policy *policy, struct retention_item *items,
			     size_t count)
{
	while (count-- > 0) {
		if (!items[count].broken)
			continue;
		if (items[count].time + BROKEN_STAYS > policy->now)
			items[count].reasons |= RETENTION_LAST_BROKEN;
		return;
	}
}

void retention_apply(const struct retention_policy *policy, struct retention_item *items,
		     size_t count)
{
	uint64_t newest = newest_time(policy, items, count);
	bool any = retention_has_rule(policy);
	unsigned rule;
	size_t i;

	for (i = 0; i < count; i++) {
		items[i].reasons = any ? 0 : RETENTION_NO_RULE;
		if (items[i].held)
			items[i].reasons |= RETENTION_HELD;
		if (items[i].time > policy->now)
			items[i].reasons |= RETENTION_FUTURE;
		if (policy->unasked && items[i].by_hand && !items[i].broken &&
		    items[i].time + BY_HAND_STAYS > policy->now)
			items[i].reasons |= RETENTION_BY_HAND;
		if (policy->within &&
		    (policy->within > newest || items[i].time > newest - policy->within))
			items[i].reasons |= RETENTION_WITHIN;
	}
	for (rule = 0; rule < RETENTION_RULES; rule++)
		apply_rule(policy, (enum retention_rule)rule, items, count);
	keep_last_verified(items, count);
	keep_last_broken(policy, items, count);
}
