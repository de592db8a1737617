/* SPDX-License-Identifier: MIT
 *
 * Stores that were put aside: which there are, and which of them go.
 */
#include "core/store/kept.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/alive.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/tree.h"
#include "core/snapshot/store.h"
#include "core/store/store.h"

#define MARK "aside"
#define MINUTE (60 * SECOND)
#define HOUR (3600 * SECOND)
#define WEEK (168 * HOUR)
/* What nobody takes back: no directory has such a name. */
#define REMOVED ".removed-%s" STORE_NAME
#define REMOVED_START ".removed-"

/* ---- the mark ---- */

static void read_mark(int fd, struct store_kept *k)
{
	int file = file_open_at(fd, MARK);
	char text[160];
	ssize_t n = file < 0 ? -1 : file_read_at(file, text, sizeof(text) - 1, 0);

	if (file >= 0)
		close(file);
	text[n > 0 ? n : 0] = '\0';
	if (sscanf(text, "chromashim-aside 1 number %" SCNu64 " since %" SCNu64, &k->number,
		   &k->since) != 2)
		k->number = k->since = 0;
}

static int write_mark(int fd, const struct store_kept *k)
{
	struct file_publish file;
	char text[160];
	int n = snprintf(text, sizeof(text),
			 "chromashim-aside 1\nnumber %" PRIu64 "\nsince %" PRIu64 "\n", k->number,
			 k->since);
	int r = file_publish_begin(&file, fd, MARK, 0600);

	if (r < 0)
		return r;
	r = file_write_all(file.fd, text, (size_t)n);
	if (r == 0)
		return file_publish_commit(&file);
	file_publish_abort(&file);
	return r;
}

/* ---- which there are ---- */

static bool is_being_removed(const char *name)
{
	size_t n = strlen(REMOVED_START);

	return strlen(name) == n + STORE_ID_TEXT - 1 + strlen(STORE_NAME) &&
	       strncmp(name, REMOVED_START, n) == 0;
}

static int open_store(int parentfd, const char *name)
{
	int fd =
	    openat(parentfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/* False: it is none, or somebody else's. */
static bool kept_describe(int parentfd, const char *name, uid_t owner, struct store_kept *k)
{
	struct store_identity *identity = malloc(sizeof(*identity));
	int fd = identity ? open_store(parentfd, name) : -1;
	struct stat st;
	bool is = fd >= 0 && fstat(fd, &st) == 0 && st.st_uid == owner;

	*k = (struct store_kept){.number = 0};
	if (is && !is_being_removed(name)) {
		is = store_identity_read(fd, identity) == 0 && identity->path[0];
		read_mark(fd, k);
		memcpy(k->directory, identity->path, is ? strlen(identity->path) + 1 : 0);
	}
	if (is) {
		snprintf(k->name, sizeof(k->name), "%s", name);
		k->changed = (uint64_t)st.st_ctim.tv_sec * SECOND + (uint64_t)st.st_ctim.tv_nsec;
		/* It was in use since then. */
		if (k->changed > k->since + MINUTE)
			k->number = k->since = 0;
	}
	if (fd >= 0)
		close(fd);
	free(identity);
	return is;
}

/* Whoever has no number yet came after all that have one. */
static int newest_first(const void *a, const void *b)
{
	const struct store_kept *x = a, *y = b;
	uint64_t one = x->number - 1, other = y->number - 1;

	if (one != other)
		return one > other ? -1 : 1;
	return x->changed > y->changed ? -1 : x->changed < y->changed;
}

static int kept_add(int parentfd, const char *name, uid_t owner, struct store_kept **list,
		    size_t *count)
{
	struct store_kept *more = reallocarray(*list, *count + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	*list = more;
	*count += kept_describe(parentfd, name, owner, &more[*count]);
	return 0;
}

int stores_kept(int parentfd, uid_t owner, struct store_kept **out, size_t *count_out)
{
	const struct dirent *entry;
	DIR *dir;
	int r = file_names_at(parentfd, NULL, &dir);

	*out = NULL;
	*count_out = 0;
	if (r < 0)
		return r;
	while (r == 0 && (entry = readdir(dir)))
		if (store_aside_is(entry->d_name) && strcmp(entry->d_name, STORE_NAME) != 0 &&
		    strlen(entry->d_name) < STORE_ASIDE_MAX)
			r = kept_add(parentfd, entry->d_name, owner, out, count_out);
	closedir(dir);
	if (*count_out)
		qsort(*out, *count_out, sizeof(**out), newest_first);
	return r;
}

/* ---- which go ---- */

static void give_numbers(int parentfd, struct store_kept *list, size_t count, uint64_t now)
{
	uint64_t number = 0;
	size_t i;

	for (i = count; i-- > 0;) {
		int fd;

		if (list[i].number || !list[i].directory[0]) {
			number = list[i].number > number ? list[i].number : number;
			continue;
		}
		list[i].number = ++number;
		list[i].since = now;
		fd = open_store(parentfd, list[i].name);
		if (fd < 0 || write_mark(fd, &list[i]) < 0)
			list[i].since = UINT64_MAX; /* it is kept */
		if (fd >= 0)
			close(fd);
	}
}

/* Somebody asked for what is in it; or that cannot be told. */
static bool is_wanted(int fd)
{
	struct snapshot_store store;
	struct manifest *list;
	size_t count, i;
	bool wanted = false;
	int r = snapshot_store_open(&store, fd, SNAPSHOT_LOOK, 0);

	if (r < 0)
		return r != -ENOENT;
	r = snapshot_list_heads(&store, &list, &count);
	for (i = 0; r == 0 && i < count; i++)
		wanted = wanted || list[i].tag_count || list[i].header.magic != SNAPSHOT_MAGIC ||
			 !strcmp(list[i].reason, "manual");
	if (r == 0)
		snapshot_list_free(list, count);
	snapshot_store_close(&store);
	return wanted || r < 0;
}

/* 1: it has a name under which nobody takes it back any more. */
static int condemn(int parentfd, struct store_kept *k)
{
	struct store_identity *identity = malloc(sizeof(*identity));
	int fd = identity ? open_store(parentfd, k->name) : -ENOMEM, r = 0;
	char id[STORE_ID_TEXT], name[STORE_ASIDE_MAX];
	struct stat was, is;

	if (fd >= 0 && store_identity_read(fd, identity) == 0 && !is_wanted(fd) &&
	    alive_any(fd) == ALIVE_DEAD && fstat(fd, &was) == 0) {
		store_id_text(id, identity->id);
		snprintf(name, sizeof(name), REMOVED, id);
		if (renameat2(parentfd, k->name, parentfd, name, RENAME_NOREPLACE) < 0)
			r = -errno;
		else if (fstatat(parentfd, name, &is, AT_SYMLINK_NOFOLLOW) < 0 ||
			 is.st_ino != was.st_ino || alive_any(fd) != ALIVE_DEAD)
			renameat2(parentfd, name, parentfd, k->name, RENAME_NOREPLACE);
		else
			r = 1;
		if (r == 1)
			snprintf(k->name, sizeof(k->name), "%s", name);
	}
	if (fd >= 0)
		close(fd);
	free(identity);
	return r;
}

static bool is_over(const struct store_kept *k, size_t newer, uint64_t now)
{
	uint64_t age = now > k->since ? now - k->since : 0;

	return (newer >= STORES_KEPT && age > WEEK) || (newer >= STORES_KEPT_MOST && age > HOUR);
}

int stores_kept_prune(int parentfd, uid_t owner, uint64_t now)
{
	struct store_kept *list;
	size_t count, i, newer = 0;
	int r = stores_kept(parentfd, owner, &list, &count), n = 0;

	if (r == 0)
		give_numbers(parentfd, list, count, now);
	for (i = 0; i < count && r == 0; i++) {
		if (list[i].directory[0] && !is_over(&list[i], newer++, now))
			continue;
		r = list[i].directory[0] ? condemn(parentfd, &list[i]) : 1;
		if (r == 1) {
			r = tree_remove(parentfd, list[i].name);
			n++;
		}
	}
	free(list);
	return r < 0 ? r : n;
}
