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
#include "core/snapshot/uses.h"

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

int snapshot_each(const struct snapshot_store *s, snapshot_each_fn *each, void *context)
{
	const struct dirent *entry;
	DIR *dir;
	int r = file_names_at(s->dirfd, NULL, &dir);

	if (r < 0)
		return r;
	while (r >= 0 && (entry = readdir(dir))) {
		uint64_t id = manifest_id_of_name(entry->d_name);
		struct manifest m = {.files = NULL};

		if (!id)
			continue;
		r = list_one(s, id, &m);
		if (r == 0)
			r = each(context, &m);
		manifest_free(&m);
	}
	closedir(dir);
	return r < 0 ? r : 0;
}

struct list {
	struct manifest *all;
	size_t count;
	bool heads;
};

static int put_on_list(void *context, struct manifest *m)
{
	struct list *l = context;
	struct manifest *more = reallocarray(l->all, l->count + 1, sizeof(*l->all));

	if (!more)
		return -ENOMEM;
	l->all = more;
	if (l->heads)
		manifest_forget_contents(m);
	l->all[l->count++] = *m;
	*m = (struct manifest){.files = NULL};
	return 0;
}

static int list_sorted(const struct snapshot_store *s, bool heads, struct manifest **out,
		       size_t *count_out)
{
	struct list l = {.heads = heads};
	int r = snapshot_each(s, put_on_list, &l);

	if (r < 0) {
		snapshot_list_free(l.all, l.count);
		l = (struct list){.all = NULL};
	} else if (l.count) {
		qsort(l.all, l.count, sizeof(*l.all), compare_ids);
	}
	*out = l.all;
	*count_out = l.count;
	return r;
}

int snapshot_list(const struct snapshot_store *s, struct manifest **out, size_t *count_out)
{
	return list_sorted(s, false, out, count_out);
}

int snapshot_list_heads(const struct snapshot_store *s, struct manifest **out, size_t *count_out)
{
	return list_sorted(s, true, out, count_out);
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

static int need_all(void *context, struct manifest *m)
{
	return m->header.magic == SNAPSHOT_MAGIC ? chunk_uses_add(context, m, 0) : -EBADMSG;
}

int snapshot_collect(struct snapshot_store *s, bool dry, uint64_t *bytes_out)
{
	struct chunk_uses uses = {.room = 0};
	uint64_t ignored;
	int r;

	assert(dry || s->access == SNAPSHOT_CHANGE);
	*bytes_out = 0;
	r = snapshot_each(s, need_all, &uses);
	if (r == 0)
		r = chunks_collect(&s->chunks, chunk_uses_has, &uses, dry, &ignored, bytes_out);
	chunk_uses_free(&uses);
	return r;
}

/* used: by owner; may be NULL. */
static uint64_t sum_of(struct snapshot_store *s, const struct chunk_uses *uses, uint64_t *used)
{
	const struct chunk_use *use;
	uint64_t stored, sum = 0;
	size_t at = 0;

	while ((use = chunk_uses_next(uses, &at))) {
		chunks_stat(&s->chunks, &use->name, &stored);
		sum += stored;
		if (used && use->owner != CHUNK_SHARED)
			used[use->owner] += stored;
	}
	return sum;
}

/* Of a head the manifest is read again; one that is only pinned has none yet. */
static int add_uses(const struct snapshot_store *s, const struct manifest *listed, uint32_t owner,
		    struct chunk_uses *uses)
{
	struct manifest whole = {.files = NULL};
	int r;

	if (listed->file_count)
		return chunk_uses_add(uses, listed, owner);
	r = manifest_read(s->dirfd, listed->header.id, &whole);
	r = r == 0 ? chunk_uses_add(uses, &whole, owner) : 0;
	manifest_free(&whole);
	return r;
}

int snapshot_sizes(struct snapshot_store *s, const struct manifest *list, size_t count,
		   const bool *skip, uint64_t *used_out, uint64_t *all_out)
{
	struct chunk_uses uses = {.room = 0};
	size_t i;
	int r = 0;

	if (count)
		memset(used_out, 0, count * sizeof(*used_out));
	for (i = 0; i < count && r == 0; i++)
		if (!skip || !skip[i])
			r = add_uses(s, &list[i], (uint32_t)i, &uses);
	*all_out = r == 0 ? sum_of(s, &uses, used_out) : 0;
	chunk_uses_free(&uses);
	return r;
}

static int need_readable(void *context, struct manifest *m)
{
	return chunk_uses_add(context, m, 0);
}

int snapshot_bytes(struct snapshot_store *s, uint64_t *all_out)
{
	struct chunk_uses uses = {.room = 0};
	int r = snapshot_each(s, need_readable, &uses);

	*all_out = r == 0 ? sum_of(s, &uses, NULL) : 0;
	chunk_uses_free(&uses);
	return r;
}
