/* SPDX-License-Identifier: MIT
 *
 * Calls that make a descriptor of what is no file. They are none of the library's business, but
 * when the host has no descriptor left, what is not in use of the library's own is given back
 * first.
 */
#include "preload/calls/call.h"

#define TWICE(call)                                                   \
	({                                                            \
		int made_ = (call);                                   \
                                                                      \
		made_ < 0 && descriptors_are_back() ? (call) : made_; \
	})

int do_socket(int domain, int type, int protocol)
{
	return TWICE(real.socket(domain, type, protocol));
}

int do_socketpair(int domain, int type, int protocol, int fds[2])
{
	return TWICE(real.socketpair(domain, type, protocol, fds));
}

int do_accept(int fd, struct sockaddr *address, socklen_t *size)
{
	return TWICE(real.accept(fd, address, size));
}

int do_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
	return TWICE(real.accept4(fd, address, size, flags));
}

int do_pipe(int fds[2])
{
	return TWICE(real.pipe(fds));
}

int do_pipe2(int fds[2], int flags)
{
	return TWICE(real.pipe2(fds, flags));
}

int do_epoll_create(int size)
{
	return TWICE(real.epoll_create(size));
}

int do_epoll_create1(int flags)
{
	return TWICE(real.epoll_create1(flags));
}

int do_eventfd(unsigned int value, int flags)
{
	return TWICE(real.eventfd(value, flags));
}

int do_signalfd(int fd, const sigset_t *set, int flags)
{
	return TWICE(real.signalfd(fd, set, flags));
}

int do_timerfd_create(int clock, int flags)
{
	return TWICE(real.timerfd_create(clock, flags));
}

int do_inotify_init(void)
{
	return TWICE(real.inotify_init());
}

int do_inotify_init1(int flags)
{
	return TWICE(real.inotify_init1(flags));
}

int do_memfd_create(const char *name, unsigned int flags)
{
	return TWICE(real.memfd_create(name, flags));
}

DIR *do_opendir(const char *path)
{
	DIR *made = REAL_LATE(opendir)(path);

	return !made && descriptors_are_back() ? REAL_LATE(opendir)(path) : made;
}

/* Any of them by its number. */
long do_make(long number, long a, long b, long c, long d)
{
	long made = real.syscall(number, a, b, c, d, 0, 0);

	return made < 0 && descriptors_are_back() ? real.syscall(number, a, b, c, d, 0, 0) : made;
}
