/* SPDX-License-Identifier: MIT
 *
 * The op log: the writer, and what both sides of the format share.
 */
#include "core/oplog/oplog.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>

#include "core/base/alive.h"
#include "core/base/checksum.h"
#include "core/base/clock.h"
#include "core/base/number.h"
#include "core/base/sys.h"

#define HEADER_SLOTS (OPLOG_HEADER_SIZE / OPLOG_SLOT_SIZE)
#define SEGMENT_SIZE(slots) (OPLOG_HEADER_SIZE + (size_t)(slots)*OPLOG_SLOT_SIZE)
#define REGION_SIZE (SEGMENT_SIZE(OPLOG_CAPACITY) * OPLOG_PLACES)
#define CAPACITY_MIN (2048 - HEADER_SLOTS) /* 128 KiB */
#define SHARE 8				   /* a segment is that part of the log's bound, at most */
#define NAME_SIZE 64
#define LOOKS_MAX 16 /* at small segments, whether they may go */
#define NOWHERE UINT32_MAX
#define MAKING_MAX UINT64_C(50000000) /* ns to wait for a thread that makes the next segment */

uint32_t oplog_slot_check(const void *slot, uint32_t index)
{
	return checksum32_nonzero((const char *)slot + sizeof(uint32_t),
				  OPLOG_SLOT_SIZE - sizeof(uint32_t), index);
}

uint64_t oplog_header_check(const struct oplog_header *header)
{
	uint64_t life = header->version < 2 ? 0 : header->life;

	return checksum64(header, offsetof(struct oplog_header, check), OPLOG_MAGIC ^ life);
}

const char *oplog_op_name(unsigned op)
{
	switch (op) {
#define X(number, name, text) \
	case number:          \
		return text;
		OPLOG_OPS(X)
#undef X
	}
	return NULL;
}

uint64_t oplog_now(void)
{
	return clock_read(CLOCK_MONOTONIC);
}

/* ---- the writer: who is writing where ---- */

static void leave(struct oplog_segment *s)
{
	__atomic_fetch_sub(&s->users, 1, __ATOMIC_SEQ_CST);
}

/* Until leave() its place is not mapped over. False: it is about to be; no leave() then. */
static bool enter(struct oplog_segment *s, uint32_t *sequence)
{
	__atomic_fetch_add(&s->users, 1, __ATOMIC_SEQ_CST);
	*sequence = __atomic_load_n(&s->sequence, __ATOMIC_SEQ_CST);
	if (*sequence != NOWHERE)
		return true;
	leave(s);
	return false;
}

/* Nobody is in it, and from now on nobody comes. */
static bool try_clear(struct oplog_segment *s)
{
	uint32_t sequence = __atomic_load_n(&s->sequence, __ATOMIC_SEQ_CST);

	__atomic_store_n(&s->sequence, NOWHERE, __ATOMIC_SEQ_CST);
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

/* ---- the writer: making segments ---- */

/* Segments grow with a process's life: a short-lived tool takes 128 KiB, a server soon 4 MiB. */
static uint32_t capacity_of(const struct oplog_writer *w, uint32_t nth)
{
	uint32_t capacity = nth == 0   ? CAPACITY_MIN
			    : nth == 1 ? OPLOG_CAPACITY / 4
				       : OPLOG_CAPACITY;

	return capacity < w->capacity_max ? capacity : w->capacity_max;
}

/* What is written, and what is made ready, is a small part of the log: the rest is history. */
static void set_capacity(struct oplog_writer *w)
{
	uint64_t slots = w->size_limit / SHARE / OPLOG_SLOT_SIZE;

	slots -= slots % HEADER_SLOTS; /* whole pages */
	slots = slots < HEADER_SLOTS + CAPACITY_MIN ? CAPACITY_MIN : slots - HEADER_SLOTS;
	w->capacity_max = slots < OPLOG_CAPACITY ? (uint32_t)slots : OPLOG_CAPACITY;
	w->place_count = (uint32_t)(REGION_SIZE / SEGMENT_SIZE(w->capacity_max));
	if (w->place_count > OPLOG_PLACES_MAX)
		w->place_count = OPLOG_PLACES_MAX;
}

static void segment_name(char out[NAME_SIZE], const struct oplog_header *h, const char *suffix)
{
	const char *end = out + NAME_SIZE;
	char *at = number_put(out, end, h->anchor_realtime, 16, 16);

	*at++ = '-';
	at = number_put(at, end, h->pid, 10, 1);
	*at++ = '-';
	at = number_put(at, end, h->sequence, 10, 6);
	memcpy(at, suffix, strlen(suffix) + 1);
}

/* 1: a plain segment's name, 2: a compressed one's, 0: neither. */
static int kind_of_name(const char *name)
{
	size_t n = strlen(name), plain = sizeof(OPLOG_SUFFIX) - 1;

	if (n >= NAME_SIZE || strspn(name, "0123456789abcdef") != 16 || name[16] != '-')
		return 0;
	if (n > plain && strcmp(name + n - plain, OPLOG_SUFFIX) == 0)
		return 1;
	return n > plain + 4 && strcmp(name + n - plain - 4, OPLOG_SUFFIX ".zst") == 0 ? 2 : 0;
}

/*
 * Whether nobody writes it any more: its process has gone on to the next one, or is gone. What is
 * written now and what is made ready never goes, in whatever process.
 */
static bool is_over(int dirfd, int storefd, const char *name)
{
	struct oplog_header h; /* 1.5 KiB */
	ssize_t n;
	int fd = sys_openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);

	if (fd < 0)
		return false;
	n = sys_pread_all(fd, &h, sizeof(h), 0);
	sys_close(fd);
	if (n != (ssize_t)sizeof(h) || h.magic != OPLOG_MAGIC || h.finished)
		return true;
	if (h.version >= 2 && h.life)
		return alive_is(storefd, h.life) == ALIVE_DEAD;
	return (int)h.pid != sys_getpid() && sys_kill((int)h.pid, 0) == -ESRCH;
}

/* Of a process that was killed before it changed anything. */
static bool is_idle_left(int dirfd, int storefd, const char *name, const struct stat *st,
			 unsigned *looks)
{
	uint64_t features = 0;
	int fd;

	if ((size_t)st->st_size != SEGMENT_SIZE(CAPACITY_MIN) || (*looks)++ >= LOOKS_MAX)
		return false;
	fd = sys_openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	if (sys_pread_all(fd, &features, sizeof(features),
			  offsetof(struct oplog_header, features)) != (ssize_t)sizeof(features))
		features = 0;
	sys_close(fd);
	return (features & OPLOG_IDLE) && is_over(dirfd, storefd, name);
}

/* Sums up the directory; the oldest segment that is over goes to `oldest` ("" if none). */
static uint64_t scan_directory(int dirfd, int storefd, char oldest[NAME_SIZE])
{
	char buf[4096] __attribute__((aligned(8)));
	uint64_t total = 0;
	unsigned looks = 0;
	ssize_t n, at;

	oldest[0] = '\0';
	if (sys_lseek(dirfd, 0, SEEK_SET) < 0)
		return 0;
	while ((n = sys_getdents(dirfd, buf, sizeof(buf))) > 0) {
		const struct linux_dirent64 *d;

		for (at = 0; at < n; at += d->length) {
			struct stat st;
			int kind;

			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			kind = kind_of_name(d->name);
			if (!kind || sys_fstatat(dirfd, d->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
				continue;
			if (kind == 1 && is_idle_left(dirfd, storefd, d->name, &st, &looks)) {
				sys_unlinkat(dirfd, d->name, 0);
				continue;
			}
			total += (uint64_t)st.st_size;
			if ((!oldest[0] || strcmp(d->name, oldest) < 0) &&
			    (kind == 2 || is_over(dirfd, storefd, d->name)))
				memcpy(oldest, d->name, strlen(d->name) + 1);
		}
	}
	return total;
}

/* Oldest first, until a new segment of `size` bytes fits below the limit. */
static void make_room(struct oplog_writer *w, int dirfd, uint64_t size)
{
	char oldest[NAME_SIZE];
	int i;

	for (i = 0; i < 64; i++) {
		if (scan_directory(dirfd, *w->storefd, oldest) + size <= w->size_limit ||
		    !oldest[0])
			break;
		if (sys_unlinkat(dirfd, oldest, 0) < 0)
			break;
		w->dropped++;
	}
}

/*
 * Real blocks, since a store into a hole of a full disk would be SIGBUS; and written, in pieces
 * that the kernel keeps in large folios: then a page costs 0.9 us, all in all, and not 4.5 when a
 * store meets it first (ext4; single pages and whole segments at once are both dearer).
 */
static int allocate_blocks(int fd, size_t size)
{
	static const char zeros[65536];
	struct iovec iov[4];
	size_t done = 0;
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
	size_t size = SEGMENT_SIZE(header->capacity);
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

/* In oplog/, the file and its map. */
static int make_file(struct oplog_writer *w, int dirfd, struct oplog_segment *s)
{
	char name[NAME_SIZE], temporary[NAME_SIZE];
	int fd, r;

	segment_name(name, &w->identity, OPLOG_SUFFIX);
	segment_name(temporary, &w->identity, ".new");
	make_room(w, dirfd, SEGMENT_SIZE(w->identity.capacity));
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

static int open_directory(const struct oplog_writer *w)
{
	return sys_openat(*w->storefd, OPLOG_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC,
			  0);
}

/* Under w->making. */
static int make_segment(struct oplog_writer *w, struct oplog_segment **out)
{
	struct oplog_segment *s = w->storefd ? clear_place(w) : NULL;
	int dirfd, r;

	if (!s)
		return w->storefd ? -EBUSY : -EBADF;
	describe_segment(w);
	dirfd = open_directory(w);
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

/* Makes the next segment unless someone is at it or it failed lately. */
static void prepare_next(struct oplog_writer *w)
{
	struct oplog_segment *s = NULL;
	int r = -EBUSY;

	if (atomic_flag_test_and_set_explicit(&w->making, memory_order_acquire))
		return;
	if (atomic_load(&w->next) == NULL &&
	    atomic_load(&w->lost) >= atomic_load_explicit(&w->retry_at, memory_order_relaxed)) {
		r = make_segment(w, &s);
		atomic_store(&w->error, r);
		if (r == 0)
			atomic_store(&w->next, s);
		else
			atomic_store(&w->retry_at, atomic_load(&w->lost) + 1024);
	}
	atomic_flag_clear_explicit(&w->making, memory_order_release);
}

static void finish_segment(struct oplog_segment *s)
{
	struct oplog_header *header = __atomic_load_n(&s->header, __ATOMIC_RELAXED);

	__atomic_store_n(&header->finished, 1, __ATOMIC_RELAXED);
	SYS3(SYS_madvise, header, s->room, MADV_DONTNEED);
}

/* Goes on from the full segment `full`, entered (NULL at the start). False: there is no next one.
 */
static bool advance(struct oplog_writer *w, struct oplog_segment *full)
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
			if (full)
				finish_segment(full);
			return true;
		}
		prepare_next(w);
		if (atomic_load(&w->error) < 0)
			return false;
		if (!until)
			until = oplog_now() + MAKING_MAX;
		else if (oplog_now() > until)
			return false;
		SYS2(SYS_nanosleep, &pause, NULL); /* for the thread that makes it to get on */
	}
}

/* ---- the writer: records ---- */

/* Told in the last segment there is as well: another one may never come. */
static void count_lost(struct oplog_writer *w)
{
	struct oplog_segment *s = atomic_load_explicit(&w->current, memory_order_acquire);

	atomic_fetch_add_explicit(&w->lost, 1, memory_order_relaxed);
	if (s)
		__atomic_fetch_add(&__atomic_load_n(&s->header, __ATOMIC_RELAXED)->lost, 1,
				   __ATOMIC_RELAXED);
}

/* One try in segment s, which has been entered. False: it is full. */
static bool claim_in(struct oplog_segment *s, uint32_t n, struct oplog_claim *claim, bool *due)
{
	uint32_t capacity = __atomic_load_n(&s->capacity, __ATOMIC_RELAXED);
	struct oplog_header *header = __atomic_load_n(&s->header, __ATOMIC_RELAXED);
	uint64_t index = __atomic_fetch_add(&header->claimed, n, __ATOMIC_ACQUIRE);
	/* when the next segment is made: not at once in a life that may be short */
	uint64_t early = capacity < OPLOG_CAPACITY / 8 ? capacity / 2 : capacity / 8;

	if (index + n > capacity)
		return false;
	claim->record = __atomic_load_n(&s->slots, __ATOMIC_RELAXED) + index;
	claim->index = (uint32_t)index;
	claim->segment = s;
	*due = index <= early && index + n > early;
	return true;
}

/* What is claimed keeps its place until leave(). */
static struct oplog_claim claim_slots(struct oplog_writer *w, uint32_t n)
{
	struct oplog_claim claim = {.record = NULL};
	bool due = false;
	int tries;

	for (tries = 0; tries < 16; tries++) {
		struct oplog_segment *s = atomic_load_explicit(&w->current, memory_order_acquire);
		bool advanced;

		if (s && !enter(s, &claim.sequence))
			continue; /* it has gone on meanwhile */
		if (s && claim_in(s, n, &claim, &due)) {
			if (due)
				prepare_next(w);
			return claim;
		}
		advanced = w->storefd && advance(w, s);
		if (s)
			leave(s);
		if (!advanced)
			break;
	}
	count_lost(w);
	return claim;
}

struct oplog_claim oplog_begin(struct oplog_writer *w, const struct oplog_record *known)
{
	struct oplog_claim claim = claim_slots(w, 1);
	struct oplog_record *r = claim.record;

	if (!r)
		return claim;
	r->flags = known->flags;
	r->time = oplog_now();
	r->tid = known->tid;
	r->file = known->file;
	r->offset = known->offset;
	r->length = known->length;
	r->arg = known->arg;
	__atomic_store_n(&r->op, known->op, __ATOMIC_RELEASE);
	leave(claim.segment);
	return claim;
}

static void seal(void *slot, uint32_t index)
{
	__atomic_store_n((uint32_t *)slot, oplog_slot_check(slot, index), __ATOMIC_RELEASE);
}

/* The call may have taken so long that its segment's place has gone to another one. */
static bool enter_again(struct oplog_claim claim)
{
	uint32_t sequence;

	if (!claim.record || !enter(claim.segment, &sequence))
		return false;
	if (sequence == claim.sequence)
		return true;
	leave(claim.segment);
	return false;
}

void oplog_moved(struct oplog_claim claim, int64_t offset)
{
	if (!enter_again(claim))
		return;
	claim.record->offset = offset;
	leave(claim.segment);
}

void oplog_end(struct oplog_claim claim, int64_t result)
{
	struct oplog_record *r = claim.record;

	/* A record that can no longer be reached stays in flight, which is what it was for long. */
	if (!enter_again(claim))
		return;
	r->duration = oplog_now() - r->time;
	r->result = result;
	seal(r, claim.index);
	leave(claim.segment);
}

static void put_texts(struct oplog_claim claim, const char *text, size_t size)
{
	uint8_t part;

	for (part = 0; part < claim.record->texts; part++) {
		struct oplog_text *t = (struct oplog_text *)(claim.record + 1 + part);
		size_t n = size < OPLOG_TEXT_BYTES ? size : OPLOG_TEXT_BYTES;

		memcpy(t->bytes, text, n);
		t->size = (uint8_t)n;
		t->part = part;
		t->op = OP_TEXT;
		seal(t, claim.index + 1 + part);
		text += n;
		size -= n;
	}
}

uint32_t oplog_put(struct oplog_writer *w, const struct oplog_record *r, const char *text,
		   size_t size)
{
	struct oplog_claim claim;
	size_t texts = (size + OPLOG_TEXT_BYTES - 1) / OPLOG_TEXT_BYTES;
	uint8_t cut = 0;

	if (texts > OPLOG_TEXTS_MAX) {
		texts = OPLOG_TEXTS_MAX;
		cut = OPLOG_F_CUT;
	}
	claim = claim_slots(w, 1 + (uint32_t)texts);
	if (!claim.record)
		return 0;
	memcpy((char *)claim.record + sizeof(uint32_t), (const char *)r + sizeof(uint32_t),
	       sizeof(*r) - sizeof(uint32_t));
	claim.record->texts = (uint8_t)texts;
	claim.record->flags |= cut;
	if (!claim.record->time)
		claim.record->time = oplog_now();
	put_texts(claim, text, size);
	seal(claim.record, claim.index);
	leave(claim.segment);
	return claim.sequence + 1;
}

/* ---- the writer: its life ---- */

static void read_small_file(const char *path, char *buf, size_t size)
{
	int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	ssize_t n = fd < 0 ? 0 : sys_read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		sys_close(fd);
}

/* Field 22; the second field is in parentheses and may hold anything. */
uint64_t oplog_start_ticks(const char *stat_path)
{
	char buf[1024];
	const char *p;
	uint64_t ticks = 0;
	int field;

	read_small_file(stat_path, buf, sizeof(buf));
	p = strrchr(buf, ')');
	for (field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	for (p = p ? p + 1 : ""; *p >= '0' && *p <= '9'; p++)
		ticks = ticks * 10 + (uint64_t)(*p - '0');
	return ticks;
}

void oplog_boot_id(uint8_t out[16])
{
	char buf[64];
	const char *p;
	int digit = 0;

	read_small_file("/proc/sys/kernel/random/boot_id", buf, sizeof(buf));
	memset(out, 0, 16);
	for (p = buf; *p && digit < 32; p++) {
		int value = *p >= '0' && *p <= '9'   ? *p - '0'
			    : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
						     : -1;

		if (value < 0)
			continue;
		out[digit / 2] = (uint8_t)(out[digit / 2] << 4 | value);
		digit++;
	}
}

static void identify_process(struct oplog_header *h)
{
	h->magic = OPLOG_MAGIC;
	h->version = OPLOG_VERSION;
	h->endian = OPLOG_ENDIAN;
	h->header_size = OPLOG_HEADER_SIZE;
	h->slot_size = OPLOG_SLOT_SIZE;
	h->pid = (uint32_t)sys_getpid();
	h->parent_pid = (uint32_t)SYS0(SYS_getppid);
	h->start_ticks = oplog_start_ticks("/proc/self/stat");
	oplog_boot_id(h->boot_id);
	h->claimed = 0;
	h->finished = 0;
}

/* Memory in the place of all segments: who was held up still hits something valid. */
static void leave_places(const struct oplog_writer *w)
{
	unsigned i;

	for (i = 0; i < OPLOG_PLACES_MAX; i++)
		if (w->places[i].room)
			SYS6(SYS_mmap, w->places[i].at, w->places[i].room, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

int oplog_writer_open(struct oplog_writer *w, const int *storefd, uint64_t size_limit,
		      const struct oplog_header *identity)
{
	w->storefd = storefd;
	w->size_limit = size_limit < OPLOG_LIMIT_MIN ? OPLOG_LIMIT_MIN : size_limit;
	set_capacity(w);
	w->identity = *identity;
	identify_process(&w->identity);
	w->first = w->sequence;
	atomic_store(&w->next, NULL);
	atomic_store(&w->current, NULL);
	return advance(w, NULL) ? 0 : atomic_load(&w->error);
}

void oplog_writer_fork(struct oplog_writer *w)
{
	unsigned i;

	if (!w->storefd)
		return;
	leave_places(w);
	w->first = w->sequence; /* what the parent's segments know must not seem known to ours */
	for (i = 0; i < OPLOG_PLACES_MAX; i++) /* the threads that were there are not here */
		__atomic_store_n(&w->places[i].users, 0, __ATOMIC_RELAXED);
	identify_process(&w->identity);
	w->identity.features &= ~(OPLOG_HAS_WRITER | OPLOG_HAS_FENCE);
	w->identity.features |= OPLOG_IDLE;
	w->quiet = true;
	w->identity.refused = 0;
	atomic_store(&w->next, NULL);
	atomic_store(&w->current, NULL);
	atomic_store(&w->lost, 0);
	atomic_store(&w->retry_at, 0);
	atomic_store(&w->error, 0);
	atomic_flag_clear(&w->making);
}

/* The one segment that there is. */
static void remove_only(const struct oplog_writer *w)
{
	char name[NAME_SIZE];
	int dirfd = open_directory(w);

	if (dirfd < 0)
		return;
	segment_name(name, &w->identity, OPLOG_SUFFIX);
	sys_unlinkat(dirfd, name, 0);
	sys_close(dirfd);
}

void oplog_writer_finish(struct oplog_writer *w)
{
	struct oplog_segment *s = atomic_load(&w->current);

	if (s)
		s->header->finished = 1;
	if (s && oplog_is_idle(w) && w->sequence - w->first == 1)
		remove_only(w);
}

void oplog_writer_close(struct oplog_writer *w)
{
	oplog_writer_finish(w);
	atomic_store(&w->current, NULL);
	atomic_store(&w->next, NULL);
	w->storefd = NULL;
	leave_places(w);
}

void oplog_feature(struct oplog_writer *w, uint64_t bits, bool on)
{
	struct oplog_segment *s = atomic_load(&w->current);

	if (on)
		__atomic_or_fetch(&w->identity.features, bits, __ATOMIC_RELAXED);
	else
		__atomic_and_fetch(&w->identity.features, ~bits, __ATOMIC_RELAXED);
	if (s)
		__atomic_store_n(&s->header->features, w->identity.features, __ATOMIC_RELAXED);
}

void oplog_refused(struct oplog_writer *w)
{
	struct oplog_segment *s = atomic_load(&w->current);
	uint64_t never = 0;

	if (__atomic_compare_exchange_n(&w->identity.refused, &never, clock_read(CLOCK_REALTIME),
					false, __ATOMIC_RELAXED, __ATOMIC_RELAXED) &&
	    s)
		__atomic_store_n(&s->header->refused, w->identity.refused, __ATOMIC_RELAXED);
}

static bool is_in_places(const struct oplog_writer *w, uintptr_t at)
{
	unsigned i;

	for (i = 0; i < OPLOG_PLACES_MAX; i++)
		if (at - (uintptr_t)w->places[i].at < w->places[i].room)
			return true;
	return false;
}

bool oplog_writer_patch(struct oplog_writer *w, void *address)
{
	uintptr_t at = (uintptr_t)address;
	void *page;

	if (!is_in_places(w, at))
		return false;
	at -= at % OPLOG_HEADER_SIZE;
	page = (void *)SYS6(SYS_mmap, at, OPLOG_HEADER_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (sys_map_failed(page))
		return false;
	atomic_store(&w->current, NULL);
	return true;
}
