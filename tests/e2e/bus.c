/* SPDX-License-Identifier: MIT
 *
 * A host with a handler of its own for SIGBUS, set after its database was opened, and a vfork child
 * that resets all handlers, as libuv's do: the handler stands, and has what is the host's.
 *
 *	bus DATABASE FILE
 */
#include <err.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static char *map;

static void handler(int number, siginfo_t *info, void *context)
{
	(void)number, (void)context;
	_exit(info->si_addr == map + 5000 ? 0 : 3);
}

static void reset_in_child(void)
{
	int status;
	pid_t child = vfork();

	if (child == 0) {
		signal(SIGBUS, SIG_DFL);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child || status)
		errx(2, "the child");
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO}, old;
	int fd;

	if (argc != 3 || open(argv[1], O_RDWR) < 0)
		err(2, "usage: bus DATABASE FILE");
	if (signal(SIGBUS, SIG_IGN) != SIG_DFL || signal(SIGBUS, SIG_DFL) != SIG_IGN)
		errx(1, "signal() tells of another handler");
	sigaction(SIGBUS, &action, NULL);
	reset_in_child();
	sigaction(SIGBUS, NULL, &old);
	if (old.sa_sigaction != handler || !(old.sa_flags & SA_SIGINFO))
		errx(1, "another handler stands");
	fd = open(argv[2], O_RDWR | O_CREAT, 0600);
	if (fd < 0 || ftruncate(fd, 8192) < 0)
		err(2, "%s", argv[2]);
	map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED || ftruncate(fd, 0) < 0)
		err(2, "mmap");
	map[5000] = 1;
	return 1;
}
