/* SPDX-License-Identifier: MIT
 *
 * The shim's own voice and its own descriptors, which the host must neither see nor close.
 */
#include "preload/base/shim.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <time.h>

#include "preload/base/bounds.h"
#include "preload/base/real.h"
#include "preload/base/slots.h"

#define HIDDEN 1024
#define LOWEST 10 /* of the numbers of hidden descriptors */
#define PARTS 32  /* of a line */
#define READER_MS 100

bool shim_live;
int shim_pid;

static struct {
	_Atomic int fd; /* 0: free. Descriptor 0 is never one of ours */
	int *owner;
} hidden[HIDDEN];

/* What standard error was when the process began, or what the host has put there since. */
static _Atomic uint64_t stderr_dev, stderr_ino; /* ino 0: it was closed */

void shim_stderr_is_now(void)
{
	struct stat st;
	bool open = sys_fstat(2, &st) == 0;

	atomic_store(&stderr_dev, open ? (uint64_t)st.st_dev : 0);
	atomic_store(&stderr_ino, open ? (uint64_t)st.st_ino : 0);
}

/* With standard error closed, the next file to be opened has its number: a socket, the database. */
bool shim_is_heard(void)
{
	struct stat st;

	return !slot_protected(slot_of(2)) && sys_fstat(2, &st) == 0 &&
	       (uint64_t)st.st_ino == atomic_load(&stderr_ino) &&
	       (uint64_t)st.st_dev == atomic_load(&stderr_dev);
}

/*
 * False: who reads it has stopped (a pipe that is full, a terminal with ^S), and a write would hold
 * the host up until he goes on. He is waited for once, and again only after he went on.
 */
static bool takes_a_line(void)
{
	static _Atomic bool takes_none;
	const struct timespec wait = {0, atomic_load(&takes_none) ? 0 : READER_MS * 1000000};
	struct pollfd error = {.fd = 2, .events = POLLOUT};
	bool takes = SYS5(SYS_ppoll, &error, 1, &wait, NULL, 0) != 0;

	atomic_store(&takes_none, !takes);
	return takes;
}

/* To a pipe that nobody reads, or a file as large as the process may make one (ulimit -f), without
 * the signal that would end the host. */
static void write_quietly(const struct iovec *parts, int count)
{
	const uint64_t pipe_signal = UINT64_C(1) << (SIGPIPE - 1);
	const uint64_t size_signal = UINT64_C(1) << (SIGXFSZ - 1);
	const uint64_t both = pipe_signal | size_signal;
	const struct timespec now = {0, 0};
	uint64_t before = 0, pending = 0, raised;
	long r;

	SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &both, &before, sizeof(before));
	SYS2(SYS_rt_sigpending, &pending, sizeof(pending));
	r = SYS3(SYS_writev, 2, parts, count);
	raised = (r == -EPIPE ? pipe_signal : r == -EFBIG ? size_signal : 0) & ~pending;
	if (raised)
		SYS4(SYS_rt_sigtimedwait, &raised, NULL, &now, sizeof(raised));
	SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
}

THREAD_LOCAL unsigned holds_signals; /* how often */
THREAD_LOCAL uint64_t blocked_before;

void signals_hold(void)
{
	uint64_t before;

	if (holds_signals) {
		holds_signals++;
		return;
	}
	before = sys_hold_signals();
	holds_signals = 1;
	blocked_before = before;
}

void signals_let(void)
{
	if (--holds_signals == 0)
		sys_let_signals(blocked_before);
}

const char *shim_error_text(int error)
{
	switch (error) {
	case EACCES:
	case EPERM:
		return "permission denied";
	case EROFS:
		return "read-only file system";
	case ENOSPC:
		return "no space left on the device";
	case EDQUOT:
		return "disk quota exceeded";
	case EFBIG:
		return "the process may not make files that large";
	case EMFILE:
	case ENFILE:
		return "too many open files";
	case EUSERS:
		return "all of the library's own descriptors are in use";
	case EIO:
		return "input/output error";
	default:
		return "system error";
	}
}

void shim_say(const char *part, ...)
{
	struct iovec line[PARTS];
	va_list parts;
	int n = 1;

	if (!shim_is_heard())
		return;
	line[0] = (struct iovec){(void *)(uintptr_t) "chromashim: ", 12};
	va_start(parts, part);
	for (; part && n < PARTS - 1; part = va_arg(parts, const char *))
		line[n++] = (struct iovec){(void *)(uintptr_t)part, strlen(part)};
	va_end(parts);
	line[n++] = (struct iovec){(void *)(uintptr_t) "\n", 1};
	if (takes_a_line())
		write_quietly(line, n);
}

/* High, so that hosts that count on low numbers are not met; not so high that the kernel's table
 * of descriptors grows and every fork copies it. */
static int hidden_floor(void)
{
	struct rlimit limit = {1024, 1024};

	SYS4(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit);
	if (limit.rlim_cur > 4096)
		limit.rlim_cur = 4096;
	return limit.rlim_cur > 256 ? (int)limit.rlim_cur - 128 : (int)limit.rlim_cur / 2;
}

static int move_up(int fd)
{
	int from, high = -EMFILE;

	for (from = hidden_floor(); high == -EMFILE && from >= LOWEST; from /= 2)
		high = sys_fcntl(fd, F_DUPFD_CLOEXEC, (unsigned long)from);
	return high >= SLOTS ? (sys_close(high), -EMFILE) : high;
}

int hidden_adopt(int fd, int *owner)
{
	union slot s = {.role = ROLE_HIDDEN};
	int high = move_up(fd);
	int i, free_place = 0;

	if (high == -EMFILE && fd >= LOWEST && fd < SLOTS)
		high = fd; /* there is no second number: it stays where it is */
	else
		sys_close(fd);
	if (high < 0)
		return *owner = high;
	for (i = 0; i < (int)bound_of("descriptors", HIDDEN); i++) {
		free_place = 0;
		if (atomic_compare_exchange_strong(&hidden[i].fd, &free_place, high)) {
			hidden[i].owner = owner;
			slot_set(high, s);
			return *owner = high;
		}
	}
	sys_close(high);
	return *owner = -EUSERS;
}

static int hidden_index(int fd)
{
	int i;

	for (i = 0; slot_of(fd).role == ROLE_HIDDEN && i < HIDDEN; i++)
		if (atomic_load(&hidden[i].fd) == fd)
			return i;
	return -1;
}

void hidden_release(int *owner)
{
	int i = *owner > 0 ? hidden_index(*owner) : -1;

	if (i < 0)
		return;
	slot_clear(*owner);
	atomic_store(&hidden[i].fd, 0);
	sys_close(*owner);
	*owner = -1;
}

void hidden_dodge(int fd)
{
	union slot s = {.role = ROLE_HIDDEN};
	int i = hidden_index(fd);
	int high = i < 0 ? -1 : move_up(fd);

	if (high < 0)
		return;
	atomic_store(&hidden[i].fd, high);
	*hidden[i].owner = high;
	slot_set(high, s);
	slot_clear(fd);
}

/* ---- one that is kept ---- */

static int spare = -1; /* hidden */
static _Atomic bool spare_taken;

void spare_keep(void)
{
	if (atomic_exchange(&spare_taken, true))
		return;
	if (spare <= 0)
		hidden_adopt(sys_openat(AT_FDCWD, "/", O_PATH | O_CLOEXEC, 0), &spare);
	atomic_store(&spare_taken, false);
}

bool spare_give(void)
{
	bool given = false;

	if (atomic_exchange(&spare_taken, true))
		return false;
	given = spare > 0;
	hidden_release(&spare);
	atomic_store(&spare_taken, false);
	return given;
}

int spare_open(int dirfd, const char *path, int flags, mode_t mode)
{
	int fd = sys_openat(dirfd, path, flags, mode);

	if (fd == -EMFILE && spare_give())
		fd = sys_openat(dirfd, path, flags, mode);
	else if (fd >= 0)
		spare_keep();
	return fd;
}

static ssize_t shim_read(const struct file_source *source, void *buf, size_t n, uint64_t at)
{
	return sys_pread_all(source->fd, buf, n, at);
}

struct file_source shim_source(int fd, uint64_t size)
{
	return (struct file_source){.read = shim_read, .size = size, .fd = fd};
}

int hidden_in_range(unsigned first, unsigned last)
{
	unsigned fd, top = (unsigned)atomic_load(&slots_top);

	for (fd = first; fd <= last && fd < top; fd++)
		if (slot_of((int)fd).role == ROLE_HIDDEN)
			return (int)fd;
	return -1;
}
