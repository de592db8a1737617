/* SPDX-License-Identifier: MIT
 *
 * Which file and what of it, for messages of snapshots and pins.
 */
#ifndef CORE_TROUBLE_H
#define CORE_TROUBLE_H

struct snapshot_trouble {
	char file[320];
	char detail[256];
};

#endif
