/* SPDX-License-Identifier: MIT */
#include "preload/refuse/makers.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>

#include "core/base/names.h"
#include "core/chroma/new_tables.h"
#include "preload/base/shim.h"
#include "preload/base/slots.h"
#include "preload/place/lives.h"

#define WAITS UINT64_C(5000000000)	     /* ns; all tables of a new database, on a slow disk */
#define WAITS_FOR_FIRST UINT64_C(1000000000) /* the same, while there is none */
#define NEW_SIZE_MAX (1 << 20)		     /* Chroma's empty tables take 200 KB */

static _Atomic bool was_asked[PROTECTIONS];

/* How long they may still take: ns. 0: they are there. */
static uint64_t patience(int fd, uint64_t size, struct new_tables_room *room)
{
	struct file_source database = shim_source(fd, size);

	switch (new_tables_read(&database, room)) {
	case NEW_TABLES_NONE:
		return WAITS_FOR_FIRST;
	case NEW_TABLES_SOME:
		return WAITS;
	default:
		return 0;
	}
}

static bool is_new(int fd, uint64_t *size)
{
	struct stat st;

	*size = sys_fstat(fd, &st) == 0 ? (uint64_t)st.st_size : NEW_SIZE_MAX;
	return *size < NEW_SIZE_MAX;
}

static void wait_for_tables(struct protection *a, int fd, struct new_tables_room *room)
{
	static const struct timespec a_little = {0, 10000000};
	uint64_t since = oplog_now(), size;

	while (is_new(fd, &size) && oplog_now() - since < patience(fd, size, room) &&
	       life_used_elsewhere(a))
		SYS2(SYS_nanosleep, &a_little, NULL);
}

static void maker_look(unsigned protection, int fd)
{
	struct new_tables_room *room;
	uint64_t size;

	if (atomic_exchange(&was_asked[protection], true) || !is_new(fd, &size))
		return;
	room = memory_make(sizeof(*room));
	if (!room)
		return;
	wait_for_tables(&protections[protection], fd, room);
	sys_munmap(room, sizeof(*room));
}

/* SQLite has no lock yet that the close could cost it. */
void maker_wait(unsigned protection)
{
	int fd;

	if (atomic_load(&was_asked[protection]) || !protection_enter(protection))
		return;
	fd = spare_open(protections[protection].root_fd, CHROMA_DATABASE,
			O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	if (fd >= 0) {
		maker_look(protection, fd);
		sys_close(fd);
	}
	protection_leave(protection);
}

bool maker_is_wanted(unsigned protection)
{
	return !atomic_load(&was_asked[protection]);
}

void maker_made(unsigned protection)
{
	atomic_store(&was_asked[protection], true);
}

void maker_stop(unsigned protection)
{
	atomic_store(&was_asked[protection], false);
}
