/* SPDX-License-Identifier: MIT
 *
 * Who else has the database open: a look through /proc, as far as this user may look.
 *
 * Runs in the host's thread that opened the database: raw system calls, small buffers, no more than
 * so many processes and so long. A link's text is looked at first; only one that ends in the
 * database's name is followed, since following may wait for a file system that does not answer.
 */
#include "preload/refuse/other_openers.h"

#include <string.h>

#include "core/base/names.h"
#include "preload/base/shim.h"
#include "preload/place/protection.h"
#include "preload/place/record.h"

#define PROCESSES 5000
#define LONGEST UINT64_C(200000000) /* ns */
#define MAPS_MAX (8 << 20)

struct search {
	unsigned protection;
	struct stat database;
	char self[24]; /* this process, as /proc numbers it */
	int fdinfo;    /* of the process that is looked at */
	uint64_t until;
	int processes;
};

struct entry {
	uint64_t ino;
	int64_t off;
	unsigned short length;
	unsigned char type;
	char name[];
};

/* Calls `visit` for each numeric name in a directory until it says false. */
static bool each_number(int dir, void *with, bool (*visit)(void *with, int dir, const char *name))
{
	union {
		char bytes[512]; /* numbers are short */
		uint64_t aligned;
	} buffer;
	long n, at;

	while ((n = SYS3(SYS_getdents64, dir, buffer.bytes, sizeof(buffer.bytes))) > 0) {
		for (at = 0; at < n;) {
			const struct entry *e = (const void *)(buffer.bytes + at);

			if (e->name[0] >= '0' && e->name[0] <= '9' && !visit(with, dir, e->name))
				return false;
			at += e->length;
		}
	}
	return true;
}

static int open_at(int dir, const char *name, int flags)
{
	return sys_openat(dir, name, O_RDONLY | O_CLOEXEC | flags, 0);
}

/* ---- one process ---- */

/* As the kernel knows it without asking the file system; it says so since Linux 5.14. */
static bool has_another_inode(const struct search *s, const char *number)
{
	static const char key[] = "\nino:";
	char text[512], *at;
	int fd = s->fdinfo < 0 ? -1 : open_at(s->fdinfo, number, 0);
	ssize_t n = fd < 0 ? 0 : sys_read(fd, text, sizeof(text) - 1);
	uint64_t inode = 0;

	if (fd >= 0)
		sys_close(fd);
	text[n > 0 ? n : 0] = '\0';
	at = strstr(text, key);
	if (!at)
		return false;
	for (at += sizeof(key) - 1; *at == ' ' || *at == '\t'; at++)
		;
	for (; *at >= '0' && *at <= '9'; at++)
		inode = inode * 10 + (uint64_t)(*at - '0');
	return inode != s->database.st_ino;
}

static bool is_database(const struct search *s, int fds, const char *name)
{
	char target[512];
	size_t suffix = sizeof(CHROMA_DATABASE) - 1;
	ssize_t n = sys_readlinkat(fds, name, target, sizeof(target));
	struct stat st;

	/* A longer name is cut off, and may be it. */
	if (n < (ssize_t)suffix ||
	    (n < (ssize_t)sizeof(target) &&
	     memcmp(target + n - suffix, CHROMA_DATABASE, suffix) != 0) ||
	    has_another_inode(s, name))
		return false;
	return sys_fstatat(fds, name, &st, 0) == 0 && st.st_ino == s->database.st_ino &&
	       st.st_dev == s->database.st_dev;
}

struct descriptors {
	const struct search *search;
	bool found;
};

static bool visit_descriptor(void *with, int fds, const char *name)
{
	struct descriptors *d = with;

	d->found = is_database(d->search, fds, name);
	return !d->found && oplog_now() < d->search->until;
}

/* The command itself only looks, and does not count. */
static bool is_shimmed(int process)
{
	static const char library[] = "libchromashim", command[] = "/chromashim\n";
	const size_t keep = sizeof(library) - 1;
	char text[1024 + sizeof(library)];
	size_t kept = 0, total = 0;
	int fd = open_at(process, "maps", 0);
	bool found = false;
	ssize_t n;

	if (fd < 0)
		return false;
	while (!found && total < MAPS_MAX && (n = sys_read(fd, text + kept, 1024)) > 0) {
		size_t have = kept + (size_t)n;

		text[have] = '\0';
		found = strstr(text, library) || strstr(text, command);
		kept = have < keep ? have : keep;
		memmove(text, text + have - kept, kept);
		total += (size_t)n;
	}
	sys_close(fd);
	return found;
}

static void other_report(const struct search *s, int process, const char *pid)
{
	struct oplog_record r = {.op = OP_NOTE, .offset = -1};
	char text[400] = "open without the shim: process ";
	size_t n = strlen(text), start;
	int fd = open_at(process, "cmdline", 0);
	ssize_t got = 0, i;

	memcpy(text + n, pid, strlen(pid));
	n += strlen(pid);
	memcpy(text + n, " (", 2);
	start = n += 2;
	if (fd >= 0) {
		got = sys_read(fd, text + n, 240);
		sys_close(fd);
	}
	if (got <= 0)
		return; /* it is ending: its memory is gone, and its files go next */
	for (i = 0; i < got; i++, n++)
		if ((unsigned char)text[n] < ' ')
			text[n] = ' ';
	while (n > start && text[n - 1] == ' ')
		n--;
	text[n++] = ')';
	text[n] = '\0';
	shim_say(protections[s->protection].spelling[0], "/" CHROMA_DATABASE, " is ", text,
		 ". It may read; what it writes is neither recorded nor kept apart from this "
		 "process. Stop it, or start it under the shim as well.",
		 NULL);
	record_put(s->protection, &r, text, n);
}

static bool visit_process(void *with, int proc, const char *pid)
{
	struct search *s = with;
	struct descriptors d = {.search = s};
	int process, fds;

	if (++s->processes > PROCESSES || oplog_now() >= s->until)
		return false;
	if (strcmp(pid, s->self) == 0)
		return true;
	process = open_at(proc, pid, O_DIRECTORY);
	if (process < 0)
		return true;
	fds = open_at(process, "fd", O_DIRECTORY);
	if (fds >= 0) {
		s->fdinfo = open_at(process, "fdinfo", O_DIRECTORY);
		each_number(fds, &d, visit_descriptor);
		if (s->fdinfo >= 0)
			sys_close(s->fdinfo);
		sys_close(fds);
	}
	if (d.found && !is_shimmed(process))
		other_report(s, process, pid);
	sys_close(process);
	return true;
}

void other_openers_report(unsigned protection)
{
	struct search s = {.protection = protection, .until = oplog_now() + LONGEST};
	ssize_t n;
	int proc;

	if (sys_fstatat(protections[protection].root_fd, CHROMA_DATABASE, &s.database,
			AT_SYMLINK_NOFOLLOW) < 0)
		return;
	proc = open_at(AT_FDCWD, "/proc", O_DIRECTORY);
	if (proc < 0)
		return;
	n = sys_readlinkat(proc, "self", s.self, sizeof(s.self) - 1);
	s.self[n > 0 ? n : 0] = '\0';
	each_number(proc, &s, visit_process);
	sys_close(proc);
}
