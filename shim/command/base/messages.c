/* SPDX-License-Identifier: MIT
 *
 * Messages and exit codes.
 */
#include "command/base/command.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void message_say(int error, const char *format, va_list ap)
{
	fflush(stdout);
	fputs("chromashim: ", stderr);
	vfprintf(stderr, format, ap);
	if (error)
		fprintf(stderr, ": %s", strerror(error < 0 ? -error : error));
	fputc('\n', stderr);
}

int fail(enum exit_code code, int error, const char *todo, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	message_say(error, format, ap);
	va_end(ap);
	if (todo)
		fprintf(stderr, "  %s\n", todo);
	return (int)code;
}

void warn(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	message_say(0, format, ap);
	va_end(ap);
}

enum exit_code exit_code_of(int error)
{
	switch (-error) {
	case EBUSY:
	case EAGAIN:
		return EXIT_BUSY;
	case ENOENT:
	case ENOTDIR:
		return EXIT_NOT_FOUND;
	case ENOSPC:
	case EDQUOT:
		return EXIT_NO_SPACE;
	default:
		return EXIT_FAILED;
	}
}

int fail_usage(const char *verb)
{
	fprintf(stderr, "  See `chromashim help%s%s`.\n", verb ? " " : "", verb ? verb : "");
	return EXIT_USAGE;
}
