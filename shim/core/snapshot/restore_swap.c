/* SPDX-License-Identifier: MIT
 *
 * Exchanging Chroma's files in a data directory for restored ones, so that a death at any step
 * leaves what was there, or what shall be there, or something that says it is neither and is ended
 * by the next run.
 *
 *	journal := "chromashim restore 1\n" quarantine "\n" (kind name "\n")… check "\n"
 *	kind := "old " | "new " | "aside "
 *
 * with the XXH3-64 of all before it, in 16 hexadecimal digits, as check. The steps, each of which
 * is made or found to have been made:
 *	1. the placeholder is put over the old database, which has a second name in quarantine;
 *	2. all else that is old goes to quarantine, with the pre-images that belong to it, and so
 *	   does what is aside: a file in restore/new that is no part of the directory;
 *	3. all that is new comes from restore/new, the database last, over the placeholder;
 *	4. the journal goes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/checksum.h"
#include "core/base/fileio.h"
#include "core/base/text.h"
#include "core/base/tree.h"
#include "core/chroma/chroma.h"
#include "core/snapshot/restore.h"
#include "core/sqlite/database.h"
#include "core/sqlite/page.h"
#include "core/undo/undo.h"

#define NEW "new"
#define JOURNAL "journal"
#define MAGIC "chromashim restore 1\n"
#define JOURNAL_MAX (UINT64_C(64) << 20)
#define PLACEHOLDER "placeholder"

static const char placeholder_text[] =
    "A restore of this Chroma directory was interrupted. Any `chromashim` command that is given\n"
    "this directory ends it (for example `chromashim snapshot list DIR`); then start Chroma.\n";

struct name_list {
	char (*names)[256];
	size_t count;
};

struct exchange {
	const struct restore_swap *swap;
	int restorefd, newfd, quarantinefd;
	char quarantine[256], aside[256]; /* aside may be "" */
	struct name_list old, new;
};

static void step(const struct exchange *x)
{
	if (x->swap->step)
		x->swap->step(x->swap->context);
}

/* ---- names ---- */

static int add_name(struct name_list *l, const char *name)
{
	char(*more)[256] = reallocarray(l->names, l->count + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	l->names = more;
	snprintf(more[l->count++], sizeof(*more), "%s", name);
	return 0;
}

bool restore_is_chromas(const char *name)
{
	static const char *const files[] = {CHROMA_DATABASE, CHROMA_DATABASE "-journal",
					    CHROMA_DATABASE "-wal", CHROMA_DATABASE "-shm"};
	unsigned i;

	for (i = 0; i < 4; i++)
		if (!strcmp(name, files[i]))
			return true;
	return chroma_is_uuid(name);
}

static int find_names(int dirfd, struct name_list *l)
{
	DIR *dir;
	int r = file_names_at(dirfd, NULL, &dir);
	const struct dirent *entry;

	if (r < 0)
		return r;
	while (r == 0 && (entry = readdir(dir)))
		if (restore_is_chromas(entry->d_name))
			r = add_name(l, entry->d_name);
	closedir(dir);
	return r;
}

/* ---- the journal ---- */

static int write_journal(const struct exchange *x)
{
	struct file_publish file;
	char *text = NULL;
	size_t size = 0, i;
	FILE *out = open_memstream(&text, &size);
	int r;

	if (!out)
		return -ENOMEM;
	fprintf(out, MAGIC "%s\n", x->quarantine);
	for (i = 0; i < x->old.count; i++)
		fprintf(out, "old %s\n", x->old.names[i]);
	for (i = 0; i < x->new.count; i++)
		fprintf(out, "new %s\n", x->new.names[i]);
	if (x->aside[0])
		fprintf(out, "aside %s\n", x->aside);
	fflush(out);
	fprintf(out, "%016" PRIx64 "\n", checksum64(text, size, 0));
	r = fclose(out) != 0 ? -ENOMEM : 0;
	if (r == 0)
		r = file_publish_begin(&file, x->restorefd, JOURNAL, 0600);
	if (r == 0) {
		r = file_write_all(file.fd, text, size);
		if (r == 0)
			r = file_publish_commit(&file);
		else
			file_publish_abort(&file);
	}
	free(text);
	return r;
}

static int take_name(char out[256], const char *name)
{
	if (!*name || strlen(name) >= 256 || strchr(name, '/') || *name == '.')
		return -EBADMSG;
	snprintf(out, 256, "%s", name);
	return 0;
}

static int parse_line(struct exchange *x, const char *line)
{
	if (!strncmp(line, "aside ", 6))
		return take_name(x->aside, line + 6);
	if (strlen(line) < 4 || !restore_is_chromas(line + 4))
		return -EBADMSG;
	return add_name(!strncmp(line, "old ", 4) ? &x->old : &x->new, line + 4);
}

static int parse_lines(struct exchange *x, char *text)
{
	char *line = strsep(&text, "\n");
	int r = take_name(x->quarantine, line);

	while (r == 0 && text && (line = strsep(&text, "\n")) && *line)
		r = parse_line(x, line);
	return r;
}

static int read_journal(struct exchange *x)
{
	int fd = file_open_at(x->restorefd, JOURNAL), r;
	char *text, check[20];
	size_t size;

	if (fd < 0)
		return fd;
	r = file_read_all(fd, JOURNAL_MAX, &text, &size);
	close(fd);
	if (r < 0)
		return r;
	if (size < strlen(MAGIC) + 17 || strncmp(text, MAGIC, strlen(MAGIC)) != 0) {
		r = strncmp(text, "chromashim restore ", 19) == 0 ? -EPROTONOSUPPORT : -EBADMSG;
	} else {
		size -= 17;
		snprintf(check, sizeof(check), "%016" PRIx64 "\n", checksum64(text, size, 0));
		r = memcmp(text + size, check, 17) == 0 ? 0 : -EBADMSG;
		text[size] = '\0';
	}
	if (r == 0)
		r = parse_lines(x, text + strlen(MAGIC));
	free(text);
	return r;
}

/* ---- the steps ---- */

static bool is_there(int dirfd, const char *name)
{
	return faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static int make_placeholder(const struct exchange *x)
{
	struct file_publish file;
	int r = file_publish_begin(&file, x->restorefd, PLACEHOLDER, 0600);

	if (r < 0)
		return r;
	r = file_write_all(file.fd, placeholder_text, sizeof(placeholder_text) - 1);
	if (r == 0)
		return file_publish_commit(&file);
	file_publish_abort(&file);
	return r;
}

static bool is_placeholder(int dirfd)
{
	char start[sizeof(placeholder_text)];
	int fd = file_open_at(dirfd, CHROMA_DATABASE);
	ssize_t n = fd < 0 ? 0 : file_read_at(fd, start, sizeof(start), 0);

	if (fd >= 0)
		close(fd);
	return n == sizeof(placeholder_text) - 1 && memcmp(start, placeholder_text, (size_t)n) == 0;
}

static bool is_same(int a, int b, const char *name)
{
	struct stat x, y;

	return fstatat(a, name, &x, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(b, name, &y, AT_SYMLINK_NOFOLLOW) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

/*
 * The database and what lies beside it get their second name in quarantine first, so that there is
 * no moment without one of them: Chroma would make an empty database.
 */
static int link_old(const struct exchange *x)
{
	size_t i;

	for (i = 0; i < x->old.count; i++) {
		const char *name = x->old.names[i];

		if (chroma_is_uuid(name))
			continue;
		step(x);
		if (linkat(x->swap->datafd, name, x->quarantinefd, name, 0) < 0 &&
		    errno != EEXIST && errno != ENOENT)
			return -errno;
	}
	return tree_sync(x->quarantinefd);
}

static int block_database(const struct exchange *x)
{
	int data = x->swap->datafd, r;

	if (is_placeholder(data))
		return 0;
	r = link_old(x);
	if (r == 0)
		r = make_placeholder(x);
	step(x);
	return r == 0 && renameat(x->restorefd, PLACEHOLDER, data, CHROMA_DATABASE) < 0 ? -errno
											: r;
}

static int move_old(const struct exchange *x, const char *name)
{
	int data = x->swap->datafd;

	if (!strcmp(name, CHROMA_DATABASE))
		return 0;
	if (is_same(data, x->quarantinefd, name)) {
		step(x);
		return unlinkat(data, name, 0) < 0 ? -errno : 0;
	}
	if (is_there(x->quarantinefd, name))
		return 0;
	step(x);
	return renameat(data, name, x->quarantinefd, name) < 0 && errno != ENOENT ? -errno : 0;
}

/*
 * Pre-images of persists that were cut off belong to the old segments. Left where they are they
 * would be played back into the restored ones, which have the same names.
 */
static int move_undo(const struct exchange *x)
{
	DIR *dir;
	int r = file_names_at(x->swap->storefd, UNDO_DIR, &dir), to;
	const struct dirent *entry;

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	to = tree_make_directory(x->quarantinefd, UNDO_DIR);
	r = to < 0 ? to : 0;
	while (r == 0 && (entry = readdir(dir))) {
		if (!text_ends_with(entry->d_name, UNDO_SUFFIX) &&
		    !text_ends_with(entry->d_name, UNDO_LAST_SUFFIX) &&
		    !text_ends_with(entry->d_name, ".moved"))
			continue;
		step(x);
		if (renameat(dirfd(dir), entry->d_name, to, entry->d_name) < 0)
			r = -errno;
	}
	if (r == 0)
		r = tree_sync(to);
	if (r == 0)
		r = tree_sync(dirfd(dir));
	if (to >= 0)
		close(to);
	closedir(dir);
	return r;
}

static int move_aside(const struct exchange *x)
{
	if (!x->aside[0] || !is_there(x->newfd, x->aside))
		return 0;
	step(x);
	return renameat(x->newfd, x->aside, x->quarantinefd, x->aside) < 0 ? -errno : 0;
}

static int move_new(const struct exchange *x, const char *name)
{
	if (!is_there(x->newfd, name))
		return 0;
	step(x);
	return renameat(x->newfd, name, x->swap->datafd, name) < 0 ? -errno : 0;
}

/* The journal goes last: whoever finds none has nothing to do. */
static int end(const struct exchange *x)
{
	step(x);
	if (unlinkat(x->restorefd, JOURNAL, 0) < 0)
		return -errno;
	return tree_sync(x->restorefd);
}

static int move_all(const struct exchange *x)
{
	size_t i;
	int r;

	/* The database came last of all: what lies there since then may be a backend's. */
	if (!is_there(x->newfd, CHROMA_DATABASE))
		return end(x);
	r = block_database(x);
	if (r == 0)
		r = tree_sync(x->swap->datafd);
	for (i = 0; i < x->old.count && r == 0; i++)
		r = move_old(x, x->old.names[i]);
	if (r == 0)
		r = move_undo(x);
	if (r == 0)
		r = move_aside(x);
	/* Nothing new comes before it is sure that the old is away. */
	if (r == 0)
		r = tree_sync(x->quarantinefd);
	if (r == 0)
		r = tree_sync(x->swap->datafd);
	for (i = 0; i < x->new.count &&r == 0; i++)
		if (strcmp(x->new.names[i], CHROMA_DATABASE) != 0)
			r = move_new(x, x->new.names[i]);
	if (r == 0)
		r = tree_sync(x->swap->datafd);
	if (r == 0)
		r = move_new(x, CHROMA_DATABASE);
	if (r == 0)
		r = tree_sync(x->swap->datafd);
	return r < 0 ? r : end(x);
}

/* ---- from outside ---- */

static int open_quarantine(struct exchange *x)
{
	int parent = tree_make_directory(x->swap->storefd, QUARANTINE_DIR), r;

	if (parent < 0)
		return parent;
	x->quarantinefd = tree_make_directory(parent, x->quarantine);
	r = x->quarantinefd < 0 ? x->quarantinefd : tree_sync(parent);
	if (r == 0)
		r = tree_sync(x->swap->storefd);
	close(parent);
	return r;
}

static int exchange_open(struct exchange *x, const struct restore_swap *swap)
{
	*x = (struct exchange){.swap = swap, .newfd = -1, .quarantinefd = -1};
	x->restorefd = file_open_directory_at(swap->storefd, RESTORE_DIR);
	if (x->restorefd < 0)
		return x->restorefd;
	x->newfd = file_open_directory_at(x->restorefd, NEW);
	return x->newfd < 0 ? x->newfd : 0;
}

static void exchange_close(struct exchange *x)
{
	free(x->old.names);
	free(x->new.names);
	if (x->quarantinefd >= 0)
		close(x->quarantinefd);
	if (x->newfd >= 0)
		close(x->newfd);
	if (x->restorefd >= 0)
		close(x->restorefd);
}

static int check_devices(const struct restore_swap *swap)
{
	struct stat data, store;

	if (fstat(swap->datafd, &data) < 0 || fstat(swap->storefd, &store) < 0)
		return -errno;
	return data.st_dev == store.st_dev ? 0 : -EXDEV;
}

/* ---- whoever starts meanwhile ---- */

/* A lock on [start, start + n) of a file, n 0: all of it. Its descriptor; -EBUSY; -1: none can be
 * had here, or there is no such file. */
static int hold(int dirfd, const char *name, int flags, off_t start, off_t n)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = n};
	int fd = openat(dirfd, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | flags, 0600);
	int error;

	if (fd < 0 || fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return fd < 0 ? -1 : fd;
	error = errno;
	close(fd);
	return error == EAGAIN || error == EACCES ? -EBUSY : -1;
}

struct holds {
	int writer, database;
};

/* PENDING, RESERVED and SHARED are SQLite's; no other file of the database is read without them. */
static int hold_both(struct holds *h, const struct restore_swap *swap)
{
	h->writer = hold(swap->storefd, WRITER_LOCK, O_CREAT, 0, 0);
	h->database = h->writer == -EBUSY ? -1
					  : hold(swap->datafd, CHROMA_DATABASE, 0,
						 SQLITE_PENDING_BYTE, SQLITE_LOCKS_SIZE);
	return h->writer == -EBUSY || h->database == -EBUSY ? -EBUSY : 0;
}

static void let_go(const struct holds *h)
{
	if (h->writer >= 0)
		close(h->writer);
	if (h->database >= 0)
		close(h->database);
}

static int exchange_all(const struct restore_swap *swap)
{
	struct exchange x;
	int r;

	r = exchange_open(&x, swap);
	snprintf(x.quarantine, sizeof(x.quarantine), "%s", swap->quarantine);
	if (r == 0)
		r = find_names(swap->datafd, &x.old);
	if (r == 0)
		r = find_names(x.newfd, &x.new);
	if (r == 0 && !is_there(x.newfd, CHROMA_DATABASE))
		r = -ENOENT;
	if (r == 0 && swap->aside && is_there(x.newfd, swap->aside))
		r = take_name(x.aside, swap->aside);
	if (r == 0)
		r = open_quarantine(&x);
	if (r == 0) {
		step(&x);
		r = write_journal(&x);
	}
	if (r == 0)
		r = move_all(&x);
	exchange_close(&x);
	return r;
}

int restore_swap(const struct restore_swap *swap)
{
	struct holds holds = {-1, -1};
	int r = check_devices(swap);

	if (r == 0)
		r = hold_both(&holds, swap);
	if (r == 0 && swap->check)
		r = swap->check(swap->check_context);
	if (r == 0)
		r = exchange_all(swap);
	let_go(&holds);
	if (r == 0)
		restore_abandon(swap->storefd);
	return r;
}

/* Nothing of the directory has been changed yet. */
static bool is_untouched(const struct exchange *x)
{
	return is_there(x->newfd, CHROMA_DATABASE) && !is_placeholder(x->swap->datafd);
}

/* Since it was cut off a backend may have written to what is there: that is not what was kept
 * before the exchange. */
static int give_up(const struct exchange *x)
{
	size_t i;

	for (i = 0; i < x->old.count; i++) {
		const char *name = x->old.names[i];

		if (!is_same(x->swap->datafd, x->quarantinefd, name))
			continue;
		step(x);
		if (unlinkat(x->quarantinefd, name, 0) < 0)
			return -errno;
	}
	return end(x);
}

static int restore_swap_resume(const struct restore_swap *swap)
{
	struct exchange x;
	int r = exchange_open(&x, swap), given_up = 0;

	if (r == 0)
		r = read_journal(&x);
	if (r == 0)
		r = open_quarantine(&x);
	if (r == 0) {
		given_up = is_untouched(&x);
		r = given_up ? give_up(&x) : move_all(&x);
	}
	exchange_close(&x);
	return r < 0 ? r : given_up ? RESTORE_GIVEN_UP : RESTORE_ENDED;
}

int restore_resume(const struct restore_swap *swap)
{
	struct holds holds = {-1, -1};
	int r;

	if (!restore_is_pending(swap->storefd))
		return 0;
	r = hold_both(&holds, swap);
	if (r == 0)
		r = restore_swap_resume(swap);
	let_go(&holds);
	if (r > 0)
		restore_abandon(swap->storefd);
	return r;
}

bool restore_is_pending(int storefd)
{
	return faccessat(storefd, RESTORE_DIR "/" JOURNAL, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int restore_prepare(int storefd)
{
	int fd, newfd;

	if (restore_is_pending(storefd))
		return -EINPROGRESS;
	restore_abandon(storefd);
	fd = tree_make_directory(storefd, RESTORE_DIR);
	if (fd < 0)
		return fd;
	newfd = tree_make_directory(fd, NEW);
	close(fd);
	return newfd;
}

void restore_abandon(int storefd)
{
	if (!restore_is_pending(storefd))
		tree_remove(storefd, RESTORE_DIR);
}
