/* SPDX-License-Identifier: MIT
 *
 * openers DATABASE FOLDER COUNT: the libraries lib0.so ... in FOLDER open DATABASE for the first
 * time, each from two threads at once. Prints how many descriptors on it are not of these opens.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*opener)(const char *);

static const char *database;
static atomic_int ready;
static opener opens;

static void *open_it(void *unused)
{
	atomic_fetch_add(&ready, 1);
	while (atomic_load(&ready) < 2)
		;
	opens(database);
	return unused;
}

static opener load(const char *folder, int number)
{
	char path[4096];
	void *library;

	snprintf(path, sizeof(path), "%s/lib%d.so", folder, number);
	library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!library)
		exit(9);
	return (opener)dlsym(library, "library_open");
}

static int count(void)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int n = 0;

	while ((e = readdir(d))) {
		char target[4096];
		ssize_t got = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);

		target[got > 0 ? got : 0] = '\0';
		n += strcmp(target, database) == 0;
	}
	return n;
}

int main(int argc, char **argv)
{
	int i, k, libraries = atoi(argv[3]);
	pthread_t threads[2];
	opener all[64];

	(void)argc;
	database = argv[1];
	if (open(database, O_RDWR | O_CREAT, 0644) < 0)
		return 9;
	for (i = 0; i < libraries; i++)
		all[i] = load(argv[2], i);
	for (i = 0; i < libraries; i++) {
		opens = all[i];
		atomic_store(&ready, 0);
		for (k = 0; k < 2; k++)
			pthread_create(&threads[k], NULL, open_it, NULL);
		for (k = 0; k < 2; k++)
			pthread_join(threads[k], NULL);
	}
	printf("%d\n", count() - 1 - 2 * libraries);
	return 0;
}
