/* SPDX-License-Identifier: MIT
 *
 * The persists that were under way at a pin; for pin_*.c only.
 */
#ifndef CORE_PIN_GROUPS_H
#define CORE_PIN_GROUPS_H

#include <fcntl.h>

#include "core/pin/view.h"
#include "core/undo/undo.h"

struct pin_group_block {
	uint8_t file;
	uint32_t length;
	uint64_t offset, at; /* in the file, and of its data in the undo file */
};

struct pin_group {
	int fd;
	char name[PIN_NAME_MAX];
	struct undo_reader reader;
	struct pin_group_block *blocks; /* by file and offset */
	size_t count, room;
};

int pin_groups_open(struct pin_view *v);
void pin_groups_close(struct pin_view *v);
/* Looks for what was added since; segment NULL: in all. */
int pin_groups_refresh(struct pin_view *v, const char *segment);
/* -EBADMSG: one has damaged records. */
int pin_groups_check(struct pin_view *v);
/* The segment's oldest group, NULL: none was under way. */
const struct undo_header *pin_groups_header(const struct pin_view *v, const char *segment);
/* Lays the oldest pre-images over n bytes (up to PIN_BLOCK). 1: all of them, 0: some or none,
 * or -errno. */
int pin_groups_lay_over(const struct pin_view *v, const char *segment, unsigned file,
			uint64_t offset, void *buf, size_t n);
/* What was moved aside, opened, or -ENOENT. */
int pin_groups_moved(const struct pin_view *v, const char *segment, unsigned file);

#endif
