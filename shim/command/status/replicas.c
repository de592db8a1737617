/* SPDX-License-Identifier: MIT
 *
 * What `chromashim status` says about replicas: how old the newest snapshot in each is.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "command/base/guard_settings.h"
#include "command/base/terminal.h"
#include "command/status/status.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/replica/state.h"

void status_gather_replicas(struct status *s)
{
	struct replica_targets *t = calloc(1, sizeof(*t));
	struct guard_settings settings;
	unsigned i;

	if (!t || s->data->storefd < 0) {
		free(t);
		return;
	}
	guard_settings_read(&settings, s->data->storefd);
	if (replica_targets_parse(t, config_get(&settings.config, CONFIG_REPLICA), NULL) == 0)
		s->replicas = calloc(t->count + 1, sizeof(*s->replicas));
	if (!s->replica_limit)
		config_read_time(config_get(&settings.config, CONFIG_REPLICA_LATE),
				 &s->replica_limit);
	guard_settings_free(&settings);
	s->replica_count = s->replicas ? t->count : 0;
	for (i = 0; i < s->replica_count; i++)
		replica_state_read(s->data->storefd, t->all[i].text, &s->replicas[i]);
	free(t);
}

uint64_t status_replica_oldest(const struct status *s)
{
	uint64_t oldest = UINT64_MAX;
	unsigned i;

	for (i = 0; i < s->replica_count; i++)
		oldest =
		    s->replicas[i].snapshot_time < oldest ? s->replicas[i].snapshot_time : oldest;
	return oldest == UINT64_MAX ? 0 : oldest;
}

bool status_replica_trouble(const struct status *s, unsigned i, char *out, size_t room)
{
	const struct replica_state *r = &s->replicas[i];
	uint64_t now = clock_read(CLOCK_REALTIME);
	/* One that has nothing yet: since there was something to send. What is in step with the
	 * newest snapshot here is as old as that may be. */
	uint64_t since = r->snapshot_time && !clock_was_ahead(r->snapshot_time, now)
			     ? r->snapshot_time
			     : s->snapshots.first;
	char age[24];

	if (!s->replica_limit || !since || since + s->replica_limit > now)
		return false;
	format_duration(age, sizeof(age), now - since);
	if (r->snapshot_time)
		snprintf(out, room, "the newest snapshot in replica %.80s is %s old%s%.60s",
			 r->target, age, r->error[0] ? ": " : "", r->error);
	else
		snprintf(out, room, "nothing is in replica %.80s%s%.60s", r->target,
			 r->error[0] ? ": " : "", r->error);
	return true;
}

void status_text_replicas(const struct status *s)
{
	uint64_t now = clock_read(CLOCK_REALTIME);
	char age[24];
	unsigned i;

	for (i = 0; i < s->replica_count; i++) {
		const struct replica_state *r = &s->replicas[i];

		printf("%s%-14s%s", terminal_colour(COLOUR_BOLD), i ? "" : "replica",
		       terminal_colour(COLOUR_PLAIN));
		terminal_put_text(stdout, r->target, strlen(r->target));
		if (r->snapshot_time)
			printf(
			    ": has snapshot %" PRIu64 ", %s old", r->snapshot,
			    format_duration(age, sizeof(age),
					    now > r->snapshot_time ? now - r->snapshot_time : 0));
		else
			fputs(": nothing is there yet", stdout);
		if (r->failures) {
			printf("; the last %" PRIu64 " attempts failed: ", r->failures);
			terminal_put_text(stdout, r->error, strlen(r->error));
		}
		putchar('\n');
	}
}

void status_json_replicas(struct json *j, const struct status *s)
{
	char time[40];
	unsigned i;

	json_key(j, "replicas");
	json_begin(j, '[');
	for (i = 0; i < s->replica_count; i++) {
		const struct replica_state *r = &s->replicas[i];

		json_begin(j, '{');
		json_put_text(j, "target", r->target);
		json_put_uint(j, "snapshot", r->snapshot);
		json_put_text(j, "snapshot_time",
			      r->snapshot_time
				  ? format_time_utc(time, sizeof(time), r->snapshot_time)
				  : NULL);
		json_put_uint(j, "failures", r->failures);
		json_put_text(j, "error", r->error);
		json_end(j, '}');
	}
	json_end(j, ']');
}
