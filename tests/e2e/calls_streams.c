/* SPDX-License-Identifier: MIT
 *
 * calls: maps and streams.
 */
#include <err.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "calls.h"

/* ---- maps ---- */

CASE(mmaps)
{
	int fd = make(name, "");
	char *map;

	ftruncate(fd, 8192);
	map = AS(void *, void *, size_t, int, int, int, off_t)(NULL, 8192, PROT_READ | PROT_WRITE,
							       MAP_SHARED, fd, 0);
	close(fd);
	if (map == MAP_FAILED)
		return;
	memcpy(map + 5000, "mapped", 6);
	msync(map, 8192, MS_SYNC);
	munmap(map, 8192);
}

/* ---- streams ---- */

static void fill(FILE *stream, const char *text)
{
	if (!stream)
		return;
	fputs(text, stream);
	fprintf(stream, " %d %s\n", 42, "formatted");
	fputc('c', stream);
	putc('p', stream);
	fwrite("block", 1, 5, stream);
	fflush(stream);
	for (int i = 0; i < 3000; i++)
		fputs("many small pieces, ", stream);
	fseek(stream, 10, SEEK_SET);
	fwrite("in place", 1, 8, stream);
	if (ftell(stream) != 18)
		errx(1, "ftell");
	fclose(stream);
}

CASE(fopens)
{
	FILE *stream;
	char line[64] = "";

	fill(AS(FILE *, const char *, const char *)(path_of(name, ""), "w"), name);
	stream = AS(FILE *, const char *, const char *)(path_of(name, ""), "r+");
	if (!fgets(line, sizeof line, stream) || strncmp(line, name, 5))
		errx(1, "%s: read %s", name, line);
	fseek(stream, 0, SEEK_CUR);
	if (fputs("after the first line", stream) < 0 || fileno(stream) < 3)
		errx(1, "%s: r+", name);
	fclose(stream);
	stream = AS(FILE *, const char *, const char *)(path_of(name, ""), "a");
	setvbuf(stream, NULL, _IONBF, 0);
	fputs("appended", stream);
	fputs(", unbuffered", stream);
	fclose(stream);
	stream = AS(FILE *, const char *, const char *)(path_of(name, ""), "wx");
	if (stream)
		errx(1, "%s: wx", name);
	stream = AS(FILE *, const char *, const char *)(path_of(name, ""), "r");
	fclose(stream);
	fputs("left to exit", AS(FILE *, const char *, const char *)(path_of(name, "-exit"), "w"));
}

CASE(freopens)
{
	FILE *stream = fopen(path_of(name, "-first"), "w");

	fputs("first", stream);
	stream = AS(FILE *, const char *, const char *, FILE *)(path_of(name, ""), "w", stream);
	fill(stream, name);
	stream = fopen("/dev/null", "w");
	stream =
	    AS(FILE *, const char *, const char *, FILE *)(path_of(name, "-null"), "w", stream);
	fill(stream, "from elsewhere");
	stream = fopen(path_of(name, "-last"), "w");
	stream = AS(FILE *, const char *, const char *, FILE *)("/dev/null", "w", stream);
	fputs("to elsewhere", stream);
	fclose(stream);
}

CASE(fdopens)
{
	fill(AS(FILE *, int, const char *)(make(name, ""), "r+"), name);
}

CASE(dprintfs)
{
	int fd = make(name, "");

	AS(int, int, const char *, ...)(fd, "%s %d %.2f", "printed", 42, 1.5);
	close(fd);
}

CASE(dprintf_chks)
{
	int fd = make(name, "");

	AS(int, int, int, const char *, ...)(fd, 1, "%s %d", "checked", 42);
	close(fd);
}

static int forward(void *symbol, int checked, int fd, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = checked ? AS(int, int, int, const char *, va_list)(fd, 1, format, args)
		    : AS(int, int, const char *, va_list)(fd, format, args);
	va_end(args);
	return n;
}

CASE(vdprintfs)
{
	int fd = make(name, "");

	forward(symbol, 0, fd, "%s %d", "list", 42);
	close(fd);
}

CASE(vdprintf_chks)
{
	int fd = make(name, "");

	forward(symbol, 1, fd, "%s %d", "checked list", 42);
	close(fd);
}

const struct call_case streams_cases[] = {
    {"mmap", mmaps},
    {"mmap64", mmaps},
    {"fopen", fopens},
    {"fopen64", fopens},
    {"_IO_fopen", fopens},
    {"freopen", freopens},
    {"freopen64", freopens},
    {"fdopen", fdopens},
    {"_IO_fdopen", fdopens},
    {"dprintf", dprintfs},
    {"__dprintf_chk", dprintf_chks},
    {"vdprintf", vdprintfs},
    {"__vdprintf_chk", vdprintf_chks},
    {NULL, NULL},
};
