/* SPDX-License-Identifier: MIT
 *
 * Bounded reading and atomic publishing of files.
 */
#include "core/base/fileio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/sys.h"

#define HOLE_SLACK (64u << 10) /* zeros that sparse copying turned into a hole */

static int is_plain_name(const char *name)
{
	return name[0] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0 && !strchr(name, '/');
}

int file_open_at(int dirfd, const char *name)
{
	struct stat st;
	int fd, r = 0;

	if (!is_plain_name(name))
		return -EINVAL;
	fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return errno == ENXIO ? -ENOTSUP : -errno; /* a socket */
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (S_ISDIR(st.st_mode))
		r = -EISDIR;
	else if (!S_ISREG(st.st_mode))
		r = -ENOTSUP;
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

int file_open_directory_at(int dirfd, const char *name)
{
	int fd;

	if (!is_plain_name(name))
		return -EINVAL;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int file_follow_directory_at(int dirfd, const char *name)
{
	struct stat st;
	int fd;

	if (!is_plain_name(name))
		return -EINVAL;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	if (errno == ENOENT && fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		return -ELOOP;
	return -errno;
}

int file_may_change(int dirfd, const char *name)
{
	struct statx st;

	if (faccessat(dirfd, name, W_OK, AT_EACCESS) < 0)
		return -errno;
	if (SYS5(SYS_statx, dirfd, name, 0, 0, &st) == 0 &&
	    (st.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND)))
		return -EPERM;
	return 0;
}

int file_names_of(int fd, DIR **out)
{
	*out = fdopendir(fd);
	if (*out)
		return 0;
	close(fd);
	return -ENOMEM;
}

int file_names_at(int dirfd, const char *name, DIR **out)
{
	int fd = name ? file_open_directory_at(dirfd, name)
		      : openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*out = NULL;
	if (fd < 0)
		return name ? fd : -errno;
	return file_names_of(fd, out);
}

ssize_t file_read_at(int fd, void *buf, size_t n, uint64_t offset)
{
	size_t done = 0;

	while (done < n) {
		ssize_t r;

		if (offset + done > INT64_MAX)
			break;
		r = pread(fd, (char *)buf + done, n - done, (off_t)(offset + done));
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (r == 0)
			break;
		done += (size_t)r;
	}
	return (ssize_t)done;
}

int file_write_all(int fd, const void *buf, size_t n)
{
	const char *p = buf;

	while (n > 0) {
		ssize_t r = write(fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		p += r;
		n -= (size_t)r;
	}
	return 0;
}

int file_read_all(int fd, size_t limit, char **data_out, size_t *size_out)
{
	size_t have = 0, room = 4096;
	char *data = malloc(room + 1);
	ssize_t n;

	if (!data)
		return -ENOMEM;
	/* Not by the size: files of /proc have none, and it may change. */
	while ((n = file_read_at(fd, data + have, room - have, have)) > 0) {
		char *more;

		have += (size_t)n;
		if (have > limit) {
			free(data);
			return -EFBIG;
		}
		if (have < room)
			continue;
		room *= 2;
		more = realloc(data, room + 1);
		if (!more) {
			free(data);
			return -ENOMEM;
		}
		data = more;
	}
	if (n < 0) {
		free(data);
		return (int)n;
	}
	data[have] = '\0';
	*data_out = data;
	*size_out = have;
	return 0;
}

/* ---- sources and windows ---- */

static ssize_t read_descriptor(const struct file_source *s, void *buf, size_t n, uint64_t offset)
{
	return file_read_at(s->fd, buf, n, offset);
}

static ssize_t read_memory(const struct file_source *s, void *buf, size_t n, uint64_t offset)
{
	if (offset >= s->size)
		return 0;
	if (n > s->size - offset)
		n = (size_t)(s->size - offset);
	memcpy(buf, (const char *)s->data + offset, n);
	return (ssize_t)n;
}

int file_source_open(struct file_source *source, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*source =
	    (struct file_source){.read = read_descriptor, .size = (uint64_t)st.st_size, .fd = fd};
	return 0;
}

int file_source_open_data(struct file_source *source, int fd)
{
	off_t at = 0, data, end = 0;
	int r = file_source_open(source, fd);

	/* From one extent to the next; a file system without holes has one. */
	while (r == 0 && (data = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, data, SEEK_HOLE);
		if (end <= data)
			return 0;
		at = end;
	}
	if (r == 0 && errno == ENXIO && (uint64_t)end + HOLE_SLACK < source->size)
		source->size = (uint64_t)end + HOLE_SLACK;
	return r;
}

void file_source_memory(struct file_source *source, const void *data, size_t size)
{
	*source = (struct file_source){.read = read_memory, .size = size, .data = data, .fd = -1};
}

int file_source_read(const struct file_source *source, void *buf, size_t n, uint64_t offset)
{
	ssize_t r;

	if (offset > source->size || n > source->size - offset)
		return -ENODATA;
	r = source->read(source, buf, n, offset);
	if (r < 0)
		return (int)r;
	return (size_t)r == n ? 0 : -ENODATA;
}

int file_window_open(struct file_window *w, const struct file_source *source, size_t capacity)
{
	*w = (struct file_window){.source = source, .capacity = capacity, .buf = malloc(capacity)};
	return w->buf ? 0 : -ENOMEM;
}

void file_window_close(struct file_window *w)
{
	free(w->buf);
	*w = (struct file_window){0};
}

int file_window_get(struct file_window *w, uint64_t offset, size_t n, const unsigned char **out)
{
	size_t want = n;
	ssize_t r;

	if (offset >= w->at && offset - w->at <= w->have && n <= w->have - (offset - w->at)) {
		*out = w->buf + (offset - w->at);
		return 0;
	}
	if (n > w->capacity)
		return -EMSGSIZE;
	if (offset > w->source->size || n > w->source->size - offset)
		return -ENODATA;
	/* Ahead only for who goes forward: a jump costs no more than what is asked for. */
	if (offset >= w->at && offset - w->at <= w->have)
		want = w->capacity;
	if (want > w->source->size - offset)
		want = (size_t)(w->source->size - offset);
	w->have = 0;
	r = w->source->read(w->source, w->buf, want, offset);
	if (r < 0)
		return (int)r;
	w->at = offset;
	w->have = (size_t)r;
	if (w->have < n)
		return -ENODATA;
	*out = w->buf;
	return 0;
}

/* ---- publishing ---- */

int file_publish_begin(struct file_publish *p, int dirfd, const char *name, mode_t mode)
{
	if (!is_plain_name(name))
		return -EINVAL;
	if (strlen(name) >= sizeof(p->name))
		return -ENAMETOOLONG;
	p->dirfd = dirfd;
	memcpy(p->name, name, strlen(name) + 1);
	/* The pid keeps two writers apart; what a dead one left goes, whatever it is. */
	snprintf(p->temporary, sizeof(p->temporary), ".%.240s.%d.tmp", name, (int)getpid());
	unlinkat(dirfd, p->temporary, 0);
	p->fd =
	    openat(dirfd, p->temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
	return p->fd < 0 ? -errno : 0;
}

static int commit(struct file_publish *p, bool sync, bool sync_name)
{
	int r = sync && fsync(p->fd) < 0 ? -errno : 0;

	if (close(p->fd) < 0 && r == 0)
		r = -errno;
	p->fd = -1;
	if (r == 0 && renameat(p->dirfd, p->temporary, p->dirfd, p->name) < 0)
		r = -errno;
	if (r == 0 && sync_name && fsync(p->dirfd) < 0 && errno != EINVAL)
		return -errno; /* published, but perhaps not for long */
	if (r < 0)
		unlinkat(p->dirfd, p->temporary, 0);
	return r;
}

int file_publish_commit(struct file_publish *p)
{
	return commit(p, true, true);
}

int file_publish_commit_content(struct file_publish *p)
{
	return commit(p, true, false);
}

int file_publish_commit_unsynced(struct file_publish *p)
{
	return commit(p, false, false);
}

void file_publish_abort(struct file_publish *p)
{
	if (p->fd >= 0) {
		close(p->fd);
		unlinkat(p->dirfd, p->temporary, 0);
	}
	p->fd = -1;
}

static bool is_temporary(const char *name)
{
	size_t n = strlen(name);

	return n > 5 && name[0] == '.' && strcmp(name + n - 4, ".tmp") == 0;
}

void file_publish_sweep(int dirfd)
{
	DIR *dir;
	const struct dirent *entry;

	if (file_names_at(dirfd, NULL, &dir) < 0)
		return;
	while ((entry = readdir(dir)))
		if (is_temporary(entry->d_name))
			unlinkat(dirfd, entry->d_name, 0);
	closedir(dir);
}
