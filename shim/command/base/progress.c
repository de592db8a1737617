/* SPDX-License-Identifier: MIT
 *
 * A bar for work that takes a while.
 */
#include "command/base/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "command/base/terminal.h"
#include "core/oplog/oplog.h"

void progress_start(struct progress *p, const char *label, bool quiet)
{
	*p = (struct progress){.label = label,
			       .started = oplog_now(),
			       .is_terminal = isatty(STDERR_FILENO) == 1,
			       .quiet = quiet};
}

void progress_step(void *progress, uint64_t done, uint64_t total)
{
	static const char full[] = "##############################";
	struct progress *p = progress;
	uint64_t now = oplog_now();
	char have[24], all[24];
	int filled;

	if (!p->is_terminal || p->quiet || total == 0 || now - p->started < UINT64_C(500000000) ||
	    now - p->shown < UINT64_C(100000000))
		return;
	done = done < total ? done : total;
	filled = (int)(done * 30 / total);
	fprintf(stderr, "\r%-10s [%-30.*s] %3u %%  %s of %s \033[K", p->label, filled, full,
		(unsigned)(done * 100 / total), format_bytes(have, sizeof(have), done),
		format_bytes(all, sizeof(all), total));
	fflush(stderr);
	p->shown = now;
	p->visible = true;
}

void progress_end(struct progress *p)
{
	if (p->visible)
		fputs("\r\033[K", stderr);
	fflush(stderr);
	p->visible = false;
}
