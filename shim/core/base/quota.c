/* SPDX-License-Identifier: MIT
 *
 * What a disk quota leaves; see quota.h.
 */
#include "core/base/quota.h"

#include <linux/capability.h>
#include <string.h>
#include <sys/quota.h>
#include <sys/sysmacros.h>

#include "core/base/clock.h"
#include "core/base/number.h"
#include "core/base/sys.h"

#ifndef SYS_quotactl_fd
#define SYS_quotactl_fd 443 /* since Linux 5.14 */
#endif
#define KIB 1024u
#define FILTER_LINE "Seccomp:\t"

/* ---- whether it may be asked ---- */

/* By the line in /proc/self/status: "0" is no filter. Not to be known: there may be one. */
static bool calls_are_filtered(void)
{
	enum { LINE = sizeof(FILTER_LINE) }; /* with the digit after it */
	char text[512];
	const char *line = NULL;
	size_t kept = 0;
	ssize_t n = 0;
	int fd = sys_openat(AT_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return true;
	while (!line && (n = sys_read(fd, text + kept, sizeof(text) - 1 - kept)) > 0) {
		kept += (size_t)n;
		text[kept] = '\0';
		line = strstr(text, FILTER_LINE);
		if (line && line + LINE > text + kept)
			line = NULL; /* its end comes with the next piece */
		if (!line && kept >= LINE) {
			memmove(text, text + kept - LINE, LINE);
			kept = LINE;
		}
	}
	sys_close(fd);
	return line ? line[LINE - 1] != '0' : n < 0;
}

static bool may_ask(void)
{
	static _Atomic int answer; /* 1 yes, 2 no: of this process, asked once */

	if (!answer)
		answer = calls_are_filtered() ? 2 : 1;
	return answer == 1;
}

/* Of those that there are, none holds for it. */
static bool overrides_quotas(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};

	return SYS2(SYS_capget, &header, data) < 0 ||
	       data[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective & CAP_TO_MASK(CAP_SYS_RESOURCE);
}

/* ---- asking ---- */

/* By the device, as before Linux 5.14. */
static int ask_by_device(int fd, int command, long id, struct dqblk *out)
{
	char path[64] = "/dev/block/", *at = path + strlen(path), *end = path + sizeof(path) - 1;
	struct stat st;
	int r = sys_fstat(fd, &st);

	if (r < 0)
		return r;
	at = number_put(at, end, major(st.st_dev), 10, 1);
	*at++ = ':';
	*number_put(at, end, minor(st.st_dev), 10, 1) = '\0';
	return (int)SYS4(SYS_quotactl, command, path, id, out);
}

static int ask(int fd, int kind, long id, struct dqblk *out)
{
	int command = (int)QCMD((unsigned)Q_GETQUOTA, kind); /* it reaches into the sign */
	int r = (int)SYS4(SYS_quotactl_fd, fd, command, id, out);

	return r == -ENOSYS ? ask_by_device(fd, command, id, out) : r;
}

/* A soft limit counts once its time is over. */
static uint64_t left_of(uint64_t hard, uint64_t soft, uint64_t used, uint64_t until)
{
	bool is_over = soft && used > soft && until && clock_read(CLOCK_REALTIME) / SECOND >= until;

	if (is_over || (hard && used >= hard))
		return 0;
	return hard ? hard - used : UINT64_MAX;
}

static bool quota_of(int fd, int kind, long id, struct quota *out)
{
	struct dqblk d = {0};
	uint64_t hard, soft;

	if (ask(fd, kind, id, &d) < 0)
		return false;
	hard = d.dqb_bhardlimit * KIB;
	soft = d.dqb_bsoftlimit * KIB;
	out->total = hard ? hard : soft;
	out->free = left_of(hard, soft, d.dqb_curspace, d.dqb_btime);
	out->inodes = left_of(d.dqb_ihardlimit, d.dqb_isoftlimit, d.dqb_curinodes, d.dqb_itime);
	return out->free != UINT64_MAX || out->inodes != UINT64_MAX;
}

bool quota_ask(int fd, struct quota *out)
{
	struct quota group;
	bool users, groups;

	if (!may_ask())
		return false;
	users = quota_of(fd, USRQUOTA, SYS0(SYS_geteuid), out);
	groups = quota_of(fd, GRPQUOTA, SYS0(SYS_getegid), &group);
	if ((!users && !groups) || overrides_quotas())
		return false;
	if (!users) {
		*out = group;
	} else if (groups) {
		if (group.free < out->free) {
			out->free = group.free;
			out->total = group.total;
		}
		if (group.inodes < out->inodes)
			out->inodes = group.inodes;
	}
	return true;
}
