/* SPDX-License-Identifier: MIT
 *
 * Which data directory a verb is about.
 */
#include "command/base/command.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/rollbacks.h"
#include "core/base/alive.h"
#include "core/base/fileio.h"
#include "core/base/owner.h"
#include "core/base/tree.h"
#include "core/base/version.h"
#include "core/check/packed.h"
#include "core/settings/config.h"
#include "core/store/aside.h"

#define DEFAULT_DIRECTORY "./chroma_data"

/* Whether it has Chroma's database. */
static int is_data_directory(const struct dirent *d)
{
	char path[sizeof(d->d_name) + sizeof(CHROMA_DATABASE) + 1];
	struct stat st;

	if (d->d_name[0] == '.')
		return 0;
	snprintf(path, sizeof(path), "%s/" CHROMA_DATABASE, d->d_name);
	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* What is here, when nothing is named and there is no default: one is taken, and named. */
static int find_here(struct data_directory *t)
{
	struct dirent **found = NULL;
	int i, n;

	if (access(DEFAULT_DIRECTORY, F_OK) == 0)
		return 0;
	if (access(CHROMA_DATABASE, F_OK) == 0) {
		strlcpy(t->dir, ".", sizeof(t->dir));
		warn("the data directory here is taken: '.'");
		return 0;
	}
	n = scandir(".", &found, is_data_directory, alphasort);
	if (n > 1)
		fail(EXIT_USAGE, 0, "Give one of them as DIR, or set CHROMASHIM_DIR.",
		     "which data directory? There are %d here:", n);
	for (i = 0; i < n; i++) {
		if (n > 1)
			fprintf(stderr, "    ./%s\n", found[i]->d_name);
		else
			snprintf(t->dir, sizeof(t->dir), "./%s", found[i]->d_name);
		free(found[i]);
	}
	free(found);
	if (n == 1)
		warn("the data directory that is here is taken: '%s'", t->dir);
	return n > 1 ? EXIT_USAGE : 0;
}

/* 0, or the exit status after saying why. */
static int choose_directory(struct data_directory *t, const char *dir)
{
	const char *given = getenv("CHROMASHIM_DIR");
	size_t n;

	if (!dir && given && *given) {
		n = strcspn(given, ":");
		if (n >= sizeof(t->dir))
			n = sizeof(t->dir) - 1;
		memcpy(t->dir, given, n);
		t->dir[n] = '\0';
		return 0;
	}
	strlcpy(t->dir, dir ? dir : DEFAULT_DIRECTORY, sizeof(t->dir));
	if (!dir)
		return find_here(t);
	n = strlen(t->dir);
	while (n > 1 && t->dir[n - 1] == '/')
		t->dir[--n] = '\0';
	return 0;
}

static bool looks_like_chroma(int dirfd)
{
	return faccessat(dirfd, CHROMA_DATABASE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* What the command makes from now on belongs to the owner of this directory. */
static void act_as_owner(int fd)
{
	struct stat st;

	if (fstat(fd, &st) == 0)
		owner_act(&st);
}

/* Once: a verb may look for it more than once. */
static void tell_former(const struct store *s, const char *named)
{
	static bool said;

	if (said || (s->former != STORE_FORMER_WAITS && s->former != STORE_FORMER_LIVES))
		return;
	said = true;
	warn("the store of this directory is '%s', not '%s', until the next start of the backend: "
	     "%s",
	     s->former_path, named,
	     s->former == STORE_FORMER_WAITS ? "what a crash has cut short is undone from there"
					     : "a process uses it");
}

/* 0 or -errno. */
static int find_store(struct data_directory *t, const char *named, enum store_access access)
{
	char path[PATH_MAX];
	struct store *s = malloc(sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	if (!realpath(t->dir, path))
		strlcpy(path, t->dir, sizeof(path));
	r = store_open(s, t->dirfd, path, named && *named ? named : NULL, access);
	tell_former(s, named && *named ? named : s->mine.store);
	/* As it was given where it is inside: relative ones are easier to read. */
	if (s->inside)
		snprintf(t->store, sizeof(t->store), "%s/%s", t->dir, STORE_NAME);
	else
		strlcpy(t->store, s->path, sizeof(t->store));
	memcpy(t->store_id, s->id, sizeof(t->store_id));
	t->store_version = s->version;
	t->store_is_newer = r == -EPROTONOSUPPORT;
	t->store_waits = s->waits;
	t->storefd = r < 0 ? -1 : s->fd;
	if (t->strayfd < 0)
		t->strayfd = store_stray_undo(&s->theirs, t->dirfd, named, t->storefd);
	if (r == 0)
		act_as_owner(t->storefd);
	free(s);
	return r;
}

static const char *named_store(void)
{
	return getenv(config_settings[CONFIG_STORE].name);
}

int data_directory_find_store(struct data_directory *t)
{
	return find_store(t, named_store(), STORE_LOOK);
}

void data_directory_find_named_store(struct data_directory *t, const char *named)
{
	find_store(t, named, STORE_LOOK);
}

int data_directory_make_store(struct data_directory *t)
{
	bool was_there = faccessat(t->dirfd, STORE_NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
	int r;

	if (t->storefd >= 0)
		close(t->storefd);
	act_as_owner(t->dirfd);
	r = find_store(t, named_store(), STORE_MAKE);
	t->made_store |= !was_there && r == 0;
	return r;
}

/* Where it is elsewhere, somebody has said so, and it stays. */
static bool is_inside(const struct data_directory *t)
{
	struct stat here, store;

	return fstatat(t->dirfd, STORE_NAME, &here, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstat(t->storefd, &store) == 0 && here.st_ino == store.st_ino &&
	       here.st_dev == store.st_dev;
}

void data_directory_leave_nothing(struct data_directory *t)
{
	if (t->made_store && t->storefd >= 0 && is_inside(t) &&
	    tree_is_hollow(t->storefd, STORE_IDENTITY) == 1 && !alive_in_use(t->storefd, -1))
		tree_remove(t->dirfd, STORE_NAME);
	if (t->made && tree_is_empty(t->dirfd) == 1)
		rmdir(t->dir);
}

const char *data_directory_newer(const struct data_directory *t)
{
	static char text[sizeof(t->store) + 128];
	char version[VERSION_TEXT];

	version_text(version, t->store_version);
	snprintf(text, sizeof(text),
		 "the store '%s' was made by a newer chromashim (%s), and this is %s", t->store,
		 t->store_version ? version : "unknown", version_own());
	return text;
}

int data_directory_fail_store(const struct data_directory *t, int error)
{
	const char *obstacle = store_obstacle(error);

	if (error == -ENOENT)
		return fail(EXIT_NO_STORE, 0,
			    "Nothing was recorded yet: start Chroma with "
			    "LD_PRELOAD=/path/to/libchromashim.so.",
			    "there is no store '%s'", t->store);
	if (error == -EACCES)
		return fail(EXIT_FAILED, error, "Run this as the owner of the data directory.",
			    "cannot open the store '%s'", t->store);
	if (error == -EPROTONOSUPPORT)
		return fail(EXIT_FAILED, 0, "Use that version, or a newer one.", "%s",
			    data_directory_newer(t));
	if (obstacle)
		return fail(EXIT_FAILED, 0, STORE_OBSTACLE_HELPS, "cannot open the store '%s': %s",
			    t->store, obstacle);
	return fail(EXIT_FAILED, error, "`chromashim check` tells more about the directory.",
		    "cannot open the store '%s'", t->store);
}

static int open_store(struct data_directory *t, bool need_store)
{
	int error = find_store(t, named_store(), STORE_LOOK);

	if (error == -ENOENT && !looks_like_chroma(t->dirfd))
		return fail(EXIT_NOT_FOUND, 0,
			    "Give the directory that Chroma was started with (`chroma run --path`, "
			    "PersistentClient(path=…)); `chromashim check` tells whether it is "
			    "below this one, or has another name.",
			    "'%s' is no Chroma directory: it has no %s", t->dir, CHROMA_DATABASE);
	if (error == 0 || (error == -ENOENT && !need_store))
		return 0;
	return data_directory_fail_store(t, error);
}

/* A program has removed the directory; its store is beside it, and goes back into it. */
static void take_back(struct data_directory *t)
{
	char path[PATH_MAX], name[STORE_ASIDE_MAX];
	char *slash = strrchr(t->dir, '/');
	struct stat st;

	if (!store_aside_name(name, t->dir, 1) ||
	    snprintf(path, sizeof(path), "%.*s%s", slash ? (int)(slash - t->dir + 1) : 0, t->dir,
		     name) >= (int)sizeof(path) ||
	    lstat(path, &st) < 0 || !S_ISDIR(st.st_mode) || mkdir(t->dir, 0700) < 0)
		return;
	t->dirfd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dirfd < 0)
		return;
	if (fchown(t->dirfd, st.st_uid, st.st_gid) == 0 && store_aside_take(t->dirfd, t->dir) == 0)
		warn("'%s' was removed; its snapshots and its log were kept beside it, and are in "
		     "it again",
		     t->dir);
}

/* An archive, the database itself, or whatever was given in place of a directory. */
static int fail_file(const char *path)
{
	unsigned char head[PACKED_LOOKED_AT];
	const char *todo = "Give Chroma's data directory as DIR, or set CHROMASHIM_DIR.",
		   *kind = NULL;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t size = fd < 0 ? -1 : file_read_at(fd, head, sizeof(head), 0);

	if (fd >= 0)
		close(fd);
	if (size > 0)
		kind = packed_kind(head, (size_t)size);
	if (kind)
		todo = "Unpack it, and give the directory with chroma.sqlite3 in it.";
	else if (size > 0 && is_sqlite(head, (size_t)size))
		todo = "Give the directory that it is in: the vectors lie beside it.";
	return fail(EXIT_NOT_FOUND, 0, todo, "'%s' is not a directory%s%s", path,
		    kind ? ", but " : "", kind ? kind : "");
}

/* Of the same mode within the umask, and owner where root asks. 0 or -errno. */
static int make_directory(const char *path, const struct stat *like)
{
	if (mkdir(path, like->st_mode & 0777) < 0)
		return -errno;
	return geteuid() == 0 && chown(path, like->st_uid, like->st_gid) < 0 ? -errno : 0;
}

/* t->dirfd: 0 or -errno. `like`: where there is none it is made. */
static int open_directory(struct data_directory *t, const struct stat *like)
{
	int r;

	t->dirfd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t->dirfd >= 0 || errno != ENOENT)
		return t->dirfd < 0 ? -errno : 0;
	take_back(t);
	if (t->dirfd >= 0)
		return 0;
	r = like ? make_directory(t->dir, like) : -ENOENT;
	if (r < 0)
		return r;
	t->made = true;
	t->dirfd = open(t->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return t->dirfd < 0 ? -errno : 0;
}

static int fail_directory(const struct data_directory *t, int error)
{
	if (error == -ENOTDIR)
		return fail_file(t->dir);
	return fail(error == -ENOENT ? EXIT_NOT_FOUND : EXIT_FAILED, error,
		    error == -EACCES
			? "Run this as the owner of the data directory."
			: "Give Chroma's data directory as DIR, or set CHROMASHIM_DIR.",
		    "cannot open the data directory '%s'", t->dir);
}

static int prepare(struct data_directory *t, const char *dir)
{
	memset(t, 0, sizeof(*t));
	t->storefd = t->dirfd = t->strayfd = -1;
	return choose_directory(t, dir);
}

int data_directory_open_only(struct data_directory *t, const char *dir)
{
	int status = prepare(t, dir), r;

	if (status)
		return status;
	r = open_directory(t, NULL);
	if (r < 0)
		return fail_directory(t, r);
	act_as_owner(t->dirfd);
	return 0;
}

int data_directory_open_new(struct data_directory *t, const char *dir, const struct stat *like)
{
	int status = prepare(t, dir), r;

	if (status)
		return status;
	r = open_directory(t, like);
	if (r == -ENOENT && !like)
		return 0;
	if (r < 0)
		return fail_directory(t, r);
	act_as_owner(t->dirfd);
	status = tree_is_empty(t->dirfd) == 1 ? 0 : open_store(t, false);
	if (status == 0)
		restore_end_pending(t);
	return status;
}

int data_directory_open(struct data_directory *t, const char *dir, bool need_store)
{
	int status = data_directory_open_only(t, dir);

	if (status == 0)
		status = open_store(t, need_store);
	if (status == 0)
		restore_end_pending(t);
	return status;
}

void data_directory_close(struct data_directory *t)
{
	if (t->storefd >= 0)
		close(t->storefd);
	if (t->strayfd >= 0)
		close(t->strayfd);
	if (t->dirfd >= 0)
		close(t->dirfd);
	t->storefd = t->dirfd = t->strayfd = -1;
}
