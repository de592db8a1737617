/* SPDX-License-Identifier: MIT
 *
 * The diagnosis from beginning to end, and its reports.
 */
#include "core/check/diagnose.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/check/internal.h"
#include "core/sqlite/database.h"

const struct diagnose_kind diagnose_kinds[DIAGNOSE_CODES] = {
#define KIND(name, code, severity, means, helps) {code, DIAGNOSE_##severity, means, helps},
#include "core/check/kinds.def"
#undef KIND
};

static const char *const helps_back[DIAGNOSE_CODES] = {
#define KIND(name, code, severity, means, helps)
#define WITH_SNAPSHOT(name, helps) [DIAGNOSE_##name] = helps,
#include "core/check/kinds.def"
#undef KIND
};

const char *const diagnose_severity_names[DIAGNOSE_SEVERITIES] = {
    [DIAGNOSE_NOTE] = "note",
    [DIAGNOSE_WARNING] = "warning",
    [DIAGNOSE_DAMAGE] = "damage",
    [DIAGNOSE_UNKNOWN] = "unknown",
};

static void hold_back(struct diagnosis *d, enum diagnose_code code, struct diagnose_place place,
		      const char *detail)
{
	struct diagnose_pending *p;

	if (d->pending_count == DIAGNOSE_PENDING_MAX)
		return;
	p = &d->pending[d->pending_count++];
	p->code = code;
	snprintf(p->collection, sizeof(p->collection), "%s",
		 place.collection ? place.collection : "");
	snprintf(p->segment, sizeof(p->segment), "%s", place.segment ? place.segment : "");
	snprintf(p->file, sizeof(p->file), "%s", place.file ? place.file : "");
	snprintf(p->detail, sizeof(p->detail), "%s", detail);
}

void diagnose_report(struct diagnosis *d, enum diagnose_code code, struct diagnose_place place,
		     const char *format, ...)
{
	struct diagnose_finding finding = {.code = code,
					   .collection = place.collection,
					   .segment = place.segment,
					   .file = place.file,
					   .helps = diagnose_kinds[code].helps};
	char detail[512];
	va_list ap;

	va_start(ap, format);
	vsnprintf(detail, sizeof(detail), format, ap);
	va_end(ap);
	if (d->holds_back) {
		hold_back(d, code, place, detail);
		return;
	}
	finding.detail = detail[0] ? detail : NULL;
	if (d->summary->newest_snapshot && helps_back[code])
		finding.helps = helps_back[code];
	/* One finding makes another untrue. */
	if (code == DIAGNOSE_QUEUE_UNAPPLIED && d->summary->findings[DIAGNOSE_DAMAGE])
		finding.helps = "It does so when the damage is healed.";
	d->summary->findings[diagnose_kinds[code].severity]++;
	d->options->report(d->options->context, &finding);
}

void diagnose_advance(struct diagnosis *d, uint64_t bytes)
{
	d->done += bytes;
	if (d->options->progress)
		d->options->progress(d->options->context, d->done, d->summary->bytes);
}

void diagnose_link(struct diagnosis *d, struct diagnose_place place, const char *name)
{
	char target[PATH_MAX] = "";
	struct stat st;

	bool leads_nowhere = fstatat(d->dirfd, name, &st, 0) < 0;

	if (readlinkat(d->dirfd, name, target, sizeof(target) - 1) < 0)
		strcpy(target, "?");
	if (leads_nowhere && strstr(target, "annex/objects/"))
		diagnose_report(d, DIAGNOSE_NOT_DOWNLOADED, place,
				"a link of git-annex that leads to nothing: git annex get");
	else
		diagnose_report(d, DIAGNOSE_LINK, place, "it leads to %s%s", target,
				leads_nowhere ? ", where nothing is; is that disk mounted?" : "");
}
