/* SPDX-License-Identifier: MIT
 *
 * The C API for programs that run under the shim: include/chromashim.h.
 */
#include "chromashim.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/version.h"
#include "preload/base/shim.h"
#include "preload/pin/pins.h"
#include "preload/place/named.h"

#define EXPORT __attribute__((visibility("default")))
#define PATIENCE UINT64_C(10000000000) /* ns */
#define OPERATIONS 256		       /* under way at once whose snapshot can be asked for */
#define NAME_MAX_BYTES 191u

/* A protected operation that is under way. */
static struct {
	_Atomic uint64_t token; /* 0: free */
	_Atomic int64_t snapshot;
	_Atomic int64_t in[PROTECTIONS];
} operations[OPERATIONS];

static _Atomic uint64_t last_token;

EXPORT const char *chromashim_version(void)
{
	return version_own();
}

EXPORT int chromashim_active(void)
{
	unsigned i, used;
	int count = 0;

	if (!shim_live || settings.off)
		return 0;
	named_take();
	used = atomic_load(&protections_used);
	for (i = 0; i < used; i++) {
		if (protections[i].failed)
			return -EIO;
		count += protections[i].store_fd >= 0;
	}
	return count;
}

static size_t text_length(const char *name)
{
	size_t n = name ? strnlen(name, NAME_MAX_BYTES) : 0;

	while (n && name[n] && ((unsigned char)name[n] & 0xc0) == 0x80)
		n--;
	return n;
}

static void record(enum oplog_op op, uint64_t token, int64_t result, const char *name)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < used; i++) {
		struct oplog_record r = {.op = (uint16_t)op, .offset = -1, .result = result};

		r.arg = token;
		if (!protections[i].failed)
			record_put(i, &r, name, text_length(name));
	}
}

/* In every directory that has not been let go; the number is that of the first. */
static int64_t pin_all(unsigned place, const char *name, bool fresh)
{
	unsigned i, used = atomic_load(&protections_used);
	int64_t first = 0, r;

	for (i = 0; i < PROTECTIONS; i++) {
		r = -ENOENT;
		if (i < used && protection_enter(i)) {
			r = pin_take_waiting(i, "protected", name, PATIENCE, fresh);
			protection_leave(i);
			if (first == 0 || (r < 0 && first > 0))
				first = r;
		}
		atomic_store(&operations[place].in[i], r);
	}
	return first ? first : -ENOENT;
}

EXPORT uint64_t chromashim_protect_begin(const char *name, unsigned flags)
{
	int saved = errno;
	int64_t snapshot = 0;
	uint64_t token;
	unsigned place;

	if (chromashim_active() <= 0 || shim_borrowed())
		return 0;
	token = atomic_fetch_add(&last_token, 1) + 1;
	/* Of more than there is room for, the oldest is forgotten: its program may never end it. */
	place = (unsigned)(token % OPERATIONS);
	atomic_store(&operations[place].token, 0);
	if (flags & (CHROMASHIM_SNAPSHOT | CHROMASHIM_SNAPSHOT_ALWAYS))
		snapshot = pin_all(place, name, flags & CHROMASHIM_SNAPSHOT_ALWAYS);
	atomic_store(&operations[place].snapshot, snapshot);
	atomic_store(&operations[place].token, token);
	record(OP_PROTECT_BEGIN, token, snapshot, name);
	errno = saved;
	return token;
}

EXPORT int64_t chromashim_protect_snapshot(uint64_t token)
{
	if (!token || atomic_load(&operations[token % OPERATIONS].token) != token)
		return -EINVAL;
	return atomic_load(&operations[token % OPERATIONS].snapshot);
}

/* Its number as a protected one, or -1. */
static int find(const char *directory)
{
	unsigned i, used = atomic_load(&protections_used);
	struct stat st;
	int found = -1;

	if (sys_fstatat(AT_FDCWD, directory, &st, 0) < 0)
		return -1;
	for (i = 0; i < used && found < 0; i++)
		if (protection_enter(i)) {
			if (protections[i].dev == st.st_dev && protections[i].ino == st.st_ino)
				found = (int)i;
			protection_leave(i);
		}
	return found;
}

EXPORT int64_t chromashim_protect_snapshot_in(uint64_t token, const char *directory)
{
	int64_t snapshot = chromashim_protect_snapshot(token);
	int i;

	if (snapshot == 0 || snapshot == -EINVAL)
		return snapshot;
	i = find(directory);
	return i < 0 ? -ENOENT : atomic_load(&operations[token % OPERATIONS].in[i]);
}

EXPORT int chromashim_protect_end(uint64_t token, int outcome)
{
	uint64_t expected = token;
	int saved = errno;

	if (!token || !shim_live ||
	    !atomic_compare_exchange_strong(&operations[token % OPERATIONS].token, &expected, 0))
		return -EINVAL;
	record(OP_PROTECT_END, token, outcome, NULL);
	errno = saved;
	return 0;
}
