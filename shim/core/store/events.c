/* SPDX-License-Identifier: MIT
 *
 * The ring of events.
 */
#include "core/store/events.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/checksum.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"

#define SLOT sizeof(struct store_event)
#define LOCK_TRIES 50 /* of 20 ms: who is stopped in the midst must not hold up the others */

static uint64_t check_of(const struct store_event *e)
{
	return checksum64(&e->number, SLOT - offsetof(struct store_event, number), EVENTS_MAGIC);
}

/* ---- reading ---- */

static int compare_numbers(const void *a, const void *b)
{
	const struct store_event *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

size_t events_read(const void *data, size_t size, struct store_event *out)
{
	size_t count = 0, i;

	for (i = 0; i < EVENTS_SLOTS && (i + 1) * SLOT <= size; i++) {
		struct store_event *e = &out[count];

		memcpy(e, (const char *)data + i * SLOT, SLOT);
		if (e->magic != EVENTS_MAGIC || e->check != check_of(e) || !e->number)
			continue;
		e->name[sizeof(e->name) - 1] = '\0';
		e->text[sizeof(e->text) - 1] = '\0';
		count++;
	}
	if (count)
		qsort(out, count, SLOT, compare_numbers);
	return count;
}

static int read_all(int fd, struct store_event *out)
{
	char *data = malloc(EVENTS_SLOTS * SLOT);
	ssize_t n = data ? file_read_at(fd, data, EVENTS_SLOTS * SLOT, 0) : -ENOMEM;

	if (n >= 0)
		n = (ssize_t)events_read(data, (size_t)n, out);
	free(data);
	return (int)n;
}

int events_list(int storefd, struct store_event **out)
{
	int fd = file_open_at(storefd, EVENTS_NAME), r = -ENOMEM;

	*out = NULL;
	if (fd < 0)
		return fd;
	*out = calloc(EVENTS_SLOTS, SLOT);
	if (*out)
		r = read_all(fd, *out);
	close(fd);
	if (r < 0) {
		free(*out);
		*out = NULL;
	}
	return r;
}

/* ---- writing ---- */

static int open_locked(int storefd)
{
	int fd = openat(storefd, EVENTS_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600), i;
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct timespec pause = {0, 20000000};

	if (fd < 0)
		return -errno;
	for (i = 0; fcntl(fd, F_OFD_SETLK, &lock) < 0; i++) {
		/* Without such locks two at once may take the same slot: one is missing then. */
		if ((errno != EAGAIN && errno != EACCES) || i == LOCK_TRIES)
			break;
		nanosleep(&pause, NULL);
	}
	return fd;
}

int events_add(int storefd, struct store_event *event)
{
	struct store_event *all = calloc(EVENTS_SLOTS, SLOT);
	int fd = all ? open_locked(storefd) : -ENOMEM, n;
	ssize_t done;

	if (fd < 0) {
		free(all);
		return fd;
	}
	n = read_all(fd, all);
	event->magic = EVENTS_MAGIC;
	event->number = n > 0 ? all[n - 1].number + 1 : 1;
	event->time = event->time ? event->time : clock_read(CLOCK_REALTIME);
	event->check = check_of(event);
	free(all);
	done = pwrite(fd, event, SLOT, (off_t)(event->number % EVENTS_SLOTS * SLOT));
	n = done == (ssize_t)SLOT ? 0 : done < 0 ? -errno : -ENOSPC;
	close(fd);
	return n;
}

void events_note(int storefd, const char *name, const char *format, ...)
{
	struct store_event e = {0};
	va_list ap;

	snprintf(e.name, sizeof(e.name), "%s", name);
	va_start(ap, format);
	vsnprintf(e.text, sizeof(e.text), format, ap);
	va_end(ap);
	events_add(storefd, &e);
}

void events_set_told(int storefd, const struct store_event *event)
{
	off_t at = (off_t)(event->number % EVENTS_SLOTS * SLOT);
	struct store_event now;
	uint64_t told = 1;
	int fd = open_locked(storefd);

	if (fd < 0)
		return;
	if (file_read_at(fd, &now, SLOT, (uint64_t)at) == (ssize_t)SLOT &&
	    now.number == event->number && now.check == event->check &&
	    pwrite(fd, &told, sizeof(told), at + (off_t)offsetof(struct store_event, told)) < 0)
		told = 0;
	close(fd);
}
