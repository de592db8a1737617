/* SPDX-License-Identifier: MIT
 *
 * The look before the first open of a directory: the path is in the backend's code, a worker or a
 * child was started anew, or there is no `run`. What is torn or poisoned is put right before Chroma
 * reads it, by the command, which is where SQL, copies and accounts are. The thread that opens the
 * database waits for it, for so long: a second a gigabyte for the look, twenty while something is
 * healed, and some more for a busy machine. When that is over it goes on, and from then on the
 * command changes nothing (core/store/look.h).
 */
#include "preload/refuse/look.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "core/base/checksum.h"
#include "core/base/names.h"
#include "core/base/number.h"
#include "core/store/look.h"
#include "preload/base/shim.h"
#include "preload/base/slots.h"
#include "preload/place/protection.h"
#include "preload/place/files.h"
#include "preload/place/turn.h"
#include "preload/refuse/helper.h"

#define SECOND UINT64_C(1000000000)
#define LOOKED_AT 256
#define PAUSE_MS 50
#define SEGMENTS_MAX 4096 /* whose size is asked for */

static _Atomic uint32_t looking;	      /* the thread that waits for a look */
static _Atomic uint64_t looked_at[LOOKED_AT]; /* directories, by their inode */
static int shared = -1, process = -1;	      /* its descriptors */

/* ---- once for each directory ---- */

static _Atomic uint64_t *place_of(const struct stat *st, uint64_t *key)
{
	uint64_t id[2] = {st->st_dev, st->st_ino};

	*key = checksum64(id, sizeof(id), 0) | 1;
	return &looked_at[*key / 2 % LOOKED_AT];
}

static bool was_looked_at(const struct stat *st)
{
	uint64_t key;

	return atomic_load(place_of(st, &key)) == key;
}

static void note(const struct stat *st)
{
	uint64_t key;
	_Atomic uint64_t *place = place_of(st, &key);

	atomic_store(place, key);
}

static bool is_there(int dirfd, const char *name, off_t least)
{
	struct stat st;

	return sys_fstatat(dirfd, name, &st, 0) == 0 && st.st_size >= least;
}

/* A new directory has nothing to look at; one whose database is gone has its store. */
static bool has_something(int dirfd)
{
	return is_there(dirfd, CHROMA_DATABASE, 1) ||
	       (!is_there(dirfd, CHROMA_DATABASE, 0) && is_there(dirfd, STORE_NAME, 0));
}

/* ---- for how long ---- */

static uint64_t size_of(int dirfd, const char *name)
{
	struct stat st;

	return sys_fstatat(dirfd, name, &st, 0) == 0 ? (uint64_t)st.st_size : 0;
}

static uint64_t segment_size(int dirfd, const struct linux_dirent64 *d)
{
	static const char file[] = "/data_level0.bin";
	char name[36 + sizeof(file)];

	if (strnlen(d->name, 37) != 36)
		return 0;
	memcpy(name, d->name, 36);
	memcpy(name + 36, file, sizeof(file));
	return size_of(dirfd, name);
}

/* What is read: the database, and the vectors. */
static uint64_t gigabytes(int dirfd)
{
	char buf[1024] __attribute__((aligned(8)));
	int fd = sys_openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	uint64_t bytes = size_of(dirfd, CHROMA_DATABASE);
	unsigned left = SEGMENTS_MAX;
	ssize_t n, at;

	while (fd >= 0 && left && (n = sys_getdents(fd, buf, sizeof(buf))) > 0)
		for (at = 0; at < n && left; left--) {
			const struct linux_dirent64 *d = (const void *)(buf + at);

			bytes += segment_size(dirfd, d);
			at += d->length;
		}
	if (fd >= 0)
		sys_close(fd);
	return (bytes >> 30) + 1;
}

static uint64_t patience(uint32_t state, uint64_t gigabytes)
{
	switch (state) {
	case LOOK_READS:
		return (5 + gigabytes) * SECOND;
	case LOOK_HEALS:
		return (30 + 20 * gigabytes) * SECOND;
	default: /* a few renames and syncs, if the disk does not hang */
		return 120 * SECOND;
	}
}

/* ---- the wait ---- */

/* Or a while has passed. */
static bool has_ended(const struct look *l)
{
	const struct timespec pause = {0, PAUSE_MS * 1000000};
	struct pollfd p = {.fd = process, .events = POLLIN};

	if (atomic_load(&l->state) == LOOK_IS_OVER)
		return true;
	if (process >= 0)
		return SYS5(SYS_ppoll, &p, 1, &pause, NULL, 0) == 1;
	SYS4(SYS_futex, &l->state, FUTEX_WAIT, atomic_load(&l->state), &pause);
	return false;
}

/* False: it takes too long, and will change nothing from now on. */
static bool wait_for(struct look *l, uint64_t gigabytes)
{
	uint32_t state = atomic_load(&l->state), now;
	uint64_t since = oplog_now();

	while (!has_ended(l)) {
		now = atomic_load(&l->state);
		if (now != state) {
			state = now;
			since = oplog_now();
		} else if (oplog_now() - since > patience(state, gigabytes) &&
			   atomic_compare_exchange_strong(&l->state, &now, LOOK_IS_OVER)) {
			/* It has our standard error, whose reader may wait for its end. */
			if (state != LOOK_CHANGES && process >= 0)
				SYS4(SYS_pidfd_send_signal, process, SIGKILL, NULL, 0);
			return false;
		}
	}
	return true;
}

/* ---- the look ---- */

static void say_none(const char *dir, const char *why)
{
	static atomic_flag said = ATOMIC_FLAG_INIT;

	if (!atomic_flag_test_and_set(&said))
		shim_say(dir, ": it is opened without a look at it before: ", why,
			 ". `chromashim check DIR` looks (CHROMASHIM_PREFLIGHT=off: no look is "
			 "wanted).",
			 NULL);
}

static void fill_in(struct helper *h)
{
	static char name[] = "chromashim", verb[] = "run", dir[] = "--dir";
	static const char option[] = "--before-open=";
	size_t n = sizeof(option) - 1;

	memcpy(h->number, option, n);
	*number_put(h->number + n, h->number + sizeof(h->number), (uint64_t)shared, 10, 1) = '\0';
	h->words[0] = name;
	h->words[1] = verb;
	h->words[2] = dir;
	h->words[3] = h->dir;
	h->words[4] = h->number;
	h->keep = shared;
	h->is_heard = shim_is_heard();
}

/* NULL, or why there is none. */
static const char *look_with(struct helper *h, struct look *l, int dirfd)
{
	const char *why;

	fill_in(h);
	why = helper_start(h);
	if (why)
		return why;
	process = (int)SYS2(SYS_pidfd_open, h->pid, 0);
	if (process >= 0)
		hidden_adopt(process, &process);
	if (!wait_for(l, gigabytes(dirfd)))
		why = "it takes too long";
	hidden_release(&process);
	return why;
}

static struct look *share(void)
{
	int fd = (int)SYS2(SYS_memfd_create, "chromashim-look", MFD_CLOEXEC);
	struct look *l;

	if (fd < 0 || hidden_adopt(fd, &shared) < 0)
		return NULL;
	if (sys_ftruncate(shared, sizeof(*l)) < 0)
		return NULL;
	l = sys_mmap(sizeof(*l), PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
	return sys_map_failed(l) ? NULL : l;
}

static void look(int dirfd)
{
	const char *why = NULL;
	struct helper *h = helper_new(&why);
	struct look *l = h ? share() : NULL;

	if (h && !descriptor_path(dirfd, h->dir, sizeof(h->dir)))
		memcpy(h->dir, "?", 2);
	else if (l)
		why = look_with(h, l, dirfd);
	else if (h)
		why = "there is no memory for it, or no descriptor";
	if (why)
		say_none(h ? h->dir : "a data directory", why);
	if (l)
		sys_munmap(l, sizeof(*l));
	hidden_release(&shared);
	if (h)
		helper_free(h);
}

/* ---- which ---- */

/*
 * By its name in a setting it may have been taken before, with nothing open in it: that is let go,
 * since what is known of its files may be exchanged. False: it is open here, or `run` has looked.
 */
static bool is_due(const struct stat *st, bool *named)
{
	struct protection *a = protection_find(st);

	*named = a && a->named;
	return !a || (!(*named && settings.backend) && protection_let_go(a));
}

static void look_once(int dirfd, const struct stat *st)
{
	bool named, due = !was_looked_at(st) && is_due(st, &named);
	struct protection *a;

	note(st);
	if (!due)
		return;
	look(dirfd);
	a = named ? protection_claim(dirfd) : NULL;
	if (a)
		a->named = true;
}

void look_before_open(int dirfd)
{
	int saved = errno;
	struct stat st;

	if (settings.preflight && settings.guard && !shim_borrowed() &&
	    sys_fstat(dirfd, &st) == 0 && !was_looked_at(&st) && has_something(dirfd) &&
	    turn_take(&looking)) {
		look_once(dirfd, &st);
		turn_give(&looking);
	}
	errno = saved;
}

void look_fork(void)
{
	atomic_store(&looking, 0);
}
