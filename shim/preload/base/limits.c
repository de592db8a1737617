/* SPDX-License-Identifier: MIT
 *
 * What is said about a limit, and where.
 */
#include "preload/base/limits.h"

#include <errno.h>
#include <stdatomic.h>

#include "preload/base/shim.h"

static const char *const texts[LIMITS] = {
    [LIMIT_DIRECTORIES] =
	"more directories are open at once than one process can have protected (255): further ones "
	"are UNPROTECTED until others are closed. Open them in several processes.",
    [LIMIT_LOCKS] = "more databases are open than one process can have the locks of kept (1024): "
		    "further ones have SQLite's own locks, and no fence. Open them in several "
		    "processes.",
    [LIMIT_GROUPS] = "more indexes are being written at once than one process can have followed "
		     "(4096): persists of further ones are UNPROTECTED; a crash in one of them may "
		     "break that collection.",
    [LIMIT_DESCRIPTORS] =
	"all of the library's own descriptors are in use (1024): what needs one more is "
	"UNPROTECTED. Write fewer indexes at once, or in several processes.",
    [LIMIT_NEIGHBOURS] =
	"half of the names of files that can be remembered are used (524288 names, 32 MiB): calls "
	"on new ones that are not Chroma's are recorded without a name until the backend is "
	"restarted. Keep other files elsewhere.",
    [LIMIT_NAMES] = "all names of files that can be remembered are used (1048576 names, 64 MiB): "
		    "calls on new ones are recorded without a name, and new indexes are "
		    "UNPROTECTED, until the backend is restarted.",
};

static atomic_flag said[LIMITS];
static atomic_bool any;
static void (*record)(const char *text);

void limits_hand_in(void (*handed)(const char *text))
{
	record = handed;
}

bool limits_are_reached(void)
{
	return atomic_load(&any);
}

void limit_reached(enum limit which)
{
	int saved = errno;

	if (atomic_flag_test_and_set(&said[which]))
		return;
	atomic_store(&any, true);
	shim_say(texts[which], NULL);
	if (record)
		record(texts[which]);
	errno = saved;
}
