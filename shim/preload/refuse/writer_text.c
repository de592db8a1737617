/* SPDX-License-Identifier: MIT
 *
 * The text of writer.lock: put together without stdio, read by whoever is refused.
 */
#include "preload/refuse/writer_text.h"

#include <string.h>
#include <time.h>

#include "core/base/number.h"
#include "preload/base/scratch.h"
#include "preload/base/shim.h"

static size_t line_put(char *out, size_t at, size_t size, const char *text, size_t n)
{
	if (n > size - at)
		n = size - at;
	memcpy(out + at, text, n);
	return at + n;
}

static size_t line_number(char *out, size_t at, size_t size, uint64_t value, unsigned digits)
{
	return (size_t)(number_put(out + at, out + size, value, 10, digits) - out);
}

/* RFC 3339, UTC, from seconds since 1970. Howard Hinnant's days-to-civil arithmetic. */
static size_t line_time(char *out, size_t at, size_t size, time_t now)
{
	uint64_t days = (uint64_t)now / 86400, seconds = (uint64_t)now % 86400;
	uint64_t z = days + 719468, era = z / 146097, doe = z % 146097;
	uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
	uint64_t month = mp < 10 ? mp + 3 : mp - 9;

	at = line_number(out, at, size, yoe + era * 400 + (month <= 2), 4);
	at = line_put(out, at, size, "-", 1);
	at = line_number(out, at, size, month, 2);
	at = line_put(out, at, size, "-", 1);
	at = line_number(out, at, size, doy - (153 * mp + 2) / 5 + 1, 2);
	at = line_put(out, at, size, "T", 1);
	at = line_number(out, at, size, seconds / 3600, 2);
	at = line_put(out, at, size, ":", 1);
	at = line_number(out, at, size, seconds / 60 % 60, 2);
	at = line_put(out, at, size, ":", 1);
	at = line_number(out, at, size, seconds % 60, 2);
	return line_put(out, at, size, "Z", 1);
}

static const char opening[] = "\nopening\n";

void writer_text_sign(const struct protection *a, uint64_t generation, bool opens)
{
	char text[512];
	size_t n = 0;
	ssize_t got = 0;
	struct timespec now = {0, 0};
	int command = sys_openat(AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0);
	int fd = spare_open(a->store_fd, WRITER_LOCK, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);

	clock_gettime(CLOCK_REALTIME, &now);
	n = line_put(text, n, sizeof(text), "pid ", 4);
	n = line_number(text, n, sizeof(text), (uint64_t)shim_pid, 1);
	n = line_put(text, n, sizeof(text), "\nsince ", 7);
	n = line_time(text, n, sizeof(text), now.tv_sec);
	n = line_put(text, n, sizeof(text), "\ngeneration ", 12);
	n = line_number(text, n, sizeof(text), generation, 1);
	if (opens)
		n = line_put(text, n, sizeof(text), opening, sizeof(opening) - 2);
	n = line_put(text, n, sizeof(text), "\ncommand ", 9);
	if (command >= 0) {
		got = sys_read(command, text + n, 240);
		sys_close(command);
	}
	for (; got > 0; got--, n++)
		if (text[n] == '\0' || text[n] == '\n')
			text[n] = ' ';
	text[n++] = '\n';
	text[n] = '\0'; /* what is behind it is no longer true, until it is cut off */
	if (fd < 0)
		return;
	sys_pwrite(fd, text, n + 1, 0);
	sys_ftruncate(fd, (off_t)n);
	sys_close(fd);
}

static void read_line(const char *text, const char *key, char *out, size_t size)
{
	const char *at = strstr(text, key), *end;
	size_t n;

	memcpy(out, "?", 2);
	if (!at)
		return;
	at += strlen(key);
	end = strchrnul(at, '\n');
	n = (size_t)(end - at) < size - 1 ? (size_t)(end - at) : size - 1;
	while (n && at[n - 1] == ' ')
		n--;
	memcpy(out, at, n);
	out[n] = '\0';
}

/* The lock file's text; "" if it cannot be read. */
static void read_text(const struct protection *a, char *text, size_t size)
{
	int fd = sys_openat(a->store_fd, WRITER_LOCK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	ssize_t n = fd < 0 ? 0 : sys_pread(fd, text, size - 1, 0);

	if (fd >= 0)
		sys_close(fd);
	text[n > 0 ? n : 0] = '\0';
}

void writer_text_read(const struct protection *a, struct writer_text *h)
{
	SCRATCH(scratch);
	char none[1], *text = scratch ? scratch : none;

	read_text(a, text, scratch ? SCRATCH_SIZE : sizeof(none));
	read_line(text, "pid ", h->pid, sizeof(h->pid));
	read_line(text, "\nsince ", h->since, sizeof(h->since));
	read_line(text, "\ngeneration ", h->generation, sizeof(h->generation));
	read_line(text, "\ncommand ", h->command, sizeof(h->command));
}

static uint64_t digits_read(const char *at)
{
	uint64_t n = 0;

	for (; *at >= '0' && *at <= '9'; at++)
		n = n * 10 + (uint64_t)(*at - '0');
	return n;
}

/* /proc/PID/stat: "pid (name) state parent ..."; a name may have brackets. 0: not known. */
static uint64_t parent_of(const char *pid)
{
	static const char proc[] = "/proc/", stat[] = "/stat";
	char path[sizeof(proc) + 16 + sizeof(stat)], text[128], *at;
	size_t n = strlen(pid);
	ssize_t got;
	int fd;

	memcpy(path, proc, sizeof(proc) - 1);
	memcpy(path + sizeof(proc) - 1, pid, n);
	memcpy(path + sizeof(proc) - 1 + n, stat, sizeof(stat));
	fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	got = fd < 0 ? 0 : sys_read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		sys_close(fd);
	text[got > 0 ? got : 0] = '\0';
	at = strrchr(text, ')');
	return at && strlen(at) > 4 ? digits_read(at + 4) : 0;
}

/* Whoever has lost its parent has the first process of all, which has started nobody. */
bool writer_text_parent(const struct writer_text *h, char out[24])
{
	uint64_t parent = (uint64_t)SYS0(SYS_getppid);

	if (parent == 0 || (parent == 1 && !settings.backend_is_first) ||
	    digits_read(h->pid) == 0 || parent_of(h->pid) != parent)
		return false;
	*number_put(out, out + 23, parent, 10, 1) = '\0';
	return true;
}

bool writer_text_is_parent(const struct writer_text *h)
{
	uint64_t parent = (uint64_t)SYS0(SYS_getppid);

	return parent != 0 && digits_read(h->pid) == parent;
}

bool writer_text_opens(const struct protection *a)
{
	SCRATCH(text);

	if (!text)
		return false;
	read_text(a, text, SCRATCH_SIZE);
	return strstr(text, opening);
}

uint64_t writer_text_generation(const struct protection *a)
{
	SCRATCH(text);
	char generation[24];

	if (!text)
		return 0;
	read_text(a, text, SCRATCH_SIZE);
	read_line(text, "\ngeneration ", generation, sizeof(generation));
	return digits_read(generation);
}
