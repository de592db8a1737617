/* SPDX-License-Identifier: MIT */
#include "preload/refuse/touched.h"

#include <sys/mman.h>

#include "core/sqlite/page.h"
#include "preload/base/shim.h"

/* Where page 1 says which transaction was the last, and how much of it SQLite compares. */
#define VERSION_AT 24
#define VERSION_SIZE 16
#define COOKIE_AT 40
#define MADE_MOST 64 /* none is given back while the directory is in use: threads may read it */

struct known {
	dev_t device;
	ino_t inode;
	struct table_roots roots;
};

static struct {
	struct known *_Atomic known;
	_Atomic unsigned made;
} databases[PROTECTIONS];

static void set(int fd, union slot s, unsigned touched)
{
	if (s.touched == touched)
		return;
	s.touched = touched & 0xff;
	slot_set(fd, s);
}

/* ---- the roots ---- */

static struct known *learn(int fd, const struct stat *st)
{
	struct file_source database = shim_source(fd, (uint64_t)st->st_size);
	struct known *k = memory_make(sizeof(*k));
	void *room = memory_make(TABLE_ROOTS_ROOM);
	bool is_read = k && room && table_roots_read(&k->roots, &database, room);

	if (room)
		sys_munmap(room, TABLE_ROOTS_ROOM);
	if (is_read) {
		k->device = st->st_dev;
		k->inode = st->st_ino;
		return k;
	}
	if (k)
		sys_munmap(k, sizeof(*k));
	return NULL;
}

/* With the connection's lock for reading: nobody changes the schema meanwhile. */
static bool know(int fd, union slot s, const unsigned char *page1)
{
	struct known *k = atomic_load(&databases[s.protection].known);
	struct stat st;

	if (sys_fstat(fd, &st) < 0)
		return false;
	if (k && k->device == st.st_dev && k->inode == st.st_ino &&
	    k->roots.cookie == get_be32(page1 + COOKIE_AT))
		return true;
	if (atomic_fetch_add(&databases[s.protection].made, 1) >= MADE_MOST)
		return false;
	k = learn(fd, &st);
	atomic_store(&databases[s.protection].known, k);
	return k && k->roots.cookie == get_be32(page1 + COOKIE_AT);
}

const struct table_roots *touched_roots(union slot s)
{
	const struct known *k = atomic_load(&databases[s.protection].known);

	return k ? &k->roots : NULL;
}

/* ---- what is read ---- */

static void forget_pages(unsigned char *counter)
{
	unsigned i;

	for (i = 0; i < 4; i++)
		counter[i] ^= 0xff;
}

static unsigned kind_of(union slot s, uint64_t at)
{
	const struct table_roots *r = touched_roots(s);

	if (!r)
		return TABLE_ANY_OTHER;
	return at % r->page_size ? TABLE_NONE
				 : table_root_kind(r, (uint32_t)(at / r->page_size) + 1);
}

/*
 * SQLite looks at the version when it takes its lock, before anything else, and keeps its pages
 * while that is as it left it. A connection's first lock has no such look, but it has no pages
 * either; it has read the header alone. Page 1 always comes before any other.
 */
void touched_read(int fd, union slot s, void *buf, size_t n, off_t at)
{
	if (at == VERSION_AT && n == VERSION_SIZE) {
		forget_pages(buf);
		s.writable &= (uint8_t)~SLOT_STALE;
		s.touched = TOUCHED_KNOWN;
		slot_set(fd, s);
	} else if (at == 0 && n == SQLITE_HEADER_SIZE) {
		set(fd, s, TOUCHED_KNOWN);
	} else if (s.touched & TOUCHED_KNOWN && n >= SQLITE_PAGE_MIN) {
		set(fd, s,
		    at == 0 ? s.touched | (know(fd, s, buf) ? 0 : TABLE_ANY_OTHER)
			    : s.touched | kind_of(s, (uint64_t)at));
	}
}

void touched_forget(int fd)
{
	set(fd, slot_of(fd), 0);
}

/* Nothing in the directory is open any more. */
void touched_stop(unsigned protection)
{
	struct known *k = atomic_exchange(&databases[protection].known, NULL);

	if (k)
		sys_munmap(k, sizeof(*k));
	atomic_store(&databases[protection].made, 0);
}
