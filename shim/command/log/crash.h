/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --last-crash`: how the last backend ended and what it was doing.
 */
#ifndef COMMAND_LOG_CRASH_H
#define COMMAND_LOG_CRASH_H

#include "command/base/command.h"
#include "command/log/log.h"

/* Returns the exit status. */
int log_last_crash(const struct log_options *options, const struct data_directory *t);

#endif
