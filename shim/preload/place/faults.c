/* SPDX-License-Identifier: MIT
 *
 * Faults on demand; see faults.h.
 */
#include "preload/place/faults.h"

#ifdef CHROMASHIM_FAULTS

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/number.h"
#include "preload/base/shim.h"

#define OWN_ROLE 0xffu

enum kind { UNREAD, NONE, SIGNAL, ERROR, COUNT };
enum what { SEGMENTS, PICKLES, SQLITE, OWN, WHATS };

static const char *const names[WHATS] = {"segments", "pickles", "sqlite", "own"};
static enum kind kind;
static enum what what_wanted;
static uint64_t wanted;
static int error_wanted, signal_wanted;
static bool lasts;
static _Atomic uint64_t points, calls[WHATS];
static _Atomic unsigned failing; /* role of the file that fails from now on */

static const char *read_number(const char *p, uint64_t *out)
{
	for (*out = 0; *p >= '0' && *p <= '9'; p++)
		*out = *out * 10 + (uint64_t)(*p - '0');
	return *p == ':' ? p + 1 : p;
}

static enum what what_of(const char *name, enum what otherwise)
{
	unsigned i;

	for (i = 0; i < WHATS; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	return otherwise;
}

static void read_error(const char *p)
{
	uint64_t number;

	p = read_number(read_number(p, &wanted), &number);
	error_wanted = (int)number;
	kind = ERROR;
	what_wanted = what_of(p, SEGMENTS);
}

static void read_signal(const char *p, int number)
{
	p = read_number(p, &wanted);
	what_wanted = what_of(p, WHATS);
	signal_wanted = number;
	kind = SIGNAL;
}

static void read_environment(void)
{
	const char *text = getenv("CHROMASHIM_FAULT");

	kind = NONE;
	if (!text)
		return;
	lasts = strncmp(text, "error:", 6) == 0;
	if (strncmp(text, "kill:", 5) == 0)
		read_signal(text + 5, SIGKILL);
	else if (strncmp(text, "stop:", 5) == 0)
		read_signal(text + 5, SIGSTOP);
	else if (lasts)
		read_error(text + 6);
	else if (strncmp(text, "once:", 5) == 0)
		read_error(text + 5);
	else if (strcmp(text, "count") == 0)
		kind = COUNT;
}

void fault_point(void)
{
	if (kind == UNREAD)
		read_environment();
	if (kind != NONE && atomic_fetch_add(&points, 1) + 1 >= wanted && kind == SIGNAL &&
	    what_wanted == WHATS)
		sys_kill(sys_getpid(), signal_wanted);
}

static int fault_of(enum what what, unsigned role)
{
	if (kind == UNREAD)
		read_environment();
	if (kind != COUNT && ((kind != ERROR && kind != SIGNAL) || what != what_wanted))
		return 0;
	if (lasts && atomic_load(&failing) == role)
		return error_wanted;
	if (atomic_fetch_add(&calls[what], 1) + 1 != wanted || kind == COUNT)
		return 0;
	if (kind == SIGNAL) {
		sys_kill(sys_getpid(), signal_wanted);
		return 0;
	}
	atomic_store(&failing, role);
	return error_wanted;
}

static int fault_of_file(union slot s)
{
	if (role_in_segment(s.role))
		return fault_of(
		    s.role == ROLE_PICKLE && what_wanted == PICKLES ? PICKLES : SEGMENTS, s.role);
	return s.role >= ROLE_DATABASE && s.role <= ROLE_SHM ? fault_of(SQLITE, s.role) : 0;
}

int fault_of_change(const struct change *c)
{
	switch (c->op) {
	case OP_OPEN:
	case OP_OPENAT:
	case OP_CREAT:
		return c->flags & (O_CREAT | O_TRUNC) ? fault_of_file(c->slot) : 0;
	case OP_WRITE:
	case OP_PWRITE:
	case OP_WRITEV:
	case OP_PWRITEV:
	case OP_FTRUNCATE:
		return fault_of_file(c->slot);
	case OP_UNLINK:
	case OP_UNLINKAT:
		return role_in_segment(c->slot.role) ? 0 : fault_of_file(c->slot);
	default:
		return 0;
	}
}

bool fault_of_sync(union slot s)
{
	int error = role_in_segment(s.role) ? 0 : fault_of_file(s);

	if (error)
		errno = error;
	return error != 0;
}

int fault_of_held(unsigned file)
{
	return -fault_of(SEGMENTS, ROLE_HEADER + file);
}

int fault_of_own(void)
{
	return -fault_of(OWN, OWN_ROLE);
}

bool fault_of_quota(struct quota *out)
{
	char text[64] = "";
	const char *fault = getenv("CHROMASHIM_FAULT");
	int fd;

	if (!fault || strncmp(fault, "quota:", 6) != 0)
		return false;
	fd = sys_openat(AT_FDCWD, fault + 6, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	sys_read(fd, text, sizeof(text) - 1);
	sys_close(fd);
	out->inodes = UINT64_MAX;
	read_number(read_number(text, &out->total), &out->free);
	return out->total > 0;
}

void fault_count(void)
{
	char p[25], n[WHATS][25];
	unsigned i;

	if (kind != COUNT)
		return;
	*number_put(p, p + 24, points, 10, 1) = '\0';
	for (i = 0; i < WHATS; i++)
		*number_put(n[i], n[i] + 24, calls[i], 10, 1) = '\0';
	shim_say("faults: ", p, " points, ", n[SEGMENTS], " writes, ", n[SQLITE], " of SQLite, ",
		 n[OWN], " own", NULL);
}

#endif
