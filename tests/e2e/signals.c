/* SPDX-License-Identifier: MIT
 *
 * Writes to protected files from a signal handler while the program writes to them, too.
 *
 *	signals DIR
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

#define ROUNDS 4000
#define WANTED 100 /* signals */

static int shared, own;
static atomic_int signals;

static void handler(int number)
{
	int saved = errno, fd;

	(void)number;
	pwrite(shared, "signal", 6, 100);
	write(own, ".", 1);
	fd = openat(AT_FDCWD, "handler", O_WRONLY | O_CREAT, 0600);
	if (fd >= 0) {
		ftruncate(fd, 7);
		close(fd);
	}
	atomic_fetch_add(&signals, 1);
	errno = saved;
}

static void *work(void *name)
{
	int fd;

	for (int i = 0; i < ROUNDS || atomic_load(&signals) < WANTED; i++) {
		pwrite(shared, "main", 4, i % 64);
		if (i % 16 == 0) {
			fd = open(name, O_WRONLY | O_CREAT, 0600);
			if (fd < 0)
				err(1, "%s", (char *)name);
			write(fd, "x", 1);
			close(fd);
		}
	}
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
	struct itimerval every = {{0, 300}, {0, 300}};
	pthread_t thread;

	if (argc != 2 || chdir(argv[1]) < 0)
		errx(2, "usage: signals DIR");
	shared = open("shared", O_RDWR | O_CREAT, 0600);
	own = open("own", O_WRONLY | O_CREAT, 0600);
	if (shared < 0 || own < 0)
		err(1, "open");
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &every, NULL);
	if (pthread_create(&thread, NULL, work, "second"))
		errx(1, "pthread_create");
	work("first");
	pthread_join(thread, NULL);
	setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
	printf("%d signals\n", atomic_load(&signals));
	return 0;
}
