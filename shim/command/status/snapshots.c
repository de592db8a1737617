/* SPDX-License-Identifier: MIT
 *
 * What `chromashim status` says about snapshots and the guardian.
 */
#include <inttypes.h>
#include <string.h>

#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "command/status/status.h"
#include "core/base/clock.h"
#include "core/base/json.h"

#define HOUR UINT64_C(3600000000000)

void status_gather_snapshots(struct status *s)
{
	struct status_snapshots *n = &s->snapshots;
	struct snapshots all = {.target = *s->target, .pins = {.dirfd = -1}};
	struct guard_settings settings;
	size_t i;

	if (s->target->storefd < 0)
		return;
	guard_settings_read(&settings, s->target->storefd);
	n->every = settings.every;
	guard_settings_free(&settings);
	n->guardian = guard_is_running(s->target->storefd);
	n->guardian_died = s->protected_size && guard_has_died(s->target->storefd);
	if (n->guardian_died)
		guardian_report_death(s->target->storefd);
	if (snapshots_load(&all, SNAPSHOT_LOOK, false, 0) < 0)
		return;
	for (i = 0; i < all.count; i++) {
		const struct snapshot_header *h = &all.list[i].header;

		n->count++;
		n->pinned += h->state == SNAPSHOT_PINNED || h->state == SNAPSHOT_HYDRATING;
		n->broken += h->state == SNAPSHOT_BROKEN;
		n->verified += h->state == SNAPSHOT_VERIFIED;
		if (h->state == SNAPSHOT_VERIFIED && h->time > n->newest) {
			n->newest = h->time;
			n->newest_id = h->id;
		}
	}
	snapshots_unload(&all);
	n->is_old =
	    n->count && n->every && n->newest + 2 * n->every + HOUR < clock_read(CLOCK_REALTIME);
}

void status_json_snapshots(struct json *j, const struct status *s)
{
	const struct status_snapshots *n = &s->snapshots;
	char text[40];

	json_key(j, "guardian");
	if (n->guardian)
		json_uint(j, n->guardian > 0 ? (uint64_t)n->guardian : 0);
	else
		json_null(j);
	json_key(j, "guardian_died");
	json_bool(j, n->guardian_died);
	json_key(j, "snapshots");
	json_begin(j, '{');
	json_key(j, "count");
	json_uint(j, n->count);
	json_key(j, "pinned");
	json_uint(j, n->pinned);
	json_key(j, "verified");
	json_uint(j, n->verified);
	json_key(j, "broken");
	json_uint(j, n->broken);
	json_key(j, "newest_verified");
	json_string(j, n->newest ? format_time_utc(text, sizeof(text), n->newest) : NULL);
	json_key(j, "old");
	json_bool(j, n->is_old);
	json_end(j, '}');
}

void status_text_snapshots(const struct status *s)
{
	const struct status_snapshots *n = &s->snapshots;
	char age[24];

	printf("%s%-14s%s", terminal_colour(COLOUR_BOLD), "snapshots",
	       terminal_colour(COLOUR_PLAIN));
	if (!n->count)
		fputs("none yet", stdout);
	else
		printf("%u, %u verified", n->count, n->verified);
	if (n->pinned)
		printf(", %u still to be copied", n->pinned);
	if (n->broken)
		printf(", %u broken", n->broken);
	if (n->newest)
		printf("; the newest verified one is %s old%s",
		       format_duration(age, sizeof(age), clock_read(CLOCK_REALTIME) - n->newest),
		       n->is_old ? ", which is too much" : "");
	putchar('\n');
	snapshots_tell_kept(s->target, "removed       ");
	printf("%-14s", "guardian");
	if (n->guardian > 0)
		printf("pid %d\n", n->guardian);
	else if (n->guardian)
		puts("one is about to take over");
	else
		printf("none is running%s\n",
		       n->guardian_died ? ", the last one was killed: `chromashim guard`"
		       : s->protected_size || s->others_size ? ": `chromashim guard`"
							     : "");
}

void status_check_snapshots(const struct status *s)
{
	char age[24];

	if (s->snapshots.guardian_died)
		printf(", the guardian was killed: nothing is copied or verified "
		       "(chromashim guard)");
	if (s->snapshots.is_old && s->snapshots.newest)
		printf(", the newest verified snapshot is %s old",
		       format_duration(age, sizeof(age),
				       clock_read(CLOCK_REALTIME) - s->snapshots.newest));
	else if (s->snapshots.is_old)
		printf(", no snapshot is verified");
}
