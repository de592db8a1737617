/* SPDX-License-Identifier: MIT
 *
 * What stdout is: colour, width, and a reader that has gone away. And texts fit for a terminal.
 */
#include "command/base/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/command.h"
#include "core/base/json.h"

static bool is_terminal, has_colour;

static struct sigaction pipe_before;

void terminal_start(void)
{
	const char *no_colour = getenv("NO_COLOR"), *term = getenv("TERM");

	/* A write to a closed pipe is an error to be looked at, not a signal to die of. */
	sigaction(SIGPIPE, NULL, &pipe_before);
	signal(SIGPIPE, SIG_IGN);
	/* A line at a time: who collects them would else cut one in pieces. */
	setvbuf(stderr, NULL, _IOLBF, BUFSIZ);
	is_terminal = isatty(STDOUT_FILENO) == 1;
	has_colour = is_terminal && !(no_colour && *no_colour) && term && strcmp(term, "dumb") != 0;
}

void terminal_give_back(void)
{
	sigaction(SIGPIPE, &pipe_before, NULL);
}

int terminal_width(void)
{
	struct winsize size = {0};
	const char *columns = getenv("COLUMNS");

	if (!is_terminal)
		return 0;
	if (columns && atoi(columns) > 0)
		return atoi(columns);
	if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col)
		return size.ws_col;
	return 80;
}

const char *terminal_colour(enum colour colour)
{
	static const char *const sequences[] = {
	    [COLOUR_PLAIN] = "\033[0m", [COLOUR_DIM] = "\033[2m",    [COLOUR_BOLD] = "\033[1m",
	    [COLOUR_RED] = "\033[31m",	[COLOUR_GREEN] = "\033[32m", [COLOUR_YELLOW] = "\033[33m",
	};

	return has_colour ? sequences[colour] : "";
}

/* The stream only remembers that a write failed; errno still says why at the first look. */
static int output_error;

bool terminal_is_gone(void)
{
	if (!ferror(stdout))
		return false;
	if (!output_error)
		output_error = errno ? errno : EIO;
	return true;
}

int terminal_finish(int status)
{
	errno = 0;
	if (fflush(stdout) != 0 && !output_error)
		output_error = errno;
	if (!terminal_is_gone())
		return status;
	if (output_error == EPIPE) /* whoever reads has seen enough */
		return status;
	return fail(output_error == ENOSPC ? EXIT_NO_SPACE : EXIT_FAILED, output_error,
		    "The output is incomplete; make room or choose another place for it.",
		    "cannot write the output");
}

/* ---- texts ---- */

void terminal_put_quoted(FILE *out, const char *path)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789/._-+:@%";

	if (*path && path[strspn(path, plain)] == '\0' && *path != '-') {
		fputs(path, out);
		return;
	}
	fputc('\'', out);
	for (; *path; path++) {
		if (*path == '\'')
			fputs("'\\''", out);
		else
			fputc(*path, out);
	}
	fputc('\'', out);
}

char *format_quoted(char *out, size_t room, const char *path)
{
	FILE *stream = fmemopen(out, room, "w");

	if (!stream) {
		snprintf(out, room, "%s", path);
		return out;
	}
	terminal_put_quoted(stream, path);
	fclose(stream);
	out[room - 1] = '\0';
	return out;
}

/* One character of text, made harmless. Returns the bytes taken; *out gets at most 5 and a NUL. */
static size_t clean_character(char out[8], const char *text, size_t size)
{
	size_t n = utf8_length(text, size);
	unsigned char c = (unsigned char)*text;
	/* C1 controls are C2 80 to C2 9F. */
	bool control = c < 0x20 || c == 0x7f || (c == 0xc2 && n == 2 && (text[1] & 0xe0) == 0x80);

	if (n == 0 || (control && c != '\n' && c != '\t')) {
		snprintf(out, 8, "\\x%02x", c);
		return 1;
	}
	if (control)
		snprintf(out, 8, "%s", c == '\n' ? "\\n" : " ");
	else
		memcpy(out, text, n), out[n] = '\0';
	return n;
}

void terminal_put_text(FILE *out, const char *text, size_t size)
{
	char clean[8];
	size_t at = 0;

	while (at < size) {
		at += clean_character(clean, text + at, size - at);
		fputs(clean, out);
	}
}

size_t terminal_columns(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

/* Where the character number `column` starts. */
static const char *skip_columns(const char *text, size_t column)
{
	while (*text && column) {
		text++;
		while (((unsigned char)*text & 0xc0) == 0x80)
			text++;
		column--;
	}
	return text;
}

void terminal_fit(char *out, size_t room, const char *text, size_t columns)
{
	size_t size = strlen(text), at = 0, n = 0, all, left;
	const char *end, *tail;
	char clean[8], cut[16384];

	out[0] = '\0';
	while (at < size) {
		at += clean_character(clean, text + at, size - at);
		if (n + strlen(clean) + 1 > room)
			break;
		memcpy(out + n, clean, strlen(clean) + 1);
		n += strlen(clean);
	}
	all = terminal_columns(out);
	if (columns < 4 || all <= columns || n >= sizeof(cut))
		return;
	left = (columns - 1) / 2;
	end = skip_columns(out, left);
	tail = skip_columns(out, all - (columns - 1 - left));
	snprintf(cut, sizeof(cut), "%.*s…%s", (int)(end - out), out, tail);
	strlcpy(out, cut, room);
}

char *format_bytes(char *out, size_t room, uint64_t bytes)
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1023.95 && unit < 6) {
		value /= 1024;
		unit++;
	}
	snprintf(out, room, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return out;
}

char *format_duration(char *out, size_t room, uint64_t ns)
{
	if (ns < 1000)
		snprintf(out, room, "%u ns", (unsigned)ns);
	else if (ns < 999950)
		snprintf(out, room, "%.1f µs", (double)ns / 1e3);
	else if (ns < 999950000)
		snprintf(out, room, "%.1f ms", (double)ns / 1e6);
	else if (ns < UINT64_C(600000000000))
		snprintf(out, room, "%.2f s", (double)ns / 1e9);
	else if (ns < UINT64_C(7200000000000))
		snprintf(out, room, "%.1f min", (double)ns / 60e9);
	else if (ns < UINT64_C(172800000000000))
		snprintf(out, room, "%.1f h", (double)ns / 3600e9);
	else
		snprintf(out, room, "%.1f days", (double)ns / 86400e9);
	return out;
}
