/* SPDX-License-Identifier: MIT */
#include "preload/refuse/readers.h"

#include <string.h>
#include <sys/mman.h>

#include "core/base/names.h"
#include "core/chroma/acquire_row.h"
#include "core/sqlite/journal.h"
#include "core/sqlite/page.h"
#include "preload/base/shim.h"
#include "preload/place/loads.h"
#include "preload/place/record.h"
#include "preload/refuse/refuse.h"
#include "preload/refuse/touched.h"
#include "preload/refuse/writer_text.h"
#include "preload/sqlite/copies.h"

#define PAGE_OF_MEMORY 4096 /* smaller ones could not be told apart in a memory file */
#define JOURNAL_MOST ((size_t)(ACQUIRE_ROW_PAGES + 1) * (SQLITE_PAGE_MAX + 8))
#define PATIENCE UINT64_C(2000000000) /* ns, with a journal that nothing happens to */
/* What a transaction may write: the queue of a service that has stood still for long. */
#define PAGES_MOST (UINT64_C(256) << 20)

enum goal {
	ELSEWHERE, /* it is none of these: refused */
	ONE_ROW,   /* of acquire_write */
	CATCH_UP,  /* what the queue has is applied */
	PURGE	   /* its first rows are removed, since all indexes have them */
};

/* One transaction of a directory at a time, as RESERVED has it. */
static struct reader {
	_Atomic int database; /* descriptor + 1; 0: none */
	int journal;	      /* -1: not begun */
	bool keeps;	      /* what it has written, */
	int pages;	      /* in their places */
	enum goal goal;
	uint64_t written;
	struct stat in_the_way; /* a journal of somebody else's, and since when it is so */
	uint64_t since;
	uint32_t first_leaf; /* of the queue; 0: not told from the last */
	bool is_purging;     /* that has been read */
	_Atomic uint32_t thread;
} readers[PROTECTIONS];
static _Atomic bool begun; /* one, ever, in this process */

static bool is_beside_the_writer(union slot s)
{
	struct protection *a = protection_of(s);

	return settings.single_writer == SINGLE_WRITER_DENY && !writer_is_ours(a) &&
	       writer_is_foreign(a);
}

static bool is_there(const struct protection *a, const char *name)
{
	struct stat st;

	return sys_fstatat(a->root_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

bool reader_may_open(const struct change *c)
{
	const struct protection *a = protection_of(c->slot);

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

/* Of the directory, if one is under way. */
static struct reader *current(unsigned protection, int *fd)
{
	struct reader *r = &readers[protection];

	*fd = atomic_load(&r->database) - 1;
	return *fd >= 0 && slot_of(*fd).protection == protection &&
		       (slot_of(*fd).writable & SLOT_NOWHERE)
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

static bool reader_look(struct acquire_row *t, const struct reader *r, int fd)
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

/* A program that changes records by an SQLite of its own is told that it may not. */
static bool is_chroma(uint8_t library)
{
	const char *path = object_path(library), *name = path ? strrchr(path, '/') : NULL;

	return path && strstr(name ? name : path, "chroma");
}

/*
 * The one row is told by the journal, too, when it is about to be written. Who adds to the queue,
 * which is how all is written that anybody asks for, has no business with its first rows.
 */
static enum goal goal_of(union slot s)
{
	const struct table_roots *roots = touched_roots(s);
	unsigned tables = s.touched & ~TOUCHED_KNOWN;

	if (!(s.touched & TOUCHED_KNOWN) || !roots || !tables)
		return ELSEWHERE;
	if (tables == TABLE_ACQUIRE)
		return ONE_ROW;
	if (roots->page_size < PAGE_OF_MEMORY || !is_chroma(s.object))
		return ELSEWHERE;
	if (!(tables & ~(unsigned)(TABLE_RECORDS | TABLE_MARKS)))
		return CATCH_UP;
	return tables == TABLE_QUEUE && readers[s.protection].is_purging ? PURGE : ELSEWHERE;
}

static uint32_t first_of_queue(int fd, union slot s)
{
	const struct table_roots *roots = touched_roots(s);
	void *room = roots ? memory_make(roots->page_size) : NULL;
	uint32_t page = 0;
	struct stat st;

	if (room && sys_fstat(fd, &st) == 0) {
		struct file_source database = shim_source(fd, (uint64_t)st.st_size);

		page = table_first_leaf(roots, TABLE_QUEUE, &database, room);
	}
	if (room)
		sys_munmap(room, roots->page_size);
	return page;
}

/* ---- the pages of one that catches up, or purges ---- */

static void drop_pages(struct reader *r)
{
	if (r->keeps)
		hidden_release(&r->pages);
	r->keeps = false;
	r->written = 0;
}

static bool keep_page(struct reader *r, const struct change *c)
{
	int fd;

	if (r->written + c->length > PAGES_MOST)
		return false;
	if (!r->keeps) {
		fd = (int)SYS2(SYS_memfd_create, CHROMA_DATABASE, MFD_CLOEXEC);
		if (fd < 0 || hidden_adopt(fd, &r->pages) < 0)
			return false;
		r->keeps = true;
	}
	r->written += c->length;
	return sys_pwrite_all(r->pages, c->iov[0].iov_base, c->length, (uint64_t)c->offset) == 0;
}

/* Whether it was written in this transaction. */
static bool has_page(const struct reader *r, off_t at)
{
	return r->keeps && SYS3(SYS_lseek, r->pages, at, SEEK_DATA) == at;
}

/* It does still what it began with. */
static bool stays(union slot s)
{
	return goal_of(s) == readers[s.protection].goal;
}

/*
 * Its end: page 1 is written when it commits, and not before. The marks have been asked for, or it
 * is somebody's own change of the records; and the schema stays as it is.
 */
static bool may_end(const struct change *c)
{
	const struct table_roots *roots = touched_roots(c->slot);
	unsigned char *old;
	bool is_same;

	if (!stays(c->slot) || !(c->slot.touched & (TABLE_MARKS | TABLE_QUEUE)))
		return false;
	old = memory_make(roots->page_size);
	is_same = old &&
		  sys_pread_all(c->fd, old, roots->page_size, 0) == (ssize_t)roots->page_size &&
		  acquire_row_first_page(old, c->iov[0].iov_base, roots->page_size);
	if (old)
		sys_munmap(old, roots->page_size);
	return is_same;
}

/* ---- locks ---- */

/* One that journal_mode keeps is empty, or begins with zeros. */
static bool journal_has_content(int fd)
{
	unsigned char header[SQLITE_JOURNAL_HEADER_SIZE];
	ssize_t i, n = sys_pread(fd, header, sizeof(header), 0);

	for (i = 0; i < n && !header[i]; i++)
		;
	return i < n;
}

static bool is_same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/*
 * Of the writer: it is in a transaction. Or of one that was killed before it had begun to write to
 * the database: SQLite leaves such a journal where it is until the next transaction, and the writer
 * may be idle for long. So it is waited for as long as something happens to it.
 */
static bool journal_is_in_use(const struct protection *a, struct reader *r)
{
	int fd = spare_open(a->root_fd, CHROMA_DATABASE "-journal",
			    O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
	uint64_t now = oplog_now();
	struct stat st;
	bool is;

	if (fd < 0)
		return false;
	is = journal_has_content(fd) && sys_fstat(fd, &st) == 0;
	sys_close(fd);
	if (is && !is_same_file(&st, &r->in_the_way)) {
		r->in_the_way = st;
		r->since = now;
	}
	return is && now - r->since < PATIENCE;
}

static bool reader_begin(int fd, union slot s, int *error)
{
	struct reader *r = &readers[s.protection];
	int other;

	if (!(s.writable & SLOT_WRITABLE) || sqlite_is_above(s.object) || shim_borrowed() ||
	    !is_beside_the_writer(s))
		return false;
	/* As for any SQLite: RESERVED is taken, and SQLite lets go of its read lock and comes back.
	 */
	*error = -EAGAIN;
	if ((current(s.protection, &other) && other != fd) ||
	    journal_is_in_use(protection_of(s), r) || writer_text_opens(protection_of(s)))
		return true;
	r->journal = -1;
	drop_pages(r); /* of one that was ended by closing the file */
	r->is_purging = false;
	r->first_leaf = first_of_queue(fd, s);
	atomic_store(&r->thread, thread_id());
	mark(fd, s, SLOT_NOWHERE, 0);
	atomic_store(&r->database, fd + 1);
	atomic_store(&begun, true);
	*error = 0;
	return true;
}

/* PENDING and EXCLUSIVE: it is about to write its pages, or there is no more room for them. */
static bool may_write(int fd, union slot s)
{
	const struct reader *r = &readers[s.protection];
	struct acquire_row t;

	if (r->journal < 0)
		return true; /* it has none */
	if (r->goal != ONE_ROW)
		return stays(s);
	if (!reader_look(&t, r, fd))
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
	if (lock->l_type == F_UNLCK && covers_reserved(lock, start))
		load_has_asked(s.protection);
	if (lock->l_type == F_WRLCK && start == SQLITE_RESERVED_BYTE)
		return reader_begin(fd, s, error);
	if (!(s.writable & SLOT_NOWHERE))
		return false;
	if (lock->l_type == F_WRLCK) {
		*error = 0;
		return may_write(fd, s);
	}
	if (covers_reserved(lock, start)) {
		drop_pages(&readers[s.protection]);
		s.touched = 0;
		mark(fd, s, 0, SLOT_NOWHERE);
		atomic_store(&readers[s.protection].database, 0);
	}
	return false;
}

/* ---- the journal, and pages ---- */

static int memory_file(const char *name, union slot s)
{
	int fd = (int)SYS2(SYS_memfd_create, name, MFD_CLOEXEC);

	if (fd < 0)
		return -ENOENT;
	s.role = ROLE_OTHER;
	s.writable = SLOT_WRITABLE | SLOT_NOWHERE;
	slot_set(fd, s);
	return fd;
}

/*
 * SQLite says "readonly database" where it may not make a journal, and of nothing else later: an
 * error that makes SQLite roll back by itself leaves sqlx, which Chroma uses, with a transaction
 * that never ends. It asks whether there is one (reader_hides()), and says "unable to open database
 * file" if so.
 */
static int open_journal(union slot s, int flags)
{
	struct reader *r = &readers[s.protection];
	int fd, journal;

	if (!atomic_load(&r->database) || shim_borrowed() || !current(s.protection, &fd) ||
	    atomic_load(&r->thread) != thread_id())
		return -ENOENT;
	if ((flags & O_ACCMODE) != O_RDWR)
		return -EACCES;
	r->goal = goal_of(slot_of(fd));
	if (r->goal == ELSEWHERE)
		return -ENOENT;
	journal = memory_file(CHROMA_DATABASE "-journal", s);
	if (journal >= 0)
		r->journal = journal;
	return journal;
}

/* The writer's: it has made it in this very moment, or keeps an empty one. */
bool reader_hides(const char *path)
{
	A_PLACE(place);
	int fd;

	return __builtin_expect(atomic_load(&begun), 0) && !shim_borrowed() &&
	       place_find(&place, AT_FDCWD, path, false) && place.slot.role == ROLE_JOURNAL &&
	       current(place.slot.protection, &fd) &&
	       atomic_load(&readers[place.slot.protection].thread) == thread_id();
}

/* For writing, by that library; or at all. */
static bool has_database_open(unsigned protection, uint8_t library)
{
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);

		if (s.protection == protection && s.role == ROLE_DATABASE &&
		    (!library || (s.writable & SLOT_WRITABLE && s.object == library)))
			return true;
	}
	return false;
}

/*
 * Catching up may be so much that the index is to be persisted: that is the writer's, and the queue
 * has all of it. The other files of the index were refused, and hnswlib did not look.
 */
static int open_pickle(union slot s, void *caller, int flags)
{
	uint8_t library = caller ? object_of(caller) : 0;

	if ((flags & O_ACCMODE) == O_RDONLY || !library || sqlite_is_above(library) ||
	    shim_borrowed() || !has_database_open(s.protection, library) ||
	    !is_beside_the_writer(s))
		return -ENOENT;
	return memory_file("index_metadata.pickle", s);
}

/* An index is loaded by a process that is not, or not yet, the writer. */
static void look_at_load(union slot s, int flags)
{
	struct protection *a = protection_of(s);

	if (writer_is_ours(a) || a->store_fd <= 0 || shim_borrowed() ||
	    settings.single_writer != SINGLE_WRITER_DENY)
		return;
	if (s.role != ROLE_PICKLE && (flags & O_ACCMODE) == O_RDWR)
		load_has_read(s.protection);
	else if (s.role == ROLE_PICKLE && (flags & O_ACCMODE) == O_RDONLY &&
		 has_database_open(s.protection, 0))
		load_begins(s);
}

int reader_opens(const struct place *place, void *caller, int flags)
{
	union slot s = place->slot;

	if (role_in_segment(s.role))
		look_at_load(s, flags);
	if (s.role == ROLE_JOURNAL)
		return open_journal(s, flags);
	return s.role == ROLE_PICKLE && !writer_is_ours(protection_of(s))
		   ? open_pickle(s, caller, flags)
		   : -ENOENT;
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

static bool drops_row(const struct reader *r, const struct change *c)
{
	struct acquire_row t;
	bool is_its;

	if (!reader_look(&t, r, c->fd))
		return false;
	is_its =
	    c->length == t.page_size && c->offset % t.page_size == 0 &&
	    acquire_row_writes(&t, (uint32_t)(c->offset / t.page_size) + 1, c->iov[0].iov_base);
	look_end(&t);
	return is_its;
}

static bool drops(struct reader *r, const struct change *c)
{
	const struct table_roots *roots = touched_roots(c->slot);

	if (c->op != OP_PWRITE || c->iov_count != 1 || r->journal < 0)
		return false;
	if (r->goal == ONE_ROW)
		return drops_row(r, c);
	if (!roots || c->length != roots->page_size || c->offset % roots->page_size)
		return false;
	return (c->offset > 0 || may_end(c)) && keep_page(r, c);
}

static bool refuses_page(struct change *c)
{
	struct change said = *c;
	int fd;

	if (!current(c->slot.protection, &fd) || readers[c->slot.protection].goal != ONE_ROW ||
	    may_save(c, fd))
		return false;
	said.slot.role = ROLE_JOURNAL;
	errno = -writer_refuse(&said);
	c->result = -1;
	return true;
}

static bool drops_page(struct change *c)
{
	if (!drops(&readers[c->slot.protection], c))
		return false;
	if (c->offset == 0)
		mark(c->fd, c->slot, SLOT_STALE, 0);
	c->result = (int64_t)c->length;
	return true;
}

static bool drops_journal(struct change *c)
{
	int fd;
	struct reader *r = current(c->slot.protection, &fd);

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
 * What SQLite believes to have left in page 1 is on no disk, and the writer's next transaction
 * would leave the very same: it must forget its pages, as touched_read() makes it.
 */
ssize_t reader_reads(int fd, union slot s, void *buf, size_t n, off_t at, ssize_t ret)
{
	struct reader *r = &readers[s.protection];

	if (s.writable & SLOT_NOWHERE) {
		if (has_page(r, at))
			ret = sys_pread_all(r->pages, buf, n, (uint64_t)at);
		r->is_purging |= r->first_leaf && n >= PAGE_OF_MEMORY &&
				 (uint64_t)at == (uint64_t)(r->first_leaf - 1) * n;
	}
	if (ret > 0 && !sqlite_is_above(s.object) && settings.single_writer == SINGLE_WRITER_DENY)
		touched_read(fd, s, buf, (size_t)ret, at);
	return ret;
}

void readers_fork(void)
{
	unsigned i;

	for (i = 0; i < PROTECTIONS; i++)
		drop_pages(&readers[i]);
	memset(readers, 0, sizeof(readers));
}
