/* SPDX-License-Identifier: MIT
 *
 * The table of file systems. Also runs inside the backend.
 */
#include "core/base/filesystem.h"

#include <stddef.h>

/* A tmpfs does not tell of a store into a shared map, an overlay may go on to another inode. */
static const struct filesystem all[] = {
    {0xef53, "ext4", true, false, true}, /* ext2 and ext3 have the same number */
    {0x58465342, "XFS", true, false, true},
    {0x9123683e, "btrfs", true, false, true},
    {0x01021994, "tmpfs", true, false, false},
    {0x794c7630, "overlayfs", true, false, false},
    {0x65735546, "FUSE", false, false, false},
    {0x6969, "NFS", false, true, false},
    {0x517b, "SMB", false, true, false},
    {0xff534d42, "SMB", false, true, false}, /* CIFS */
    {0xfe534d42, "SMB", false, true, false}, /* SMB2 */
    {0x00c36400, "Ceph", false, true, false},
    {0x01021997, "9p", false, true, false},
    {0x5346414f, "AFS", false, true, false},
    {0x6b414653, "AFS", false, true, false},
    {0x73757245, "Coda", false, true, false},
    {0x0bd00bd0, "Lustre", false, true, false},
    {0x47504653, "GPFS", false, true, false},
    {0x786f4256, "a VirtualBox share", false, true, false},
    {0xf2f52010, "F2FS", false, false, false},
    {0x2fc12fc1, "ZFS", false, false, false},
    {0x4d44, "FAT", false, false, false},
};

const struct filesystem *filesystem_find(uint64_t type)
{
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].type == type)
			return &all[i];
	return NULL;
}
