/* SPDX-License-Identifier: MIT
 *
 * Files of a directory that nobody vouches for: opening them without being led elsewhere, reading
 * them within bounds, and publishing one atomically.
 *
 * Everything returns 0 or -errno; offsets and sizes are in bytes. A descriptor given is lent, and a
 * read by offset leaves its position alone.
 */
#ifndef CORE_FILEIO_H
#define CORE_FILEIO_H

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Opens the regular file `name` (one path component) in dirfd for reading; never follows a symbolic
 * link (-ELOOP), never waits for a FIFO. -EINVAL: no plain name, -EISDIR: a directory, -ENOTSUP:
 * neither a file nor a directory. Returns the descriptor, close-on-exec, the caller's to close.
 *
 * Not for a database that SQLite has open in this process: closing drops its POSIX locks.
 */
int file_open_at(int dirfd, const char *name);

/* The same for a directory; -ENOTDIR if it is something else. */
int file_open_directory_at(int dirfd, const char *name);

/* A segment's directory, which may be a symbolic link to one on another disk, for reading; -ELOOP
 * if the link leads nowhere. */
int file_follow_directory_at(int dirfd, const char *name);

/* Whether who asks may change it, as the file system answers: 0; -EACCES; -EROFS, also of a file
 * that is mounted; -EPERM: nobody may (chattr +i or +a), and root neither. */
int file_may_change(int dirfd, const char *name);

/* The names in a directory of dirfd, or (name NULL) in dirfd itself, from the first: *out is for
 * readdir() and closedir(), NULL after an error. */
int file_names_at(int dirfd, const char *name, DIR **out);

/* The same where it is open: the descriptor is *out's, and closed after an error. */
int file_names_of(int fd, DIR **out);

/* Reads n bytes at offset, or up to the end of the file. Returns how many, or -errno. */
ssize_t file_read_at(int fd, void *buf, size_t n, uint64_t offset);

/* Writes all n bytes at the descriptor's position. */
int file_write_all(int fd, const void *buf, size_t n);

/*
 * Reads a whole file of at most `limit` bytes (-EFBIG if it is longer). *data_out is the caller's
 * to free, and has a zero byte after its *size_out bytes.
 */
int file_read_all(int fd, size_t limit, char **data_out, size_t *size_out);

/*
 * Where a format reader gets its bytes from: a descriptor, memory, or anything that can read at an
 * offset (a snapshot that is put together from several places). Copied freely; owns nothing.
 */
struct file_source {
	/* Returns the number of bytes read, less than n only at the end, or -errno. */
	ssize_t (*read)(const struct file_source *source, void *buf, size_t n, uint64_t offset);
	uint64_t size;	  /* readers never ask for bytes beyond it */
	const void *data; /* for `read` */
	int fd;		  /* for `read` */
};

/* The size is that of now. -EINVAL if fd is no regular file. */
int file_source_open(struct file_source *source, int fd);
/*
 * The same without the hole at the end of a sparse file, but for 64 KiB of it: a file of terabytes
 * that holds nothing is read in no time.
 */
int file_source_open_data(struct file_source *source, int fd);
void file_source_memory(struct file_source *source, const void *data, size_t size);

/* Reads exactly n bytes; -ENODATA if the source ends before. */
int file_source_read(const struct file_source *source, void *buf, size_t n, uint64_t offset);

/*
 * A window that slides over a source, for readers that mostly go forward: no mapping, hence no
 * SIGBUS when the file shrinks underneath.
 */
struct file_window {
	const struct file_source *source;
	unsigned char *buf;
	size_t capacity;
	uint64_t at; /* source offset of buf[0] */
	size_t have;
};

/* -ENOMEM. The source is lent until file_window_close(). */
int file_window_open(struct file_window *w, const struct file_source *source, size_t capacity);
void file_window_close(struct file_window *w);

/*
 * n bytes at offset, n <= capacity; lent until the next call. -ENODATA: the source ends before,
 * -EMSGSIZE: n > capacity.
 */
int file_window_get(struct file_window *w, uint64_t offset, size_t n, const unsigned char **out);

/*
 * Publishing: a temporary file beside the final name, synced, renamed over it, and the directory
 * synced. Until commit the final name is untouched; abort (also after a failed commit) removes the
 * temporary file.
 */
struct file_publish {
	int dirfd; /* lent */
	int fd;	   /* write here */
	char name[256];
	char temporary[272];
};

/* mode as for open(2). -ENAMETOOLONG, -EINVAL (no plain name), or what openat says. */
int file_publish_begin(struct file_publish *p, int dirfd, const char *name, mode_t mode);
int file_publish_commit(struct file_publish *p);
/* The same, but the name is synced with the next one that is published in that directory. */
int file_publish_commit_content(struct file_publish *p);
/* The same without a sync, for what may be lost with the power. */
int file_publish_commit_unsynced(struct file_publish *p);
void file_publish_abort(struct file_publish *p);
/* Removes what dead publishers left in a directory that no other publishes in now. */
void file_publish_sweep(int dirfd);

/* Little-endian and big-endian numbers in a byte buffer, at any alignment. */
static inline uint32_t get_le16(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static inline uint32_t get_le32(const unsigned char *p)
{
	return get_le16(p) | get_le16(p + 2) << 16;
}

static inline uint64_t get_le64(const unsigned char *p)
{
	return get_le32(p) | (uint64_t)get_le32(p + 4) << 32;
}

static inline uint32_t get_be16(const unsigned char *p)
{
	return (uint32_t)p[0] << 8 | (uint32_t)p[1];
}

static inline uint32_t get_be32(const unsigned char *p)
{
	return get_be16(p) << 16 | get_be16(p + 2);
}

#endif
