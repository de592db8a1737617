/* SPDX-License-Identifier: MIT
 *
 * What the guardian goes by: the environment, then chromashim.conf in the store.
 */
#ifndef COMMAND_GUARD_SETTINGS_H
#define COMMAND_GUARD_SETTINGS_H

#include "command/base/snapshots.h"
#include "core/settings/config.h"

struct guard_settings {
	uint64_t every; /* ns between snapshots by the clock, 0: none */
	uint64_t drill; /* ns between drills, 0: none */
	uint64_t rate;	/* bytes a second while copying, 0: as fast as it goes */
	struct prune_rules prune;
	const char *hook;   /* a program, NULL: none */
	unsigned warn_full; /* percent, 0: it is not told */
	uint64_t undo_size; /* bytes that pins may save, 0: as much as half of what is free */
	struct config config;
};

/* What cannot be understood is said, and its default taken. */
void guard_settings_read(struct guard_settings *s, int storefd);
/* "last=3 daily=7", as CHROMASHIM_KEEP. False: it is no list of rules. */
bool guard_settings_parse_keep(struct retention_policy *p, const char *text);
void guard_settings_free(struct guard_settings *s);

#endif
