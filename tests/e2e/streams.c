/* SPDX-License-Identifier: MIT
 *
 * Random use of streams; what each call returned and where it left the stream goes to stdout. The
 * output must be the same with and without the shim.
 *
 *	streams DIR SEED ROUNDS
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t state;

static unsigned below(unsigned n)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(state >> 33) % n;
}

static char block[20000];

enum { READS = 1, WRITES = 2 };
static int last;    /* what was done to the stream, 0 since it was opened */
static int appends; /* then libc itself is not sure of its position, until it has sought */

static void tell(const char *what, long result)
{
	printf("%s %ld errno=%d\n", what, result, result < 0 ? errno : 0);
}

/* A sum of what was read, so that it need not be printed. */
static long sum(const char *bytes, size_t n)
{
	long total = 0;

	while (n--)
		total = total * 31 % 1000003 + (unsigned char)*bytes++;
	return total;
}

/* hnswlib's own are written in another way. */
#define SEGMENT "01234567-89ab-4cde-8f01-23456789abcd"
static const char *const names[] = {"file", "other", SEGMENT "/data_level0.bin",
				    SEGMENT "/length.bin"};

static const char *const modes[] = {"r",   "r+", "w",  "w+",  "a",  "a+", "rb",
				    "rb+", "we", "wx", "w+x", "ab", "r+b"};

static FILE *reopen(FILE *stream, const char *path)
{
	const char *mode = modes[below(sizeof modes / sizeof *modes)];
	int fd;

	appends = strchr(mode, 'a') != NULL;
	switch (stream ? below(3) : below(2)) {
	case 0:
		appends = below(2) == 0;
		fd = open(path, O_RDWR | O_CREAT | (appends ? O_APPEND : 0), 0644);
		if (stream)
			fclose(stream);
		stream = fdopen(fd, "r+");
		mode = "fdopen r+";
		break;
	case 1:
		if (stream)
			tell("fclose", fclose(stream));
		stream = fopen(path, mode);
		break;
	default:
		stream = freopen(path, mode, stream);
		printf("freopen ");
	}
	printf("%s: %s errno=%d\n", mode, stream ? "open" : "null", stream ? 0 : errno);
	return stream;
}

/* C wants a seek between reading and writing. */
static void turn(FILE *stream, int now)
{
	if (now != last && last)
		tell("turn", fseek(stream, 0, appends ? SEEK_SET : SEEK_CUR));
	last = now;
}

static void step(FILE *stream)
{
	static const size_t sizes[] = {0, 1, 7, 100, 4095, 4096, 4097, 9000, 20000};
	char buffer[sizeof block];
	size_t size = sizes[below(sizeof sizes / sizeof *sizes)], n;
	struct stat st;
	fpos_t position;
	char *line;

	errno = 0;
	switch (below(19)) {
	case 0:
	case 1:
		turn(stream, WRITES);
		tell("fwrite", (long)fwrite(block, 1, size, stream));
		break;
	case 2:
	case 3:
		turn(stream, READS);
		n = fread(buffer, 1, size, stream);
		printf("fread %zu %ld\n", n, sum(buffer, n));
		break;
	case 4:
	case 5:
		tell("fseek set", fseek(stream, below(30000), SEEK_SET));
		break;
	case 6:
		tell("fseek end", fseek(stream, -(long)below(100), SEEK_END));
		break;
	case 7:
		tell("fseek cur",
		     fseek(stream, (long)below(5000) - 2000, appends ? SEEK_SET : SEEK_CUR));
		break;
	case 8:
		tell("fflush", fflush(stream));
		break;
	case 9:
		turn(stream, WRITES);
		tell("fputs", fputs("a line\n", stream) < 0 ? -1 : 0);
		break;
	case 10:
		turn(stream, READS);
		line = fgets(buffer, 50, stream);
		printf("fgets %ld\n", line ? sum(line, strlen(line)) : -1);
		break;
	case 11:
		turn(stream, WRITES);
		tell("fprintf", fprintf(stream, "%s %d\n", "printed", 42));
		break;
	case 12:
		turn(stream, READS);
		tell("getc", getc(stream));
		break;
	case 13:
		turn(stream, READS);
		tell("ungetc", ungetc(getc(stream), stream));
		break;
	case 14:
		rewind(stream);
		break;
	case 15:
		tell("fgetpos", fgetpos(stream, &position));
		if (!appends)
			tell("fsetpos", fsetpos(stream, &position));
		break;
	case 16:
		fflush(stream);
		tell("ftruncate", ftruncate(fileno(stream), below(20000)));
		clearerr(stream); /* large reads and small ones differ after the end */
		break;
	case 17:
		fflush(stream);
		tell("fstat", fstat(fileno(stream), &st) ? -1 : (long)st.st_size);
		break;
	case 18: /* the descriptor is used in between, as POSIX has it */
		fflush(stream);
		lseek(fileno(stream), below(20000), SEEK_SET);
		if (below(2))
			tell("write", write(fileno(stream), block, 10));
		tell("fseek", fseek(stream, below(20000), SEEK_SET));
		last = 0;
		break;
	}
	printf("  at %ld eof=%d error=%d\n", appends ? -1 : ftell(stream), !!feof(stream),
	       !!ferror(stream));
	if (below(8) == 0)
		clearerr(stream);
}

int main(int argc, char **argv)
{
	char path[4096];
	FILE *stream = NULL;
	unsigned rounds;

	if (argc != 4)
		errx(2, "usage: streams DIR SEED ROUNDS");
	state = strtoull(argv[2], NULL, 0);
	rounds = (unsigned)atoi(argv[3]);
	snprintf(path, sizeof path, "%s/" SEGMENT, argv[1]);
	mkdir(path, 0755);
	for (size_t i = 0; i < sizeof block; i++)
		block[i] = i % 61 == 60 ? '\n' : (char)('A' + i % 26);
	for (unsigned i = 0; i < rounds; i++) {
		snprintf(path, sizeof path, "%s/%s", argv[1],
			 names[below(sizeof names / sizeof *names)]);
		stream = reopen(stream, path);
		last = 0;
		if (!stream)
			continue;
		if (below(4) == 0)
			tell("setvbuf",
			     setvbuf(stream, NULL, (int[]){_IONBF, _IOLBF, _IOFBF}[below(3)],
				     (size_t[]){0, 100, 4096, 65536}[below(4)]));
		for (unsigned n = below(20); n > 0; n--)
			step(stream);
	}
	return stream ? fclose(stream) != 0 : 0;
}
