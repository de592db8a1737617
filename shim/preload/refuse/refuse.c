/* SPDX-License-Identifier: MIT
 *
 * How a refusal is said: a line to stderr and a record.
 */
#include "preload/refuse/refuse.h"

#include <fcntl.h>
#include <string.h>

#include "preload/base/shim.h"

#define QUIET UINT64_C(10000000000) /* ns between two lines of a kind */
#define KINDS 4

static _Atomic uint64_t last_said[PROTECTIONS][KINDS];

/* Hosts try again and again; once in a while is enough for a reader. */
static bool is_due(unsigned protection, enum oplog_op op)
{
	_Atomic uint64_t *last = &last_said[protection][op % KINDS];
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
	if (is_due(c->slot.protection, op))
		shim_say(line, NULL);
	record_put(c->slot.protection, &r, line, n);
}

int failure_check(const struct change *c)
{
	const struct protection *a = protection_of(c->slot);

	if (!a->failed || !settings.closed || c->slot.role != ROLE_DATABASE)
		return 0;
	if ((c->op != OP_OPEN && c->op != OP_OPENAT && c->op != OP_CREAT) ||
	    ((c->flags & O_ACCMODE) == O_RDONLY && !(c->flags & (O_CREAT | O_TRUNC))))
		return 0;
	refuse_say(
	    c, OP_NOTE, -EIO,
	    (const char *const[]){a->spelling[0], "/", name_text(name_get(c->slot.name)),
				  ": opening for writing is refused: the store cannot be used "
				  "and CHROMASHIM_ON_FAILURE=closed. Make the store "
				  "writable, or set CHROMASHIM_STORE, and restart.",
				  NULL});
	return -EIO;
}
