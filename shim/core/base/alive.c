/* SPDX-License-Identifier: MIT
 *
 * Lives: one locked byte for each process.
 */
#include "core/base/alive.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "core/base/sys.h"

#define TRIES 100
#define LIFE_BITS 62 /* an offset in a file, with room behind it */

#define USE_BYTE (UINT64_C(1) << LIFE_BITS)

static int lock_byte(int fd, uint64_t life, int cmd, struct flock *lock)
{
	memset(lock, 0, sizeof(*lock));
	lock->l_type = F_WRLCK;
	lock->l_whence = SEEK_SET;
	lock->l_start = (off_t)life;
	lock->l_len = 1;
	return sys_fcntl(fd, cmd, (unsigned long)lock);
}

/* Unlike any other process's; what is drawn twice is found out by its lock. */
static uint64_t draw(void)
{
	uint64_t life = 0;
	struct timespec now = {0, 0};

	if (SYS3(SYS_getrandom, &life, sizeof(life), GRND_NONBLOCK) != (long)sizeof(life)) {
		SYS2(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
		life = ((uint64_t)now.tv_nsec ^ (uint64_t)sys_gettid() << 32) *
		       UINT64_C(0x9e3779b97f4a7c15);
	}
	return life & ((UINT64_C(1) << LIFE_BITS) - 1);
}

int alive_open(int storefd)
{
	return sys_openat(storefd, ALIVE_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
}

int alive_begin(int fd, uint64_t *life)
{
	struct flock lock;
	int tries, r = -EAGAIN;

	for (tries = 0; tries < TRIES && (r == -EAGAIN || r == -EACCES || r == -EINTR); tries++) {
		*life = draw();
		r = *life ? lock_byte(fd, *life, F_OFD_SETLK, &lock) : -EAGAIN;
	}
	if (r < 0)
		*life = 0;
	return r;
}

bool alive_is_gone(int storefd, ino_t ino)
{
	struct stat is;
	int r = sys_fstatat(storefd, ALIVE_NAME, &is, AT_SYMLINK_NOFOLLOW);

	return r == -ENOENT || (r == 0 && is.st_ino != ino);
}

int alive_again(int fd, uint64_t life)
{
	struct flock lock;

	return lock_byte(fd, life, F_OFD_SETLK, &lock);
}

int alive_use(int fd, int on)
{
	struct flock lock = {.l_type = on ? F_RDLCK : F_UNLCK,
			     .l_whence = SEEK_SET,
			     .l_start = (off_t)USE_BYTE,
			     .l_len = 1};

	return sys_fcntl(fd, F_OFD_SETLK, (unsigned long)&lock);
}

/* Anew: a lock does not stand in the way of the descriptor that has it. */
static int open_to_look(int storefd)
{
	int fd = sys_openat(storefd, ALIVE_NAME, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);

	if (fd == -EACCES || fd == -EPERM || fd == -EROFS)
		fd = sys_openat(storefd, ALIVE_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK,
				0);
	return fd;
}

bool alive_in_use(int storefd, int own)
{
	struct flock lock;
	int fd = own >= 0 ? own : open_to_look(storefd), r;

	if (fd < 0)
		return false;
	r = lock_byte(fd, USE_BYTE, F_OFD_GETLK, &lock);
	if (fd != own)
		sys_close(fd);
	return r == 0 && lock.l_type != F_UNLCK;
}

static enum alive alive_look(int storefd, uint64_t first, uint64_t count)
{
	struct flock lock = {.l_type = F_WRLCK,
			     .l_whence = SEEK_SET,
			     .l_start = (off_t)first,
			     .l_len = (off_t)count};
	int r, fd = open_to_look(storefd);

	if (fd < 0)
		return fd == -ENOENT ? ALIVE_DEAD : ALIVE_UNKNOWN;
	r = sys_fcntl(fd, F_OFD_GETLK, (unsigned long)&lock);
	sys_close(fd);
	if (r < 0)
		return ALIVE_UNKNOWN;
	return lock.l_type == F_UNLCK ? ALIVE_DEAD : ALIVE_LIVES;
}

enum alive alive_is(int storefd, uint64_t life)
{
	return !life || life >> LIFE_BITS ? ALIVE_DEAD : alive_look(storefd, life, 1);
}

enum alive alive_any(int storefd)
{
	return alive_look(storefd, 1, UINT64_C(1) << LIFE_BITS);
}
