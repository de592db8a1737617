/* SPDX-License-Identifier: MIT
 *
 * Acting as the owner of a store: the file system ids of the process.
 */
#include "core/base/owner.h"

#include <linux/capability.h>
#include <unistd.h>

#include "core/base/sys.h"

static struct {
	bool acts;
	uid_t uid;
	gid_t gid;
} owner;

/*
 * The kernel takes the rights over files from a thread whose file system id stops being 0. They
 * stay permitted, and are taken back: what root could read or replace, it still can.
 */
static bool set_ids(uid_t uid, gid_t gid)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct rights[_LINUX_CAPABILITY_U32S_3];
	bool known = SYS2(SYS_capget, &header, rights) == 0;

	SYS1(SYS_setfsgid, gid);
	SYS1(SYS_setfsuid, uid);
	if (known)
		SYS2(SYS_capset, &header, rights);
	return (uid_t)SYS1(SYS_setfsuid, -1) == uid && (gid_t)SYS1(SYS_setfsgid, -1) == gid;
}

bool owner_act(const struct stat *st)
{
	if (geteuid() != 0)
		return false;
	owner.uid = st->st_uid;
	owner.gid = st->st_gid;
	owner.acts = set_ids(owner.uid, owner.gid);
	if (!owner.acts) /* not half of it */
		set_ids(geteuid(), getegid());
	return owner.acts;
}

void owner_pause(void)
{
	if (owner.acts)
		set_ids(geteuid(), getegid());
}

void owner_resume(void)
{
	if (owner.acts)
		set_ids(owner.uid, owner.gid);
}
