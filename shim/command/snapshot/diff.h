/* SPDX-License-Identifier: MIT
 *
 * The parts of `chromashim snapshot diff`.
 */
#ifndef COMMAND_DIFF_H
#define COMMAND_DIFF_H

#include "command/base/snapshots.h"

/* b NULL: what is in the directory now. collection: a name or id, NULL all. The exit status. */
int diff_records(struct snapshots *s, const struct manifest *a, const struct manifest *b,
		 const char *collection, bool as_json);

#endif
