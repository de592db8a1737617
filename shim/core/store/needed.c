/* SPDX-License-Identifier: MIT
 *
 * Whether a store may be left for another one.
 */
#include "core/base/alive.h"
#include "core/base/sys.h"
#include "core/base/text.h"
#include "core/oplog/oplog.h"
#include "core/snapshot/store.h"
#include "core/store/store.h"
#include "core/undo/undo.h"

static bool is_waiting(int undofd, const char *name)
{
	return text_ends_with(name, UNDO_SUFFIX) && !undo_is_ended(undofd, name);
}

static bool has_undo_data(int storefd)
{
	char buf[2048] __attribute__((aligned(8)));
	int fd = sys_openat(storefd, UNDO_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
	bool found = false;
	ssize_t n, at;

	if (fd < 0)
		return false;
	while (!found && (n = sys_getdents(fd, buf, sizeof(buf))) > 0) {
		const struct linux_dirent64 *d;

		for (at = 0; at < n && !found; at += d->length) {
			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			found = is_waiting(fd, d->name);
		}
	}
	sys_close(fd);
	return found;
}

enum store_former store_needed(int storefd)
{
	if (has_undo_data(storefd))
		return STORE_FORMER_WAITS;
	return alive_any(storefd) == ALIVE_LIVES ? STORE_FORMER_LIVES : STORE_FORMER_NONE;
}

bool store_has_past(int storefd)
{
	static const char *const names[] = {OPLOG_DIR, SNAPSHOTS_DIR};
	struct stat st;
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (sys_fstatat(storefd, names[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	return false;
}
