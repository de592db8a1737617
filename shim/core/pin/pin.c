/* SPDX-License-Identifier: MIT
 *
 * Pins: the shared state, and who holds one.
 */
#include "core/pin/pin.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>

#include "core/base/checksum.h"
#include "core/base/names.h"
#include "core/base/number.h"
#include "core/base/shared_map.h"
#include "core/base/sys.h"
#include "core/oplog/oplog.h"
#include "core/pin/internal.h"

#define STATE_FILE "state"
#define LOCK_FILE "lock"
#define STATE_SIZE (PIN_BLOCK + PIN_SLOTS * sizeof(struct pin_slot))
#define TEMPORARY_TRIES 100

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)
#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_SEQ_CST)

_Static_assert(sizeof(struct pin_header) <= PIN_BLOCK, "the slots lie behind it");

/* ---- texts ---- */

static void put_text(char *out, size_t size, const char *text)
{
	size_t n = text ? strnlen(text, size - 1) : 0;

	while (n && text[n] && ((unsigned char)text[n] & 0xc0) == 0x80)
		n--; /* no half of a character */
	memset(out, 0, size);
	if (n)
		memcpy(out, text, n);
}

static uint64_t now_ns(void)
{
	struct timespec t = {0, 0};

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* ---- the state ---- */

static uint64_t state_check(const struct pin_header *h)
{
	return checksum64(h, offsetof(struct pin_header, check), 0);
}

/* What snapshots/next says, at least 1. */
static uint64_t number_on_file(const struct pins *p)
{
	char text[32];
	uint64_t n = 0;
	ssize_t got, i;
	int fd = sys_openat(p->dirfd, "../snapshots/next",
			    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);

	if (fd < 0)
		return 1;
	got = sys_read(fd, text, sizeof(text));
	sys_close(fd);
	for (i = 0; i < got && i < 12 && text[i] >= '0' && text[i] <= '9'; i++)
		n = n * 10 + (uint64_t)(text[i] - '0');
	return n ? n : 1;
}

static int map_state(struct pins *p, int fd)
{
	struct stat st;
	void *map;
	int r = sys_fstat(fd, &st);

	if (r < 0)
		return r;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	if ((uint64_t)st.st_size < STATE_SIZE)
		return -ENODATA;
	map = shared_map(STATE_SIZE, PROT_READ | PROT_WRITE, fd);
	if (!map)
		return -ENOMEM;
	p->state = map;
	p->slots = (struct pin_slot *)(void *)((char *)map + PIN_BLOCK);
	p->writers = (struct pin_writer *)(void *)((char *)map + PIN_WRITERS_AT);
	p->ino = st.st_ino;
	return 0;
}

static int judge_state(const struct pin_header *h)
{
	static const struct pin_header never_written;

	if (memcmp(h, &never_written, sizeof(*h)) == 0)
		return -ENODATA;
	if (h->magic != PIN_MAGIC || h->endian != PIN_ENDIAN)
		return -EBADMSG;
	if (h->version > PIN_VERSION)
		return -EPROTONOSUPPORT;
	if (h->check != state_check(h) || h->slot_size != sizeof(struct pin_slot) ||
	    h->slots != PIN_SLOTS)
		return -EBADMSG;
	return h->version == PIN_VERSION ? 0 : -ESTALE;
}

static void unmap_state(struct pins *p)
{
	if (p->state)
		shared_unmap(p->state, STATE_SIZE);
	p->state = NULL;
	p->slots = NULL;
	p->writers = NULL;
}

/*
 * The state as it is: 0, -ENOENT, or what is wrong with it; -ENODATA: after a power cut, when its
 * name was on the disk and nothing else of it; -ESTALE: of an older version, mapped.
 */
static int open_state(struct pins *p)
{
	int fd = sys_openat(p->dirfd, STATE_FILE, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return fd;
	r = map_state(p, fd);
	sys_close(fd);
	if (r == 0)
		r = judge_state(p->state);
	if (r < 0 && r != -ESTALE)
		unmap_state(p);
	if (p->state) {
		p->instance = p->state->instance;
		p->generation = LOAD(p->state->generation);
	}
	return r;
}

bool pins_are_current(struct pins *p)
{
	uint64_t generation = LOAD(p->state->generation);
	struct stat st;

	if (sys_fstatat(p->dirfd, STATE_FILE, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
	    st.st_ino != p->ino || p->state->instance != p->instance || generation < p->generation)
		return false;
	p->generation = generation;
	return true;
}

bool pins_state_lost(const struct pins *p)
{
	struct stat st;

	if (!p->state || p->state->magic == PIN_MAGIC)
		return false;
	if (sys_fstatat(p->dirfd, STATE_FILE, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_ino == p->ino)
		sys_unlinkat(p->dirfd, STATE_FILE, 0);
	return true;
}

/* What root makes is for whom the directory belongs to. */
static void give_to_owner(int fd, int directoryfd)
{
	struct stat directory;

	if (sys_fstat(directoryfd, &directory) == 0)
		sys_chown_like(fd, &directory);
}

static int temporary_file(const struct pins *p, char name[PIN_NAME_MAX])
{
	static _Atomic unsigned count;
	int tries, fd = -EEXIST;

	for (tries = 0; tries < TEMPORARY_TRIES && fd == -EEXIST; tries++) {
		uint64_t number = (uint64_t)sys_getpid() << 20 | (count++ & 0xfffff);
		size_t n;

		name[0] = '.';
		n = pin_put_id(name + 1, number);
		memcpy(name + 1 + n, "tmp", 4);
		fd = sys_openat(p->dirfd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
				0600);
	}
	if (fd >= 0)
		give_to_owner(fd, p->dirfd);
	return fd;
}

int pin_temporary(const struct pins *p, char name[PIN_NAME_MAX])
{
	return temporary_file(p, name);
}

/* Makes a number that no other store has. */
static uint64_t draw(void)
{
	uint64_t n = 0;

	if (SYS3(SYS_getrandom, &n, sizeof(n), GRND_NONBLOCK) != (long)sizeof(n))
		n = now_ns() ^ (uint64_t)sys_getpid() << 32;
	return n;
}

static void fill_state(struct pins *p)
{
	struct pin_header *h = p->state;

	h->magic = PIN_MAGIC;
	h->version = PIN_VERSION;
	h->endian = PIN_ENDIAN;
	h->slot_size = sizeof(struct pin_slot);
	h->slots = PIN_SLOTS;
	oplog_boot_id(h->boot_id);
	h->check = state_check(h);
	h->instance = draw();
	p->instance = h->instance;
	h->next_id = number_on_file(p);
}

/* Of the boot before, or of an older version: nothing of it can be trusted, but it is told. */
static void take_over(struct pins *p, const struct pins *old)
{
	bool older = old->state->version != PIN_VERSION;
	unsigned i;

	pin_raise(&p->state->next_id, LOAD(old->state->next_id));
	for (i = 0; i < PIN_SLOTS; i++) {
		struct pin_slot *s = &p->slots[i];

		*s = old->slots[i];
		if (s->state == PIN_HELD && !pin_is_base(s)) {
			s->state = PIN_BROKEN;
			s->error = ECONNRESET;
			put_text(s->detail, sizeof(s->detail),
				 older ? "it was pinned by an older chromashim, and not copied yet"
				       : "the machine was restarted before it was copied");
		} else if (s->state != PIN_BROKEN) {
			*s = (struct pin_slot){0};
		}
	}
}

/* A new state; if it replaces one, with what `old` had (NULL: nothing). Else -EEXIST: somebody was
 * quicker. */
static int make_state(struct pins *p, bool replaces, const struct pins *old)
{
	char name[PIN_NAME_MAX];
	int fd = temporary_file(p, name), r;

	if (fd < 0)
		return fd;
	r = sys_fallocate(fd, 0, 0, (off_t)STATE_SIZE); /* a store into a hole may be SIGBUS */
	if (r == -EOPNOTSUPP)
		r = sys_ftruncate(fd, (off_t)STATE_SIZE);
	if (r == 0)
		r = map_state(p, fd);
	sys_close(fd);
	if (r == 0) {
		fill_state(p);
		if (old)
			take_over(p, old);
		r = replaces ? sys_renameat(p->dirfd, name, p->dirfd, STATE_FILE)
			     : sys_linkat(p->dirfd, name, p->dirfd, STATE_FILE);
	}
	if (r < 0 || !replaces)
		sys_unlinkat(p->dirfd, name, 0);
	if (r < 0)
		unmap_state(p);
	return r;
}

int pins_lock(const struct pins *p, bool wait)
{
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = sys_openat(p->dirfd, LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return fd;
	give_to_owner(fd, p->dirfd);
	do
		r = sys_fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, (unsigned long)&whole);
	while (r == -EINTR);
	if (r == 0)
		return fd;
	sys_close(fd);
	return r == -EACCES ? -EAGAIN : r;
}

static bool is_of_this_boot(const struct pins *p)
{
	uint8_t boot[16];

	oplog_boot_id(boot);
	return memcmp(p->state->boot_id, boot, sizeof(boot)) == 0;
}

static int renew(struct pins *p)
{
	struct pins old = *p;
	int lock = pins_lock(p, true), r;

	unmap_state(&old);
	p->state = NULL;
	if (lock < 0)
		return lock;
	r = open_state(p); /* somebody may have done it meanwhile */
	if (r == -ENODATA) {
		r = make_state(p, true, NULL);
	} else if (r == -ESTALE || (r == 0 && !is_of_this_boot(p))) {
		old = *p;
		p->state = NULL;
		r = make_state(p, true, &old);
		unmap_state(&old);
	}
	sys_close(lock);
	return r;
}

/* Tells whether there is a writer, of whatever version. */
static bool has_any_writer(int storefd)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd =
	    sys_openat(storefd, WRITER_LOCK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
	bool held = fd >= 0 && sys_fcntl(fd, F_OFD_GETLK, (unsigned long)&lock) == 0 &&
		    lock.l_type != F_UNLCK;

	if (fd >= 0)
		sys_close(fd);
	return held;
}

int pins_open(struct pins *p, int storefd, bool make)
{
	int r = make ? sys_mkdirat(storefd, PINS_DIR, 0700) : 0;

	*p = (struct pins){.dirfd = -1};
	if (r < 0 && r != -EEXIST)
		return r;
	p->dirfd =
	    sys_openat(storefd, PINS_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
	if (p->dirfd < 0)
		return p->dirfd;
	if (make && r == 0)
		give_to_owner(p->dirfd, storefd);
	r = open_state(p);
	if (r == -ENOENT && make) {
		r = make_state(p, false, NULL);
		if (r == -EEXIST)
			r = open_state(p);
	}
	/* The library of an older version that has it mapped would save for nobody else. */
	if (r == -ESTALE && is_of_this_boot(p) && has_any_writer(storefd))
		r = -EPROTONOSUPPORT;
	else if (r == -ENODATA || r == -ESTALE || (r == 0 && !is_of_this_boot(p)))
		r = renew(p);
	if (r < 0)
		pins_close(p);
	return r;
}

void pins_close(struct pins *p)
{
	unmap_state(p);
	if (p->dirfd >= 0)
		sys_close(p->dirfd);
	p->dirfd = -1;
}

/* ---- pinning ---- */

static struct pin_slot *take_slot(struct pins *p)
{
	unsigned i;

	for (i = 0; i < PIN_SLOTS; i++) {
		uint32_t none = PIN_FREE;

		if (__atomic_compare_exchange_n(&p->slots[i].state, &none, PIN_TAKING, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return &p->slots[i];
	}
	return NULL;
}

int pin_begin(struct pins *p, const struct pin_request *q, struct pin_slot **out)
{
	struct pin_slot *s = p->state ? take_slot(p) : NULL;

	if (!s)
		return p->state ? -ENOSPC : -ENOENT;
	STORE(s->who, pin_who(q->life));
	STORE(s->pid, (uint32_t)sys_getpid());
	s->error = 0;
	s->wal = q->wal;
	s->database_size = q->database_size;
	s->wal_size = q->wal_size;
	s->held_ns = 0;
	put_text(s->reason, sizeof(s->reason), q->reason);
	put_text(s->description, sizeof(s->description), q->description);
	put_text(s->detail, sizeof(s->detail), NULL);
	pin_raise(&p->state->next_id, number_on_file(p));
	STORE(s->id, __atomic_fetch_add(&p->state->next_id, 1, __ATOMIC_SEQ_CST));
	s->time = now_ns();
	pin_raise(&p->state->epoch, s->id);
	*out = s;
	return 0;
}

void pin_hold(struct pin_slot *s)
{
	uint32_t taking = PIN_TAKING; /* else it was broken meanwhile */

	__atomic_compare_exchange_n(&s->state, &taking, PIN_HELD, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
}

static bool any_in_use(const struct pins *p)
{
	unsigned i;

	for (i = 0; i < PIN_SLOTS; i++) {
		uint32_t state = LOAD(p->slots[i].state);

		if (state == PIN_TAKING || state == PIN_HELD)
			return true;
	}
	return false;
}

bool pins_any(const struct pins *p)
{
	unsigned i;

	for (i = 0; p->state && i < PIN_SLOTS; i++) {
		uint32_t state = LOAD(p->slots[i].state);

		if ((state == PIN_HELD && !pin_is_base(&p->slots[i])) || state == PIN_BROKEN)
			return true;
	}
	return false;
}

/* Nothing needs to be saved any more, unless somebody pins just now. */
static void rest(struct pins *p)
{
	uint64_t epoch = LOAD(p->state->epoch);

	if (!any_in_use(p))
		__atomic_compare_exchange_n(&p->state->epoch, &epoch, 0, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
}

/* What has come to nothing is shared by nobody. */
static void share_no_more(struct pins *p, uint64_t id)
{
	if (id)
		__atomic_compare_exchange_n(&p->state->shared, &id, 0, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
}

static void set_free(struct pins *p, struct pin_slot *s)
{
	STORE(s->id, 0);
	STORE(s->pid, 0);
	STORE(s->who, 0);
	STORE(s->state, PIN_FREE);
	rest(p);
}

void pin_drop(struct pins *p, struct pin_slot *s)
{
	share_no_more(p, LOAD(s->id));
	set_free(p, s);
}

void pin_let_go(struct pins *p, struct pin_slot *s, uint64_t id)
{
	if (LOAD(s->id) == id)
		set_free(p, s);
}

static bool is_automatic(const struct pin_slot *s)
{
	return LOAD(s->state) == PIN_HELD &&
	       (strcmp(s->reason, "schema") == 0 || strcmp(s->reason, "bulk") == 0 ||
		strcmp(s->reason, "damage") == 0);
}

static struct pin_slot *next_automatic(const struct pins *p, uint64_t after)
{
	struct pin_slot *found = NULL;
	unsigned i;

	for (i = 0; i < PIN_SLOTS; i++) {
		struct pin_slot *s = &p->slots[i];

		if (is_automatic(s) && s->id > after && (!found || s->id < found->id))
			found = s;
	}
	return found;
}

void pins_thin(struct pins *p, unsigned most)
{
	struct pin_slot *a = next_automatic(p, 0), *b = a ? next_automatic(p, a->id) : NULL, *c;
	struct pin_slot *least = NULL;
	uint64_t gap = UINT64_MAX;
	unsigned count = !a ? 0 : !b ? 1 : 2;

	for (; b && (c = next_automatic(p, b->id)); a = b, b = c, count++) {
		uint64_t between = c->time > a->time ? c->time - a->time : 0;

		if (between < gap) {
			gap = between;
			least = b;
		}
	}
	if (least && count >= most)
		pin_drop(p, least);
}

static int find_highest(void *context, const char *name)
{
	uint64_t *highest = context, id = pin_id_of_name(name);

	*highest = id > *highest ? id : *highest;
	return 0;
}

void pins_skip_known(struct pins *p)
{
	uint64_t highest = 0;

	if (pin_each_name(p->dirfd, find_highest, &highest) == 0 && highest < UINT64_MAX)
		pin_raise(&p->state->next_id, highest + 1);
}

static void break_one(struct pins *p, struct pin_slot *s, int error, const char *detail)
{
	uint32_t state = LOAD(s->state);

	if (state == PIN_FREE)
		return;
	share_no_more(p, LOAD(s->id));
	if (state != PIN_HELD && state != PIN_TAKING)
		return;
	if (state == PIN_HELD && pin_is_base(s)) { /* nothing is lost with it */
		set_free(p, s);
		return;
	}
	s->error = error;
	put_text(s->detail, sizeof(s->detail), detail);
	__atomic_compare_exchange_n(&s->state, &state, PIN_BROKEN, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
}

void pin_break(struct pins *p, struct pin_slot *s, int error, const char *detail)
{
	unsigned i;

	if (!p->state)
		return;
	for (i = 0; i < PIN_SLOTS; i++)
		if (!s || s == &p->slots[i])
			break_one(p, &p->slots[i], error, detail);
	rest(p);
}
