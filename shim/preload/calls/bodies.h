/* SPDX-License-Identifier: MIT
 *
 * What the exported entry points do; one family a file, as base/calls.def says.
 *
 * Every body behaves to the letter as the call it stands in for: result, errno, effects. Those with
 * a `caller` get the return address of the exported function.
 */
#ifndef PRELOAD_BODIES_H
#define PRELOAD_BODIES_H

#include "preload/base/types.h"

/* open.c */
int do_open(void *caller, const char *path, int flags, mode_t mode);
int do_open_2(void *caller, const char *path, int flags);
int do_openat(void *caller, int dirfd, const char *path, int flags, mode_t mode);
int do_openat_2(void *caller, int dirfd, const char *path, int flags);
int do_access(const char *path, int mode);
int do_creat(void *caller, const char *path, mode_t mode);
int do_open_by_handle_at(int mountfd, struct file_handle *handle, int flags);
int do_mkostemps(char *path, int suffix, int flags);

/* descriptors.c */
int do_close(int fd);
int do_close_range(unsigned int first, unsigned int last, int flags);
void do_closefrom(int first);
int do_dup(int fd);
int do_dup2(int fd, int to);
int do_dup3(int fd, int to, int flags);
int do_fcntl(int fd, int cmd, unsigned long arg);

/* locks.c */
int do_flock(int fd, int operation);
int do_lockf(int fd, int cmd, off_t length);
int do_record_lock(int fd, int cmd, struct flock *lock); /* F_SETLK and its kin, from do_fcntl */

/* data.c */
ssize_t do_write(int fd, const void *buf, size_t n);
ssize_t do_pwrite(int fd, const void *buf, size_t n, off_t offset);
ssize_t do_writev(int fd, const struct iovec *iov, int count);
ssize_t do_pwritev(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t do_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags);
ssize_t do_sendfile(int out, int in, off_t *offset, size_t n);
ssize_t do_copy_file_range(int in, off_t *in_offset, int out, off_t *out_offset, size_t n,
			   unsigned int flags);
ssize_t do_splice(int in, off_t *in_offset, int out, off_t *out_offset, size_t n,
		  unsigned int flags);
int do_aio_write(struct aiocb *cb);
int do_aio_fsync(int op, struct aiocb *cb);
int do_lio_listio(int mode, struct aiocb *const *list, int count, struct sigevent *event);

/* reads.c */
ssize_t do_read(int fd, void *buf, size_t n);
ssize_t do_read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t do_pread(int fd, void *buf, size_t n, off_t offset);
ssize_t do_pread_chk(int fd, void *buf, size_t n, off_t offset, size_t room);
ssize_t do_readv(int fd, const struct iovec *iov, int count);
ssize_t do_preadv(int fd, const struct iovec *iov, int count, off_t offset);
ssize_t do_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags);

/* size.c */
int do_ftruncate(int fd, off_t size);
int do_truncate(const char *path, off_t size);
int do_fallocate(int fd, int mode, off_t offset, off_t size);
int do_posix_fallocate(int fd, off_t offset, off_t size);

/* sync.c */
int do_fsync(int fd);
int do_fdatasync(int fd);
int do_syncfs(int fd);
int do_sync_file_range(int fd, off_t offset, off_t n, unsigned int flags);

/* listing.c */
struct dirent *do_readdir(DIR *dir);
int do_readdir_r(DIR *dir, struct dirent *entry, struct dirent **result);
ssize_t do_getdents64(int fd, void *buf, size_t size);
int do_scandir(const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
	       int (*compare)(const struct dirent **, const struct dirent **));
int do_scandirat(int dirfd, const char *path, struct dirent ***list,
		 int (*filter)(const struct dirent *),
		 int (*compare)(const struct dirent **, const struct dirent **));

/* names.c */
int do_rename(void *caller, const char *from, const char *to);
int do_renameat(void *caller, int fromfd, const char *from, int tofd, const char *to);
int do_renameat2(void *caller, int fromfd, const char *from, int tofd, const char *to,
		 unsigned int flags);
int do_unlink(void *caller, const char *path);
int do_unlinkat(void *caller, int dirfd, const char *path, int flags);
int do_rmdir(const char *path);
int do_remove(void *caller, const char *path);
int do_mkdir(const char *path, mode_t mode);
int do_mkdirat(int dirfd, const char *path, mode_t mode);
char *do_mkdtemp(char *path);
int do_link(const char *from, const char *to);
int do_linkat(int fromfd, const char *from, int tofd, const char *to, int flags);
int do_symlink(const char *target, const char *path);
ssize_t do_readlink(const char *path, char *buf, size_t size);
ssize_t do_readlink_chk(const char *path, char *buf, size_t size, size_t room);
ssize_t do_readlinkat(int dirfd, const char *path, char *buf, size_t size);
ssize_t do_readlinkat_chk(int dirfd, const char *path, char *buf, size_t size, size_t room);
int do_symlinkat(const char *target, int dirfd, const char *path);
int do_mknod(const char *path, mode_t mode, dev_t dev);
int do_mknodat(int dirfd, const char *path, mode_t mode, dev_t dev);
int do_chdir(const char *path);
int do_fchdir(int fd);
int do_xmknod(int version, const char *path, mode_t mode, dev_t *dev);
int do_xmknodat(int version, int dirfd, const char *path, mode_t mode, dev_t *dev);
int do_mkfifo(const char *path, mode_t mode);
int do_mkfifoat(int dirfd, const char *path, mode_t mode);

/* metadata.c */
int do_chmod(const char *path, mode_t mode);
int do_fchmod(int fd, mode_t mode);
int do_fchmodat(int dirfd, const char *path, mode_t mode, int flags);
int do_fchmodat2(long number, int dirfd, const char *path, mode_t mode, int flags);
int do_lchmod(const char *path, mode_t mode);
int do_chown(const char *path, uid_t uid, gid_t gid);
int do_fchown(int fd, uid_t uid, gid_t gid);
int do_lchown(const char *path, uid_t uid, gid_t gid);
int do_fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags);
int do_utime(const char *path, const struct utimbuf *times);
int do_utimes(const char *path, const struct timeval times[2]);
int do_lutimes(const char *path, const struct timeval times[2]);
int do_futimes(int fd, const struct timeval times[2]);
int do_futimesat(int dirfd, const char *path, const struct timeval times[2]);
int do_utimensat(int dirfd, const char *path, const struct timespec times[2], int flags);
int do_futimens(int fd, const struct timespec times[2]);
int do_setxattr(const char *path, const char *name, const void *value, size_t size, int flags);
int do_lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags);
int do_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
int do_removexattr(const char *path, const char *name);
int do_lremovexattr(const char *path, const char *name);
int do_fremovexattr(int fd, const char *name);

/* maps.c */
void *do_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
int do_munmap(void *at, size_t size);
int do_mprotect(void *at, size_t size, int prot);
int do_msync(void *at, size_t size, int flags);
int do_madvise(void *at, size_t size, int advice);

/* streams.c */
FILE *do_fopen(void *caller, const char *path, const char *mode);
FILE *do_freopen(void *caller, const char *path, const char *mode, FILE *stream);
FILE *do_fdopen(int fd, const char *mode);
int do_fileno(FILE *stream);
int do_fseek(FILE *stream, off_t offset, int whence);
int do_vdprintf(int fd, const char *format, va_list args);
int do_vdprintf_chk(int fd, int flag, const char *format, va_list args);

/* gate.c */
long do_syscall(long number, long a, long b, long c, long d, long e, long f);
int do_ioctl(int fd, unsigned long request, unsigned long arg);

/* process.c */
int do_execve(const char *path, char *const argv[], char *const envp[]);
int do_execveat(int dirfd, const char *path, char *const argv[], char *const envp[], int flags);
int do_fexecve(int fd, char *const argv[], char *const envp[]);
int do_execv(const char *path, char *const argv[]);
int do_execvpe(const char *file, char *const argv[], char *const envp[]);
int do_execvp(const char *file, char *const argv[]);
int do_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
		   const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);
int do_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
		    const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);
pid_t do_Fork(void);
void do_exit(int status) __attribute__((noreturn));
int do_socket(int domain, int type, int protocol);
int do_socketpair(int domain, int type, int protocol, int fds[2]);
int do_accept(int fd, struct sockaddr *address, socklen_t *size);
int do_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);
int do_pipe(int fds[2]);
int do_pipe2(int fds[2], int flags);
int do_epoll_create(int size);
int do_epoll_create1(int flags);
int do_eventfd(unsigned int value, int flags);
int do_signalfd(int fd, const sigset_t *set, int flags);
int do_timerfd_create(int clock, int flags);
int do_inotify_init(void);
int do_inotify_init1(int flags);
int do_memfd_create(const char *name, unsigned int flags);
DIR *do_opendir(const char *path);
long do_make(long number, long a, long b, long c, long d);
int do_sigprocmask(int how, const sigset_t *set, sigset_t *old);
int do_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
long do_rt_sigprocmask(long how, long set, long old, long size);
int do_sigaction(int number, const struct sigaction *action, struct sigaction *old);
sighandler_t do_signal(int number, sighandler_t handler);
int do_nanosleep(const struct timespec *time, struct timespec *left);
int do_usleep(unsigned microseconds);
int do_raise(int number);
int do_kill(pid_t pid, int number);

#endif
