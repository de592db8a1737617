/* SPDX-License-Identifier: MIT
 *
 * Segment files of the op log: plain or compressed, from their directory into memory.
 */
#ifndef CORE_OPLOG_FILE_H
#define CORE_OPLOG_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "chromashim_oplog.h"

/* Length of a segment's name without its suffix, 0 if this is none. */
size_t oplog_name_stem(const char *name, bool *packed_out);

/*
 * Reads a segment of an oplog/ directory, never more than its header asks for, or its header only.
 * *data_out is the caller's to free, also when there is an error: a damaged compressed file
 * (-EUCLEAN) gives what comes before the damage. Other errors: as oplog_header_read() and
 * file_open_at().
 */
int oplog_file_read(int dirfd, const char *name, bool header_only, unsigned char **data_out,
		    size_t *size_out, struct stat *st_out);

#endif
