/* SPDX-License-Identifier: MIT
 *
 * Which snapshots are kept. The rules and their meaning are restic's: they are or-ed; each keeps
 * the newest of every one of the last N hours, days, weeks (from Monday), months or years that have
 * a snapshot, and the oldest of all if it has counts left then; a snapshot from the future stays.
 * On top of them: one that is held stays, and so does the newest verified one.
 *
 * A broken snapshot takes no other's place: only `within` and a hold keep it, and the newest broken
 * one stays a week, for its reason to be read. Nobody is asked before the guardian
 * removes something: what was taken by hand is then left alone for three months.
 */
#ifndef CORE_RETENTION_H
#define CORE_RETENTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum retention_rule {
	RETENTION_LAST,
	RETENTION_HOURLY,
	RETENTION_DAILY,
	RETENTION_WEEKLY,
	RETENTION_MONTHLY,
	RETENTION_YEARLY,
};
#define RETENTION_RULES 6
#define RETENTION_ALL (-1) /* as a count */

/* Further reasons, behind those of the rules. */
#define RETENTION_WITHIN (1u << RETENTION_RULES)
#define RETENTION_HELD (2u << RETENTION_RULES)
#define RETENTION_LAST_VERIFIED (4u << RETENTION_RULES)
#define RETENTION_FUTURE (8u << RETENTION_RULES)
#define RETENTION_NO_RULE (16u << RETENTION_RULES) /* the policy has none */
#define RETENTION_BY_HAND (32u << RETENTION_RULES)
#define RETENTION_LAST_BROKEN (64u << RETENTION_RULES)

struct retention_policy {
	int64_t count[RETENTION_RULES]; /* 0: no such rule */
	uint64_t within;		/* ns before the newest, 0: no such rule */
	uint64_t now;			/* ns, CLOCK_REALTIME */
	bool unasked;			/* the guardian's */
};

struct retention_item {
	uint64_t time;
	bool held, verified, broken, by_hand;
	unsigned reasons; /* out: 1 << rule, or the above; 0: goes */
};

/* By number, which is the order of their taking whatever the clock did. Days are local time's. */
void retention_apply(const struct retention_policy *policy, struct retention_item *items,
		     size_t count);

/* Whether it has a rule at all. */
bool retention_has_rule(const struct retention_policy *policy);

/* "last", "hourly", …, for the lowest bit of reasons. */
const char *retention_reason(unsigned reasons);

#endif
