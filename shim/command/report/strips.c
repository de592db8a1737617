/* SPDX-License-Identifier: MIT
 *
 * `chromashim report`: rows of its figures.
 */
#include "command/report/strips.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/oplog/oplog.h"

void strip_begin(struct page *p, const char *name, unsigned width, unsigned height,
		 const char *class, const char *says)
{
	page_put(p,
		 "<div class=\"strip %T\"><span class=\"name\">%T</span><svg viewBox=\"0 0 %d %d\" "
		 "preserveAspectRatio=\"none\" role=\"img\" aria-label=\"%T\">",
		 class, name, (uint64_t)width, (uint64_t)height, says);
}

void strip_end_bytes(struct page *p, uint64_t bytes)
{
	page_put(p, "</svg><span class=\"num\">%B</span></div>\n", bytes);
}

void strip_end_number(struct page *p, uint64_t number)
{
	page_put(p, "</svg><span class=\"num\">%N</span></div>\n", number);
}

void strip_end_text(struct page *p, const char *text)
{
	page_put(p, "</svg><span class=\"num\">%T</span></div>\n", text);
}

uint64_t strip_time(const struct digest *d, unsigned bucket)
{
	return d->start + bucket * d->width;
}

/* "11:02:05" below the figure, at the begin, the middle and the end; with dates over a day, and
 * with thousandths where seconds would be the same. */
void strip_axis(struct page *p)
{
	const struct digest *d = p->d;
	uint64_t end = strip_time(d, digest_buckets(d)),
		 at[] = {d->start, d->start + (end - d->start) / 2, end};
	bool days = end - d->start > 20 * 3600 * SECOND, moments = end - d->start < 8 * SECOND;
	char text[40];
	size_t i;

	page_put(p, "<div class=\"axis\" aria-hidden=\"true\"><span></span><span class=\"times\">");
	for (i = 0; i < 3; i++) {
		format_time(text, sizeof(text), at[i], p->utc);
		text[days ? 16 : moments ? 23 : 19] = '\0';
		page_put(p, "<span>%T</span>", text + (days ? 5 : 11));
	}
	page_put(p, "</span><span></span></div>\n");
}

unsigned strip_busiest(const struct digest_series *s, unsigned buckets)
{
	unsigned best = 0, i;

	for (i = 1; i < buckets; i++)
		if (s->at[i] > s->at[best])
			best = i;
	return best;
}

/* Cells as dark as there is much in them, by powers of four below the greatest. */
void strip_cells(struct page *p, const struct digest_series *s, uint64_t greatest, bool bytes)
{
	unsigned buckets = digest_buckets(p->d), i, step;

	for (i = 0; i < buckets; i++) {
		uint64_t limit = greatest;

		if (!s->at[i])
			continue;
		for (step = HEAT_STEPS; step > 1 && s->at[i] <= limit / 4; step--)
			limit /= 4;
		page_put(p,
			 bytes
			     ? "<rect class=\"h%d\" x=\"%d\" width=\"1\" height=\"10\"><title>%c: "
			       "%B</title></rect>"
			     : "<rect class=\"h%d\" x=\"%d\" width=\"1\" height=\"10\"><title>%c: "
			       "%N</title></rect>",
			 (uint64_t)step, (uint64_t)i, strip_time(p->d, i), s->at[i]);
	}
}

void strip_legend(struct page *p, const char *what)
{
	unsigned i;

	page_put(p,
		 "<p class=\"legend\"><span>little</span><svg viewBox=\"0 0 %d 10\" "
		 "preserveAspectRatio=\"none\" aria-hidden=\"true\">",
		 (uint64_t)HEAT_STEPS * 10);
	for (i = 1; i <= HEAT_STEPS; i++)
		page_put(p, "<rect class=\"h%d\" x=\"%d\" width=\"10\" height=\"10\"/>",
			 (uint64_t)i, (uint64_t)(i - 1) * 10);
	page_put(p,
		 "</svg><span>much</span> <span>%T; each step is four times the one before, and "
		 "a cell is %D.</span></p>\n",
		 what, p->d->width);
}

uint64_t strip_greatest(const struct digest_row *const *rows, size_t count, unsigned buckets)
{
	uint64_t greatest = 1;
	size_t i;

	for (i = 0; i < count; i++) {
		uint64_t n = rows[i]->by_time.at[strip_busiest(&rows[i]->by_time, buckets)];

		greatest = n > greatest ? n : greatest;
	}
	return greatest;
}
