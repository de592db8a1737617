/* SPDX-License-Identifier: MIT
 *
 * `chromashim --version`, and with -v what it is made of.
 */
#include "command/base/version.h"

#include <stdio.h>

#include <nettle/version.h>
#include <sodium/version.h>
#include <sqlite3.h>
#include <xxhash.h>
#include <zstd.h>

#include "core/base/version.h"

void version_print(bool all)
{
	printf("chromashim %s\n", version_own());
	if (!all)
		return;
	printf("with SQLite %s, zstd %s, xxHash %d.%d.%d, nettle %d.%d, libsodium %s\n",
	       sqlite3_libversion(), ZSTD_versionString(), XXH_VERSION_MAJOR, XXH_VERSION_MINOR,
	       XXH_VERSION_RELEASE, NETTLE_VERSION_MAJOR, NETTLE_VERSION_MINOR,
	       sodium_version_string());
#ifdef CHROMASHIM_LINKED
	printf("linked statically: %s\n", CHROMASHIM_LINKED);
#endif
}
