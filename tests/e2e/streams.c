/* SPDX-License-Identifier: MIT
 *
 * Random use of streams; what each call returned and where it left the stream goes to stdout. The
 * output must be the same with and without the shim.
 *
 *	streams DIR SEED ROUNDS [seen]	(seen: without streams that the shim leaves to libc)
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <wchar.h>

static uint64_t state;

static unsigned below(unsigned n)
{
	state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(state >> 33) % n;
}

static char block[20000];

enum { READS = 1, WRITES = 2 };
static int last;       /* what was done to the stream, 0 since it was opened */
static int allowed;    /* READS, WRITES: by its mode */
static int of_segment; /* a failed write there is a failed persist, and what follows is refused */
static int forking;    /* children may have the streams, too */
static int appends;    /* then libc itself is not sure of its position, until it has sought */

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

static const char *const modes[] = {"r",   "r+", "w",	"w+", "a",   "a+", "rb", "rb+", "we", "wx",
				    "w+x", "ab", "r+b", "rc", "re+", "",   "q",	 "+r",	"w+e"};

static void note_mode(const char *mode)
{
	allowed = strchr(mode, '+') ? READS | WRITES : *mode == 'r' ? READS : WRITES;
	appends = *mode == 'a';
}

/* Opens the file by itself and puts a stream on it; the modes may not agree, and that is told. */
static FILE *put_on(const char *path)
{
	static const int accesses[] = {O_RDWR, O_RDWR, O_RDONLY, O_WRONLY};
	int access = accesses[below(4)];
	const char *mode = access == O_RDWR && below(2) ? "r+" : modes[below(15)];
	int fd = open(path, access | O_CREAT | (below(2) ? O_APPEND : 0), 0644);
	FILE *stream;

	errno = 0;
	stream = fdopen(fd, mode);
	printf(" fdopen %s on %d: %s errno=%d\n", mode, access, stream ? "open" : "null", errno);
	note_mode(mode);
	appends = stream && (fcntl(fd, F_GETFL) & O_APPEND);
	if (!stream)
		close(fd);
	return stream;
}

static FILE *reopen(FILE *stream, const char *path)
{
	const char *mode = modes[below(sizeof modes / sizeof *modes)];

	switch (stream ? below(5) : below(3)) {
	case 0:
		if (stream)
			tell("fclose", fclose(stream));
		return put_on(path);
	case 1:
	case 2:
		if (stream)
			tell("fclose", fclose(stream));
		errno = 0;
		stream = fopen(path, mode);
		break;
	default:
		errno = 0;
		stream = freopen(path, mode, stream);
		printf(" freopen ");
	}
	note_mode(mode);
	printf(" %s: %s errno=%d\n", mode, stream ? "open" : "null", stream ? 0 : errno);
	return stream;
}

/* C wants a seek between reading and writing. */
static void turn(FILE *stream, int now)
{
	if (now != last && last)
		tell("turn", fseek(stream, 0, appends ? SEEK_SET : SEEK_CUR));
	last = now;
}

static size_t a_size(void)
{
	static const size_t sizes[] = {0, 1, 7, 100, 4095, 4096, 4097, 9000, 20000};

	return sizes[below(sizeof sizes / sizeof *sizes)];
}

/* ---- what writes ---- */

static void writes_block(FILE *stream)
{
	size_t size = a_size();

	tell("fwrite", (long)fwrite(block, 1, size, stream));
}

static void writes_items(FILE *stream)
{
	tell("fwrite of 24", (long)fwrite(block, 24, below(300), stream));
}

static void writes_line(FILE *stream)
{
	tell("fputs", fputs("a line\n", stream) < 0 ? -1 : 0);
}

static void writes_character(FILE *stream)
{
	tell("fputc", fputc('c', stream));
	tell("putc_unlocked", putc_unlocked('u', stream));
}

static void prints(FILE *stream)
{
	tell("fprintf", fprintf(stream, "%s %d\n", "printed", 42));
}

/* Past the limit it fails, and what is in the buffer is lost or not as libc has it. */
static void writes_too_much(FILE *stream)
{
	struct rlimit before, little;
	int whole;

	if (of_segment)
		return;
	tell("fflush", fflush(stream));
	getrlimit(RLIMIT_FSIZE, &before);
	little = (struct rlimit){.rlim_cur = 5000 + below(5000), .rlim_max = before.rlim_max};
	setrlimit(RLIMIT_FSIZE, &little);
	tell("fseek", fseek(stream, 4096, SEEK_SET));
	errno = 0;
	whole = fwrite(block, 1, 9000, stream) == 9000; /* how much depends on the buffer */
	whole = fflush(stream) == 0 && whole;
	printf("past the limit: whole=%d errno=%d\n", whole, errno);
	setrlimit(RLIMIT_FSIZE, &before);
	__fpurge(stream);
	clearerr(stream);
	tell("fseek", fseek(stream, 0, SEEK_SET));
	last = 0;
}

/* ---- what reads ---- */

static void reads_block(FILE *stream)
{
	char buffer[sizeof block];
	size_t n = fread(buffer, 1, a_size(), stream);

	printf("fread %zu %ld\n", n, sum(buffer, n));
}

static void reads_line(FILE *stream)
{
	char buffer[50];
	char *line = fgets(buffer, sizeof buffer, stream);

	printf("fgets %ld\n", line ? sum(line, strlen(line)) : -1);
}

static void reads_whole_line(FILE *stream)
{
	char *line = NULL;
	size_t room = 0;
	ssize_t n = below(2) ? getline(&line, &room, stream) : getdelim(&line, &room, 'Q', stream);

	printf("getline %zd %ld\n", n, n > 0 ? sum(line, (size_t)n) : -1);
	free(line);
}

static void reads_word(FILE *stream)
{
	char word[20] = "";
	int n = fscanf(stream, " %19s", word);

	printf("fscanf %d %s\n", n, word);
}

static void reads_character(FILE *stream)
{
	tell("getc", getc(stream));
}

/* With more than what was read put back, libc is not sure of its position until it has sought. */
static void puts_back(FILE *stream)
{
	tell("ungetc", ungetc(getc(stream), stream));
	if (below(2) && ftell(stream) > 0) {
		tell("another", ungetc('#', stream));
		tell("getc", getc(stream));
		tell("fseek", fseek(stream, below(100), SEEK_SET));
	}
}

/* ---- what does neither ---- */

static void seeks(FILE *stream)
{
	switch (below(4)) {
	case 0:
		tell("fseek end", fseek(stream, -(long)below(100), SEEK_END));
		break;
	case 1:
		tell("fseek cur",
		     fseek(stream, (long)below(5000) - 2000, appends ? SEEK_SET : SEEK_CUR));
		break;
	case 2:
		tell("fseeko", fseeko(stream, (off_t)below(9000) - 3000, SEEK_SET));
		break;
	default:
		tell("fseek set", fseek(stream, below(30000), SEEK_SET));
	}
}

static void rewinds(FILE *stream)
{
	rewind(stream);
}

static void keeps_position(FILE *stream)
{
	fpos_t position;

	tell("fgetpos", fgetpos(stream, &position));
	if (!appends)
		tell("fsetpos", fsetpos(stream, &position));
}

static void flushes(FILE *stream)
{
	tell("fflush", fflush(below(4) ? stream : NULL));
}

static void truncates(FILE *stream)
{
	fflush(stream);
	tell("ftruncate", ftruncate(fileno(stream), below(20000)));
	clearerr(stream); /* large reads and small ones differ after the end */
	tell("fseek", fseek(stream, below(30000), SEEK_SET));
	last = 0;
}

static void looks(FILE *stream)
{
	struct stat st;

	fflush(stream);
	tell("fstat", fstat(fileno(stream), &st) ? -1 : (long)st.st_size);
}

/* The descriptor is used in between, as POSIX has it. */
static void uses_descriptor(FILE *stream)
{
	fflush(stream);
	lseek(fileno(stream), below(20000), SEEK_SET);
	if (below(2))
		tell("write", write(fileno(stream), block, 10));
	if (below(2))
		tell("dprintf", dprintf(fileno(stream), "%d %s", 7, "by number"));
	tell("fseek", fseek(stream, below(20000), SEEK_SET));
	last = 0;
}

/* A child has the same descriptor, and finds it where the parent has left the stream since. */
static void forks(FILE *stream)
{
	int written[2], status = -1;
	pid_t child;

	if (!forking || below(6) || fflush(stream) || pipe(written))
		return;
	child = fork();
	if (child == 0) {
		close(written[1]);
		read(written[0], block, 1);
		_exit((int)lseek(fileno(stream), 0, SEEK_CUR) % 251);
	}
	writes_block(stream);
	fflush(stream);
	close(written[0]);
	close(written[1]);
	waitpid(child, &status, 0);
	tell("a child's position", WEXITSTATUS(status));
}

static void locks(FILE *stream)
{
	flockfile(stream);
	tell("ftrylockfile", ftrylockfile(stream));
	funlockfile(stream);
	funlockfile(stream);
}

/* 0: that was not for such a stream, and libc is not sure of it afterwards. */
static int step(FILE *stream)
{
	static const struct {
		void (*does)(FILE *stream);
		int turns;
	} deeds[] = {
	    {writes_block, WRITES},
	    {writes_block, WRITES},
	    {writes_items, WRITES},
	    {writes_line, WRITES},
	    {writes_character, WRITES},
	    {prints, WRITES},
	    {writes_too_much, WRITES},
	    {reads_block, READS},
	    {reads_block, READS},
	    {reads_line, READS},
	    {reads_whole_line, READS},
	    {reads_word, READS},
	    {reads_character, READS},
	    {puts_back, READS},
	    {forks, WRITES},
	    {seeks, 0},
	    {seeks, 0},
	    {seeks, 0},
	    {rewinds, 0},
	    {keeps_position, 0},
	    {flushes, 0},
	    {truncates, 0},
	    {looks, 0},
	    {uses_descriptor, 0},
	    {locks, 0},
	};
	unsigned which = below(sizeof deeds / sizeof *deeds);

	errno = 0;
	if (deeds[which].turns == READS && !(allowed & READS))
		return 1; /* libc reads all the same, at times */
	if (deeds[which].turns & ~allowed) {
		deeds[which].does(stream);
		return 0;
	}
	if (deeds[which].turns)
		turn(stream, deeds[which].turns);
	deeds[which].does(stream);
	printf("  at %ld eof=%d error=%d\n", appends ? -1 : ftell(stream), !!feof(stream),
	       !!ferror(stream));
	if (below(8) == 0)
		clearerr(stream);
	if (feof(stream) || ferror(stream)) { /* libc is not sure of its position */
		tell("fseek", fseek(stream, below(3000), SEEK_SET));
		last = 0;
	}
	return 1;
}

/* A stream of wide characters from its start. It is one of libc's own, so not for a segment. */
static void wide_round(const char *path)
{
	FILE *stream = fopen(path, "w+,ccs=UTF-8");
	wchar_t line[100] = L"";

	if (!stream)
		err(2, "%s", path);
	tell("fputws", fputws(L"a wide line\nanother\n", stream) < 0 ? -1 : 0);
	tell("fwprintf", fwprintf(stream, L"%d %ls\n", 42, L"printed"));
	rewind(stream);
	while (fgetws(line, 100, stream))
		printf("fgetws %ls", line);
	tell("fgetwc", (long)(int)fgetwc(stream));
	tell("fclose", fclose(stream));
}

/* Streams on memory are nobody's but libc's. */
static void memory_round(void)
{
	char place[300] = "text in memory\nand more of it", line[50] = "", *grown = NULL;
	FILE *fixed = fmemopen(place, sizeof place, "r+");
	size_t size = 0;
	FILE *growing = open_memstream(&grown, &size);

	tell("fgets", fgets(line, 50, fixed) ? (long)strlen(line) : -1);
	tell("fileno", fileno(fixed));
	tell("fwrite", (long)fwrite(block, 1, below(9000), growing));
	tell("fclose", fclose(growing));
	tell("fclose", fclose(fixed));
	printf("%zu %ld\n", size, sum(grown, size));
	free(grown);
}

/* Where the next one to use the file finds it. */
static void leave(FILE *stream)
{
	int fd = dup(fileno(stream));

	if (allowed & WRITES) {
		turn(stream, WRITES);
		tell("fputs", fputs("the last line\n", stream) < 0 ? -1 : 0);
	}
	tell("fclose", fclose(stream));
	if (allowed & WRITES)
		tell("left at", lseek(fd, 0, SEEK_CUR));
	close(fd);
}

int main(int argc, char **argv)
{
	char path[4096];
	FILE *stream = NULL;
	unsigned rounds;

	if (argc < 4)
		errx(2, "usage: streams DIR SEED ROUNDS [seen]");
	state = strtoull(argv[2], NULL, 0);
	rounds = (unsigned)atoi(argv[3]);
	forking = argc == 4;
	setlocale(LC_ALL, "C.UTF-8");
	signal(SIGXFSZ, SIG_IGN);
	snprintf(path, sizeof path, "%s/" SEGMENT, argv[1]);
	mkdir(path, 0755);
	for (size_t i = 0; i < sizeof block; i++)
		block[i] = i % 61 == 60 ? '\n' : (char)('A' + i % 26);
	for (unsigned i = 0; i < rounds; i++) {
		snprintf(path, sizeof path, "%s/%s", argv[1],
			 names[below(sizeof names / sizeof *names)]);
		printf("%s", path + strlen(argv[1]));
		stream = reopen(stream, path);
		of_segment = strstr(path, SEGMENT) != NULL;
		last = 0;
		if (!stream) {
			if (!of_segment && argc == 4)
				wide_round(path);
			else
				memory_round();
			continue;
		}
		if (below(4) == 0)
			tell("setvbuf",
			     setvbuf(stream, NULL, (int[]){_IONBF, _IOLBF, _IOFBF}[below(3)],
				     (size_t[]){0, 100, 4096, 65536}[below(4)]));
		for (unsigned n = below(20); n > 0 && step(stream); n--)
			;
		if (below(4) == 0) {
			leave(stream);
			stream = NULL;
		}
	}
	return 0; /* what is still open is left to exit() */
}
