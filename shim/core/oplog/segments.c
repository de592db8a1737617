/* SPDX-License-Identifier: MIT
 *
 * Segments of the op log: a place and a file for each. Inside the backend.
 */
#include "core/oplog/segments.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <sys/uio.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/base/number.h"
#include "core/base/sys.h"
#include "core/oplog/space.h"

#define LEAVES (UINT64_C(8) << 20) /* bytes of the disk */
#define RETRY 1024		   /* records that are lost meanwhile */
#define RETRY_LAZY 16
#define REGION_SIZE (OPLOG_SEGMENT_SIZE(OPLOG_CAPACITY) * OPLOG_PLACES)
/* ns to wait for a thread that makes the next segment */
#define MAKING_MAX UINT64_C(50000000)

/* ---- places ---- */

/* Returns whether nobody is in the segment; nobody comes into it from now on. */
static bool try_clear(struct oplog_segment *s)
{
	uint32_t sequence = __atomic_load_n(&s->sequence, __ATOMIC_SEQ_CST);

	__atomic_store_n(&s->sequence, OPLOG_NOWHERE, __ATOMIC_SEQ_CST);
	if (!__atomic_load_n(&s->users, __ATOMIC_SEQ_CST))
		return true;
	__atomic_store_n(&s->sequence, sequence, __ATOMIC_SEQ_CST);
	return false;
}

/* A place for the next segment, the oldest that can be had; NULL: there are users in all. */
static struct oplog_segment *clear_place(struct oplog_writer *w)
{
	const struct oplog_segment *current = atomic_load(&w->current);
	uint32_t i;

	for (i = 0; i < w->place_count; i++) {
		struct oplog_segment *s = &w->places[(w->sequence + i) % w->place_count];

		if (s != current && try_clear(s))
			return s;
	}
	return NULL;
}

/* ---- their size ---- */

/* Segments grow with a process's life: a short-lived tool takes 128 KiB, a server soon 4 MiB. */
static uint32_t capacity_of(const struct oplog_writer *w, uint32_t nth)
{
	static const uint32_t usual[] = {OPLOG_CAPACITY_MIN, OPLOG_CAPACITY / 4, OPLOG_CAPACITY};
	static const uint32_t few[] = {512 - OPLOG_HEADER_SLOTS, 4096 - OPLOG_HEADER_SLOTS,
				       OPLOG_CAPACITY_LAZY};
	uint32_t capacity = (w->lazy ? few : usual)[nth < 2 ? nth : 2];

	return capacity < w->capacity_max ? capacity : w->capacity_max;
}

/* What is written, and what is made ready, is a small part of the log: the rest is history. */
void oplog_segments_bound(struct oplog_writer *w)
{
	uint64_t slots = w->size_limit / OPLOG_SHARE / OPLOG_SLOT_SIZE;

	slots -= slots % OPLOG_HEADER_SLOTS; /* whole pages */
	slots = slots < OPLOG_HEADER_SLOTS + OPLOG_CAPACITY_MIN ? OPLOG_CAPACITY_MIN
								: slots - OPLOG_HEADER_SLOTS;
	w->capacity_max = slots < OPLOG_CAPACITY ? (uint32_t)slots : OPLOG_CAPACITY;
	w->place_count = (uint32_t)(REGION_SIZE / OPLOG_SEGMENT_SIZE(w->capacity_max));
	if (w->lazy) /* records that are made at once, and not around a call */
		w->place_count = OPLOG_PLACES;
	else if (w->place_count > OPLOG_PLACES_MAX)
		w->place_count = OPLOG_PLACES_MAX;
}

void oplog_segment_name(char out[OPLOG_FILE_NAME], const struct oplog_header *h, const char *suffix)
{
	const char *end = out + OPLOG_FILE_NAME;
	char *at = number_put(out, end, h->anchor_realtime, 16, 16);

	*at++ = '-';
	at = number_put(at, end, h->pid, 10, 1);
	*at++ = '-';
	at = number_put(at, end, h->sequence, 10, 6);
	memcpy(at, suffix, strlen(suffix) + 1);
}

/* ---- their files ---- */

/*
 * Real blocks, since a store into a hole of a full disk would be SIGBUS; and written, in pieces
 * that the kernel keeps in large folios: then a page costs 0.9 us, all in all, and not 4.5 when a
 * store meets it first (ext4; single pages and whole segments at once are both dearer). The header
 * is always in memory, hence in a folio by itself.
 */
static int allocate_blocks(int fd, size_t size)
{
	static const char zeros[65536];
	struct iovec iov[4];
	size_t done = OPLOG_HEADER_SIZE;
	int r = sys_fallocate(fd, 0, 0, (off_t)size);

	if (r < 0 && r != -EOPNOTSUPP && r != -ENOSYS && r != -EINVAL)
		return r;
	while (done < size) {
		size_t planned = done;
		ssize_t written;
		int n;

		for (n = 0; n < 4 && planned < size; n++) {
			iov[n].iov_base = (void *)(uintptr_t)zeros;
			iov[n].iov_len =
			    size - planned < sizeof(zeros) ? size - planned : sizeof(zeros);
			planned += iov[n].iov_len;
		}
		written = SYS5(SYS_pwritev, fd, iov, n, done, 0);
		if (written < 0)
			return (int)written;
		done += (size_t)written;
	}
	return 0;
}

#ifdef __SANITIZE_THREAD__
/* TSan forgets what was done to the old mapping only when libc tells it of a new one. */
static void *map_file(char *at, size_t size, int flags, int fd)
{
	void *map = mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);

	return map == MAP_FAILED ? (void *)(intptr_t)-errno : map;
}
#else
static void *map_file(char *at, size_t size, int flags, int fd)
{
	return (void *)SYS6(SYS_mmap, at, size, PROT_READ | PROT_WRITE, MAP_SHARED | flags, fd, 0);
}
#endif

/* A place that is too small is left as it is, and another one found. */
static void *map_over(struct oplog_segment *s, size_t size, int fd)
{
	void *map =
	    size <= s->room ? map_file(s->at, size, MAP_FIXED, fd) : map_file(NULL, size, 0, fd);

	if (!sys_map_failed(map) && size > s->room) {
		s->at = map;
		s->room = size;
	}
	return map;
}

/*
 * Puts a new segment in its place, which has been cleared.
 */
static int map_segment(struct oplog_segment *s, int fd, const struct oplog_header *header)
{
	size_t size = OPLOG_SEGMENT_SIZE(header->capacity);
	ssize_t written;
	void *map;
	int r = allocate_blocks(fd, size);

	if (r < 0)
		return r;
	written = sys_pwrite(fd, header, sizeof(*header), 0);
	if (written != (ssize_t)sizeof(*header))
		return written < 0 ? (int)written : -ENOSPC;
	map = map_over(s, size, fd);
	if (sys_map_failed(map))
		return (int)(long)map;
	__atomic_store_n(&s->header, map, __ATOMIC_RELAXED);
	__atomic_store_n(&s->slots,
			 (struct oplog_record *)(void *)((char *)map + OPLOG_HEADER_SIZE),
			 __ATOMIC_RELAXED);
	__atomic_store_n(&s->capacity, header->capacity, __ATOMIC_RELAXED);
	__atomic_store_n(&s->sequence, header->sequence, __ATOMIC_SEQ_CST);
	return 0;
}

static uint64_t free_bytes(int dirfd)
{
	struct statfs fs;

	return SYS2(SYS_fstatfs, dirfd, &fs) < 0 ? UINT64_MAX
						 : (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
}

static void describe_segment(struct oplog_writer *w)
{
	struct oplog_header *h = &w->identity;

	h->sequence = w->sequence;
	h->capacity = capacity_of(w, w->sequence - w->first);
	h->anchor_monotonic = oplog_now();
	h->anchor_realtime = clock_read(CLOCK_REALTIME);
	h->lost = atomic_load_explicit(&w->lost, memory_order_relaxed);
	h->life = w->life ? w->life(w->life_context) : 0;
	h->check = oplog_header_check(h);
}

/*
 * What is left on a full disk is for what the host has begun. What older segments have just given
 * back may be taken again; and without its first one a process would record nothing at all.
 */
static bool has_room(const struct oplog_writer *w, int dirfd, uint64_t before, uint64_t size)
{
	uint64_t free = free_bytes(dirfd);

	return free >= LEAVES + size || (free > before && free - before >= size) ||
	       (!w->lazy && w->sequence == w->first);
}

/* Makes the file and its map. */
static int make_file(struct oplog_writer *w, int dirfd, struct oplog_segment *s)
{
	char name[OPLOG_FILE_NAME], temporary[OPLOG_FILE_NAME];
	uint64_t size = OPLOG_SEGMENT_SIZE(w->identity.capacity), before = free_bytes(dirfd);
	int fd, r;

	oplog_segment_name(name, &w->identity, OPLOG_SUFFIX);
	oplog_segment_name(temporary, &w->identity, ".new");
	oplog_make_space(w, dirfd, size);
	if (!has_room(w, dirfd, before, size))
		return -ENOSPC;
	w->identity.dropped = w->dropped;
	fd = sys_openat(dirfd, temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fd;
	r = map_segment(s, fd, &w->identity);
	sys_close(fd);
	if (r == 0)
		r = sys_renameat(dirfd, temporary, dirfd, name);
	if (r < 0)
		sys_unlinkat(dirfd, temporary, 0);
	return r;
}

int oplog_folder(const struct oplog_writer *w)
{
	const char *name = w->folder ? w->folder : OPLOG_DIR;
	int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
	int fd = sys_openat(*w->storefd, name, flags, 0);

	if (fd == -ENOENT && w->lazy && sys_mkdirat(*w->storefd, name, 0700) == 0)
		fd = sys_openat(*w->storefd, name, flags, 0);
	return fd;
}

/* The caller has w->making. */
static int make_segment(struct oplog_writer *w, struct oplog_segment **out)
{
	struct oplog_segment *s = w->storefd ? clear_place(w) : NULL;
	int dirfd, r;

	if (!s)
		return w->storefd ? -EBUSY : -EBADF;
	describe_segment(w);
	dirfd = oplog_folder(w);
	if (dirfd < 0)
		return dirfd;
	r = make_file(w, dirfd, s);
	sys_close(dirfd);
	if (r < 0)
		return r;
	w->sequence++;
	w->quiet = false;
	*out = s;
	return 0;
}

/* ---- from one to the next ---- */

/* Makes the next segment unless someone is at it or it failed lately. */
void oplog_prepare_next(struct oplog_writer *w)
{
	struct oplog_segment *s = NULL;
	uint64_t signals = sys_hold_signals();
	int r = -EBUSY;

	if (atomic_flag_test_and_set_explicit(&w->making, memory_order_acquire)) {
		sys_let_signals(signals);
		return;
	}
	if (atomic_load(&w->next) == NULL &&
	    atomic_load(&w->lost) >= atomic_load_explicit(&w->retry_at, memory_order_relaxed)) {
		r = make_segment(w, &s);
		atomic_store(&w->error, r);
		if (r == 0)
			atomic_store(&w->next, s);
		else
			atomic_store(&w->retry_at,
				     atomic_load(&w->lost) + (w->lazy ? RETRY_LAZY : RETRY));
	}
	atomic_flag_clear_explicit(&w->making, memory_order_release);
	sys_let_signals(signals);
}

/* Until what was told is what is so: others may change it meanwhile. */
void oplog_segment_tell(const struct oplog_writer *w, const struct oplog_segment *s)
{
	struct oplog_header *header = s ? __atomic_load_n(&s->header, __ATOMIC_RELAXED) : NULL;
	uint64_t features;

	if (!header)
		return;
	do {
		features = __atomic_load_n(&w->identity.features, __ATOMIC_SEQ_CST);
		__atomic_store_n(&header->features, features, __ATOMIC_SEQ_CST);
	} while (features != __atomic_load_n(&w->identity.features, __ATOMIC_SEQ_CST));
	__atomic_store_n(&header->refused, __atomic_load_n(&w->identity.refused, __ATOMIC_SEQ_CST),
			 __ATOMIC_RELAXED);
}

/* The piece before stays: most of what is in flight is there. All before that goes, since a late
 * store brings back as much as the kernel holds together. A claim is shorter than a piece. */
void oplog_segment_pass(const struct oplog_segment *s, uint64_t index, uint32_t n)
{
	uint64_t piece = (index + n) / OPLOG_PIECE;
	struct oplog_record *slots = __atomic_load_n(&s->slots, __ATOMIC_RELAXED);

	if (index / OPLOG_PIECE != piece && piece >= 2)
		SYS3(SYS_madvise, slots, (piece - 1) * OPLOG_PIECE * sizeof(*slots), MADV_DONTNEED);
}

/* It leaves this process's memory, all of it: nobody writes there but late. */
static void let_go_of_segment(struct oplog_segment *s)
{
	uint32_t sequence;

	if (!oplog_segment_enter(s, &sequence))
		return;
	if (s->header)
		SYS3(SYS_madvise, s->header, OPLOG_SEGMENT_SIZE(s->capacity), MADV_DONTNEED);
	oplog_segment_leave(s);
}

/* With it goes what late stores have brought back of those before. */
static void finish_segment(struct oplog_writer *w, const struct oplog_segment *s)
{
	uint32_t i;

	__atomic_store_n(&__atomic_load_n(&s->header, __ATOMIC_RELAXED)->finished, 1,
			 __ATOMIC_RELAXED);
	for (i = 0; i < w->place_count; i++)
		let_go_of_segment(&w->places[i]);
}

/* Goes on from the full segment `full`, entered (NULL at the start). False: there is no next one.
 */
bool oplog_advance(struct oplog_writer *w, struct oplog_segment *full)
{
	const struct timespec pause = {0, 50000};
	uint64_t until = 0;

	for (;;) {
		struct oplog_segment *next;

		if (atomic_load(&w->current) != full)
			return true;
		next = atomic_exchange(&w->next, NULL);
		if (next) {
			atomic_store(&w->current, next);
			oplog_segment_tell(w, next); /* it was made some time ago */
			if (full)
				finish_segment(w, full);
			return true;
		}
		oplog_prepare_next(w);
		if (atomic_load(&w->error) < 0)
			return false;
		if (atomic_load(&w->next))
			continue;
		if (!until)
			until = oplog_now() + MAKING_MAX;
		else if (oplog_now() > until)
			return false;
		SYS2(SYS_nanosleep, &pause, NULL); /* for the thread that makes it to get on */
	}
}

/* ---- all places ---- */

/* Memory in the place of all segments: who was held up still hits something valid. */
void oplog_segments_leave(const struct oplog_writer *w)
{
	unsigned i;

	for (i = 0; i < OPLOG_PLACES_MAX; i++)
		if (w->places[i].room)
			SYS6(SYS_mmap, w->places[i].at, w->places[i].room, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

bool oplog_segments_hold(const struct oplog_writer *w, uintptr_t at)
{
	unsigned i;

	for (i = 0; i < OPLOG_PLACES_MAX; i++)
		if (at - (uintptr_t)w->places[i].at < w->places[i].room)
			return true;
	return false;
}
