/* SPDX-License-Identifier: MIT
 *
 * The table of file systems. Also runs inside the backend.
 */
#include "core/base/filesystem.h"

#include <stddef.h>

static const struct filesystem all[] = {
    {0xef53, "ext4", true, false}, /* ext2 and ext3 have the same number */
    {0x58465342, "XFS", true, false},	{0x9123683e, "btrfs", true, false},
    {0x01021994, "tmpfs", true, false}, {0x794c7630, "overlayfs", true, false},
    {0x65735546, "FUSE", false, false}, {0x6969, "NFS", false, true},
    {0x517b, "SMB", false, true},	{0xff534d42, "SMB", false, true}, /* CIFS */
    {0xfe534d42, "SMB", false, true},					  /* SMB2 */
    {0x00c36400, "Ceph", false, true},	{0x01021997, "9p", false, true},
    {0x5346414f, "AFS", false, true},	{0x6b414653, "AFS", false, true},
    {0x73757245, "Coda", false, true},	{0x0bd00bd0, "Lustre", false, true},
    {0x47504653, "GPFS", false, true},	{0x786f4256, "a VirtualBox share", false, true},
    {0xf2f52010, "F2FS", false, false}, {0x2fc12fc1, "ZFS", false, false},
    {0x4d44, "FAT", false, false},
};

const struct filesystem *filesystem_find(uint64_t type)
{
	size_t i;

	for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (all[i].type == type)
			return &all[i];
	return NULL;
}
