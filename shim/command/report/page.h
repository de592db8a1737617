/* SPDX-License-Identifier: MIT
 *
 * The parts of report.html: one file, no scripts, nothing from elsewhere. Figures are plain SVG
 * without words in it, so that they may be stretched; their words stand beside them, and a table
 * says the same in numbers.
 */
#ifndef COMMAND_REPORT_PAGE_H
#define COMMAND_REPORT_PAGE_H

#include <stdio.h>

#include "command/digest/input.h"
#include "command/report/answers.h"
#include "core/check/diagnose.h"

#define PAGE_FINDINGS 64

struct page_finding {
	enum diagnose_code code;
	char where[DIGEST_TEXT], detail[DIGEST_TEXT];
};

/* What the database itself says; all 0 where it cannot be read. */
struct page_collection {
	char id[64], name[DIGEST_TEXT];
	char vector_segment[64];
	uint64_t records, bytes; /* of the index's files */
	int64_t sync_threshold, dimension;
};

struct page {
	FILE *out;
	bool utc;
	struct digest_input *in;
	struct digest *d;
	struct answers answers;
	struct page_finding *findings;
	size_t finding_count;
	struct diagnose_summary summary;
	bool checked;
	struct page_collection *collections;
	size_t collection_count;
	uint64_t database_bytes, free_bytes; /* of chroma.sqlite3; in pages that hold nothing */
	uint64_t disk_total, disk_free;
};

/* ---- html.c: words ---- */

/* Whatever it holds, it is text: nothing in it is markup, and nothing turns the line round. */
void page_text(struct page *p, const char *text);
/* The format is markup, with %T for a text, %N a number in groups, %B bytes, %D a duration, %x
 * how often, %t a time, %c the same without markup, %d a bare number, %% a percent sign. Arguments
 * are const char * and uint64_t. */
void page_put(struct page *p, const char *format, ...);
/* The name that people know it by. */
const char *page_name(struct page *p, const char *name, char out[DIGEST_TEXT]);

/* A section with its heading and one sentence of what it is about. */
void page_section(struct page *p, const char *id, const char *title, const char *sentence);
void page_section_end(struct page *p);

/* A table; heads are separated by '|', those that begin with '#' are of numbers. */
void page_table(struct page *p, const char *caption, const char *heads);
void page_table_end(struct page *p);
/* The same folded away, below a figure that shows it; the summary is what opens it. */
void page_table_below(struct page *p, const char *summary, const char *caption, const char *heads);
void page_table_below_end(struct page *p);

/* ---- figures.c ---- */

void page_heat_map(struct page *p);
void page_time_line(struct page *p);
void page_latencies(struct page *p);
void page_growth(struct page *p);

/* ---- in_short.c ---- */

void page_answers(struct page *p);
static inline bool page_can_restore(const struct manifest *m)
{
	return m->header.state == SNAPSHOT_COMPLETE || m->header.state == SNAPSHOT_VERIFIED;
}

/* What restoring it would lose, in words; it is one of the list's. */
void page_loss(struct page *p, const struct manifest *m);

/* ---- notes.c ---- */

void page_notes(struct page *p);

/* ---- sections.c ---- */

void page_transactions(struct page *p);
void page_callers(struct page *p);
bool page_has_callers(const struct page *p);
void page_snapshots(struct page *p);
void page_processes(struct page *p);
void page_findings(struct page *p);

/* ---- advice.c: what to change, and why ---- */

/* How many pieces. */
unsigned page_advice(struct page *p);

/* ---- frame.c ---- */

void page_head(struct page *p);
void page_words(struct page *p);
void page_foot(struct page *p);

#endif
