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
static ssize_t write_whole(int fd, const char *buf, size_t n, int64_t at)
{
	uint8_t before = record_flags;
	size_t done = 0;
	ssize_t ret;

	record_flags = (uint8_t)(before | OPLOG_F_STDIO);
	do {
		ret = at < 0 ? do_write(fd, buf + done, n - done)
			     : do_pwrite(fd, buf + done, n - done, at + (int64_t)done);
		done += ret > 0 ? (size_t)ret : 0;
	} while (ret > 0 && done < n);
	record_flags = before;
	return (ssize_t)done;
}

static ssize_t cookie_write(void *cookie, const char *buf, size_t n)
{
	return write_whole((int)(intptr_t)cookie - 1, buf, n, -1);
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

/* ---- streams whose position is kept here ---- */

/*
 * hnswlib seeks to every element that it writes, and asks for the position. Of a stream that was
 * opened by a path nobody else has the descriptor until fileno() or a fork gives it to them: so
 * long its position is the one here, and the kernel need not hear of it.
 */
#define TRACKED 64
#define ANYWHERE INT64_C(0x7fffffff) /* so long a file may be on every file system */

static struct tracked {
	_Atomic bool used;
	_Atomic bool shared; /* others have the descriptor: the position is the kernel's */
	_Atomic bool behind; /* the kernel has another position */
	int fd;
	union slot slot;
	_Atomic int64_t at;
} tracked[TRACKED];

static _Atomic int tracked_alone; /* how many are not shared */

static void *cookie_of(const struct tracked *t)
{
	return (void *)((intptr_t)t->fd + 1);
}

static void tracked_settle(struct tracked *t)
{
	if (atomic_exchange(&t->behind, false))
		sys_lseek(t->fd, atomic_load(&t->at), SEEK_SET);
}

/* In the midst of an operation of another thread it settles at that one's end, or the next. */
static void tracked_share(struct tracked *t)
{
	if (!atomic_exchange(&t->shared, true))
		atomic_fetch_sub(&tracked_alone, 1);
	tracked_settle(t);
}

/* Somebody else may use the descriptor from now on. -1: all of them. */
static void tracked_share_descriptor(int fd)
{
	int i;

	if (atomic_load(&tracked_alone) <= 0)
		return;
	for (i = 0; i < TRACKED; i++)
		if (atomic_load(&tracked[i].used) && (fd < 0 || tracked[i].fd == fd))
			tracked_share(&tracked[i]);
}

void streams_before_fork(void)
{
	tracked_share_descriptor(-1);
}

/* What the descriptor was opened on may have got another name, or another file may be there. */
static bool tracked_knows(struct tracked *t)
{
	if (slot_of(t->fd).all != t->slot.all)
		tracked_share(t);
	else if (!atomic_load(&t->shared))
		return true;
	tracked_settle(t);
	return false;
}

static void tracked_go(struct tracked *t, int64_t to)
{
	atomic_store(&t->at, to);
	atomic_store(&t->behind, true);
	if (atomic_load(&t->shared))
		tracked_settle(t);
}

static ssize_t tracked_read(void *cookie, char *buf, size_t n)
{
	struct tracked *t = cookie;
	int64_t at;
	ssize_t ret;

	if (!tracked_knows(t))
		return cookie_read(cookie_of(t), buf, n);
	at = atomic_load(&t->at);
	ret = do_pread(t->fd, buf, n, at);
	if (ret > 0)
		tracked_go(t, at + ret);
	return ret;
}

static ssize_t tracked_write(void *cookie, const char *buf, size_t n)
{
	struct tracked *t = cookie;
	int64_t at;
	ssize_t done;

	if (!tracked_knows(t))
		return cookie_write(cookie_of(t), buf, n);
	at = atomic_load(&t->at);
	done = write_whole(t->fd, buf, n, at);
	if (done > 0)
		tracked_go(t, at + done);
	return done;
}

/* By the kernel: from the end, or so far that a file system may have no such place. */
static int tracked_seek_really(struct tracked *t, off64_t *offset, int whence)
{
	int ret;

	tracked_settle(t);
	ret = cookie_seek(cookie_of(t), offset, whence);
	if (ret == 0)
		atomic_store(&t->at, *offset);
	return ret;
}

static int tracked_seek(void *cookie, off64_t *offset, int whence)
{
	struct tracked *t = cookie;
	int64_t to = *offset;

	if (!tracked_knows(t))
		return cookie_seek(cookie_of(t), offset, whence);
	if (whence == SEEK_CUR && __builtin_add_overflow(to, atomic_load(&t->at), &to))
		return tracked_seek_really(t, offset, whence);
	if (whence == SEEK_END || to < 0 || to > ANYWHERE)
		return tracked_seek_really(t, offset, whence);
	if (to != atomic_load(&t->at))
		tracked_go(t, to);
	*offset = to;
	return 0;
}

static int tracked_close(void *cookie)
{
	struct tracked *t = cookie;
	void *plain = cookie_of(t);

	if (!atomic_load(&t->shared))
		atomic_fetch_sub(&tracked_alone, 1);
	atomic_store(&t->used, false);
	return cookie_close(plain);
}

/* NULL: none is free, or no memory, or it has no position (a pipe), or others will have it. */
static FILE *tracked_stream_on(int fd, const char *mode)
{
	static const cookie_io_functions_t functions = {tracked_read, tracked_write, tracked_seek,
							tracked_close};
	off_t at = fd <= STDERR_FILENO ? -1 : sys_lseek(fd, 0, SEEK_CUR);
	FILE *stream;
	int i;

	for (i = 0; at >= 0 && i < TRACKED; i++) {
		struct tracked *t = &tracked[i];

		if (atomic_exchange(&t->used, true))
			continue;
		t->fd = fd;
		t->slot = slot_of(fd);
		atomic_store(&t->at, at);
		atomic_store(&t->behind, false);
		atomic_store(&t->shared, false);
		atomic_fetch_add(&tracked_alone, 1);
		stream = stream_of_cookie(fd, mode, t, functions);
		if (!stream) {
			atomic_fetch_sub(&tracked_alone, 1);
			atomic_store(&t->used, false);
		}
		return stream;
	}
	return NULL;
}

/* With a buffer libc reads the block before each element that is written again. */
static bool is_written_at_random(union slot s, int flags)
{
	return (s.role == ROLE_LEVEL0 || s.role == ROLE_LENGTH) && (flags & O_ACCMODE) == O_RDWR &&
	       !(flags & (O_TRUNC | O_APPEND));
}

static FILE *stream_on_file(int fd, const char *mode, int flags)
{
	union slot s = slot_of(fd);
	bool tracks = role_in_segment(s.role) && !(flags & O_APPEND);
	FILE *stream = tracks ? tracked_stream_on(fd, mode) : NULL;

	if (stream && is_written_at_random(s, flags))
		setvbuf(stream, NULL, _IONBF, 0);
	return stream ? stream : stream_on(fd, mode);
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
	stream = stream_on_file(fd, mode, flags);
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
	if (!is_ours(stream))
		return REAL_LATE(fileno)(stream);
	tracked_share_descriptor(stream->_fileno);
	return stream->_fileno;
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
	tracked_share_descriptor(fd);
	if (path && !open_over(caller, path, flags, fd)) {
		fclose(stream);
		return NULL;
	}
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
