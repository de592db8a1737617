/* SPDX-License-Identifier: MIT
 *
 * `chromashim log --export FORMAT=FILE`: the log for other tools.
 */
#ifndef COMMAND_LOG_EXPORT_H
#define COMMAND_LOG_EXPORT_H

#include "command/base/command.h"
#include "command/log/log.h"

/* "csv=FILE", "perfetto=FILE", "strace=FILE", "sqlite=FILE". Whether it names a form that is there.
 */
bool log_export_is_known(const char *what);

/* The exit status. */
int log_export(const struct log_options *options, const struct data_directory *t, const char *what);

#endif
