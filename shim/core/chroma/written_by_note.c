/* SPDX-License-Identifier: MIT
 *
 * Which releases wrote the database: the line in the store, written.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/chroma/written_by.h"
#include "core/sqlite/database.h"

void written_by_note(int dirfd, int storefd, const char *first, const char *last)
{
	int fd = file_open_at(dirfd, CHROMA_DATABASE);
	struct written_by before;
	struct file_publish p;
	char line[128];
	uint32_t schema;
	int n;

	if (fd < 0)
		return;
	schema = written_by_schema(fd);
	close(fd);
	if (!schema || (written_by_read(storefd, &before) && before.schema == schema &&
			!strcmp(before.last, last) && !strcmp(before.first, first)))
		return;
	n = snprintf(line, sizeof(line), "schema %" PRIu32 " by %.15s to %.15s\n", schema, first,
		     last);
	if (file_publish_begin(&p, storefd, WRITTEN_BY_NAME, 0644) < 0)
		return;
	if (file_write_all(p.fd, line, (size_t)n) < 0 || file_publish_commit_unsynced(&p) < 0)
		file_publish_abort(&p);
}
