/* SPDX-License-Identifier: MIT
 *
 * Who is the guardian of a directory.
 */
#include "command/base/guard_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "command/base/processes.h"
#include "core/base/alive.h"
#include "core/base/fileio.h"
#include "core/base/openers.h"
#include "core/chroma/chroma.h"
#include "core/oplog/oplog.h"

#define LOCK_NAME "guard.lock"
#define PLACE "\nplace "
#define PLACE_SIZE 64
#define ENDS "\nends with the last\n"
#define LAST_STEP_MS 100
#define LAST_STEPS 300

static int lock_byte(int fd, int cmd, enum guard_lock_byte byte, short *type)
{
	struct flock lock = {.l_type = *type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
	int r = fcntl(fd, cmd, &lock) < 0 ? -errno : 0;

	*type = lock.l_type;
	return r == -EACCES ? -EAGAIN : r;
}

int guard_lock_open(int storefd)
{
	int fd = openat(storefd, LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

int guard_lock_set(int fd, enum guard_lock_byte byte, short type)
{
	return lock_byte(fd, F_OFD_SETLK, byte, &type);
}

bool guard_lock_is_held(int fd, enum guard_lock_byte byte)
{
	short type = F_WRLCK;

	return lock_byte(fd, F_OFD_GETLK, byte, &type) == 0 && type != F_UNLCK;
}

/* ---- its text ---- */

/* The life of the machine or container that a process is in: what ends with it has not died. */
static void describe_place(char out[PLACE_SIZE])
{
	uint8_t boot[16];
	struct stat st;
	int n = snprintf(out, PLACE_SIZE, PLACE "%" PRIu64 " ",
			 stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0);
	size_t i;

	oplog_boot_id(boot);
	for (i = 0; i < sizeof(boot); i++)
		n += snprintf(out + n, PLACE_SIZE - (size_t)n, "%02x", boot[i]);
}

/* The text is "" if there is none. */
static void read_text(int fd, char *out, size_t room)
{
	ssize_t n = file_read_at(fd, out, room - 1, 0);

	out[n > 0 ? n : 0] = '\0';
}

void guard_lock_write(int fd, pid_t follow, bool ends)
{
	char text[192], place[PLACE_SIZE];
	int n;

	describe_place(place);
	n = snprintf(text, sizeof(text), "pid %d\nfollows %d%s%s", (int)getpid(), (int)follow,
		     place, ends ? ENDS : "\n");
	if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) != n)
		return;
}

void guard_lock_clear(int fd)
{
	if (ftruncate(fd, 0) < 0)
		return;
}

pid_t guard_lock_owner(int fd)
{
	char text[64];
	int pid;

	read_text(fd, text, sizeof(text));
	if (!*text)
		return 0;
	return sscanf(text, "pid %d", &pid) == 1 && pid > 0 ? pid : -1;
}

bool guard_lock_is_of_another_place(int fd)
{
	char text[192], place[PLACE_SIZE], *of;

	read_text(fd, text, sizeof(text));
	of = strstr(text, PLACE);
	describe_place(place);
	return of && strncmp(of, place, strlen(place)) != 0;
}

/* ---- a store's ---- */

int guard_is_running(int storefd)
{
	int fd = file_open_at(storefd, LOCK_NAME), pid = 0;

	if (fd < 0)
		return 0;
	if (guard_lock_is_held(fd, GUARD_LOCK_GUARDIAN))
		pid = guard_lock_owner(fd) > 0 ? guard_lock_owner(fd) : -1;
	else if (guard_lock_is_held(fd, GUARD_LOCK_WAITING))
		pid = -1;
	close(fd);
	return pid;
}

bool guard_has_died(int storefd)
{
	int fd = file_open_at(storefd, LOCK_NAME);
	struct stat st;
	bool died = fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0 &&
		    !guard_lock_is_held(fd, GUARD_LOCK_GUARDIAN);

	if (fd >= 0)
		close(fd);
	return died;
}

bool guard_is_stopped(int storefd)
{
	int fd = file_open_at(storefd, LOCK_NAME);
	bool stopped = fd >= 0 && guard_lock_is_held(fd, GUARD_LOCK_GUARDIAN) &&
		       !guard_lock_is_of_another_place(fd) && guard_lock_owner(fd) > 0 &&
		       process_is_stopped((uint32_t)guard_lock_owner(fd));

	if (fd >= 0)
		close(fd);
	return stopped;
}

/* By any but the guardian itself, which reads it for its snapshot. */
static bool is_open_beside(int fd, const struct data_directory *data)
{
	struct process_opener *list = NULL;
	pid_t guardian = guard_lock_owner(fd);
	bool open = alive_any(data->storefd) == ALIVE_LIVES;
	unsigned hidden;
	struct stat st;
	int i, n = 0;

	if (!open && fstatat(data->dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) == 0)
		n = process_find_openers(&st, CHROMA_DATABASE, &list, &hidden);
	for (i = 0; i < n && !open; i++)
		open = list[i].pid != (uint32_t)guardian;
	free(list);
	return open;
}

static bool is_at_the_last(int fd, const struct data_directory *data)
{
	char text[192];

	if (!guard_lock_is_held(fd, GUARD_LOCK_GUARDIAN))
		return false;
	read_text(fd, text, sizeof(text));
	return strstr(text, ENDS) && !is_open_beside(fd, data);
}

void guard_wait_for_last(const struct data_directory *data)
{
	const struct timespec step = {0, LAST_STEP_MS * 1000000};
	int fd = file_open_at(data->storefd, LOCK_NAME), i;

	for (i = 0; fd >= 0 && i < LAST_STEPS && is_at_the_last(fd, data); i++) {
		if (i == 0)
			warn("waiting for the guardian of '%s', which takes the snapshot of the "
			     "stop",
			     data->dir);
		nanosleep(&step, NULL);
	}
	if (fd >= 0)
		close(fd);
}
