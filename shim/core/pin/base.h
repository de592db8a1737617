/* SPDX-License-Identifier: MIT
 *
 * What has changed between two pins: an older one that is held on to (its snapshot is whole
 * already), and a newer one. What was saved for the older one, and before the newer one was taken,
 * is all that was written between them; whatever else is as it was.
 */
#ifndef CORE_PIN_BASE_H
#define CORE_PIN_BASE_H

#include "core/pin/view.h"

/* ---- holding on ---- */

/* The pin has become a snapshot, and is held on to; one that was held on to before is let go of.
 * Only of a pin that nobody else gives up: one by the clock or by hand. */
void pin_become_base(struct pins *p, struct pin_slot *s, uint64_t id);
/* The one that is held on to, NULL: none. */
struct pin_slot *pins_find_base(struct pins *p);
/* Lets go of it, if there is one; its files stay for pins_sweep(). */
void pins_drop_base(struct pins *p);

/* ---- comparing ---- */

struct pin_base {
	struct pin_view view;	  /* of the older one */
	struct pin_reader reader; /* of the file under way */
	uint64_t newer;		  /* the other's number */
	bool is_open, has_file;
	struct snapshot_trouble trouble; /* nobody is told: then all is read */
};

/* False: there is none that can be trusted. To be closed in both cases. */
bool pin_base_open(struct pin_base *b, struct pins *pins, int rootfd, uint64_t newer);
void pin_base_close(struct pin_base *b);
/*
 * Whether the file of that name is the same one at both, and what was written to it between is
 * known. Then *size_out is its size at the older one.
 */
bool pin_base_find(struct pin_base *b, const struct pin_view *newer, const char *path,
		   uint64_t *size_out);
/* Of that file: nothing was written to these bytes between the two. They are within both sizes. */
bool pin_base_same(const struct pin_base *b, uint64_t offset, uint64_t length);

#endif
