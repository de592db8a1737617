/* SPDX-License-Identifier: MIT
 *
 * Bulk output: publishing, compressing, and writing numbers fast.
 */
#include "command/base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <math.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>
#include <zstd.h>

#include "command/base/command.h"
#include "core/base/owner.h"

#define BUFFER_SIZE (256u << 10)
#define ZSTD_LEVEL 1 /* of vectors in digits it makes less than 3, and takes 60 % of its time */

/* ---- zstd as a stream ---- */

struct compressor {
	ZSTD_CStream *stream;
	FILE *out;
	char *buf;
	size_t room;
};

static int compress_step(struct compressor *c, ZSTD_inBuffer *in, ZSTD_EndDirective end)
{
	size_t left;

	do {
		ZSTD_outBuffer out = {c->buf, c->room, 0};

		left = ZSTD_compressStream2(c->stream, &out, in, end);
		if (ZSTD_isError(left)) {
			errno = ENOMEM;
			return -1;
		}
		if (out.pos && fwrite(c->buf, 1, out.pos, c->out) != out.pos)
			return -1;
	} while (end == ZSTD_e_end ? left > 0 : in->pos < in->size);
	return 0;
}

static ssize_t compressor_write(void *cookie, const char *data, size_t size)
{
	ZSTD_inBuffer in = {data, size, 0};

	return compress_step(cookie, &in, ZSTD_e_continue) < 0 ? 0 : (ssize_t)size;
}

static int compressor_close(void *cookie)
{
	struct compressor *c = cookie;
	ZSTD_inBuffer in = {NULL, 0, 0};
	int r = compress_step(c, &in, ZSTD_e_end);

	ZSTD_freeCStream(c->stream);
	free(c->buf);
	free(c);
	return r;
}

static FILE *open_compressor(FILE *out)
{
	static const cookie_io_functions_t functions = {.write = compressor_write,
							.close = compressor_close};
	struct compressor *c = calloc(1, sizeof(*c));
	FILE *stream = NULL;

	if (!c)
		return NULL;
	c->out = out;
	c->room = ZSTD_CStreamOutSize();
	c->buf = malloc(c->room);
	c->stream = ZSTD_createCStream();
	if (c->buf && c->stream) {
		ZSTD_CCtx_setParameter(c->stream, ZSTD_c_compressionLevel, ZSTD_LEVEL);
		ZSTD_CCtx_setParameter(c->stream, ZSTD_c_checksumFlag, 1);
		/* Beside who writes; a zstd built without threads does without. */
		ZSTD_CCtx_setParameter(c->stream, ZSTD_c_nbWorkers, 1);
		stream = fopencookie(c, "w", functions);
	}
	if (!stream) {
		ZSTD_freeCStream(c->stream);
		free(c->buf);
		free(c);
	}
	return stream;
}

/* ---- files ---- */

/* As the file that it is going to replace, for those who read that. */
static int look_the_same(int fd, const struct stat *st)
{
	/* Only root can give it away; a file of this user's own has no need of it. */
	bool given =
	    fchown(fd, st->st_uid, st->st_gid) == 0 || fchown(fd, (uid_t)-1, st->st_gid) == 0;

	/* What was for its group is not for another one. */
	if (!given)
		return fchmod(fd, st->st_mode & 07707) < 0 ? -errno : 0;
	return fchmod(fd, st->st_mode & 07777) < 0 ? -errno : 0;
}

/* A file of its own, which takes the name when it is complete. */
static int open_file(struct output *o, const struct output_place *place)
{
	char dir[PATH_MAX];
	int dirfd, r;

	if (place->kind == OUTPUT_FILE && faccessat(AT_FDCWD, place->path, W_OK, AT_EACCESS) < 0)
		return -errno;
	strlcpy(dir, place->path, sizeof(dir));
	dirfd = open(dirname(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dirfd < 0)
		return -errno;
	r = file_publish_begin(&o->file, dirfd, place->name, 0666);
	if (r == 0 && place->kind == OUTPUT_FILE)
		r = look_the_same(o->file.fd, &place->st);
	if (r == 0) {
		/* A descriptor of its own: that of the publisher is synced after this one's end. */
		o->plain = fdopen(dup(o->file.fd), "w");
		r = o->plain ? 0 : -errno;
	}
	o->is_file = r == 0;
	if (r < 0) {
		file_publish_abort(&o->file);
		close(dirfd);
	}
	return r;
}

/* Neither replaced nor cut: a device, a FIFO, /dev/stdout. */
static int open_through(struct output *o, const struct output_place *place)
{
	int fd = place->fd, r;

	if (fd < 0)
		fd = open(place->path, O_WRONLY | O_NOCTTY | O_CLOEXEC);
	o->plain = fd < 0 ? NULL : fdopen(fd, "w");
	r = o->plain ? 0 : -errno;
	if (r < 0 && fd >= 0)
		close(fd);
	return r;
}

static int open_named(struct output *o, const char *path)
{
	struct output_place *place = malloc(sizeof(*place));
	size_t n = strlen(path);
	int r = place ? output_place_find(place, path) : -ENOMEM;

	o->file.fd = -1;
	owner_pause(); /* what is asked for belongs to who asks */
	if (r == 0 && (place->kind == OUTPUT_DIRECTORY || (n && path[n - 1] == '/')))
		r = -EISDIR;
	if (r == 0)
		r = place->kind == OUTPUT_THROUGH ? open_through(o, place) : open_file(o, place);
	owner_resume();
	free(place);
	return r;
}

int output_open(struct output *o, const char *path, bool zstd)
{
	int r = 0;

	*o = (struct output){.plain = stdout};
	if (path && strcmp(path, "-") != 0)
		r = open_named(o, path);
	if (r < 0)
		return r;
	o->stream = zstd ? open_compressor(o->plain) : o->plain;
	if (!o->stream) {
		o->stream = o->plain;
		output_abort(o);
		return -ENOMEM;
	}
	setvbuf(o->stream, NULL, _IOFBF, BUFFER_SIZE);
	__fsetlocking(o->stream, FSETLOCKING_BYCALLER);
	return 0;
}

static int close_streams(struct output *o)
{
	int r = 0;

	if (o->stream != o->plain && (ferror(o->stream) | fclose(o->stream)))
		r = -(errno ? errno : EIO);
	if (o->plain == stdout)
		r = fflush(stdout) || r ? -(errno ? errno : EIO) : 0;
	else if (ferror(o->plain) | fclose(o->plain))
		r = -(errno ? errno : EIO);
	return r;
}

int output_close(struct output *o)
{
	int dirfd = o->file.dirfd, r = close_streams(o);

	if (!o->is_file)
		return r;
	if (r == 0)
		r = file_publish_commit(&o->file);
	else
		file_publish_abort(&o->file);
	close(dirfd);
	return r;
}

void output_abort(struct output *o)
{
	close_streams(o);
	if (!o->is_file)
		return;
	file_publish_abort(&o->file);
	close(o->file.dirfd);
}

int output_fail(int error, const char *path)
{
	const char *todo = "Make room, or choose another place.";

	switch (-error) {
	case EISDIR:
		todo = "Give the name of a file; this is a directory.";
		break;
	case EEXIST:
	case ENOTEMPTY:
		todo = "Remove it, or choose another place.";
		break;
	case ENOENT:
	case ENOTDIR:
		todo = "Make the directory that it is to be in, or choose another place.";
		break;
	case EACCES:
	case EPERM:
	case EROFS:
		todo = "Choose a place that this user may write to.";
		break;
	case EPIPE:
		todo = "Whoever was reading it has ended; start that again.";
		break;
	case ENXIO:
		todo = "It is a socket; give a file, a FIFO or a device.";
		break;
	}
	return fail(exit_code_of(error), error, todo, "cannot write '%s'",
		    path && strcmp(path, "-") != 0 ? path : "stdout");
}

/* ---- numbers ---- */

static const double powers[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12};

/* Four digits by two divisions that do not wait for each other. */
static void put_four(char *out, uint32_t number)
{
	static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930"
				    "31323334353637383940414243"
				    "44454647484950515253545556575859606162636465666768697071727374"
				    "75767778798081828384858687"
				    "888990919293949596979899";

	memcpy(out, pairs + number / 100 * 2, 2);
	memcpy(out + 2, pairs + number % 100 * 2, 2);
}

/* 9 digits without trailing zeros, the first of them worth 10^exponent. */
static size_t put_digits(char *out, uint32_t digits, int exponent)
{
	char text[9];
	size_t n = 0;
	int i, count = 9;

	text[0] = (char)('0' + digits / 100000000);
	put_four(text + 1, digits / 10000 % 10000);
	put_four(text + 5, digits % 10000);
	while (count > 1 && text[count - 1] == '0')
		count--;
	if (exponent < 0) {
		memcpy(out, "0.000", 5);
		n = (size_t)(1 - exponent);
		memcpy(out + n, text, sizeof(text));
		return n + (size_t)count;
	}
	for (i = 0; i < count || i <= exponent; i++) {
		if (i == exponent + 1)
			out[n++] = '.';
		out[n++] = i < count ? text[i] : '0';
	}
	return n;
}

/* Of a number between 1e-4 and 1e7. */
static int exponent_of(double size)
{
	int exponent = size < 1 ? -1 : 0;

	while (exponent < 0 && size * powers[-exponent] < 1)
		exponent--;
	while (exponent >= 0 && size >= powers[exponent + 1])
		exponent++;
	return exponent;
}

/*
 * Nine digits tell all floats apart, with a hundred times the room that rounding in double
 * arithmetic takes. printf is right as well, and ten times slower.
 */
size_t output_format_float(char *out, float value)
{
	double size = fabs((double)value);
	size_t sign = signbit(value) ? 1 : 0;
	int exponent;
	uint64_t digits;

	if (!isfinite(value)) {
		memcpy(out, "null", 4);
		return 4;
	}
	if (size != 0 && !(size >= 1e-4 && size < 1e7))
		return (size_t)snprintf(out, 24, "%.9g", (double)value);
	if (sign)
		out[0] = '-';
	if (size == 0) {
		out[sign] = '0';
		return sign + 1;
	}
	exponent = exponent_of(size);
	digits = (uint64_t)(size * powers[8 - exponent] + 0.5);
	if (digits == 1000000000u) {
		digits /= 10;
		exponent++;
	}
	return sign + put_digits(out + sign, (uint32_t)digits, exponent);
}

void output_floats(struct json *j, const float *values, uint64_t count)
{
	char buf[4096];
	size_t have = 0;
	uint64_t i;

	json_begin(j, '[');
	for (i = 0; i < count; i++) {
		if (have > sizeof(buf) - 32) {
			fwrite(buf, 1, have, j->out);
			have = 0;
		}
		if (i)
			buf[have++] = ',';
		have += output_format_float(buf + have, values[i]);
	}
	fwrite(buf, 1, have, j->out);
	json_end(j, ']');
}
