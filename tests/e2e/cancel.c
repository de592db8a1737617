/* SPDX-License-Identifier: MIT
 *
 *	cancel DATABASE FILE
 *
 * Ends threads with pthread_cancel() while they read FILE, of which a write is held back, and reads
 * it in another one after each. Says how far it got.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ROUNDS 100
#define PATIENCE 500 /* of 10 ms */

static int fd;
static atomic_int done;
static char buffer[1 << 20];

static void *reads_on(void *asynchronous)
{
	if (asynchronous)
		pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (;;)
		pread(fd, buffer, sizeof(buffer), 0);
	return NULL;
}

static void *reads_once(void *unused)
{
	char bytes[16];

	if (pread(fd, bytes, sizeof(bytes), 0) == sizeof(bytes) && bytes[0] == 'n')
		atomic_store(&done, 1);
	return unused;
}

/* 1: the next read came back, and saw what had been written. */
static int round_of(void *asynchronous)
{
	pthread_t reader, next;
	int waited;

	pthread_create(&reader, NULL, reads_on, asynchronous);
	usleep(500);
	pthread_cancel(reader);
	pthread_join(reader, NULL);
	atomic_store(&done, 0);
	pthread_create(&next, NULL, reads_once, NULL);
	for (waited = 0; waited < PATIENCE && !atomic_load(&done); waited++)
		usleep(10000);
	if (!atomic_load(&done))
		return 0;
	pthread_join(next, NULL);
	return 1;
}

int main(int argc, char **argv)
{
	int i;

	if (argc < 3 || open(argv[1], O_RDWR | O_CREAT, 0644) < 0)
		return 2;
	fd = open(argv[2], O_RDWR);
	pwrite(fd, "nnnnnnnnnnnnnnnnnnnnnnnn", 24, 0);
	for (i = 0; i < ROUNDS; i++)
		if (!round_of(i % 10 == 9 ? argv : NULL)) {
			printf("no read came back after cancellation %d\n", i + 1);
			fflush(stdout);
			_exit(1);
		}
	printf("%d\n", i);
	return 0;
}
