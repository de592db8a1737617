/* SPDX-License-Identifier: MIT
 *
 * What `chromashim status` says about snapshots and the guardian.
 */
#include <inttypes.h>
#include <string.h>

#include "command/base/guard_lock.h"
#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "command/status/status.h"
#include "core/base/clock.h"
#include "core/base/json.h"

void status_gather_snapshots(struct status *s)
{
	struct status_snapshots *n = &s->snapshots;
	struct snapshots all = {.data = *s->data, .pins = {.dirfd = -1}, .only_heads = true};
	struct guard_settings settings;
	uint64_t since, now = clock_read(CLOCK_REALTIME);
	size_t i;

	if (s->data->storefd < 0)
		return;
	guard_settings_read(&settings, s->data->storefd);
	n->every = settings.every;
	if (!n->limit)
		n->limit = guard_snapshot_limit(&settings);
	guard_settings_free(&settings);
	n->guardian = guard_is_running(s->data->storefd);
	n->guardian_died = s->protected_size && guard_has_died(s->data->storefd);
	n->guardian_stopped = n->guardian > 0 && guard_is_stopped(s->data->storefd);
	n->guardian_fence = n->guardian > 0 && guardian_keeps_fence(s->data->dirfd);
	if (n->guardian_died)
		guardian_report_death(s->data);
	if (snapshots_load(&all, SNAPSHOT_LOOK, false, 0) < 0)
		return;
	for (i = 0; i < all.count; i++) {
		const struct snapshot_header *h = &all.list[i].header;

		n->count++;
		n->pinned += h->state == SNAPSHOT_PINNED || h->state == SNAPSHOT_HYDRATING;
		n->broken += h->state == SNAPSHOT_BROKEN;
		n->verified += h->state == SNAPSHOT_VERIFIED;
		if (clock_was_ahead(h->time, now))
			continue;
		n->first = n->first && n->first < h->time ? n->first : h->time;
		if (h->state == SNAPSHOT_VERIFIED && h->time > n->newest) {
			n->newest = h->time;
			n->newest_id = h->id;
		}
	}
	snapshots_unload(&all);
	/* The first one is not verified at once. */
	since = n->newest ? n->newest : n->first;
	n->is_old = n->count && n->limit && since + n->limit < now;
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
	json_key(j, "guardian_stopped");
	json_bool(j, n->guardian_stopped);
	json_key(j, "guardian_fence");
	json_bool(j, n->guardian_fence);
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
	uint64_t now = clock_read(CLOCK_REALTIME);
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
		       format_duration(age, sizeof(age), now > n->newest ? now - n->newest : 0),
		       n->is_old ? ", which is too much" : "");
	else if (n->verified)
		fputs(", all of a time that is still to come: the clock was set back", stdout);
	putchar('\n');
	snapshots_tell_kept(s->data, "removed       ");
	printf("%-14s", "guardian");
	if (n->guardian_stopped)
		printf("pid %d, which a signal has stopped: `kill -CONT %d`\n", n->guardian,
		       n->guardian);
	else if (n->guardian > 0)
		printf("pid %d%s\n", n->guardian,
		       n->guardian_fence ? ", which keeps the fence until somebody writes" : "");
	else if (n->guardian)
		puts("one is about to take over");
	else
		printf("none is running%s\n",
		       n->guardian_died ? ", the last one was killed: `chromashim guard`"
		       : s->protected_size || s->others_size ? ": `chromashim guard`"
							     : "");
}
