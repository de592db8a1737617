/* SPDX-License-Identifier: MIT
 *
 * What `chromashim status` says about drills.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "command/base/terminal.h"
#include "command/guard/guardian.h"
#include "command/status/status.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/store/drill.h"

#define DAY (24 * 3600 * SECOND)

void status_gather_drill(struct status *s)
{
	struct guard_settings settings;

	s->drill = calloc(1, sizeof(*s->drill));
	if (!s->drill || s->data->storefd < 0)
		return;
	drill_note_read(s->data->storefd, DRILL_NAME, s->drill);
	s->replica_drill = calloc(1, sizeof(*s->replica_drill));
	if (s->replica_drill)
		drill_note_read(s->data->storefd, DRILL_REPLICA_NAME, s->replica_drill);
	guard_settings_read(&settings, s->data->storefd);
	if (!s->drill_limit && settings.drill)
		s->drill_limit = 2 * settings.drill + DAY;
	guard_settings_free(&settings);
}

static bool has_failed(const struct drill_note *n, char *out, size_t room)
{
	if (!n || n->outcome != DRILL_FAILED)
		return false;
	snprintf(out, room, "the drill with snapshot %" PRIu64 " failed: %.140s", n->snapshot,
		 n->trouble);
	return true;
}

bool status_drill_trouble(const struct status *s, char *out, size_t room, bool *failed)
{
	uint64_t now = clock_read(CLOCK_REALTIME), since;
	char age[24];

	*failed = has_failed(s->drill, out, room) || has_failed(s->replica_drill, out, room);
	if (*failed)
		return true;
	/* Without one: since there was something to try it with. */
	since = s->drill && s->drill->good && !clock_was_ahead(s->drill->good, now)
		    ? s->drill->good
		    : s->snapshots.first;
	if (!s->drill_limit || !since || since + s->drill_limit > now)
		return false;
	format_duration(age, sizeof(age), now - since);
	if (s->drill && s->drill->good)
		snprintf(out, room, "the last good drill is %s old (chromashim drill)", age);
	else
		snprintf(out, room, "no snapshot was ever tried by a drill (chromashim drill)");
	return true;
}

static void text_drill(const struct drill_note *n, const char *label)
{
	static const char *const outcomes[] = {"", "good", "failed", "could not be tried"};
	uint64_t now = clock_read(CLOCK_REALTIME);
	char age[24], took[24];

	if (!n || !n->time)
		return;
	printf("%s%-14s%s", terminal_colour(COLOUR_BOLD), label, terminal_colour(COLOUR_PLAIN));
	printf("%s, %s ago, with snapshot %" PRIu64, outcomes[n->outcome & 3],
	       format_duration(age, sizeof(age), now > n->time ? now - n->time : 0), n->snapshot);
	if (n->restore_ns)
		printf("; a restore takes %s",
		       format_duration(took, sizeof(took), n->restore_ns + n->check_ns));
	if (n->chroma[0])
		printf("; Chroma %s gave %" PRIu64 " records as they are", n->chroma, n->compared);
	putchar('\n');
	if (n->trouble[0]) {
		printf("%14s", "");
		terminal_put_text(stdout, n->trouble, strlen(n->trouble));
		putchar('\n');
	}
}

void status_text_drill(const struct status *s)
{
	text_drill(s->drill, "drill");
	text_drill(s->replica_drill, "from replica");
}

void status_json_drill(struct json *j, const struct status *s)
{
	static const char *const outcomes[] = {"none", "good", "failed", "skipped"};
	const struct drill_note *n = s->drill;
	char time[40];

	json_key(j, "drill");
	if (!n || !n->time) {
		json_null(j);
		return;
	}
	json_begin(j, '{');
	json_put_text(j, "time", format_time_utc(time, sizeof(time), n->time));
	json_put_text(j, "outcome", outcomes[n->outcome & 3]);
	json_put_text(j, "last_good",
		      n->good ? format_time_utc(time, sizeof(time), n->good) : NULL);
	json_put_uint(j, "snapshot", n->snapshot);
	json_put_uint(j, "restore_ns", n->restore_ns);
	json_put_uint(j, "check_ns", n->check_ns);
	json_put_uint(j, "open_ns", n->open_ns);
	json_put_text(j, "chroma", n->chroma);
	json_put_uint(j, "compared", n->compared);
	json_put_uint(j, "damaged_chunks", n->damaged);
	json_put_text(j, "trouble", n->trouble);
	json_end(j, '}');
}
