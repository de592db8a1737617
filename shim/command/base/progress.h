/* SPDX-License-Identifier: MIT
 *
 * A bar on stderr if that is a terminal and the work takes a while.
 */
#ifndef COMMAND_PROGRESS_H
#define COMMAND_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
	const char *label;
	uint64_t started, shown; /* ns */
	bool is_terminal, quiet, visible;
};

void progress_start(struct progress *p, const char *label, bool quiet);
/* As the callback of whoever does the work. */
void progress_step(void *progress, uint64_t done, uint64_t total);
void progress_end(struct progress *p);

#endif
