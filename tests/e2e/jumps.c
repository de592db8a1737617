/* SPDX-License-Identifier: MIT
 *
 *	jumps DATABASE SEGMENT jump|cancel [held]
 *
 * Lets threads persist SEGMENT, and ends each in the midst of it: it jumps out of a signal handler,
 * or is cancelled, whatever it is doing. After each another thread persists it from beginning to
 * end. "held": the database is open all the time. Says how often that went well.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 40
#define JUMPS 12
#define PATIENCE 1000 /* of 10 ms */
#define PAGES 8

static const char *const index_files[] = {"header.bin", "data_level0.bin", "length.bin",
					  "link_lists.bin"};
static const char *database, *segment;
static char page[4096];
static atomic_int went_well, is_over, enough;
static __thread sigjmp_buf back;
static __thread volatile sig_atomic_t armed;

static int open_in_segment(const char *name, int flags)
{
	char path[4096];

	strcpy(path, segment);
	strcat(path, "/");
	strcat(path, name);
	return open(path, flags, 0644);
}

/* As hnswlib and pickle do; only what a signal handler may call, too. */
static int persist(void)
{
	int i, k, fd, result = 0;

	for (i = 0; i < 4; i++) {
		fd = open_in_segment(index_files[i], O_RDWR | O_CREAT);
		if (fd < 0)
			return -1;
		for (k = 0; k < PAGES; k++)
			if (pwrite(fd, page, sizeof(page), k * (off_t)sizeof(page)) < 0)
				result = -1;
		close(fd);
	}
	fd = open_in_segment("index_metadata.pickle", O_WRONLY | O_CREAT | O_TRUNC);
	if (fd < 0)
		return -1;
	if (write(fd, page, sizeof(page)) < 0 || write(fd, ".", 1) < 0)
		result = -1;
	close(fd);
	return result;
}

static void on_signal(int number)
{
	(void)number;
	if (armed)
		siglongjmp(back, 1);
}

static void *jumps(void *unused)
{
	while (!atomic_load(&enough)) {
		if (sigsetjmp(back, 1) == 0) {
			armed = 1;
			persist();
		}
		armed = 0;
	}
	return unused;
}

static void *is_cancelled(void *unused)
{
	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (;;)
		persist();
	return unused;
}

static void *whole(void *unused)
{
	atomic_store(&went_well, persist() == 0);
	atomic_store(&is_over, 1);
	return unused;
}

static void disturb(int cancel)
{
	pthread_t thread;
	int i;

	atomic_store(&enough, 0);
	pthread_create(&thread, NULL, cancel ? is_cancelled : jumps, NULL);
	for (i = 0; !cancel && i < JUMPS; i++) {
		usleep((useconds_t)rand() % 500);
		pthread_kill(thread, SIGUSR1);
	}
	atomic_store(&enough, 1);
	if (cancel) {
		usleep((useconds_t)rand() % 2000);
		pthread_cancel(thread);
	}
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal};
	int i, waited, fd;

	if (argc < 4)
		return 2;
	database = argv[1];
	segment = argv[2];
	fd = open(database, O_RDWR | O_CREAT, 0644);
	if (argc < 5)
		close(fd);
	memset(page, 'n', sizeof(page));
	sigaction(SIGUSR1, &action, NULL);
	for (i = 0; i < ROUNDS; i++) {
		pthread_t next;

		disturb(strcmp(argv[3], "cancel") == 0);
		atomic_store(&is_over, 0);
		pthread_create(&next, NULL, whole, NULL);
		for (waited = 0; waited < PATIENCE && !atomic_load(&is_over); waited++)
			usleep(10000);
		if (!atomic_load(&is_over) || !atomic_load(&went_well)) {
			printf("no persist after round %d\n", i + 1);
			fflush(stdout);
			_exit(1);
		}
		pthread_join(next, NULL);
	}
	printf("%d\n", i);
	return 0;
}
