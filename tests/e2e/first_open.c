/* SPDX-License-Identifier: MIT
 *
 *	first_open DATABASE [least]
 *
 * How deep the stack gets in the first open of a database, in bytes. With `least` that is done by a
 * thread with the smallest stack that there may be.
 */
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define STACK 131072
#define PAINT 0xa5

static const char *path;
static int database = -1;

static void *open_it(void *unused)
{
	database = open(path, O_RDWR | O_CREAT, 0600);
	return unused;
}

static void *nothing(void *unused)
{
	return unused;
}

static size_t depth_of(unsigned char *stack, void *(*call)(void *))
{
	pthread_attr_t attributes;
	pthread_t thread;
	size_t i = 0;

	memset(stack, PAINT, STACK);
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stack, STACK);
	if (pthread_create(&thread, &attributes, call, NULL) != 0)
		return 0;
	pthread_join(thread, NULL);
	while (i < STACK && stack[i] == PAINT)
		i++;
	return STACK - i;
}

static int open_with_least(void)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, (size_t)sysconf(_SC_THREAD_STACK_MIN));
	if (pthread_create(&thread, &attributes, open_it, NULL) != 0)
		return 3;
	pthread_join(thread, NULL);
	return database < 0;
}

int main(int argc, char **argv)
{
	unsigned char *stack;
	size_t least;

	if (argc < 2)
		return 2;
	path = argv[1];
	if (argc > 2)
		return open_with_least();
	stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	least = depth_of(stack, nothing);
	printf("%zu\n", depth_of(stack, open_it) - least);
	return database < 0;
}
