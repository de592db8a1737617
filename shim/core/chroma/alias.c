/* SPDX-License-Identifier: MIT
 *
 * A segment's directory by another name.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/chroma/chroma.h"
#include "core/segment/hnsw.h"
#include "core/segment/pickle.h"

static bool has_uuid(const char *name, const char *uuid)
{
	return strcmp(name, uuid) != 0 && strcasestr(name, uuid) != NULL;
}

/* How much is in it: labels that were handed out. */
static int64_t weigh(int dirfd, const char *name)
{
	int fd = file_open_directory_at(dirfd, name), pickle;
	struct pickle_index index = {0};
	struct file_source source;
	int64_t weight = -1;

	if (fd < 0)
		return -1;
	if (faccessat(fd, HNSW_HEADER_FILE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		weight = 0;
	pickle = file_open_at(fd, PICKLE_FILE);
	if (weight == 0 && pickle >= 0 && file_source_open_data(&source, pickle) == 0 &&
	    pickle_read_index(&source, NULL, NULL, &index) == 0)
		weight = 1 + index.total_elements_added;
	if (pickle >= 0)
		close(pickle);
	close(fd);
	return weight;
}

bool chroma_find_alias(int dirfd, const char *segment, char *out, size_t room)
{
	DIR *dir;
	const struct dirent *entry;
	int64_t best = -1;

	file_names_at(dirfd, NULL, &dir);
	while (dir && (entry = readdir(dir))) {
		int64_t weight =
		    has_uuid(entry->d_name, segment) ? weigh(dirfd, entry->d_name) : -1;

		if (weight <= best || strlen(entry->d_name) >= room)
			continue;
		best = weight;
		snprintf(out, room, "%s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return best >= 0;
}
