/* SPDX-License-Identifier: MIT
 *
 * `chromashim recover --undelete`: which deleted collections there are, and which shall come back.
 */
#ifndef COMMAND_UNDELETE_H
#define COMMAND_UNDELETE_H

#include "command/base/snapshots.h"
#include "core/recover/recover.h"

struct undelete {
	bool is_wanted;
	const char *which; /* a segment, its beginning, or "all"; NULL: only list them */
	struct recover_undelete_options options;
	struct leftover *list;
	size_t count;
	struct snapshots *loaded; /* for this alone */
};

/* Takes one of its options: 0 undelete, 1 name, 2 space; others are not its. False: said why not.
 */
bool undelete_take(struct undelete *u, int option, const char *value);
/* What the user asked for makes sense; else false, after saying why. */
bool undelete_is_sound(const struct undelete *u);

/*
 * Looks for them, and lists those that are meant if that is all that is wanted (also in a dry run).
 * 0: u->options says what comes back, the list being told; else the exit status.
 */
int undelete_find(struct undelete *u, struct snapshots *s, const struct snapshot_flags *flags);
static inline bool undelete_only_lists(const struct undelete *u, const struct snapshot_flags *flags)
{
	return u->is_wanted && (!u->which || flags->dry);
}
void undelete_free(struct undelete *u);

#endif
