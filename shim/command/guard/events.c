/* SPDX-License-Identifier: MIT
 *
 * What others have left for the guardian to tell.
 */
#include <inttypes.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "command/guard/guardian.h"
#include "core/base/clock.h"
#include "core/store/events.h"

void guardian_tell_others(struct guardian *g)
{
	struct store_event *all = NULL;
	struct stat st;
	uint64_t changed;
	int n, i;

	if (fstatat(g->s.data.storefd, EVENTS_NAME, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	changed = (uint64_t)st.st_mtim.tv_sec * SECOND + (uint64_t)st.st_mtim.tv_nsec;
	if (changed == g->events_seen)
		return;
	g->events_seen = changed;
	n = events_list(g->s.data.storefd, &all);
	for (i = 0; i < n; i++) {
		if (all[i].told)
			continue;
		guardian_pass_on(g, all[i].name, all[i].snapshot, all[i].text);
		events_set_told(g->s.data.storefd, &all[i]);
	}
	free(all);
}
