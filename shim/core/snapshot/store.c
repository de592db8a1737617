/* SPDX-License-Identifier: MIT
 *
 * The snapshots of a store: lock, list, numbers, and which chunks are needed.
 */
#include "core/snapshot/store.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/base/tree.h"
#include "core/pin/pin.h"

#define LOCK_FILE "lock"
#define NEXT_FILE "next"
#define LOCK_STEP_MS 20
#define SHARED_WAIT_MS 60000 /* for who adds; what has been read is not to be in vain */

/* Bytes of it. Before there were two, all of it was locked for either. */
enum { BYTE_KEEP = 0, BYTE_ADD = 1 };

/* ---- opening ---- */

/* length 0: from there on all of it. */
static int lock_bytes(const struct snapshot_store *s, short type, off_t from, off_t length)
{
	struct flock lock = {
	    .l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = length};

	if (fcntl(s->lockfd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

static int try_lock(const struct snapshot_store *s, enum snapshot_access access)
{
	int r;

	if (access == SNAPSHOT_CHANGE)
		return lock_bytes(s, F_WRLCK, 0, 0);
	r = lock_bytes(s, F_RDLCK, BYTE_KEEP, 1);
	return r == 0 && access == SNAPSHOT_ADD ? lock_bytes(s, F_WRLCK, BYTE_ADD, 1) : r;
}

static int wait_for_lock(const struct snapshot_store *s, enum snapshot_access access,
			 unsigned wait_ms)
{
	struct timespec step = {0, LOCK_STEP_MS * 1000000};
	int r;

	while ((r = try_lock(s, access)) == -EBUSY) {
		if (wait_ms < LOCK_STEP_MS)
			return -EBUSY;
		wait_ms -= LOCK_STEP_MS;
		nanosleep(&step, NULL);
	}
	return r;
}

/* Who only reads can: the file system may be mounted read-only. */
static int take_lock(struct snapshot_store *s, enum snapshot_access access, unsigned wait_ms)
{
	int mode = access == SNAPSHOT_KEEP ? O_RDONLY : O_RDWR;

	s->lockfd =
	    openat(s->dirfd, LOCK_FILE, mode | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	return s->lockfd < 0 ? -errno : wait_for_lock(s, access, wait_ms);
}

void snapshot_store_share(struct snapshot_store *s)
{
	if (s->access == SNAPSHOT_ADD)
		lock_bytes(s, F_UNLCK, BYTE_ADD, 1);
}

int snapshot_store_unshare(struct snapshot_store *s)
{
	int r = s->access == SNAPSHOT_ADD ? wait_for_lock(s, SNAPSHOT_ADD, SHARED_WAIT_MS) : 0;

	if (r < 0)
		s->access = SNAPSHOT_KEEP;
	return r;
}

int snapshot_store_claim(struct snapshot_store *s)
{
	int r = s->access == SNAPSHOT_ADD ? lock_bytes(s, F_WRLCK, 0, 0) : 0;

	if (r == 0)
		s->access = SNAPSHOT_CHANGE;
	return r;
}

int snapshot_store_open(struct snapshot_store *s, int storefd, enum snapshot_access access,
			unsigned wait_ms)
{
	bool change = access >= SNAPSHOT_ADD;
	int r;

	*s = (struct snapshot_store){
	    .storefd = storefd, .dirfd = -1, .lockfd = -1, .access = access};
	s->chunks.dirfd = -1;
	r = change ? tree_make_directory(storefd, SNAPSHOTS_DIR)
		   : file_open_directory_at(storefd, SNAPSHOTS_DIR);
	if (r < 0)
		return r;
	s->dirfd = r;
	r = access == SNAPSHOT_LOOK ? 0 : take_lock(s, access, wait_ms);
	if (r == 0 && change) {
		file_publish_sweep(s->dirfd);
		r = tree_remove(storefd, SCRATCH_DIR);
	}
	if (r == 0)
		r = chunks_open(&s->chunks, s->dirfd, change);
	if (r < 0)
		snapshot_store_close(s);
	return r;
}

void snapshot_store_close(struct snapshot_store *s)
{
	if (s->chunks.dirfd >= 0)
		chunks_close(&s->chunks);
	if (s->lockfd >= 0)
		close(s->lockfd);
	if (s->dirfd >= 0)
		close(s->dirfd);
	s->dirfd = s->lockfd = -1;
}

int snapshot_scratch(struct snapshot_store *s, const char *name)
{
	int parent = tree_make_directory(s->storefd, SCRATCH_DIR), r;

	assert(s->access >= SNAPSHOT_ADD);
	if (parent < 0)
		return parent;
	r = tree_remove(parent, name);
	if (r == 0)
		r = tree_make_directory(parent, name);
	close(parent);
	return r;
}

void snapshot_scratch_remove(struct snapshot_store *s, const char *name)
{
	int parent = file_open_directory_at(s->storefd, SCRATCH_DIR);

	if (parent < 0)
		return;
	tree_remove(parent, name);
	close(parent);
	unlinkat(s->storefd, SCRATCH_DIR, AT_REMOVEDIR);
}

/* ---- the list ---- */

static int compare_ids(const void *a, const void *b)
{
	const struct manifest *x = a, *y = b;

	return x->header.id < y->header.id ? -1 : x->header.id > y->header.id;
}

static int list_one(const struct snapshot_store *s, uint64_t id, struct manifest *m)
{
	int r = manifest_read(s->dirfd, id, m);

	if (r == 0)
		return 0;
	manifest_free(m);
	if (r == -ENOENT) /* removed since the directory was read */
		return 1;
	m->header.id = id;
	m->header.state = SNAPSHOT_BROKEN;
	if (manifest_set_text(&m->trouble, r == -ENODATA	   ? "its manifest is cut short"
					   : r == -EBADMSG	   ? "its manifest is damaged"
					   : r == -EPROTONOSUPPORT ? "written by a newer chromashim"
								   : strerror(-r)) < 0 ||
	    manifest_set_text(&m->reason, "") < 0 || manifest_set_text(&m->description, "") < 0)
		return -ENOMEM;
	return 0;
}

static int list_directory(const struct snapshot_store *s, DIR *dir, struct manifest **list,
			  size_t *count)
{
	const struct dirent *entry;
	struct manifest *more;
	int r;

	while ((entry = readdir(dir))) {
		uint64_t id = manifest_id_of_name(entry->d_name);

		if (!id)
			continue;
		more = reallocarray(*list, *count + 1, sizeof(**list));
		if (!more)
			return -ENOMEM;
		*list = more;
		r = list_one(s, id, &more[*count]);
		if (r < 0) {
			manifest_free(&more[*count]);
			return r;
		}
		*count += r == 0;
	}
	return 0;
}

int snapshot_list(const struct snapshot_store *s, struct manifest **out, size_t *count_out)
{
	DIR *dir;
	int r = file_names_at(s->dirfd, NULL, &dir);

	*out = NULL;
	*count_out = 0;
	if (r < 0)
		return r;
	r = list_directory(s, dir, out, count_out);
	closedir(dir);
	if (r < 0) {
		snapshot_list_free(*out, *count_out);
		*out = NULL;
		*count_out = 0;
	} else if (*count_out) {
		qsort(*out, *count_out, sizeof(**out), compare_ids);
	}
	return r;
}

void snapshot_list_free(struct manifest *list, size_t count)
{
	while (count)
		manifest_free(&list[--count]);
	free(list);
}

/* ---- numbers ---- */

static uint64_t highest_id(const struct snapshot_store *s)
{
	DIR *dir;
	const struct dirent *entry;
	uint64_t highest = 0, id;

	file_names_at(s->dirfd, NULL, &dir);
	while (dir && (entry = readdir(dir))) {
		id = manifest_id_of_name(entry->d_name);
		highest = id > highest ? id : highest;
	}
	if (dir)
		closedir(dir);
	return highest;
}

static uint64_t read_next(const struct snapshot_store *s)
{
	uint64_t next = 0;
	char *text;
	size_t size;
	int fd = file_open_at(s->dirfd, NEXT_FILE);

	if (fd < 0)
		return 0;
	if (file_read_all(fd, 32, &text, &size) == 0) {
		next = strtoull(text, NULL, 10);
		free(text);
	}
	close(fd);
	return next < UINT64_C(100000000000) ? next : 0;
}

/* Its name is synced with the manifest's, which comes next. */
static int write_next(struct snapshot_store *s, uint64_t next)
{
	struct file_publish file;
	char line[32];
	int r;

	snprintf(line, sizeof(line), "%" PRIu64 "\n", next);
	r = file_publish_begin(&file, s->dirfd, NEXT_FILE, 0600);
	if (r < 0)
		return r;
	r = file_write_all(file.fd, line, strlen(line));
	if (r == 0)
		r = file_publish_commit_content(&file);
	else
		file_publish_abort(&file);
	return r;
}

/* Pins take numbers as well, in other processes: from `at_least` on, one that none of them gets. */
static uint64_t take_from_pins(const struct snapshot_store *s, uint64_t at_least)
{
	uint64_t next, id = at_least;
	struct pins pins;

	if (pins_open(&pins, s->storefd, false) < 0)
		return id;
	next = __atomic_load_n(&pins.state->next_id, __ATOMIC_SEQ_CST);
	do {
		id = next > at_least ? next : at_least;
	} while (!__atomic_compare_exchange_n(&pins.state->next_id, &next, id + 1, false,
					      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
	pins_close(&pins);
	return id;
}

/* The next number is raised before it is used, and is on the disk when its manifest is. */
static int next_id(struct snapshot_store *s, uint64_t *out)
{
	uint64_t id = highest_id(s) + 1, counter = read_next(s);

	*out = take_from_pins(s, counter > id ? counter : id);
	return write_next(s, *out + 1);
}

int snapshot_add(struct snapshot_store *s, struct manifest *m)
{
	int r = chunks_flush(&s->chunks);

	assert(s->access >= SNAPSHOT_ADD);
	if (r == 0)
		r = next_id(s, &m->header.id);
	return r == 0 ? manifest_write(s->dirfd, m) : r;
}

int snapshot_add_numbered(struct snapshot_store *s, struct manifest *m)
{
	int r = chunks_flush(&s->chunks);

	assert(s->access >= SNAPSHOT_ADD);
	if (r == 0 && read_next(s) <= m->header.id)
		r = write_next(s, m->header.id + 1);
	return r == 0 ? manifest_write(s->dirfd, m) : r;
}

int snapshot_remove(struct snapshot_store *s, uint64_t id)
{
	char name[MANIFEST_NAME_SIZE];

	assert(s->access >= SNAPSHOT_ADD);
	manifest_file_name(name, id);
	/* After a power cut the manifest may have been there and the number not been raised. */
	if (read_next(s) <= id)
		write_next(s, id + 1);
	if (unlinkat(s->dirfd, name, 0) < 0)
		return -errno;
	return tree_sync(s->dirfd);
}

/* ---- which chunks are needed ---- */

struct use {
	struct chunk_name name;
	uint32_t owner;
};

struct uses {
	struct use *all; /* by name */
	size_t count;
};

static int compare_uses(const void *a, const void *b)
{
	const struct use *x = a, *y = b;
	int order = memcmp(&x->name, &y->name, sizeof(x->name));

	return order ? order : x->owner < y->owner ? -1 : x->owner > y->owner;
}

static uint64_t chunks_of(const struct manifest *m)
{
	uint64_t n = 0;
	uint32_t i;

	for (i = 0; i < m->file_count; i++)
		n += manifest_chunk_count(m->files[i].size);
	return n;
}

static void add_uses(struct uses *u, const struct manifest *m, uint32_t owner)
{
	uint64_t i, n;
	uint32_t f;

	for (f = 0; f < m->file_count; f++) {
		n = manifest_chunk_count(m->files[f].size);
		for (i = 0; i < n; i++) {
			if (chunk_is_zero(&m->files[f].chunks[i]))
				continue;
			u->all[u->count].name = m->files[f].chunks[i];
			u->all[u->count++].owner = owner;
		}
	}
}

static int find_uses(struct uses *u, const struct manifest *list, size_t count, const bool *skip)
{
	uint64_t n = 0;
	size_t i;

	*u = (struct uses){0};
	for (i = 0; i < count; i++)
		n += skip && skip[i] ? 0 : chunks_of(&list[i]);
	u->all = calloc((size_t)n + 1, sizeof(*u->all));
	if (!u->all)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		if (!skip || !skip[i])
			add_uses(u, &list[i], (uint32_t)i);
	qsort(u->all, u->count, sizeof(*u->all), compare_uses);
	return 0;
}

static bool is_used(void *context, const struct chunk_name *name)
{
	const struct uses *u = context;
	size_t low = 0, high = u->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = memcmp(&u->all[middle].name, name, sizeof(*name));

		if (order == 0)
			return true;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

int snapshot_collect(struct snapshot_store *s, bool dry, uint64_t *bytes_out)
{
	struct manifest *list;
	struct uses uses;
	uint64_t ignored;
	size_t count, i;
	int r = snapshot_list(s, &list, &count);

	assert(dry || s->access == SNAPSHOT_CHANGE);
	*bytes_out = 0;
	if (r < 0)
		return r;
	for (i = 0; i < count && r == 0; i++)
		if (list[i].header.magic != SNAPSHOT_MAGIC)
			r = -EBADMSG;
	if (r == 0) {
		r = find_uses(&uses, list, count, NULL);
		if (r == 0)
			r = chunks_collect(&s->chunks, is_used, &uses, dry, &ignored, bytes_out);
		free(uses.all);
	}
	snapshot_list_free(list, count);
	return r;
}

int snapshot_sizes(struct snapshot_store *s, const struct manifest *list, size_t count,
		   const bool *skip, uint64_t *used_out, uint64_t *all_out)
{
	struct uses u;
	size_t i, next;
	int r = find_uses(&u, list, count, skip);

	*all_out = 0;
	if (count)
		memset(used_out, 0, count * sizeof(*used_out));
	for (i = 0; r == 0 && i < u.count; i = next) {
		uint64_t stored;

		for (next = i + 1; next < u.count; next++)
			if (memcmp(&u.all[i].name, &u.all[next].name, sizeof(u.all[i].name)) != 0)
				break;
		chunks_stat(&s->chunks, &u.all[i].name, &stored);
		*all_out += stored;
		if (u.all[next - 1].owner == u.all[i].owner)
			used_out[u.all[i].owner] += stored;
	}
	free(u.all);
	return r;
}
