/* SPDX-License-Identifier: MIT */
#include "preload/refuse/readers.h"

#include <string.h>
#include <sys/mman.h>

#include "core/base/names.h"
#include "core/chroma/acquire_row.h"
#include "core/sqlite/journal.h"
#include "core/sqlite/page.h"
#include "preload/base/shim.h"
#include "preload/place/record.h"
#include "preload/refuse/refuse.h"
#include "preload/sqlite/copies.h"

#define JOURNAL_MOST ((size_t)(ACQUIRE_ROW_PAGES + 1) * (SQLITE_PAGE_MAX + 8))
/* Where page 1 says which transaction was the last, and how much of it SQLite compares. */
#define VERSION_AT 24
#define VERSION_SIZE 16

/* One transaction of a directory at a time, as RESERVED has it. */
static struct reader {
	_Atomic int database; /* descriptor + 1; 0: none */
	int journal;	      /* -1: not begun */
	_Atomic uint32_t thread;
	_Atomic unsigned rows; /* of clients, twice; odd: one is just being noted */
} readers[AREAS];

static bool is_beside_the_writer(union slot s)
{
	struct area *a = area_of(s);

	return settings.single_writer == SINGLE_WRITER_DENY && !writer_is_ours(a) &&
	       writer_is_foreign(a);
}

static bool is_there(const struct area *a, const char *name)
{
	struct stat st;

	return sys_fstatat(a->root_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

bool reader_may_open(const struct change *c)
{
	const struct area *a = area_of(c->slot);

	return c->slot.role == ROLE_DATABASE && change_opens(c) &&
	       (c->flags & (O_ACCMODE | O_NOFOLLOW | O_TRUNC)) == (O_RDWR | O_NOFOLLOW) &&
	       settings.single_writer == SINGLE_WRITER_DENY && c->caller &&
	       !sqlite_is_above(object_of(c->caller)) && is_there(a, CHROMA_DATABASE) &&
	       !is_there(a, CHROMA_DATABASE "-wal");
}

static void mark(int fd, union slot s, unsigned set, unsigned clear)
{
	s.writable = (uint8_t)((s.writable | set) & ~clear);
	slot_set(fd, s);
}

static bool is_database(union slot s, unsigned area)
{
	return s.area == area && s.role == ROLE_DATABASE && (s.writable & SLOT_WRITABLE);
}

/*
 * A client opens some at once, and any of them may be the one that writes the row. What it opens
 * later writes something else, and must be told at the journal's opening: an error that makes
 * SQLite roll back by itself leaves sqlx, which Chroma uses, with a transaction that never ends.
 */
void reader_opened(union slot s, int fd)
{
	unsigned rows = atomic_load(&readers[s.area].rows);
	int i, top = atomic_load(&slots_top);

	if (!is_database(s, s.area) || writer_is_ours(area_of(s)) || rows % 2)
		return;
	for (i = 0; i < top; i++)
		if (i != fd && is_database(slot_of(i), s.area) &&
		    !(slot_of(i).writable & SLOT_FRESH))
			return;
	mark(fd, s, SLOT_FRESH, 0);
	if (atomic_load(&readers[s.area].rows) != rows) /* by another thread, meanwhile */
		mark(fd, s, 0, SLOT_FRESH);
}

static void row_is_written(unsigned area)
{
	int fd, top = atomic_load(&slots_top);

	atomic_fetch_or(&readers[area].rows, 1);
	for (fd = 0; fd < top; fd++)
		if (is_database(slot_of(fd), area))
			mark(fd, slot_of(fd), 0, SLOT_FRESH);
	atomic_fetch_add(&readers[area].rows, 1);
}

/* Of the directory, if one is under way. */
static struct reader *current(unsigned area, int *fd)
{
	struct reader *r = &readers[area];

	*fd = atomic_load(&r->database) - 1;
	return *fd >= 0 && slot_of(*fd).area == area && (slot_of(*fd).writable & SLOT_NOWHERE)
		   ? r
		   : NULL;
}

/* ---- is it that one? ---- */

static bool read_database(const struct acquire_row *t, void *out, size_t n, uint64_t at)
{
	return sys_pread_all(t->fd, out, n, at) == (ssize_t)n;
}

static void look_end(const struct acquire_row *t)
{
	sys_munmap(t->room, SQLITE_PAGE_MAX + t->size);
}

static bool look(struct acquire_row *t, const struct reader *r, int fd)
{
	struct stat st;
	unsigned char *map;

	if (r->journal < 0 || sys_fstat(r->journal, &st) < 0 || (size_t)st.st_size > JOURNAL_MOST)
		return false;
	*t = (struct acquire_row){.size = (size_t)st.st_size, .read = read_database, .fd = fd};
	map = sys_mmap(SQLITE_PAGE_MAX + t->size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_map_failed(map))
		return false;
	t->room = map;
	t->journal = map + SQLITE_PAGE_MAX;
	if (sys_pread_all(r->journal, map + SQLITE_PAGE_MAX, t->size, 0) == (ssize_t)t->size &&
	    acquire_row_open(t) && acquire_row_saved(t))
		return true;
	look_end(t);
	return false;
}

/* ---- locks ---- */

/* Of the writer: it is in a transaction. One that journal_mode keeps is empty, or begins with
 * zeros. */
static bool journal_is_in_use(const struct area *a)
{
	unsigned char header[SQLITE_JOURNAL_HEADER_SIZE];
	int fd = spare_open(a->root_fd, CHROMA_DATABASE "-journal",
			    O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	ssize_t i, n = fd < 0 ? 0 : sys_pread(fd, header, sizeof(header), 0);

	if (fd >= 0)
		sys_close(fd);
	for (i = 0; i < n && !header[i]; i++)
		;
	return i < n;
}

static bool begin(int fd, union slot s, int *error)
{
	struct reader *r = &readers[s.area];
	int other;

	if (!(s.writable & SLOT_WRITABLE) || sqlite_is_above(s.object) || shim_borrowed() ||
	    !is_beside_the_writer(s))
		return false;
	/* As for any SQLite: RESERVED is taken, and SQLite lets go of its read lock and comes back.
	 */
	*error = -EAGAIN;
	if ((current(s.area, &other) && other != fd) || journal_is_in_use(area_of(s)))
		return true;
	r->journal = -1;
	atomic_store(&r->thread, thread_id());
	mark(fd, s, SLOT_NOWHERE, 0);
	atomic_store(&r->database, fd + 1);
	*error = 0;
	return true;
}

/* PENDING and EXCLUSIVE: it is about to write its pages. */
static bool may_write(int fd, union slot s)
{
	const struct reader *r = &readers[s.area];
	struct acquire_row t;

	if (r->journal < 0)
		return true; /* it has none */
	if (!look(&t, r, fd))
		return false;
	look_end(&t);
	return true;
}

static bool covers_reserved(const struct flock *lock, off_t start)
{
	return start <= SQLITE_RESERVED_BYTE &&
	       (lock->l_len == 0 || start + lock->l_len > SQLITE_RESERVED_BYTE);
}

bool reader_lock(int fd, union slot s, const struct flock *lock, off_t start, int *error)
{
	if (s.role != ROLE_DATABASE)
		return false;
	if (lock->l_type == F_WRLCK && start == SQLITE_RESERVED_BYTE) {
		if (begin(fd, s, error))
			return true;
		if (s.writable & SLOT_FRESH) /* it is written where everybody sees it */
			row_is_written(s.area);
		return false;
	}
	if (!(s.writable & SLOT_NOWHERE))
		return false;
	if (lock->l_type == F_WRLCK) {
		*error = 0;
		return may_write(fd, s);
	}
	if (covers_reserved(lock, start)) {
		mark(fd, s, 0, SLOT_NOWHERE);
		atomic_store(&readers[s.area].database, 0);
	}
	return false;
}

/* ---- the journal, and pages ---- */

/*
 * SQLite says "readonly database" where it may not make a journal, and of nothing else later. If
 * the writer has made one in this very moment, SQLite tries to read that, to write into it.
 */
int reader_journal(const struct place *place, int flags)
{
	union slot s = place->slot;
	struct reader *r = &readers[s.area];
	int fd, journal;

	if (s.role != ROLE_JOURNAL || !atomic_load(&r->database) || shim_borrowed() ||
	    !current(s.area, &fd) || atomic_load(&r->thread) != thread_id())
		return -ENOENT;
	if ((flags & O_ACCMODE) != O_RDWR)
		return -EACCES;
	if (!(slot_of(fd).writable & SLOT_FRESH))
		return -ENOENT;
	journal = (int)SYS2(SYS_memfd_create, CHROMA_DATABASE "-journal", MFD_CLOEXEC);
	if (journal < 0)
		return -ENOENT;
	row_is_written(s.area);
	r->journal = journal;
	s.role = ROLE_OTHER;
	s.writable = SLOT_WRITABLE | SLOT_NOWHERE;
	slot_set(journal, s);
	return journal;
}

/* A page on its way into the journal: its number is there already. */
static bool may_save(const struct change *c, int database)
{
	unsigned char header[SQLITE_JOURNAL_HEADER_SIZE], number[4];
	struct acquire_row t = {
	    .journal = header, .size = sizeof(header), .read = read_database, .fd = database};
	bool may;

	if (c->op != OP_PWRITE || c->iov_count != 1 || c->length < SQLITE_PAGE_MIN ||
	    c->offset == 0)
		return true;
	if (sys_pread_all(c->fd, header, sizeof(header), 0) != sizeof(header) ||
	    sys_pread_all(c->fd, number, sizeof(number), (uint64_t)c->offset - sizeof(number)) !=
		sizeof(number) ||
	    !acquire_row_header(&t) || c->length != t.page_size)
		return false;
	t.room =
	    sys_mmap(SQLITE_PAGE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sys_map_failed(t.room))
		return false;
	may = acquire_row_saves(&t, get_be32(number), c->iov[0].iov_base);
	sys_munmap(t.room, SQLITE_PAGE_MAX);
	return may;
}

static bool drops(const struct reader *r, const struct change *c)
{
	struct acquire_row t;
	bool is_its;

	if (c->op != OP_PWRITE || c->iov_count != 1 || !look(&t, r, c->fd))
		return false;
	is_its =
	    c->length == t.page_size && c->offset % t.page_size == 0 &&
	    acquire_row_writes(&t, (uint32_t)(c->offset / t.page_size) + 1, c->iov[0].iov_base);
	look_end(&t);
	return is_its;
}

static bool refuses_page(struct change *c)
{
	struct change said = *c;
	int fd;

	if (!current(c->slot.area, &fd) || may_save(c, fd))
		return false;
	said.slot.role = ROLE_JOURNAL;
	errno = -writer_refuse(&said);
	c->result = -1;
	return true;
}

static bool drops_page(struct change *c)
{
	if (!drops(&readers[c->slot.area], c))
		return false;
	if (c->offset == 0)
		mark(c->fd, c->slot, SLOT_STALE, 0);
	c->result = (int64_t)c->length;
	return true;
}

static bool drops_journal(struct change *c)
{
	int fd;
	struct reader *r = current(c->slot.area, &fd);

	if (!r || r->journal < 0)
		return false;
	r->journal = -1;
	c->result = 0;
	return true;
}

bool reader_answers(struct change *c)
{
	if (c->slot.writable & SLOT_NOWHERE)
		return c->slot.role == ROLE_DATABASE ? drops_page(c) : refuses_page(c);
	return c->slot.role == ROLE_JOURNAL && (c->op == OP_UNLINK || c->op == OP_UNLINKAT) &&
	       drops_journal(c);
}

/*
 * SQLite keeps pages while this part of page 1 is as it left it. What it believes to have left is
 * on no disk, and the writer's next transaction would leave the very same.
 */
void reader_reads(int fd, union slot s, void *buf, size_t n, off_t at)
{
	unsigned char *counter = buf;
	unsigned i;

	if (at != VERSION_AT || n != VERSION_SIZE)
		return;
	for (i = 0; i < 4; i++)
		counter[i] ^= 0xff;
	mark(fd, s, 0, SLOT_STALE);
}

void readers_fork(void)
{
	memset(readers, 0, sizeof(readers));
}
