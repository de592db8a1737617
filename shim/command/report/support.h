/* SPDX-License-Identifier: MIT
 *
 * The parts of `chromashim support`.
 */
#ifndef COMMAND_SUPPORT_H
#define COMMAND_SUPPORT_H

#include "command/digest/input.h"
#include "command/report/conceal.h"
#include "core/base/json.h"

struct support {
	struct digest_input in;
	const struct digest *d;
	struct conceal conceal;
	FILE *tar;
	struct json json; /* of the member that is being made */
	bool quiet;
	FILE *told; /* where the contents are printed */
};

/* ---- members of the bundle; 0 or -errno (support_log.c) ---- */

int support_make_log(struct support *s);
int support_make_acts(struct support *s);

/* ---- values, concealed ---- */

void support_put_hash(struct support *s, const char *key, const char *text);
void support_put_path(struct support *s, const char *key, const char *path);
/* 0: null. */
void support_put_time(struct json *j, const char *key, uint64_t ns);

#endif
