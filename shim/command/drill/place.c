/* SPDX-License-Identifier: MIT
 *
 * Where a drill restores to: never where it would fill the disk that the data is on.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "command/base/guard_settings.h"
#include "command/base/terminal.h"
#include "command/drill/drill.h"
#include "core/base/tree.h"

#define NAME "drill.scratch" /* in the store */

/* What has to stay free there: as much as keeps CHROMASHIM_WARN_FULL silent, or nothing is refused.
 */
static uint64_t reserve_of(const struct data_directory *t, const struct statvfs *v)
{
	uint64_t all = (uint64_t)v->f_blocks * v->f_frsize, bytes, least;
	struct guard_settings settings;
	unsigned percent, warn;

	guard_settings_read(&settings, t->storefd);
	config_read_room(config_get(&settings.config, CONFIG_MIN_FREE), &percent, &bytes);
	warn = settings.warn_full;
	guard_settings_free(&settings);
	least = all / 100 * percent < bytes ? all / 100 * percent : bytes;
	return warn && all / 100 * (100 - warn) > 2 * least ? all / 100 * (100 - warn) : 2 * least;
}

static bool fits_in_store(const struct data_directory *t, uint64_t need)
{
	struct statvfs v;
	uint64_t room;

	if (fstatvfs(t->storefd, &v) < 0)
		return false;
	room = (uint64_t)v.f_bavail * v.f_frsize;
	return room > need && room - need >= reserve_of(t, &v);
}

/* Another disk, with twice the room; memory only for what is small in it. */
static bool fits_elsewhere(int fd, const struct stat *data, uint64_t need)
{
	struct statfs f;
	struct stat st;
	uint64_t room;

	if (fstat(fd, &st) < 0 || st.st_dev == data->st_dev || fstatfs(fd, &f) < 0)
		return false;
	room = (uint64_t)f.f_bavail * (uint64_t)f.f_bsize;
	return need < room / (f.f_type == TMPFS_MAGIC ? 8 : 2);
}

/* What a drill that was killed has left there goes. Somebody else's is not touched. */
static int make(struct drill_place *p)
{
	struct stat st;
	int r;

	if (fstatat(p->parentfd, p->name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    st.st_uid != geteuid() && geteuid() != 0)
		return -EEXIST;
	r = tree_remove(p->parentfd, p->name);
	if (r < 0)
		return r;
	if (mkdirat(p->parentfd, p->name, 0700) < 0)
		return -errno;
	p->dirfd = openat(p->parentfd, p->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return p->dirfd < 0 ? -errno : 0;
}

static int open_elsewhere(struct drill_place *p, const struct data_directory *t, uint64_t need)
{
	const char *const places[] = {getenv("TMPDIR"), "/var/tmp", "/tmp"};
	struct stat data;
	size_t i;

	if (fstat(t->storefd, &data) < 0)
		return -errno;
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		p->parentfd = places[i] ? open(places[i], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
		if (p->parentfd < 0)
			continue;
		if (fits_elsewhere(p->parentfd, &data, need) && make(p) == 0)
			return 0;
		close(p->parentfd);
	}
	return -ENOSPC;
}

int drill_place_open(struct drill_place *p, const struct data_directory *t, const char *scratch,
		     uint64_t need, char *why, size_t room)
{
	char size[24], path[64];
	int r;

	/* One drill at a time: drill.c holds a lock. */
	snprintf(p->name, sizeof(p->name), "%s-%02x%02x%02x%02x%02x%02x", NAME, t->store_id[0],
		 t->store_id[1], t->store_id[2], t->store_id[3], t->store_id[4], t->store_id[5]);
	p->dirfd = -1;
	if (!scratch && !fits_in_store(t, need)) {
		r = open_elsewhere(p, t, need);
		if (r == -ENOSPC)
			snprintf(why, room,
				 "there is no room for the %s of a snapshot: it would fill the "
				 "data's disk, and there is none in TMPDIR, /var/tmp and /tmp on "
				 "another",
				 format_bytes(size, sizeof(size), need));
		return r;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", t->storefd);
	p->parentfd = open(scratch ? scratch : path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = p->parentfd < 0 ? -errno : make(p);
	if (r < 0 && p->parentfd >= 0)
		close(p->parentfd);
	return r;
}

void drill_place_close(struct drill_place *p)
{
	close(p->dirfd);
	tree_remove(p->parentfd, p->name);
	close(p->parentfd);
}
