/* SPDX-License-Identifier: MIT
 *
 * The types in the signatures of calls.def.
 */
#ifndef PRELOAD_TYPES_H
#define PRELOAD_TYPES_H

#include <aio.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <utime.h>

struct file_handle;

#endif
