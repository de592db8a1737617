/* SPDX-License-Identifier: MIT
 *
 * Finding and making the store of a data directory.
 */
#include "core/store/store.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include <sys/file.h>

#include "core/base/names.h"
#include "core/base/sys.h"
#include "core/base/version.h"

#define LOCK_TRIES 2000 /* of a millisecond each: a busy disk takes its time */

struct opening {
	struct store *s;
	int dirfd;
	int homefd; /* <directory>/.chromashim, or -errno */
	const char *path;
	enum store_access access;
	struct store_place here;
	bool has_mine; /* the directory's identity could be read */
	bool is_first; /* it has none yet */
	bool is_copy;  /* ... and is another directory's */
};

static int open_directory(int parent, const char *name)
{
	return sys_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return sys_fstat(a, &x) == 0 && sys_fstat(b, &y) == 0 && x.st_ino == y.st_ino &&
	       x.st_dev == y.st_dev;
}

/*
 * Keeps two that meet a directory for the first time from making two identities. Who cannot have
 * the lock goes on without: a stopped process must not keep a backend from its start.
 */
static void lock_directory(int fd)
{
	static const struct timespec a_little = {0, 1000000};
	int tries;

	for (tries = 0; tries < LOCK_TRIES; tries++) {
		if (SYS2(SYS_flock, fd, LOCK_EX | LOCK_NB) != -EWOULDBLOCK)
			return;
		SYS2(SYS_nanosleep, &a_little, NULL);
	}
}

static void unlock_directory(int fd)
{
	SYS2(SYS_flock, fd, LOCK_UN);
}

/* ---- a directory that is named as store ---- */

static bool is_known_name(const char *name)
{
	static const char *const known[] = {
	    "..",	   "acts",	    "oplog",	  "undo",
	    "pins",	   "snapshots",	    "quarantine", "restore",
	    "scratch",	   WRITER_LOCK,	    "alive.lock", "guard.lock",
	    "guard.log",   "guard.log.1",   "ballast",	  "aside",
	    "status.json", "metrics.prom",  "lost+found", "chromashim.conf",
	    "look.lock", /* of first opens */
	    "written-by",  "events",	    "engine",	  "drill",
	    "drill.lock",  "drill-replica", "loads.lock",
	};
	size_t n = strlen(name);
	unsigned i;

	for (i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (strcmp(name, known[i]) == 0)
			return true;
	if (strcmp(name, ".") == 0)
		return true;
	/* An identity under way, a file to try locks on, one being published, a sub-store. */
	return strncmp(name, STORE_IDENTITY, sizeof(STORE_IDENTITY) - 1) == 0 ||
	       strncmp(name, "lock.probe-", 11) == 0 || strncmp(name, "drill.scratch-", 14) == 0 ||
	       (name[0] == '.' && n > 5 && strcmp(name + n - 4, ".tmp") == 0) ||
	       (n == 2 * STORE_ID_SIZE && strspn(name, "0123456789abcdef") == n);
}

/* 0 if it can be taken as a store: nothing is in it but what a store has. */
static int judge_unknown(int fd)
{
	char buf[2048] __attribute__((aligned(8)));
	struct stat st;
	ssize_t n, at;

	if (sys_fstat(fd, &st) == 0 && (st.st_mode & S_ISVTX))
		return -ENOTEMPTY;
	sys_lseek(fd, 0, SEEK_SET);
	while ((n = sys_getdents(fd, buf, sizeof(buf))) > 0) {
		const struct linux_dirent64 *d;

		for (at = 0; at < n; at += d->length) {
			d = (const struct linux_dirent64 *)(const void *)(buf + at);
			if (!is_known_name(d->name))
				return -ENOTEMPTY;
		}
	}
	return (int)n;
}

/* ---- identities ---- */

static void note_version(struct store *s, const struct store_identity *identity)
{
	if (identity->version > s->version)
		s->version = identity->version;
}

static void note_newer(struct store *s, int fd, const struct store_identity *identity)
{
	note_version(s, identity);
	s->waits = store_needed(fd) == STORE_FORMER_WAITS;
}

static bool is_of_older(const struct store_identity *identity)
{
	return identity->version < version_own_number();
}

/* Writes it as that of the store (or of the directory) in fd. */
static int name_store(const struct opening *o, int fd, const uint8_t id[STORE_ID_SIZE],
		      const char *store, bool is_first)
{
	struct store_identity *identity = &o->s->theirs;
	size_t n = strlen(store);

	if (o->s->version < version_own_number())
		o->s->version = version_own_number();
	memset(identity, 0, sizeof(*identity));
	memcpy(identity->id, id, STORE_ID_SIZE);
	identity->version = o->s->version;
	identity->directory = o->here;
	store_place_of(fd, &identity->own);
	if (strlen(o->path) < PATH_MAX)
		memcpy(identity->path, o->path, strlen(o->path) + 1);
	if (n < PATH_MAX && !strchr(store, '\n'))
		memcpy(identity->store, store, n + 1);
	return store_identity_write(fd, identity, is_first);
}

/* Whether the directory that an identity was written for is still where it was. */
static bool original_is_there(const struct store_identity *identity)
{
	struct store_place place;
	int fd = identity->path[0] == '/'
		     ? sys_openat(AT_FDCWD, identity->path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0)
		     : -ENOENT;
	bool there;

	if (fd < 0)
		return false;
	store_place_of(fd, &place);
	there = store_place_same(&place, &identity->directory);
	sys_close(fd);
	return there;
}

static void note_adoption(struct store *s)
{
	memcpy(s->from, s->mine.path, sizeof(s->from));
	s->met = STORE_ADOPTED;
}

/* What the directory says of itself; read again under a lock, as another may just have said it. */
static int read_mine(struct opening *o)
{
	int r;

	if (o->homefd < 0)
		o->homefd = open_directory(o->dirfd, STORE_NAME);
	r = o->homefd < 0 ? o->homefd : store_identity_read(o->homefd, &o->s->mine);
	o->has_mine = r == 0;
	o->is_first = r == -ENOENT;
	if (r == 0)
		note_version(o->s, &o->s->mine);
	else if (r == -EPROTONOSUPPORT)
		note_newer(o->s, o->homefd, &o->s->mine);
	if (!o->has_mine)
		memset(&o->s->mine, 0, sizeof(o->s->mine));
	o->is_copy = o->has_mine && !store_place_same(&o->s->mine.directory, &o->here);
	return r;
}

/* The directory's own id: a new one if it has none, or has a copy of another's. */
static void choose_id(const struct opening *o)
{
	if (o->has_mine && !o->is_copy)
		memcpy(o->s->id, o->s->mine.id, STORE_ID_SIZE);
	else
		store_id_draw(o->s->id);
}

/* ---- inside ---- */

static int make_home(struct opening *o)
{
	int r;

	if (o->homefd != -ENOENT)
		return o->homefd;
	r = sys_mkdirat(o->dirfd, STORE_NAME, 0700);
	if (r < 0 && r != -EEXIST)
		return r;
	o->homefd = open_directory(o->dirfd, STORE_NAME);
	return o->homefd;
}

/* It has our name: what others can read there is closed to them, if it is ours to do so. */
static void make_private(int fd)
{
	uid_t user = (uid_t)SYS0(SYS_geteuid);
	struct stat st;

	if (sys_fstat(fd, &st) == 0 && (st.st_mode & 077) && (user == st.st_uid || user == 0))
		SYS2(SYS_fchmod, fd, 0700);
}

/* Also where only hints have changed: the path, the version, or there is a store elsewhere no more.
 */
static bool needs_writing(const struct opening *o, const char *store)
{
	const struct store_identity *mine = &o->s->mine;

	return !o->has_mine || o->is_copy || is_of_older(mine) ||
	       strcmp(mine->path, o->path) != 0 || strcmp(mine->store, store) != 0;
}

static bool is_kept(const struct store *s)
{
	return s->former == STORE_FORMER_WAITS || s->former == STORE_FORMER_LIVES;
}

/* Where another was faster, as the lock was not to be had, the directory has its id. */
static void identify_home(struct opening *o, const char *store)
{
	int r =
	    needs_writing(o, store) ? name_store(o, o->homefd, o->s->id, store, o->is_first) : 0;

	if (r == -EEXIST && read_mine(o) == 0)
		choose_id(o);
	else if (r < 0 && !o->has_mine)
		memset(o->s->id, 0, STORE_ID_SIZE); /* tried again at the next start */
}

static int open_inside(struct opening *o)
{
	struct store *s = o->s;
	bool is_new = o->homefd == -ENOENT;
	int r;

	s->inside = true;
	if (o->access == STORE_LOOK) {
		if (o->has_mine)
			memcpy(s->id, s->mine.id, STORE_ID_SIZE);
		return s->fd = o->homefd;
	}
	r = make_home(o);
	if (r < 0)
		return r;
	make_private(o->homefd);
	lock_directory(o->homefd);
	if (read_mine(o) == -EPROTONOSUPPORT) { /* just now */
		unlock_directory(o->homefd);
		return -EPROTONOSUPPORT;
	}
	choose_id(o);
	if (o->is_copy)
		note_adoption(s);
	else if (!o->has_mine)
		s->met = is_new ? STORE_NEW : STORE_TAKEN_ON;
	/* Nor does a command bring home what a backend has elsewhere; nor is what is lost
	 * forgotten. */
	identify_home(o, o->access == STORE_USE && !s->lost && !is_kept(s) ? "" : s->mine.store);
	unlock_directory(o->homefd);
	return s->fd = o->homefd;
}

/* ---- elsewhere ---- */

static int read_theirs(const struct opening *o, int fd)
{
	int r = store_identity_read(fd, &o->s->theirs);

	if (r == -EPROTONOSUPPORT)
		note_newer(o->s, fd, &o->s->theirs);
	return r;
}

enum claim { OURS, TAKE_ALONG, ANOTHERS };

/* Of a store elsewhere, whose identity is in s->theirs. */
static enum claim judge_claim(const struct opening *o, int fd)
{
	const struct store_identity *theirs = &o->s->theirs;
	struct store_place place;

	if (!o->has_mine)
		return store_place_same(&theirs->directory, &o->here) ? OURS : ANOTHERS;
	if (memcmp(theirs->id, o->s->mine.id, STORE_ID_SIZE) != 0)
		return ANOTHERS;
	if (!o->is_copy)
		return OURS;
	store_place_of(fd, &place);
	if (!store_place_same(&theirs->own, &place) || !original_is_there(theirs))
		return TAKE_ALONG;
	return ANOTHERS;
}

/* A store that is ours: under the id that the directory has from now on. */
static int take_store(struct opening *o, int fd, enum claim claim)
{
	struct store *s = o->s;
	bool look = o->access == STORE_LOOK;
	struct store_place own;

	note_version(s, &s->theirs);
	store_place_of(fd, &own);
	if (claim == OURS && !o->has_mine) /* the directory's own was removed */
		memcpy(s->id, s->theirs.id, STORE_ID_SIZE);
	else if (look && claim == TAKE_ALONG)
		memcpy(s->id, s->mine.id, STORE_ID_SIZE);
	if (claim == TAKE_ALONG)
		note_adoption(s);
	if (look ||
	    (claim == OURS && !is_of_older(&s->theirs) && strcmp(s->theirs.path, o->path) == 0 &&
	     store_place_same(&s->theirs.own, &own)))
		return 0;
	return name_store(o, fd, s->id, "", false);
}

/* One that has no identity yet. */
static int take_unknown(struct opening *o, int fd, bool is_new)
{
	int r = is_new ? 0 : judge_unknown(fd);

	if (r < 0 || o->access == STORE_LOOK)
		return r;
	if (!is_new)
		o->s->met = STORE_TAKEN_ON;
	else if (!o->has_mine)
		o->s->met = STORE_NEW;
	return name_store(o, fd, o->s->id, "", false);
}

/* The directory `name`, made if need be. *is_new tells. */
static int open_or_make(const struct opening *o, int parent, const char *name, bool *is_new)
{
	int fd = open_directory(parent, name), r;

	*is_new = false;
	if (fd != -ENOENT || o->access == STORE_LOOK)
		return fd;
	r = sys_mkdirat(parent, name, 0700);
	if (r < 0 && r != -EEXIST)
		return r;
	*is_new = r == 0;
	fd = open_directory(parent, name);
	if (fd >= 0 && r == 0)
		sys_give_made(o->dirfd, fd);
	return fd;
}

/* In a store of another directory's: one of our own, by our id. */
static int open_substore(struct opening *o, int rootfd)
{
	struct store *s = o->s;
	char name[STORE_ID_TEXT], old[STORE_ID_TEXT];
	bool is_new = false;
	size_t n = strlen(s->path);
	int fd, r;

	store_id_text(old, o->has_mine ? s->mine.id : s->id);
	store_id_text(name, s->id);
	fd = open_directory(rootfd, old);
	r = fd < 0 ? fd : read_theirs(o, fd);
	if (r == -EPROTONOSUPPORT) {
		sys_close(fd);
		return r;
	}
	if (r == 0 && judge_claim(o, fd) == ANOTHERS)
		r = -ENOENT;
	if (r == 0 && strcmp(old, name) != 0 && o->access != STORE_LOOK)
		r = sys_renameat(rootfd, old, rootfd, name);
	if (r == 0) {
		r = take_store(o, fd, judge_claim(o, fd));
	} else {
		if (fd >= 0)
			sys_close(fd);
		fd = open_or_make(o, rootfd, name, &is_new);
		r = fd < 0 ? fd : take_unknown(o, fd, is_new);
	}
	if (fd >= 0 && r < 0)
		sys_close(fd);
	if (n + sizeof(name) + 1 < sizeof(s->path)) {
		s->path[n] = '/';
		memcpy(s->path + n + 1, o->access == STORE_LOOK ? old : name, sizeof(name));
	}
	return r < 0 ? r : fd;
}

/* Under the lock of the root of a store elsewhere. */
static int choose_store(struct opening *o, int rootfd, bool is_new)
{
	enum claim claim;
	int r = read_theirs(o, rootfd);

	if (r == -ENOENT || r == -EBADMSG) {
		r = take_unknown(o, rootfd, is_new);
		return r < 0 ? r : rootfd;
	}
	if (r < 0)
		return r;
	claim = judge_claim(o, rootfd);
	if (claim == ANOTHERS)
		return open_substore(o, rootfd);
	r = take_store(o, rootfd, claim);
	return r < 0 ? r : rootfd;
}

/*
 * The directory says where its store is when a backend has used it, or when it says nothing yet: a
 * single command with another store does not move the backend's.
 */
static int identify_directory(struct opening *o, const char *named)
{
	const char *store = o->s->mine.store;
	int r;

	if (o->access == STORE_LOOK)
		return 0;
	if (o->access == STORE_USE || (!o->has_mine && o->homefd == -ENOENT))
		store = named;
	r = make_home(o);
	if (r < 0 || !needs_writing(o, store))
		return r < 0 ? r : 0;
	return name_store(o, o->homefd, o->s->id, store, false);
}

static void show_path(struct opening *o, const char *named)
{
	size_t n = 0, length = strlen(named);

	if (named[0] != '/') {
		n = strlen(o->path);
		memcpy(o->s->path, o->path, n);
		o->s->path[n++] = '/';
	}
	memcpy(o->s->path + n, named, length + 1);
}

/* Read-only, a directory is known again by its inode; but not for a store in another's. */
static int settle_elsewhere(struct opening *o, int rootfd, bool is_new, const char *named)
{
	struct store *s = o->s;
	int fd, r;

	choose_id(o);
	fd = choose_store(o, rootfd, is_new);
	if (fd < 0)
		return fd;
	if (o->is_copy && s->met != STORE_ADOPTED && o->access != STORE_LOOK)
		note_adoption(s);
	r = identify_directory(o, named);
	if (r == 0 || (fd == rootfd && (r == -EROFS || r == -EACCES)))
		return fd;
	if (fd != rootfd)
		sys_close(fd);
	return r;
}

static int open_elsewhere(struct opening *o, int rootfd, bool is_new, const char *named)
{
	int fd = 0;

	if (same_file(rootfd, o->dirfd))
		return -EINVAL;
	if (o->access != STORE_LOOK) {
		lock_directory(rootfd);
		fd = read_mine(o);
	}
	if (fd != -EPROTONOSUPPORT)
		fd = settle_elsewhere(o, rootfd, is_new, named);
	if (o->access != STORE_LOOK)
		unlock_directory(rootfd);
	if (fd >= 0)
		o->s->fd = fd;
	return fd;
}

/* What the directory names is trusted only if it is of the same owner. */
static bool same_owner(int a, int b)
{
	struct stat x, y;

	return sys_fstat(a, &x) == 0 && sys_fstat(b, &y) == 0 && x.st_uid == y.st_uid;
}

/* ---- the one before ---- */

/* The directory's part of the store elsewhere that it names, whose root is rootfd. -errno: it has
 * none there. */
static int open_part(const struct opening *o, int rootfd)
{
	char name[STORE_ID_TEXT];
	int fd, r;

	if (!same_owner(rootfd, o->homefd))
		return -EPERM;
	r = store_identity_read(rootfd, &o->s->theirs);
	if (r == 0 && judge_claim(o, rootfd) != ANOTHERS)
		return sys_fcntl(rootfd, F_DUPFD_CLOEXEC, 0);
	store_id_text(name, o->s->mine.id);
	fd = r < 0 ? r : open_directory(rootfd, name);
	if (fd < 0)
		return fd;
	r = store_identity_read(fd, &o->s->theirs);
	if (r == 0 && judge_claim(o, fd) != ANOTHERS)
		return fd;
	sys_close(fd);
	return r < 0 ? r : -ENOENT;
}

/* What becomes of a store that is to be left; fd: a descriptor or -errno. */
static enum store_former judge_former(int fd)
{
	enum store_former needed = fd < 0 ? STORE_FORMER_GONE : store_needed(fd);

	return needed == STORE_FORMER_NONE && store_has_past(fd) ? STORE_FORMER_LEFT : needed;
}

/* Elsewhere. wanted: the one that is named, or -errno. */
static void meet_former(struct opening *o, int wanted)
{
	int rootfd = open_directory(o->dirfd, o->s->mine.store), fd = rootfd;

	if (rootfd >= 0 && wanted >= 0 && same_file(rootfd, wanted)) {
		sys_close(rootfd);
		return;
	}
	if (rootfd >= 0) {
		fd = open_part(o, rootfd);
		sys_close(rootfd);
	}
	o->s->former = judge_former(fd);
	o->s->former_path = o->s->mine.store;
	if (fd >= 0)
		sys_close(fd);
}

/*
 * What the directory had until now, before `where` is made its store. Inside there may also be what
 * a start has left while the store elsewhere was not there.
 */
static void look_back(struct opening *o, const char *where, bool is_named)
{
	struct store *s = o->s;
	int wanted = open_directory(o->dirfd, where);

	if (o->homefd >= 0 && (wanted < 0 || !same_file(wanted, o->homefd))) {
		s->former = judge_former(o->homefd);
		s->former_path = STORE_NAME;
	}
	if (!is_kept(s) && s->mine.store[0]) {
		s->former = STORE_FORMER_NONE;
		if (is_named)
			meet_former(o, wanted);
	}
	if (wanted >= 0)
		sys_close(wanted);
}

/* ---- all of them ---- */

static int open_root(struct opening *o, const char *where, bool is_named)
{
	bool is_new = false;
	int rootfd, r = 0;

	rootfd =
	    is_named ? open_or_make(o, o->dirfd, where, &is_new) : open_directory(o->dirfd, where);
	if (rootfd >= 0 && o->homefd >= 0 && same_file(rootfd, o->homefd)) {
		sys_close(rootfd);
		return open_inside(o);
	}
	if (!is_named && rootfd >= 0 && same_owner(rootfd, o->homefd))
		r = read_theirs(o, rootfd);
	else if (!is_named)
		r = -ENOENT;
	if (r < 0 && r != -EPROTONOSUPPORT) {
		if (rootfd >= 0)
			sys_close(rootfd);
		o->s->lost = true;
		return open_inside(o);
	}
	show_path(o, where);
	if (rootfd < 0)
		return rootfd;
	r = open_elsewhere(o, rootfd, is_new, where);
	if (r != rootfd)
		sys_close(rootfd);
	return r;
}

static int open_where(struct opening *o, const char *named)
{
	const char *where = named ? named : o->s->mine.store;

	if (!*where)
		return open_inside(o);
	if (strlen(where) >= PATH_MAX)
		return -ENAMETOOLONG;
	look_back(o, where, named != NULL);
	if (!is_kept(o->s))
		return open_root(o, where, named != NULL);
	if (o->s->former_path != o->s->mine.store)
		return open_inside(o);
	return open_root(o, o->s->mine.store, false);
}

const char *store_obstacle(int error)
{
	switch (-error) {
	case ELOOP:
	case ENOTDIR:
		return "it is not a directory (a symbolic link is not followed)";
	case ENOTEMPTY:
		return "it is no store, and files of others are in it, or meant to be";
	case EINVAL:
		return "it is the data directory itself";
	default:
		return NULL;
	}
}

int store_open(struct store *s, int dirfd, const char *path, const char *named,
	       enum store_access access)
{
	struct opening o = {.s = s, .dirfd = dirfd, .path = path, .access = access};
	int r;

	memset(s, 0, sizeof(*s));
	s->fd = -1;
	if (strlen(path) + sizeof(STORE_NAME) >= PATH_MAX)
		return -ENAMETOOLONG;
	store_place_of(dirfd, &o.here);
	o.homefd = -ENOENT;
	r = read_mine(&o);
	show_path(&o, STORE_NAME);
	r = r == -EPROTONOSUPPORT ? r : open_where(&o, named);
	if (o.homefd >= 0 && s->fd != o.homefd)
		sys_close(o.homefd);
	if (r < 0 && !is_kept(s))
		s->former = STORE_FORMER_NONE;
	return r < 0 ? r : 0;
}
