/* SPDX-License-Identifier: MIT
 *
 *	addresses DIRECTORY
 *
 * Makes each call that takes a path or a buffer with addresses that are none, and with texts that
 * run into a page that is not there. One line each: the call, the address, and how it ended.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <utime.h>

static sigjmp_buf back;
static int database;

static void on_signal(int number)
{
	siglongjmp(back, number);
}

#define HERE AT_FDCWD

/* A call by a path, which is `p`. */
#define PATHS(X)                                                      \
	X(open, open(p, O_RDONLY))                                    \
	X(open_write, open(p, O_RDWR))                                \
	X(open_create, open(p, O_RDWR | O_CREAT, 0600))               \
	X(openat, openat(HERE, p, O_RDWR | O_CREAT, 0600))            \
	X(openat_below, openat(directory, p, O_RDWR | O_CREAT, 0600)) \
	X(creat, creat(p, 0600))                                      \
	X(truncate, truncate(p, 0))                                   \
	X(rename_from, rename(p, "other"))                            \
	X(rename_to, rename("chroma.sqlite3-not", p))                 \
	X(rename_both, rename(p, p))                                  \
	X(rename_database, rename("chroma.sqlite3", p))               \
	X(renameat2, renameat2(HERE, p, HERE, "other", 0))            \
	X(unlink, unlink(p))                                          \
	X(unlinkat, unlinkat(HERE, p, 0))                             \
	X(unlinkat_dir, unlinkat(HERE, p, AT_REMOVEDIR))              \
	X(rmdir, rmdir(p))                                            \
	X(remove, remove(p))                                          \
	X(mkdir, mkdir(p, 0700) + rmdir(p))                           \
	X(mkdirat, mkdirat(directory, p, 0700) + rmdir(p))            \
	X(link_from, link(p, "other"))                                \
	X(link_to, link("chroma.sqlite3-not", p))                     \
	X(linkat, linkat(HERE, p, HERE, "other", AT_SYMLINK_FOLLOW))  \
	X(symlink_to, symlink("chroma.sqlite3", p) + unlink(p))       \
	X(symlink_of, symlink(p, "chroma.sqlite3"))                   \
	X(readlink, readlink(p, buffer, sizeof(buffer)))              \
	X(readlinkat, readlinkat(directory, p, buffer, 16))           \
	X(mknod, mknod(p, S_IFREG | 0600, 0) + unlink(p))             \
	X(mkfifo, mkfifo(p, 0600) + unlink(p))                        \
	X(chdir, chdir(p))                                            \
	X(chmod, chmod(p, 0600))                                      \
	X(fchmodat, fchmodat(HERE, p, 0600, 0))                       \
	X(chown, chown(p, -1, -1))                                    \
	X(lchown, lchown(p, -1, -1))                                  \
	X(fchownat, fchownat(HERE, p, -1, -1, 0))                     \
	X(utime, utime(p, NULL))                                      \
	X(utimes, utimes(p, NULL))                                    \
	X(lutimes, lutimes(p, NULL))                                  \
	X(utimensat, p ? utimensat(HERE, p, NULL, 0) : -1)            \
	X(setxattr, setxattr(p, "user.a", "b", 1, 0))                 \
	X(setxattr_name, setxattr("chroma.sqlite3", p, "b", 1, 0))    \
	X(lsetxattr, lsetxattr(p, "user.a", "b", 1, 0))               \
	X(removexattr, removexattr(p, "user.a"))                      \
	X(lremovexattr, lremovexattr(p, "user.a"))                    \
	X(fsetxattr, fsetxattr(database, p, "b", 1, 0))               \
	X(fopen, fopen(p, "r") ? 0 : -1)                              \
	X(fopen_update, fopen(p, "r+") ? 0 : -1)                      \
	X(execve, execve(p, (char *[]){"a", NULL}, environ))          \
	X(raw_openat, syscall(SYS_openat, HERE, p, O_RDWR, 0))        \
	X(raw_unlink, syscall(SYS_unlinkat, HERE, p, 0))              \
	X(raw_rename, syscall(SYS_renameat2, HERE, p, HERE, "o", 0))

/* A call by a buffer or a structure. */
#define BUFFERS(X)                                             \
	X(write, write(database, p, 64))                       \
	X(pwrite, pwrite(database, p, 4096, 0))                \
	X(write_journal, pwrite(journal, p, 512, 0))           \
	X(write_index, pwrite(level0, p, 100, 0))              \
	X(writev, writev(level0, p, 1))                        \
	X(pwritev, pwritev(database, p, 2, 0))                 \
	X(pwritev_of, pwritev(level0, &vector, 1, 0))          \
	X(read, read(level0, p, 64))                           \
	X(pread, pread(database, p, 64, 0))                    \
	X(readv, readv(level0, p, 1))                          \
	X(fcntl_get, fcntl(database, F_GETLK, p))              \
	X(fcntl_set, fcntl(database, F_SETLK, p))              \
	X(futimens, p ? futimens(database, p) : -1)            \
	X(copy, copy_file_range(database, p, level0, p, 8, 0)) \
	X(raw_pwrite, syscall(SYS_pwrite64, level0, p, 100, 0))

static const char *const kinds[] = {"null", "one", "high", "gone", "runs-out", "protected", "ends"};

static char *make_address(unsigned kind, const char *text, size_t n)
{
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memcpy(page + 4096 - n, text, n);
	switch (kind) {
	case 0:
		return NULL;
	case 1:
		return (char *)1;
	case 2:
		return (char *)-4096;
	case 3:
		munmap(page, 8192);
		return page;
	case 5:
		mprotect(page, 8192, PROT_NONE);
		return page;
	default:
		munmap(page + 4096, 4096);
		return page + 4096 - n + (kind == 6);
	}
}

static void tell(const char *name, unsigned kind, int number, long result)
{
	int error = errno;

	if (number)
		printf("%s %s: signal %d\n", name, kinds[kind], number);
	else
		printf("%s %s: %s\n", name, kinds[kind], result < 0 ? strerror(error) : "done");
}

#define TRY(name, call)                                                    \
	for (kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++) {  \
		char *volatile p = make_address(kind, text, sizeof(text)); \
		int number = sigsetjmp(back, 1);                           \
                                                                           \
		vector = (struct iovec){p, 100};                           \
		errno = 0;                                                 \
		tell(#name, kind, number, number ? 0 : (long)(call));      \
	}

int main(int argc, char **argv)
{
	static const char text[] = "aaa/bbbb";
	static char buffer[64];
	unsigned volatile kind;
	struct iovec vector;
	struct sigaction action = {.sa_handler = on_signal};
	int directory, journal, level0;

	if (argc != 2 || chdir(argv[1]) < 0)
		return 2;
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	directory = open(".", O_RDONLY | O_DIRECTORY);
	database = open("chroma.sqlite3", O_RDWR);
	journal = open("chroma.sqlite3-journal", O_RDWR | O_CREAT, 0600);
	level0 = open("11111111-2222-3333-4444-555555555555/data_level0.bin", O_RDWR);
	if (database < 0 || journal < 0 || level0 < 0)
		return 3;
	PATHS(TRY)
	BUFFERS(TRY)
	return 0;
}
