/* SPDX-License-Identifier: MIT
 *
 * A database with a hot journal, read as it will be once SQLite has rolled the journal back, but
 * without doing that: a VFS that takes the pages the journal holds from there. In the same way a
 * database in WAL mode that nobody has open (SQLite would leave -wal and -shm files behind), and
 * one that is no file at all.
 *
 * While it is open, a read lock on SQLite's SHARED range keeps others from rolling back.
 */
#include "core/sqlite/database.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/sqlite/journal.h"
#include "core/sqlite/page.h"
#include "core/sqlite/wal.h"

#define VFS_NAME "chromashim-rollback"
#define JOURNAL_FILE CHROMA_DATABASE "-journal"
#define WAL_FILE CHROMA_DATABASE "-wal"
#define SHM_FILE CHROMA_DATABASE "-shm"
#define SHM_USERS_BYTE 128 /* whoever has a WAL open holds a lock on it */

/* What the next open of the VFS opens, and then the file's own. */
struct view {
	int database;		   /* -1: none */
	struct file_source source; /* of its bytes */
	int journal;		   /* or log; -1: none */
	bool is_wal;
	uint32_t page_size;
	uint64_t size;
	struct sqlite_page_at *pages; /* by number */
	size_t count, room;
};

struct view_file {
	sqlite3_file base;
	struct view view;
};

static _Thread_local struct view *opening;

/* ---- the journal ---- */

static int add_page(struct view *v, uint32_t page, uint64_t at)
{
	struct sqlite_page_at *more;

	if (v->count == v->room) {
		v->room = v->room ? 2 * v->room : 256;
		more = realloc(v->pages, v->room * sizeof(*more));
		if (!more)
			return -ENOMEM;
		v->pages = more;
	}
	v->pages[v->count].page = page;
	v->pages[v->count++].at = at;
	return 0;
}

static int collect_pages(struct view *v, struct sqlite_journal *j)
{
	struct sqlite_journal_record record;
	int r;

	while ((r = sqlite_journal_next(j, &record)) == 1) {
		r = record.page > j->header.page_count
			? 0
			: add_page(v, record.page, j->bytes - j->header.page_size - 4);
		if (r < 0)
			break;
	}
	return r;
}

/* A transaction over several databases is rolled back only if its super-journal is there. */
static bool is_abandoned(const struct file_source *source)
{
	char name[4096];
	uint64_t start;

	return sqlite_journal_super(source, name, sizeof(name), &start) == 1 &&
	       access(name, F_OK) < 0;
}

static int load_journal(struct view *v)
{
	struct sqlite_journal j;
	struct file_source source;
	int r = file_source_open(&source, v->journal);

	if (r < 0)
		return r;
	if (!sqlite_journal_is_hot(&source) || is_abandoned(&source))
		return 0;
	r = sqlite_journal_open(&j, &source);
	if (r == -ENODATA || r == -EBADMSG)
		return 0; /* nothing that SQLite would play back */
	if (r < 0)
		return r;
	r = collect_pages(v, &j);
	v->page_size = j.header.page_size;
	v->size = (uint64_t)j.header.page_count * j.header.page_size;
	v->count = sqlite_pages_sort(v->pages, v->count, false); /* the oldest content */
	sqlite_journal_close(&j);
	return r;
}

/* ---- the log ---- */

static int load_wal(struct view *v)
{
	struct sqlite_wal_pages p;
	struct file_source source;
	int r = file_source_open(&source, v->journal);

	if (r == 0)
		r = sqlite_wal_pages(&p, &source);
	if (r < 0)
		return r;
	v->pages = p.pages;
	v->count = v->room = p.count;
	if (p.count) {
		v->page_size = p.page_size;
		v->size = p.size;
	}
	return 0;
}

/* Whether a process has the log open; it then keeps what it needs in -shm. */
static bool wal_is_in_use(int dirfd)
{
	struct flock lock = {
	    .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = SHM_USERS_BYTE, .l_len = 1};
	int fd = file_open_at(dirfd, SHM_FILE);
	bool used = fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;

	if (fd >= 0)
		close(fd);
	return used;
}

/* ---- the file ---- */

static int view_read(sqlite3_file *file, void *buf, int n, sqlite3_int64 offset)
{
	const struct view *v = &((struct view_file *)file)->view;
	uint64_t at = (uint64_t)offset, end = at + (uint64_t)n;
	char *out = buf;
	uint64_t i;

	if (end > v->size)
		end = v->size > at ? v->size : at;
	while (at < end) {
		uint64_t in_page = v->page_size ? at % v->page_size : 0;
		uint64_t left = v->page_size ? v->page_size - in_page : end - at;
		size_t want = (size_t)(left < end - at ? left : end - at);
		const struct sqlite_page_at *saved =
		    v->page_size ? sqlite_pages_find(v->pages, v->count, at / v->page_size + 1)
				 : NULL;
		ssize_t r = saved ? file_read_at(v->journal, out, want, saved->at + in_page)
				  : v->source.read(&v->source, out, want, at);

		if (r < 0)
			return SQLITE_IOERR_READ;
		if ((size_t)r < want)
			break;
		/* To SQLite it is a database without a log: the log is in the view already. */
		for (i = 18; v->is_wal && i <= 19; i++)
			if (i >= at && i < at + want)
				out[i - at] = 1;
		out += want;
		at += want;
	}
	if (at == (uint64_t)offset + (uint64_t)n)
		return SQLITE_OK;
	memset(out, 0, (size_t)((uint64_t)offset + (uint64_t)n - at));
	return SQLITE_IOERR_SHORT_READ;
}

static void view_release(struct view *v)
{
	free(v->pages);
	if (v->journal >= 0)
		close(v->journal);
	if (v->database >= 0)
		close(v->database);
}

static int view_close(sqlite3_file *file)
{
	view_release(&((struct view_file *)file)->view);
	return SQLITE_OK;
}

static int view_size(sqlite3_file *file, sqlite3_int64 *size)
{
	*size = (sqlite3_int64)((struct view_file *)file)->view.size;
	return SQLITE_OK;
}

static int refuse_write(sqlite3_file *file, const void *buf, int n, sqlite3_int64 offset)
{
	(void)file, (void)buf, (void)n, (void)offset;
	return SQLITE_READONLY;
}

static int refuse_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	(void)file, (void)size;
	return SQLITE_READONLY;
}

static int accept_int(sqlite3_file *file, int ignored)
{
	(void)file, (void)ignored;
	return SQLITE_OK;
}

static int no_reserved_lock(sqlite3_file *file, int *out)
{
	(void)file;
	*out = 0;
	return SQLITE_OK;
}

static int no_control(sqlite3_file *file, int operation, void *argument)
{
	(void)file, (void)operation, (void)argument;
	return SQLITE_NOTFOUND;
}

static int sector_size(sqlite3_file *file)
{
	(void)file;
	return 4096;
}

static int characteristics(sqlite3_file *file)
{
	(void)file;
	return SQLITE_IOCAP_IMMUTABLE; /* the lock sees to that */
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = view_close,
    .xRead = view_read,
    .xWrite = refuse_write,
    .xTruncate = refuse_truncate,
    .xSync = accept_int,
    .xFileSize = view_size,
    .xLock = accept_int,
    .xUnlock = accept_int,
    .xCheckReservedLock = no_reserved_lock,
    .xFileControl = no_control,
    .xSectorSize = sector_size,
    .xDeviceCharacteristics = characteristics,
};

/* ---- the VFS ---- */

/* Only the database itself is ours; files of temporary tables are SQLite's as ever. */
static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
	sqlite3_vfs *below = vfs->pAppData;
	struct view_file *own = (struct view_file *)file;

	if (!(flags & SQLITE_OPEN_MAIN_DB) || !opening)
		return below->xOpen(below, name, file, flags, out);
	own->base.pMethods = &methods;
	own->view = *opening;
	opening = NULL;
	if (out)
		*out = flags;
	return SQLITE_OK;
}

static sqlite3_vfs vfs; /* SQLite keeps it */
static bool vfs_is_there;

static void vfs_make(void)
{
	sqlite3_vfs *below = sqlite3_vfs_find(NULL);

	if (!below)
		return;
	vfs = *below;
	vfs.pNext = NULL;
	vfs.zName = VFS_NAME;
	vfs.pAppData = below;
	vfs.xOpen = vfs_open;
	if (vfs.szOsFile < (int)sizeof(struct view_file))
		vfs.szOsFile = (int)sizeof(struct view_file);
	vfs_is_there = sqlite3_vfs_register(&vfs, 0) == SQLITE_OK;
}

/* Two threads may open one each. */
static bool has_vfs(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, vfs_make);
	return vfs_is_there;
}

/* An open-file lock, so that closing another descriptor of the file does not drop it. */
static int lock_shared(int fd)
{
	struct flock lock = {.l_type = F_RDLCK,
			     .l_whence = SEEK_SET,
			     .l_start = SQLITE_SHARED_FIRST,
			     .l_len = SQLITE_SHARED_SIZE};

	return fcntl(fd, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES) ? -EBUSY
											 : 0;
}

static int view_open(struct view *v, int dirfd)
{
	int r;

	v->journal = -1;
	v->database = file_open_at(dirfd, CHROMA_DATABASE);
	if (v->database < 0)
		return v->database;
	r = lock_shared(v->database);
	if (r < 0)
		return r;
	r = file_source_open(&v->source, v->database);
	if (r < 0)
		return r;
	v->is_wal = sqlite_is_wal(&v->source);
	v->size = v->source.size;
	v->journal = file_open_at(dirfd, v->is_wal ? WAL_FILE : JOURNAL_FILE);
	if (v->journal < 0 && v->journal != -ENOENT)
		return v->journal;
	if (v->journal < 0)
		return 0;
	return v->is_wal ? load_wal(v) : load_journal(v);
}

/* What is in the view goes to the database, or is released. */
static int open_view(struct view *v, int r, sqlite3 **out)
{
	*out = NULL;
	if (r == 0) {
		opening = v;
		r = database_error(sqlite3_open_v2("file:" CHROMA_DATABASE "?immutable=1", out,
						   SQLITE_OPEN_READONLY | SQLITE_OPEN_URI,
						   VFS_NAME));
	}
	if (r == 0)
		database_configure(*out);
	if (r < 0 && (opening || !*out))
		view_release(v);
	opening = NULL;
	return r;
}

int database_open_rolled_back(int dirfd, sqlite3 **out)
{
	struct view v = {.database = -1, .journal = -1};

	return open_view(&v, has_vfs() ? view_open(&v, dirfd) : -ENOMEM, out);
}

int database_open_source(const struct file_source *source, sqlite3 **out)
{
	struct view v = {.database = -1, .journal = -1, .source = *source, .size = source->size};
	int64_t ignored;
	int r;

	v.is_wal = sqlite_is_wal(source);
	r = open_view(&v, has_vfs() ? 0 : -ENOMEM, out);
	return r < 0 ? r
		     : database_number(*out, "SELECT count(*) FROM sqlite_master", NULL, &ignored);
}

/*
 * Nothing that SQLite would open beside the database, or instead of it, may be anything but a file:
 * it would follow a link, and wait for ever on a FIFO.
 */
static int check_plain(int dirfd)
{
	static const char *const names[] = {CHROMA_DATABASE, JOURNAL_FILE, WAL_FILE, SHM_FILE};
	struct stat st;
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (fstatat(dirfd, names[i], &st, AT_SYMLINK_NOFOLLOW) < 0) {
			if (errno != ENOENT || i == 0)
				return -errno;
		} else if (!S_ISREG(st.st_mode)) {
			return S_ISLNK(st.st_mode)   ? -ELOOP
			       : S_ISDIR(st.st_mode) ? -EISDIR
						     : -ENOTSUP;
		}
	}
	return 0;
}

int database_open_now(const char *dir, int dirfd, sqlite3 **out)
{
	int64_t ignored;
	int fd, r = check_plain(dirfd);
	struct file_source source;
	bool is_idle_wal;

	*out = NULL;
	if (r < 0)
		return r;
	fd = file_open_at(dirfd, CHROMA_DATABASE);
	is_idle_wal = fd >= 0 && file_source_open(&source, fd) == 0 && sqlite_is_wal(&source) &&
		      !wal_is_in_use(dirfd);
	/* Before SQLite opens it: closing a descriptor drops the process's locks. */
	if (fd >= 0)
		close(fd);
	r = is_idle_wal ? -EROFS : database_open(dir, out);
	if (r == 0)
		r = database_number(*out, "SELECT count(*) FROM sqlite_master", NULL, &ignored);
	if (r != -EROFS)
		return r;
	sqlite3_close(*out);
	return database_open_rolled_back(dirfd, out);
}
