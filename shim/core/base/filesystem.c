/* SPDX-License-Identifier: MIT
 *
 * The table of file systems. Also runs inside the backend.
 */
#include "core/base/filesystem.h"

#include <stddef.h>
#include <sys/vfs.h>

#include "core/base/sys.h"

/* A tmpfs does not tell of a store into a shared map, an overlay may go on to another inode. */
static const struct filesystem all[] = {
    {0xef53, "ext4", .locks = true, .changes = true}, /* ext2 and ext3 have the same number */
    {0x58465342, "XFS", .locks = true, .changes = true},
    {0x9123683e, "btrfs", .locks = true, .changes = true},
    {0x01021994, "tmpfs", .locks = true},
    {0x794c7630, "overlayfs", .locks = true},
    {0x65735546, "FUSE", .locks = false},
    {0x6969, "NFS", .network = true},
    {0x517b, "SMB", .network = true},
    {0xff534d42, "SMB", .network = true}, /* CIFS */
    {0xfe534d42, "SMB", .network = true}, /* SMB2 */
    {0x00c36400, "Ceph", .network = true},
    {0x01021997, "9p", .network = true},
    {0x5346414f, "AFS", .network = true},
    {0x6b414653, "AFS", .network = true},
    {0x73757245, "Coda", .network = true},
    {0x0bd00bd0, "Lustre", .network = true},
    {0x47504653, "GPFS", .network = true},
    {0x786f4256, "a VirtualBox share", .network = true},
    {0xf2f52010, "F2FS", .locks = false},
    {0x2fc12fc1, "ZFS", .locks = false},
    {0x4d44, "FAT", .locks = false},
};

const struct filesystem *filesystem_find(uint64_t type)
{
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].type == type)
			return &all[i];
	return NULL;
}

const struct filesystem *filesystem_of(int fd)
{
	struct statfs fs;

	return SYS2(SYS_fstatfs, fd, &fs) == 0 ? filesystem_find((uint64_t)fs.f_type) : NULL;
}
