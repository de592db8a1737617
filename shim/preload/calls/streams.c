/* SPDX-License-Identifier: MIT
 *
 * stdio. Its buffers are flushed inside libc, where nothing can be interposed; so a protected
 * stream is one of fopencookie(), whose reads and writes are ours, and fileno() knows its
 * descriptor.
 */
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "preload/calls/call.h"

/* Of glibc's FILE._flags; fixed by its ABI (libio.h). */
#define NO_READS 0x0004
#define NO_WRITES 0x0008
#define APPENDING 0x1000
#define PUTTING 0x0800

/* The cookie stream of a descriptor. */
static FILE *_Atomic first_streams[SLOT_PAGE];
static FILE *_Atomic *_Atomic stream_pages[SLOTS / SLOT_PAGE] = {first_streams};

/* NULL: no memory. */
static FILE *_Atomic *stream_at(int fd)
{
	FILE *_Atomic *page = (unsigned)fd < SLOTS
				  ? MADE(stream_pages[fd / SLOT_PAGE], SLOT_PAGE * sizeof(FILE *))
				  : NULL;

	return page ? &page[fd % SLOT_PAGE] : NULL;
}

static ssize_t cookie_read(void *cookie, char *buf, size_t n)
{
	return do_read((int)(intptr_t)cookie - 1, buf, n);
}

/*
 * All of it, as libc does for streams of its own: a full disk takes what fits in its last block.
 * Less would be an error to libc though no call has failed, so the rest is tried, and fails or gets
 * room. at: -1, where the descriptor is. A cookie's way to say error is to have written less.
 */
static ssize_t write_whole(int fd, union slot s, const char *buf, size_t n, int64_t at)
{
	uint8_t before = record_flags;
	size_t done = 0;
	ssize_t ret;

	record_flags = (uint8_t)(before | OPLOG_F_STDIO);
	do {
		ret = at < 0 ? do_write(fd, buf + done, n - done)
			     : write_at_position(fd, s, buf + done, n - done, at + (int64_t)done);
		done += ret > 0 ? (size_t)ret : 0;
	} while (ret > 0 && done < n);
	record_flags = before;
	return (ssize_t)done;
}

static ssize_t cookie_write(void *cookie, const char *buf, size_t n)
{
	return write_whole((int)(intptr_t)cookie - 1, (union slot){0}, buf, n, -1);
}

static int cookie_seek(void *cookie, off64_t *offset, int whence)
{
	off_t at = sys_lseek((int)(intptr_t)cookie - 1, *offset, whence);

	if (at < 0) {
		errno = (int)-at;
		return -1;
	}
	*offset = at;
	return 0;
}

static int cookie_close(void *cookie)
{
	int fd = (int)(intptr_t)cookie - 1;

	if (stream_at(fd))
		atomic_store(stream_at(fd), NULL);
	return do_close(fd);
}

/* fopencookie() sees a plus sign in the second or third place only, fopen() everywhere ("re+"). */
static const char *cookie_mode(const char *mode)
{
	static const char *const plain[] = {"r", "w", "a"}, *const updating[] = {"r+", "w+", "a+"};
	int which = *mode == 'r' ? 0 : *mode == 'w' ? 1 : 2;

	return strchr(mode, '+') ? updating[which] : plain[which];
}

static FILE *stream_of_cookie(int fd, const char *mode, void *cookie,
			      cookie_io_functions_t functions)
{
	FILE *stream;

	if (!real.fopencookie)
		real_bind();
	stream = real.fopencookie(cookie, cookie_mode(mode), functions);
	if (stream) {
		stream->_fileno = fd;
		if (stream_at(fd))
			atomic_store(stream_at(fd), stream);
	}
	return stream;
}

static FILE *stream_on(int fd, const char *mode)
{
	static const cookie_io_functions_t functions = {cookie_read, cookie_write, cookie_seek,
							cookie_close};

	if ((unsigned)fd >= SLOTS)
		return NULL;
	return stream_of_cookie(fd, mode, (void *)((intptr_t)fd + 1), functions);
}

/* What only appends is at the end from the start, and ftell() tells. */
static void go_to_end(int fd, int flags)
{
	if ((flags & O_APPEND) && (flags & O_ACCMODE) == O_WRONLY)
		sys_lseek(fd, 0, SEEK_END);
}

/* ---- streams that are written at random ---- */

/*
 * hnswlib seeks to every element that it writes again, and asks for the position. With a buffer
 * libc reads the block before it each time; it does not buffer here. And the position is known from
 * the last seek: POSIX (2.5.1) has a program that uses the descriptor otherwise seek before it goes
 * on with the stream.
 */
#define RANDOMS 64

static struct random {
	_Atomic bool used;
	int fd;
	union slot slot;
	int64_t at; /* -1: not known */
} randoms[RANDOMS];

static void *cookie_of(const struct random *r)
{
	return (void *)((intptr_t)r->fd + 1);
}

static int64_t known_position(const struct random *r)
{
	return slot_of(r->fd).all == r->slot.all ? r->at : -1;
}

/* The descriptor is another's now. */
static void random_forget(int fd)
{
	int i;

	for (i = 0; i < RANDOMS; i++)
		if (atomic_load(&randoms[i].used) && randoms[i].fd == fd)
			randoms[i].at = -1;
}

static ssize_t random_read(void *cookie, char *buf, size_t n)
{
	struct random *r = cookie;

	r->at = -1;
	return cookie_read(cookie_of(r), buf, n);
}

static ssize_t random_write(void *cookie, const char *buf, size_t n)
{
	struct random *r = cookie;
	int64_t at = known_position(r);
	ssize_t done;

	r->at = -1;
	done = write_whole(r->fd, r->slot, buf, n, at);
	if (at >= 0 && (size_t)done == n)
		r->at = at + done;
	return done;
}

static int random_seek(void *cookie, off64_t *offset, int whence)
{
	struct random *r = cookie;
	int ret;

	if (whence == SEEK_CUR && *offset == 0 && known_position(r) >= 0) {
		*offset = r->at;
		return 0;
	}
	ret = cookie_seek(cookie_of(r), offset, whence);
	r->at = ret == 0 ? *offset : -1;
	return ret;
}

static int random_close(void *cookie)
{
	struct random *r = cookie;
	void *plain = cookie_of(r);

	atomic_store(&r->used, false);
	return cookie_close(plain);
}

static bool is_written_at_random(union slot s, int flags)
{
	return (s.role == ROLE_LEVEL0 || s.role == ROLE_LENGTH) && (flags & O_ACCMODE) == O_RDWR &&
	       !(flags & (O_TRUNC | O_APPEND));
}

/* NULL: none is free, or no memory. */
static FILE *random_stream_on(int fd, const char *mode)
{
	static const cookie_io_functions_t functions = {random_read, random_write, random_seek,
							random_close};
	FILE *stream;
	int i;

	for (i = 0; i < RANDOMS; i++) {
		struct random *r = &randoms[i];

		if (atomic_exchange(&r->used, true))
			continue;
		r->fd = fd;
		r->slot = slot_of(fd);
		r->at = -1;
		stream = stream_of_cookie(fd, mode, r, functions);
		if (stream)
			setvbuf(stream, NULL, _IONBF, 0);
		else
			atomic_store(&r->used, false);
		return stream;
	}
	return NULL;
}

/* ---- opening ---- */

/* As libc reads a mode string. -1: not one, or one (wide characters) that only libc can do. */
static int open_flags(const char *mode)
{
	int flags;

	switch (*mode) {
	case 'r':
		flags = O_RDONLY;
		break;
	case 'w':
		flags = O_WRONLY | O_CREAT | O_TRUNC;
		break;
	case 'a':
		flags = O_WRONLY | O_CREAT | O_APPEND;
		break;
	default:
		return -1;
	}
	for (mode++; *mode && *mode != ','; mode++) {
		if (*mode == '+')
			flags = (flags & ~O_ACCMODE) | O_RDWR;
		else if (*mode == 'x')
			flags |= O_EXCL;
		else if (*mode == 'e')
			flags |= O_CLOEXEC;
	}
	return *mode ? -1 : flags;
}

static FILE *open_elsewhere(const char *path, const char *mode)
{
	FILE *stream = REAL_LATE(fopen)(path, mode);

	return stream || !descriptors_are_back() ? stream : REAL_LATE(fopen)(path, mode);
}

FILE *do_fopen(void *caller, const char *path, const char *mode)
{
	A_PLACE(place);
	FILE *stream;
	int flags, fd;

	if (!mode || (flags = open_flags(mode)) < 0 ||
	    !place_find_for_open(&place, AT_FDCWD, path, flags))
		return open_elsewhere(path, mode);
	if (place.slot.role == ROLE_STORE && flags == O_RDONLY)
		return open_elsewhere(path, mode);
	record_flags |= OPLOG_F_STDIO;
	fd = open_place(&place, caller, OP_OPEN, AT_FDCWD, path, flags, 0666);
	record_flags &= (uint8_t)~OPLOG_F_STDIO;
	if (fd < 0)
		return NULL;
	stream = is_written_at_random(slot_of(fd), flags) ? random_stream_on(fd, mode) : NULL;
	if (!stream)
		stream = stream_on(fd, mode);
	if (stream)
		go_to_end(fd, flags);
	else
		do_close(fd);
	return stream;
}

FILE *do_fdopen(int fd, const char *mode)
{
	int flags = mode ? open_flags(mode) : -1, status;

	if (flags < 0 || !slot_protected(slot_of(fd)))
		return REAL_LATE(fdopen)(fd, mode);
	status = real.fcntl(fd, F_GETFL, 0);
	if (status < 0)
		return NULL;
	if ((status & O_ACCMODE) != O_RDWR && (flags & O_ACCMODE) != (status & O_ACCMODE)) {
		errno = EINVAL;
		return NULL;
	}
	if ((flags & O_APPEND) && !(status & O_APPEND)) {
		if (do_fcntl(fd, F_SETFL, (unsigned long)(status | O_APPEND)) < 0)
			return NULL;
		go_to_end(fd, flags);
	}
	return stream_on(fd, mode);
}

static bool is_ours(FILE *stream)
{
	int fd = stream->_fileno;
	FILE *_Atomic *page = (unsigned)fd < SLOTS ? stream_pages[fd / SLOT_PAGE] : NULL;

	return page && atomic_load(&page[fd % SLOT_PAGE]) == stream;
}

int do_fileno(FILE *stream)
{
	return is_ours(stream) ? stream->_fileno : REAL_LATE(fileno)(stream);
}

/*
 * libc loses its way when it seeks from the current position of a cookie stream: after fsetpos() or
 * a flush it takes an older position for it, and the next write lands there. ftello() is right.
 */
int do_fseek(FILE *stream, off_t offset, int whence)
{
	int before = errno;
	off_t at;

	if (whence == SEEK_CUR && is_ours(stream)) {
		errno = 0;
		at = ftello(stream); /* less than 0 without an error after ungetc() at the start */
		if (at < 0 && errno)
			return -1;
		errno = before;
		if (__builtin_add_overflow(at, offset, &offset) || offset < 0) {
			errno = EINVAL;
			return -1;
		}
		whence = SEEK_SET;
	}
	return REAL_LATE(fseeko)(stream, offset, whence);
}

/* Opens the path at the number that the stream had, as libc does. */
static bool open_over(void *caller, const char *path, int flags, int fd)
{
	int new = do_open(caller, path, flags, 0666);

	if (new < 0)
		return false;
	if (new != fd) {
		do_dup3(new, fd, flags & O_CLOEXEC);
		do_close(new);
	}
	return true;
}

/* A cookie stream stays one, whatever it is on; callers may go on using the old pointer. */
static FILE *reopen_ours(void *caller, const char *path, int flags, FILE *stream)
{
	int fd = stream->_fileno;

	fflush(stream); /* it may be the same file, and about to be truncated */
	__fpurge(stream);
	if (path && !open_over(caller, path, flags, fd)) {
		fclose(stream);
		return NULL;
	}
	random_forget(fd);
	if (!path && (flags & O_APPEND))
		do_fcntl(fd, F_SETFL, (unsigned long)(real.fcntl(fd, F_GETFL, 0) | O_APPEND));
	stream->_flags &= ~(NO_READS | NO_WRITES | APPENDING | PUTTING);
	stream->_IO_read_base = stream->_IO_read_ptr = stream->_IO_read_end = stream->_IO_buf_base;
	stream->_IO_write_base = stream->_IO_write_ptr = stream->_IO_write_end =
	    stream->_IO_buf_base;
	if ((flags & O_ACCMODE) == O_RDONLY)
		stream->_flags |= NO_WRITES;
	if ((flags & O_ACCMODE) == O_WRONLY)
		stream->_flags |= NO_READS;
	if (flags & O_APPEND)
		stream->_flags |= APPENDING;
	stream->_offset = -1; /* libc's memory of the position */
	clearerr(stream);
	go_to_end(fd, flags);
	return stream;
}

/*
 * libc's own stream cannot become a cookie stream. A new one is put on the same descriptor, and in
 * place of a standard one; the old one is left as it is, unused, for callers that keep its pointer.
 */
static FILE *reopen_theirs(void *caller, const char *path, const char *mode, int flags,
			   FILE *stream)
{
	int fd = REAL_LATE(fileno)(stream);
	FILE *new;

	fflush(stream);
	if (fd < 0 || !open_over(caller, path, flags, fd)) {
		fclose(stream);
		return NULL;
	}
	new = stream_on(fd, mode);
	go_to_end(fd, flags);
	if (new &&stream == stdin)
		stdin = new;
	else if (new &&stream == stdout)
		stdout = new;
	else if (new &&stream == stderr)
		stderr = new;
	return new;
}

/*
 * libc's own freopen() writes to the parts for wide characters of any stream, which a cookie stream
 * does not have. What a mode of those asks for is a new stream of libc's own.
 */
static FILE *reopen_as_theirs(const char *path, const char *mode, FILE *stream)
{
	if (stream != stdin && stream != stdout && stream != stderr)
		fclose(stream);
	else
		fflush(stream);
	if (path && mode)
		return REAL_LATE(fopen)(path, mode);
	errno = EINVAL;
	return NULL;
}

/* What the host has put at descriptor 2 is its standard error from now on. */
static FILE *reopen_elsewhere(const char *path, const char *mode, FILE *stream)
{
	FILE *new = REAL_LATE(freopen)(path, mode, stream);

	if (new &&do_fileno(new) == STDERR_FILENO)
		shim_stderr_is_now();
	return new;
}

FILE *do_freopen(void *caller, const char *path, const char *mode, FILE *stream)
{
	int flags = mode ? open_flags(mode) : -1;
	A_PLACE(place);

	if (is_ours(stream))
		return flags < 0 ? reopen_as_theirs(path, mode, stream)
				 : reopen_ours(caller, path, flags, stream);
	if (flags < 0 || !path || !place_find_for_open(&place, AT_FDCWD, path, flags))
		return reopen_elsewhere(path, mode, stream);
	return reopen_theirs(caller, path, mode, flags, stream);
}

void streams_adopt(int fd)
{
	FILE *stream = fd == STDOUT_FILENO || fd == STDERR_FILENO ? stream_on(fd, "w") : NULL;

	if (!stream)
		return;
	if (fd == STDOUT_FILENO) {
		stdout = stream;
	} else {
		setvbuf(stream, NULL, _IONBF, 0);
		stderr = stream;
	}
}

/* ---- printing to a descriptor ---- */

static int print_to(int fd, const char *format, va_list args)
{
	char small[1024], *text = small;
	va_list again;
	int n, done = 0;

	va_copy(again, args);
	n = vsnprintf(small, sizeof(small), format, args);
	if (n >= (int)sizeof(small)) {
		text = malloc((size_t)n + 1);
		n = text ? vsnprintf(text, (size_t)n + 1, format, again) : -1;
	}
	va_end(again);
	while (n > done) {
		ssize_t written = do_write(fd, text + done, (size_t)(n - done));

		if (written < 0 && errno != EINTR)
			n = -1;
		else if (written > 0)
			done += (int)written;
	}
	if (text != small)
		free(text);
	return n;
}

int do_vdprintf(int fd, const char *format, va_list args)
{
	if (!slot_protected(slot_of(fd)))
		return REAL_LATE(vdprintf)(fd, format, args);
	return print_to(fd, format, args);
}

int do_vdprintf_chk(int fd, int flag, const char *format, va_list args)
{
	if (!slot_protected(slot_of(fd)))
		return REAL_LATE(__vdprintf_chk)(fd, flag, format, args);
	return print_to(fd, format, args);
}

#define EXPORT __attribute__((visibility("default")))
EXPORT int entry_dprintf(int fd, const char *format, ...) __asm__("dprintf");
EXPORT int entry_dprintf_chk(int fd, int flag, const char *format, ...) __asm__("__dprintf_chk");

int entry_dprintf(int fd, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = do_vdprintf(fd, format, args);
	va_end(args);
	return n;
}

int entry_dprintf_chk(int fd, int flag, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = do_vdprintf_chk(fd, flag, format, args);
	va_end(args);
	return n;
}
