/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: what it says on its way.
 */
#include <stdarg.h>
#include <stdio.h>

#include "command/run/preflight.h"

void run_say(const struct run *r, const char *format, ...)
{
	va_list ap;

	if (r->quiet)
		return;
	fputs("chromashim: ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
}

void preflight_warn(struct preflight *p, const char *todo, const char *format, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, format);
	vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	fail(EXIT_DONE, 0, todo, "%s", line);
	p->warnings++;
}
