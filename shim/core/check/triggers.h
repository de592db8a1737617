/* SPDX-License-Identifier: MIT
 *
 * Triggers on Chroma's tables, of which it makes none.
 */
#ifndef CORE_TRIGGERS_H
#define CORE_TRIGGERS_H

#include <sqlite3.h>

struct trigger {
	const char *name, *table, *sql; /* lent */
};
typedef int trigger_fn(void *context, const struct trigger *trigger);

/* Those that make a write of Chroma's fail, or change its tables besides. Ends at what `each`
 * returns other than 0. */
int triggers_each_harmful(sqlite3 *db, trigger_fn *each, void *context);

#endif
