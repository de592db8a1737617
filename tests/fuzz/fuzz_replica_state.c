/* SPDX-License-Identifier: MIT
 *
 * Property: the state of a replica, and the list of places in the setting, are read or refused
 * without leaving their bytes, and texts that come out end where they should. The checksum is made
 * to fit, else nothing would get past it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/checksum.h"
#include "core/replica/state.h"

#define SEED UINT64_C(0x5441545352534843)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_state(uint8_t *copy, size_t size)
{
	struct replica_state state;
	uint64_t check;

	if (size >= sizeof(check)) {
		check = checksum64(copy, size - sizeof(check), SEED);
		memcpy(copy + size - sizeof(check), &check, sizeof(check));
	}
	if (replica_state_parse(&state, copy, size) == 0 &&
	    (strnlen(state.target, sizeof(state.target)) == sizeof(state.target) ||
	     strnlen(state.error, sizeof(state.error)) == sizeof(state.error)))
		abort();
}

static void read_targets(const char *text)
{
	static struct replica_targets targets;
	char wrong[REPLICA_TARGET_SIZE];
	unsigned i;

	if (replica_targets_parse(&targets, text, wrong) < 0)
		return;
	for (i = 0; i < targets.count; i++)
		if (!targets.all[i].path[0] || targets.all[i].host[0] == '-')
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);

	if (!copy)
		return 0;
	if (size)
		memcpy(copy, data, size);
	copy[size] = 0;
	read_targets((const char *)copy);
	read_state(copy, size);
	free(copy);
	return 0;
}
