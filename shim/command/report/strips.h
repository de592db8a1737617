/* SPDX-License-Identifier: MIT
 *
 * Rows of a figure of `chromashim report`: a name, what happened when, a number.
 */
#ifndef COMMAND_STRIPS_H
#define COMMAND_STRIPS_H

#include "command/report/page.h"

#define HEAT_STEPS 5 /* classes of a cell */

/* A row begins; its cells or marks follow, in units of width and height, then one of the ends. */
void strip_begin(struct page *p, const char *name, unsigned width, unsigned height,
		 const char *class, const char *says);
void strip_end_bytes(struct page *p, uint64_t bytes);
void strip_end_number(struct page *p, uint64_t number);
void strip_end_text(struct page *p, const char *text);
void strip_cells(struct page *p, const struct digest_series *s, uint64_t greatest, bool bytes);

/* Below the rows. */
void strip_axis(struct page *p);
void strip_legend(struct page *p, const char *what);

uint64_t strip_time(const struct digest *d, unsigned bucket);
unsigned strip_busiest(const struct digest_series *s, unsigned buckets);
uint64_t strip_greatest(const struct digest_row *const *rows, size_t count, unsigned buckets);

#endif
