/* SPDX-License-Identifier: MIT
 *
 * Faults on demand; see faults.h.
 */
#include "preload/faults.h"

#ifdef CHROMASHIM_FAULTS

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "preload/shim.h"

static enum { UNREAD, NONE, KILL, ERROR, COUNT } kind;
static uint64_t wanted;
static int error_wanted;
static _Atomic uint64_t points, writes;
static _Atomic unsigned failing; /* role of the file that fails from now on */

static const char *read_number(const char *p, uint64_t *out)
{
	for (*out = 0; *p >= '0' && *p <= '9'; p++)
		*out = *out * 10 + (uint64_t)(*p - '0');
	return *p == ':' ? p + 1 : p;
}

static void read_environment(void)
{
	const char *text = getenv("CHROMASHIM_FAULT");
	uint64_t number;

	kind = NONE;
	if (!text)
		return;
	if (strncmp(text, "kill:", 5) == 0) {
		read_number(text + 5, &wanted);
		kind = KILL;
	} else if (strncmp(text, "error:", 6) == 0) {
		read_number(read_number(text + 6, &wanted), &number);
		error_wanted = (int)number;
		kind = ERROR;
	} else if (strcmp(text, "count") == 0) {
		kind = COUNT;
	}
}

void fault_point(void)
{
	if (kind == UNREAD)
		read_environment();
	if (kind != NONE && atomic_fetch_add(&points, 1) + 1 == wanted && kind == KILL)
		sys_kill(sys_getpid(), SIGKILL);
}

static int fault_of(unsigned role)
{
	if (kind == UNREAD)
		read_environment();
	if (kind != ERROR && kind != COUNT)
		return 0;
	if (atomic_load(&failing) == role)
		return error_wanted;
	if (atomic_fetch_add(&writes, 1) + 1 != wanted || kind != ERROR)
		return 0;
	atomic_store(&failing, role);
	return error_wanted;
}

int fault_of_change(const struct change *c)
{
	switch (c->op) {
	case OP_OPEN:
	case OP_OPENAT:
	case OP_CREAT:
		if (!(c->flags & (O_CREAT | O_TRUNC)))
			return 0;
		break;
	case OP_WRITE:
	case OP_PWRITE:
	case OP_WRITEV:
	case OP_PWRITEV:
	case OP_FTRUNCATE:
		break;
	default:
		return 0;
	}
	return role_in_segment(c->slot.role) ? fault_of(c->slot.role) : 0;
}

int fault_of_held(unsigned file)
{
	return -fault_of(ROLE_HEADER + file);
}

static void put_number(char *out, uint64_t n)
{
	char digits[24];
	size_t k = 0;

	do
		digits[k++] = (char)('0' + n % 10);
	while ((n /= 10) != 0);
	while (k)
		*out++ = digits[--k];
	*out = '\0';
}

void fault_count(void)
{
	char p[24], w[24];

	if (kind != COUNT)
		return;
	put_number(p, points);
	put_number(w, writes);
	shim_say("faults: ", p, " points, ", w, " writes", NULL);
}

#endif
