/* SPDX-License-Identifier: MIT
 *
 * Which file it is.
 */
#include <sys/sysmacros.h>

#include "core/base/sys.h"
#include "core/pin/internal.h"

#define SECOND INT64_C(1000000000)

static int64_t ns_of(int64_t seconds, uint32_t ns)
{
	return seconds * SECOND + ns;
}

/* Where the kernel, or who filters its calls, knows no statx(). */
static int identify_old(int dirfd, const char *path, struct pin_identity *out)
{
	struct stat st;
	int r = sys_fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW);

	if (r < 0)
		return r;
	*out =
	    (struct pin_identity){.size = st.st_size,
				  .dev = st.st_dev,
				  .ino = st.st_ino,
				  .changed = ns_of(st.st_ctim.tv_sec, (uint32_t)st.st_ctim.tv_nsec),
				  .mtime = st.st_mtim.tv_sec,
				  .mtime_ns = (uint32_t)st.st_mtim.tv_nsec,
				  .mode = st.st_mode};
	return 0;
}

int pin_identify(int dirfd, const char *path, struct pin_identity *out)
{
	struct statx x;
	int r = (int)SYS5(SYS_statx, dirfd, path, AT_SYMLINK_NOFOLLOW,
			  STATX_BASIC_STATS | STATX_BTIME, &x);

	if (r == -ENOSYS || r == -EPERM)
		r = identify_old(dirfd, path, out);
	else if (r == 0)
		*out = (struct pin_identity){
		    .size = (int64_t)x.stx_size,
		    .dev = makedev(x.stx_dev_major, x.stx_dev_minor),
		    .ino = x.stx_ino,
		    .birth = x.stx_mask & STATX_BTIME
				 ? ns_of(x.stx_btime.tv_sec, x.stx_btime.tv_nsec)
				 : 0,
		    .changed = ns_of(x.stx_ctime.tv_sec, x.stx_ctime.tv_nsec),
		    .mtime = x.stx_mtime.tv_sec,
		    .mtime_ns = x.stx_mtime.tv_nsec,
		    .mode = x.stx_mode};
	return r < 0 ? r : S_ISREG(out->mode) ? 0 : -ENOENT;
}

bool pin_identity_same(const struct pin_identity *a, const struct pin_identity *b)
{
	return a->dev == b->dev && a->ino == b->ino &&
	       (!a->birth || !b->birth || a->birth == b->birth);
}
