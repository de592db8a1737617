/* SPDX-License-Identifier: MIT
 *
 * `chromashim log`: what is wrong with a log that was read to its end.
 */
#include <errno.h>
#include <inttypes.h>

#include "command/base/command.h"
#include "command/log/log.h"

#define PROBLEMS_SHOWN 10

static int report_segment(const struct oplog_segment_info *info, bool quiet, unsigned *shown)
{
	bool bad = info->error && info->error != -ENOENT; /* rotated away meanwhile: no damage */

	if (!bad && !info->damaged && !info->missing)
		return 0;
	if (quiet || (*shown)++ >= PROBLEMS_SHOWN)
		return 1;
	if (bad)
		warn("op log segment '%s' %s: %s%s", info->name,
		     info->records ? "could be read in part only" : "was left out",
		     oplog_error_text(info->error),
		     info->error == -EPROTONOSUPPORT ? "; a newer chromashim reads it" : "");
	if (info->damaged)
		warn("op log segment '%s': %" PRIu64 " damaged slot%s skipped", info->name,
		     info->damaged, info->damaged == 1 ? "" : "s");
	if (info->missing && info->error != -EUCLEAN)
		warn("op log segment '%s' is cut off: %" PRIu64 " of %" PRIu32 " slots are missing",
		     info->name, info->missing, info->header.capacity);
	return 1;
}

int log_report_problems(struct oplog_reader *reader, bool quiet)
{
	uint64_t lost = oplog_reader_lost(reader);
	unsigned shown = 0;
	int status = EXIT_DONE;
	size_t i;

	for (i = 0; i < oplog_reader_segments(reader); i++)
		if (report_segment(oplog_reader_segment(reader, i), quiet, &shown))
			status = EXIT_WARNINGS;
	if (shown > PROBLEMS_SHOWN)
		warn("%u more segments have problems", shown - PROBLEMS_SHOWN);
	if (lost) {
		status = EXIT_WARNINGS;
		if (!quiet)
			warn("%" PRIu64 " record%s lost: there was no room, no file descriptor or "
			     "no store to write to",
			     lost, lost == 1 ? " was" : "s were");
	}
	return status;
}
