/* SPDX-License-Identifier: MIT */
#ifndef COMMAND_VERSION_H
#define COMMAND_VERSION_H

#include <stdbool.h>

/* On stdout; `all`: and the libraries in it, and those of them that are linked statically. */
void version_print(bool all);

#endif
