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

int run_sub_verb(const char *verb, const struct sub_verb *verbs, size_t count, int argc,
		 char **argv)
{
	size_t i;

	for (i = 0; argc > 1 && i < count; i++) {
		if (strcmp(verbs[i].name, argv[1]) != 0)
			continue;
		argv[1] = argv[0]; /* getopt names the program in its messages */
		return verbs[i].run(argc - 1, argv + 1);
	}
	if (argc > 1)
		warn("%s has no verb '%s'", verb, argv[1]);
	else
		warn("%s needs a verb", verb);
	return fail_usage(verb);
}
