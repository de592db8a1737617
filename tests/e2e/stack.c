/* SPDX-License-Identifier: MIT
 *
 *	stack DIRECTORY
 *
 * How deep the stack gets in each call, on files of a data directory and beside it: "call bytes".
 * All calls are made once before, on a large stack: a directory is taken under protection there.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define STACK 65536
#define PAINT 0xa5

static int database, level0;
static char bytes[4096];
static unsigned char *stack;

#define SEGMENT "11111111-2222-3333-4444-555555555555"

#define CALLS(X)                                                             \
	X(open, close(open("chroma.sqlite3", O_RDWR)))                       \
	X(open_index, close(open(SEGMENT "/length.bin", O_RDWR)))            \
	X(open_other, close(open("other", O_RDWR | O_CREAT, 0600)))          \
	X(open_elsewhere, close(open("../x", O_RDWR | O_CREAT, 0600)))       \
	X(openat, close(openat(AT_FDCWD, "other", O_RDWR | O_CREAT, 0600)))  \
	X(rename, rename("other", "moved") + rename("moved", "other"))       \
	X(rename_elsewhere, rename("../x", "../y") + rename("../y", "../x")) \
	X(write, pwrite(database, bytes, 4096, 0))                           \
	X(write_index, pwrite(level0, bytes, 4096, 0))                       \
	X(read_index, pread(level0, bytes, 4096, 0))                         \
	X(mkdir, mkdir("directory", 0700) + rmdir("directory"))              \
	X(link, link("other", "second") + unlink("second"))                  \
	X(symlink, symlink("other", "third") + unlink("third"))              \
	X(chmod, chmod("other", 0600))                                       \
	X(truncate, truncate("other", 0))                                    \
	X(unlink, unlink("other") + unlink("../x"))

#define MAKE(name, call)                       \
	static void *make_##name(void *unused) \
	{                                      \
		bytes[0] = (char)(call);       \
		return unused;                 \
	}
CALLS(MAKE)

static size_t depth_of(void *(*call)(void *))
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

static void *nothing(void *unused)
{
	return unused;
}

int main(int argc, char **argv)
{
	size_t least;

	if (argc != 2 || chdir(argv[1]) < 0)
		return 2;
	database = open("chroma.sqlite3", O_RDWR);
	level0 = open(SEGMENT "/data_level0.bin", O_RDWR);
	stack = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (database < 0 || level0 < 0)
		return 3;
	least = depth_of(nothing);
#define WARM(name, call) make_##name(NULL);
	CALLS(WARM)
#define TELL(name, call) printf("%s %zd\n", #name, depth_of(make_##name) - least);
	CALLS(TELL)
	return 0;
}
