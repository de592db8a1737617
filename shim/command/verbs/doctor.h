/* SPDX-License-Identifier: MIT
 *
 * What is missing in a file by which somebody starts a backend, told by its text.
 */
#ifndef COMMAND_DOCTOR_H
#define COMMAND_DOCTOR_H

#include <stdbool.h>
#include <stddef.h>

#define DOCTOR_MOST 5 /* lines of advice: the most important come first */

struct doctor_advice {
	const char *kind; /* "pm2", "systemd", "compose" */
	unsigned count, all;
	const char *lines[DOCTOR_MOST];
};

/* False: it is none of these. The text is changed: comments become blanks. */
bool doctor_judge(char *text, struct doctor_advice *out);

#endif
