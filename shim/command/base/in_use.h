/* SPDX-License-Identifier: MIT
 *
 * Who has a data directory open, with the library or without.
 */
#ifndef COMMAND_IN_USE_H
#define COMMAND_IN_USE_H

#include <stdbool.h>
#include <stddef.h>

#include "command/base/command.h"

/* A pid that has the database open or locked, 0: none, -1: one that is not to be seen from here.
 * *name_out is its name. */
int in_use_process(const struct data_directory *t, char *name_out, size_t room);
bool in_use(const struct data_directory *t);
/* 0, or the exit status after saying which process, and todo. */
int in_use_refuse(const struct data_directory *t, const char *todo);

#endif
