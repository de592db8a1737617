/* SPDX-License-Identifier: MIT
 *
 * Saving for pins: the pre-image files that are open, and who is writing.
 */
#include "preload/pin/internal.h"
#include "preload/place/lives.h"

#include <string.h>

#include "preload/base/shim.h"
#include "preload/place/faults.h"
#include "preload/sqlite/transactions.h"

#define ENTRIES 16 /* with up to two hidden descriptors each, which persists need as well */
#define SPINS 1000

struct pins protection_pins[PROTECTIONS];
static struct pin_writer *_Atomic writers[PROTECTIONS];
static struct pin_writer uncounted; /* where there is no place */
THREAD_LOCAL unsigned entered;	    /* how often this thread is counted among the writes */

/* A pre-image file that is open. */
struct entry {
	_Atomic uint32_t owner; /* thread that has it, 0: none */
	uint32_t name;		/* of the file, 0: not in use */
	struct pin_file file;
	int source; /* hidden, of a segment's file as it was at first; -1: none */
};

static struct entry entries[ENTRIES];

int pins_enter(unsigned protection, struct pins *p)
{
	*p = protection_pins[protection];
	p->dirfd = protection_folder(&protections[protection], PINS_DIR);
	return p->dirfd < 0 ? p->dirfd : 0;
}

void pins_leave(unsigned protection, struct pins *p)
{
	if (p->state && protection_pins[protection].generation < p->generation)
		protection_pins[protection].generation = p->generation;
	sys_close(p->dirfd);
}

bool pins_are_lost(unsigned protection)
{
	struct pins *whole = &protection_pins[protection], p;
	bool lost = whole->state && whole->state->magic != PIN_MAGIC;

	if (lost && pins_enter(protection, &p) == 0) {
		pins_state_lost(&p);
		pins_leave(protection, &p);
	}
	return lost;
}

/* ---- failure ---- */

static const char *reason_of(int error)
{
	switch (error) {
	case ENOSPC:
	case EDQUOT:
		return "there is no room for what it needs";
	case E2BIG:
		return "what it needs outgrew CHROMASHIM_UNDO_SIZE";
	case EFBIG:
		return "a file of what it needs would be larger than this process may write "
		       "(ulimit -f, LimitFSIZE=)";
	case EMFILE:
	case ENFILE:
		return "too many files are open";
	case EUSERS:
		return "all of the library's own descriptors are in use";
	case ESTALE:
		return "a file was changed without the shim";
	case EOWNERDEAD:
		return "pins/ in the store was replaced, by a copy of another moment it seems";
	case EDEADLK:
		return "a signal handler wrote in the midst of it";
	default:
		return "the store could not be written";
	}
}

/* Each by its number. False: no snapshot is lost. */
static bool record_broken(unsigned protection, int error, const char *what)
{
	const struct pins *p = &protection_pins[protection];
	bool any = false;
	unsigned i;

	for (i = 0; i < PIN_SLOTS; i++) {
		uint32_t state = __atomic_load_n(&p->slots[i].state, __ATOMIC_SEQ_CST);
		struct oplog_record r = {
		    .op = OP_SNAPSHOT_STATE, .offset = -1, .result = -error, .arg = p->slots[i].id};

		if ((state == PIN_HELD && !pin_is_base(&p->slots[i])) || state == PIN_TAKING) {
			record_put(protection, &r, what, strlen(what));
			any = true;
		}
	}
	return any;
}

void pins_fail(unsigned protection, int error, const char *what)
{
	struct pins p;
	bool lost;

	lost = record_broken(protection, error, what);
	pin_break(&protection_pins[protection], NULL, error, what);
	if (pins_enter(protection, &p) == 0) {
		pins_sweep(&p); /* its room is wanted, if that is what failed */
		pins_leave(protection, &p);
	}
	if (!lost)
		return;
	shim_say(protections[protection].spelling[0],
		 ": the snapshot that was pinned is broken: ", what,
		 "; the backend goes on. Take another one: chromashim snapshot create", NULL);
}

/* ---- entries ---- */

static bool try_lock(struct entry *e)
{
	uint32_t none = 0;

	return atomic_compare_exchange_strong(&e->owner, &none, thread_id());
}

static void unlock(struct entry *e)
{
	atomic_store(&e->owner, 0);
}

static void forget(struct entry *e)
{
	if (e->file.header) { /* else it was never open, and its numbers mean nothing */
		hidden_release(&e->file.fd);
		if (e->source >= 0)
			hidden_release(&e->source);
		pin_file_close(&e->file);
	}
	e->file = (struct pin_file){.fd = -1};
	e->source = -1;
	e->name = 0;
}

/* One that is not in use, or not just now. NULL: all are. */
static struct entry *take_any(void)
{
	static _Atomic unsigned next;
	unsigned i, from = atomic_fetch_add(&next, 1);

	for (i = 0; i < ENTRIES; i++)
		if (!entries[(from + i) % ENTRIES].name && try_lock(&entries[(from + i) % ENTRIES]))
			return &entries[(from + i) % ENTRIES];
	for (i = 0; i < ENTRIES; i++)
		if (try_lock(&entries[(from + i) % ENTRIES]))
			return &entries[(from + i) % ENTRIES];
	return NULL;
}

/* The one of a name, locked: 1; 0: there is none; -EDEADLK: this thread is in it already. */
static int find(uint32_t name, struct entry **out)
{
	uint32_t number = atomic_load(&name_get(name)->pin);
	struct entry *e = number ? &entries[number - 1] : NULL;
	unsigned spins;

	if (!e)
		return 0;
	for (spins = 0; !try_lock(e); spins++) {
		if (atomic_load(&e->owner) == thread_id())
			return -EDEADLK;
		if (spins > SPINS)
			SYS0(SYS_sched_yield);
	}
	if (e->name == name) {
		*out = e;
		return 1;
	}
	unlock(e);
	return 0;
}

/* Whether others than this thread are in the midst of a write; or that cannot be told. */
static bool others_write(unsigned protection)
{
	struct pins p;
	bool do_they;

	if (pins_enter(protection, &p) < 0)
		return true;
	do_they = pins_count_writes(&p) > entered;
	pins_leave(protection, &p);
	return do_they;
}

/*
 * What a persist moves aside has its own name for a moment longer, and whoever pins links it then:
 * that changes its change time, and is told only afterwards.
 */
static bool is_linked_aside(const struct pin_file *f, unsigned protection)
{
	return strchr(f->header->path, '/') && pins_have(protection, f->header->ino);
}

/*
 * Nobody else may have changed the file since it was seen last; what this write is about to make of
 * it would hide that. Who is in the midst of a change now, or has seen one since, has yet to tell.
 */
static int check_seen(const struct pin_file *f, unsigned protection)
{
	struct pin_identity is, was = {
				    .dev = f->header->dev,
				    .ino = f->header->ino,
				    .birth = f->header->birth,
				};
	int64_t seen = __atomic_load_n(&f->life->seen, __ATOMIC_SEQ_CST);

	if (f->header->size < 0 || __atomic_load_n(&f->life->busy, __ATOMIC_SEQ_CST) ||
	    pin_identify(protections[protection].root_fd, f->header->path, &is) < 0 ||
	    !pin_identity_same(&is, &was) || is.changed == seen)
		return 0;
	/* In this order: whoever ends a change tells what he saw, and counts himself out then. */
	if (__atomic_load_n(&f->life->busy, __ATOMIC_SEQ_CST) || others_write(protection) ||
	    seen != __atomic_load_n(&f->life->seen, __ATOMIC_SEQ_CST))
		return 0;
	return pin_file_has_all(f) || is_linked_aside(f, protection) ? 0 : -ESTALE;
}

static int open_file(struct pin_file *f, unsigned protection, const char *path, uint64_t epoch)
{
	struct pins p;
	int r = pins_enter(protection, &p);

	if (r < 0)
		return r;
	r = pins_are_current(&p)
		? pin_file_open(f, &p, epoch, protections[protection].root_fd, path)
		: -EOWNERDEAD;
	if (r >= 0)
		r = hidden_adopt(f->fd, &f->fd);
	pins_leave(protection, &p);
	return r;
}

bool pins_give_back(void)
{
	bool any = false;
	unsigned i;

	for (i = 0; i < ENTRIES; i++) {
		if (!entries[i].name || !entries[i].file.header || !try_lock(&entries[i]))
			continue;
		any |= entries[i].file.header != NULL;
		forget(&entries[i]);
		unlock(&entries[i]);
	}
	return any;
}

static int try_entry(struct entry *e, unsigned protection, uint32_t name, uint64_t epoch)
{
	const struct name *n = name_get(name);
	int r;

	forget(e);
	r = open_file(&e->file, protection, name_text(n), epoch);
	/* SQLite's files have locks, which the closing of another descriptor may take away. */
	if (r >= 0 && role_in_segment(n->role) && e->file.header->size > 0) {
		r = sys_openat(protections[protection].root_fd, name_text(n),
			       O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
		if (r >= 0)
			r = hidden_adopt(r, &e->source);
		else if (r == -ENOENT)
			r = 0;
	}
	if (r < 0) {
		forget(e);
		return r;
	}
	e->name = name;
	return 0;
}

/* Where the host has taken all descriptors but ours, those of other files make room. */
static int open_entry(struct entry *e, unsigned protection, uint32_t name, uint64_t epoch)
{
	int r = try_entry(e, protection, name, epoch);
	bool room;

	if (!hidden_are_out(r))
		return r;
	room = pins_give_back();
	room = spare_give() || room;
	return room ? try_entry(e, protection, name, epoch) : r;
}

/* The entry of a file in the epoch, locked; -errno. */
static int entry_for(unsigned protection, uint32_t name, uint64_t epoch, struct entry **out)
{
	struct entry *e = NULL;
	int r = find(name, &e);

	if (r < 0)
		return r;
	if (!r) {
		e = take_any();
		if (!e)
			return -EBUSY;
		e->name = name;
		e->file.id = 0;
		atomic_store(&name_get(name)->pin, (uint32_t)(e - entries) + 1);
	}
	r = e->file.id == epoch ? 0 : open_entry(e, protection, name, epoch);
	if (r < 0) {
		unlock(e);
		return r;
	}
	*out = e;
	return 0;
}

/* ---- saving ---- */

/*
 * A database that nobody has locked in this process, or whose locks last: it may be opened and
 * closed. -ENOENT: it has been removed, and is kept.
 */
static int open_database(unsigned protection, uint32_t name)
{
	const struct name *n = name_get(name);

	if (role_in_segment(n->role) || (atomic_load(&protections[protection].ofd_locks) <= 0 &&
					 transactions_may_come(protection)))
		return -EBADF;
	return sys_openat(protections[protection].root_fd, name_text(n),
			  O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0);
}

/* [offset, offset + length) of the entry's file, from what of it is open. */
static int save_range(struct entry *e, unsigned protection, int hostfd, uint64_t offset,
		      uint64_t length)
{
	int from = e->source >= 0 ? e->source : hostfd, own = -1, r;

	if (!length || e->file.header->size <= (int64_t)offset)
		return 0;
	if (from < 0)
		from = own = open_database(protection, e->name);
	if (from < 0)
		return from == -ENOENT ? 0 : from;
	r = pin_file_save(&e->file, &protection_pins[protection], from, offset, length);
	if (own >= 0)
		sys_close(own);
	return r;
}

/* `after`: the change has been made already, and is what may be found. */
static int save(unsigned protection, uint32_t name, int hostfd, uint64_t offset, uint64_t length,
		bool after, uint64_t *pinned)
{
	uint64_t epoch = pins_epoch(&protection_pins[protection]);
	struct entry *e;
	int r;

	if (!epoch)
		return 0; /* let go of since the look at it */
	r = entry_for(protection, name, epoch, &e);
	if (r < 0)
		return r;
	fault_point();
	r = after ? 0 : check_seen(&e->file, protection);
	if (r == 0)
		r = save_range(e, protection, hostfd, offset, length);
	if (*pinned != epoch) {
		pin_file_enter(&e->file);
		*pinned = epoch;
	}
	if (r == 0 && pin_file_is_lost(&e->file))
		r = -EIO;
	unlock(e);
	fault_point();
	return r;
}

int pin_save_range(unsigned protection, uint32_t name, int hostfd, uint64_t offset, uint64_t length,
		   uint64_t *pinned)
{
	return save(protection, name, hostfd, offset, length, false, pinned);
}

/* The pre-image file of an epoch that is there, for what is short. */
static int borrow(unsigned protection, uint32_t name, uint64_t epoch, struct pin_file *own,
		  struct pin_file **out, struct entry **entry)
{
	int r = find(name, entry);
	struct pins p;

	if (r > 0 && (*entry)->file.id == epoch) {
		*out = &(*entry)->file;
		return 0;
	}
	if (r > 0)
		unlock(*entry);
	*entry = NULL;
	*out = own;
	r = pins_enter(protection, &p);
	if (r < 0)
		return r;
	r = pin_file_open_existing(own, &p, epoch, name_text(name_get(name)));
	pins_leave(protection, &p);
	return r;
}

static void give_back(struct pin_file *file, struct entry *entry)
{
	if (entry)
		unlock(entry);
	else
		pin_file_close(file);
}

void pin_range_saved(unsigned protection, uint32_t name, uint64_t pinned)
{
	struct pin_file own, *file;
	struct entry *entry = NULL;

	if (borrow(protection, name, pinned, &own, &file, &entry) < 0)
		return;
	pin_file_leave(file, protections[protection].root_fd);
	give_back(file, entry);
}

void pin_note_late(unsigned protection, uint32_t name, uint64_t epoch)
{
	struct pin_file own, *file;
	struct entry *entry = NULL;
	uint64_t pinned = 0;

	if (!role_in_segment(name_get(name)->role) &&
	    save(protection, name, -1, 0, 0, true, &pinned) < 0)
		return;
	if (borrow(protection, name, epoch, &own, &file, &entry) < 0)
		return;
	pin_file_set_late(file);
	if (!pinned)
		pin_file_enter(file);
	pin_file_leave(file, protections[protection].root_fd);
	give_back(file, entry);
}

static struct pin_writer *writer_of(unsigned protection)
{
	struct pin_writer *w = atomic_load(&writers[protection]), *none = NULL;
	uint64_t life = w ? 0 : protection_life(&protections[protection]);
	struct pins p;

	if (w)
		return w;
	if (pins_enter(protection, &p) == 0) {
		w = pins_be_writer(&p, life);
		pins_leave(protection, &p);
	}
	if (w && !protections[protection].undo_usable) /* none of its persists can be undone */
		__atomic_fetch_add(&w->unprotected, 1, __ATOMIC_SEQ_CST);
	if (atomic_compare_exchange_strong(&writers[protection], &none, w ? w : &uncounted))
		return w ? w : &uncounted;
	if (w) /* another thread was quicker */
		__atomic_store_n(&w->who, 0, __ATOMIC_SEQ_CST);
	return none;
}

struct pin_writer *pin_enter(unsigned protection)
{
	struct pin_writer *w = protection_pins[protection].state ? writer_of(protection) : NULL;

	if (w)
		__atomic_fetch_add(&w->writes, 1, __ATOMIC_SEQ_CST);
	if (w && w != &uncounted)
		entered++;
	return w;
}

void pin_leave(struct pin_writer *writer)
{
	if (!writer)
		return;
	__atomic_fetch_sub(&writer->writes, 1, __ATOMIC_SEQ_CST);
	if (entered && writer != &uncounted)
		entered--;
}

void pin_conclude(unsigned protection, int r)
{
	struct pins *p = &protection_pins[protection];
	uint64_t limit = __atomic_load_n(&p->state->limit, __ATOMIC_RELAXED);

	if (r == 0 && limit && __atomic_load_n(&p->state->saved, __ATOMIC_RELAXED) > limit)
		r = -E2BIG;
	if (r < 0)
		pins_fail(protection, -r, reason_of(-r));
}

uint64_t pin_save_slow(unsigned protection, uint32_t name, uint64_t offset, uint64_t length)
{
	uint64_t pinned = 0;
	int saved = errno;

	pin_conclude(protection, pin_save_range(protection, name, -1, offset, length, &pinned));
	errno = saved;
	return pinned;
}

void pin_saved_slow(unsigned protection, uint32_t name, uint64_t pinned)
{
	int saved = errno;

	pin_range_saved(protection, name, pinned);
	errno = saved;
}

void pin_unprotected(unsigned protection, int change)
{
	MAPS_GUARDED;

	if (protection_pins[protection].state)
		__atomic_fetch_add(&writer_of(protection)->unprotected, (uint64_t)change,
				   __ATOMIC_SEQ_CST);
}

/* ---- links ---- */

bool pins_have(unsigned protection, ino_t ino)
{
	char buf[2048] __attribute__((aligned(8)));
	int fd = protection_pins[protection].state
		     ? protection_folder(&protections[protection], PINS_DIR)
		     : -1;
	const struct linux_dirent64 *d;
	bool found = false;
	ssize_t n, at;

	while (fd >= 0 && !found && (n = sys_getdents(fd, buf, sizeof(buf))) > 0)
		for (at = 0; at < n; at += d->length) {
			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			found = found || d->ino == ino;
		}
	if (fd >= 0)
		sys_close(fd);
	return found;
}

/* ---- start and fork ---- */

void pins_stop(unsigned protection)
{
	struct pin_writer *w = atomic_exchange(&writers[protection], NULL);
	struct pins *p = &protection_pins[protection];
	int i;

	if (!p->state)
		return;

	for (i = 0; i < ENTRIES; i++)
		if (entries[i].name && try_lock(&entries[i])) {
			if (entries[i].name && name_get(entries[i].name)->protection == protection)
				forget(&entries[i]);
			unlock(&entries[i]);
		}
	if (w && w != &uncounted)
		__atomic_store_n(&w->who, 0, __ATOMIC_SEQ_CST);
	pins_close(p);
}

void pins_start(unsigned protection)
{
	struct pins *p = &protection_pins[protection];
	struct protection *a = &protections[protection];
	int r;

	*p = (struct pins){.dirfd = -1};
	if (a->store_fd < 0 || a->failed)
		return;
	r = pins_open(p, a->store_fd, true);
	if (r >= 0) {
		pins_skip_known(p);
		pins_adopt(p, a->root_fd, NULL);
		sys_close(p->dirfd);
		p->dirfd = -1;
		return;
	}
	shim_say(a->spelling[0], ": no snapshots can be pinned: ",
		 r == -EPROTONOSUPPORT
		     ? "pins/state is of a newer chromashim, or a process with an older one has it"
		 : r == -EBADMSG ? "pins/state is damaged; remove it when nothing runs"
				 : "the store cannot be written",
		 NULL);
}

void pins_fork(void)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < ENTRIES; i++)
		atomic_store(&entries[i].owner, 0);
	for (i = 0; i < used; i++)
		atomic_store(&writers[i], NULL);
	entered = 0; /* what it is in the midst of, the parent is counted for */
}
