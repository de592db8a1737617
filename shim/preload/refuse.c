/* SPDX-License-Identifier: MIT
 *
 * How a refusal is said: a line to stderr and a record.
 */
#include "preload/refuse.h"

#include <string.h>

#include "preload/shim.h"

#define QUIET UINT64_C(10000000000) /* ns between two lines of a kind */
#define KINDS 4

static _Atomic uint64_t last_said[AREAS][KINDS];

/* Hosts try again and again; once in a while is enough for a reader. */
static bool is_due(unsigned area, enum oplog_op op)
{
	_Atomic uint64_t *last = &last_said[area][op % KINDS];
	uint64_t before = atomic_load(last), now = oplog_now();

	return (!before || now - before > QUIET) &&
	       atomic_compare_exchange_strong(last, &before, now);
}

void refuse_say(const struct change *c, enum oplog_op op, int error, const char *const parts[])
{
	char line[1536];
	size_t n = 0, i;
	struct oplog_record r = {.op = (uint16_t)op,
				 .file = c->slot.name,
				 .offset = c->offset,
				 .length = c->length,
				 .arg = c->op,
				 .result = error};

	for (i = 0; parts[i]; i++) {
		size_t length = strlen(parts[i]);

		if (length > sizeof(line) - 1 - n)
			length = sizeof(line) - 1 - n;
		memcpy(line + n, parts[i], length);
		n += length;
	}
	line[n] = '\0';
	if (is_due(c->slot.area, op))
		shim_say(line, NULL);
	record_put(c->slot.area, &r, line, n);
}
