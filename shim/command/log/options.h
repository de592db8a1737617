/* SPDX-License-Identifier: MIT
 *
 * The command line of `chromashim log`.
 */
#ifndef COMMAND_LOG_OPTIONS_H
#define COMMAND_LOG_OPTIONS_H

#include "command/log/log.h"

struct arguments {
	struct log_options log;
	bool calls, acts; /* as told; see log_shows_calls() */
	bool stats, transactions, compress, last_crash, processes;
	const char *sql, *export;
	const char *dir;
};

/* 0, or an exit status after a message. */
int log_parse_arguments(struct arguments *a, int argc, char **argv);

/* Calls rather than acts: it was said, or what was asked for is of calls. */
bool log_shows_calls(const struct arguments *a);

#endif
