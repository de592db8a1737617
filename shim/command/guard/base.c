/* SPDX-License-Identifier: MIT
 *
 * The guardian's base: the pin of its last snapshot, held on to where the next one is near, so that
 * it reads only what has changed. It costs what pins cost: each block is saved once before it is
 * overwritten.
 */
#include <string.h>

#include "command/guard/guardian.h"
#include "core/base/clock.h"
#include "core/pin/base.h"

#define NEAR (600 * SECOND)
#define SAVED_MAX (UINT64_C(64) << 20) /* and half the database; then reading all is as good */

bool guardian_holds_on(const struct guardian *g)
{
	return g->settings.every && g->settings.every <= NEAR && !g->gone && !g->once;
}

/* All of pins' room is for what is not copied yet. */
static bool is_too_dear(const struct pins *pins, const struct pin_slot *base)
{
	uint64_t saved = __atomic_load_n(&pins->state->saved, __ATOMIC_SEQ_CST),
		 limit = __atomic_load_n(&pins->state->limit, __ATOMIC_SEQ_CST);

	return saved > SAVED_MAX + base->database_size / 2 || (limit && saved > limit / 4);
}

void guardian_look_at_base(struct guardian *g, struct pins *pins)
{
	const struct pin_slot *base = pins_find_base(pins);

	if (!base || (guardian_holds_on(g) && !is_too_dear(pins, base)))
		return;
	pins_drop_base(pins);
	g->swept = false;
}
