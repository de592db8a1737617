/* SPDX-License-Identifier: MIT
 *
 * Whose bytes a pin rests on: which file it was, and the chain of what it became by changes that
 * were seen.
 */
#include <string.h>

#include "core/base/checksum.h"
#include "core/base/sys.h"
#include "core/base/text.h"
#include "core/pin/internal.h"
#include "core/undo/undo.h"

#define TRIES 4
#define LISTED 15 /* entries that are written together */
#define SEGMENT_NAME 36

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)
#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_SEQ_CST)

/* ---- the list of a pin ---- */

struct listing {
	const struct pins *p;
	int rootfd, fd;
	uint64_t id, count;
	unsigned waiting; /* the last of them, not written yet */
	struct pin_list_entry entries[LISTED];
};

static int put_waiting(struct listing *l)
{
	uint64_t at = sizeof(struct pin_list_header) +
		      (l->count - l->waiting) * sizeof(struct pin_list_entry);
	size_t n = l->waiting * sizeof(struct pin_list_entry);

	l->waiting = 0;
	return n ? sys_pwrite_all(l->fd, l->entries, n, at) : 0;
}

static int put_entry(struct listing *l, const char *path)
{
	struct pin_list_entry *e = &l->entries[l->waiting];
	struct pin_identity i;
	int r = pin_identify(l->rootfd, path, &i);

	if (r < 0)
		return r == -ENOENT || r == -ENOTDIR ? 0 : r;
	*e = (struct pin_list_entry){
	    .size = i.size, .dev = i.dev, .ino = i.ino, .birth = i.birth, .changed = i.changed};
	memcpy(e->path, path, strnlen(path, sizeof(e->path) - 1));
	e->check = checksum64(e, offsetof(struct pin_list_entry, check), l->id + l->count);
	l->count++;
	return ++l->waiting == LISTED ? put_waiting(l) : 0;
}

/* A UUID, as far as segments go. */
static bool is_segment(const char *name)
{
	return strlen(name) == SEGMENT_NAME && name[8] == '-' && name[13] == '-' &&
	       name[18] == '-' && name[23] == '-';
}

static int put_segment(void *context, const char *name)
{
	struct listing *l = context;
	char path[PIN_LIST_PATH];
	size_t n = strlen(name);
	unsigned i;
	int r = 0;

	for (i = 0; i < UNDO_FILES && r == 0 && is_segment(name); i++) {
		memcpy(path, name, n);
		path[n] = '/';
		strcpy(path + n + 1, undo_file_names[i]);
		r = put_entry(l, path);
	}
	return r;
}

static int put_all(struct listing *l)
{
	struct pin_list_header h = {
	    .magic = PIN_LIST_MAGIC, .version = PIN_VERSION, .endian = PIN_ENDIAN, .id = l->id};
	int r = put_entry(l, "chroma.sqlite3");

	if (r == 0)
		r = put_entry(l, "chroma.sqlite3-wal");
	if (r == 0)
		r = pin_each_name(l->rootfd, put_segment, l);
	if (r >= 0)
		r = put_waiting(l);
	h.count = l->count;
	h.check = checksum64(&h, offsetof(struct pin_list_header, check), 0);
	return r < 0 ? r : sys_pwrite_all(l->fd, &h, sizeof(h), 0);
}

int pin_list_make(const struct pins *p, uint64_t id, int rootfd)
{
	struct listing l = {.p = p, .rootfd = rootfd, .id = id};
	char temporary[PIN_NAME_MAX], name[PIN_NAME_MAX];
	int r = pin_file_name(name, id, PIN_LIST, "");

	if (r < 0)
		return r;
	l.fd = pin_temporary(p, temporary);
	if (l.fd < 0)
		return l.fd;
	r = put_all(&l);
	sys_close(l.fd);
	if (r == 0)
		r = sys_renameat(p->dirfd, temporary, p->dirfd, name);
	if (r < 0)
		sys_unlinkat(p->dirfd, temporary, 0);
	return r;
}

int pin_list_judge(const struct pin_list_header *h, uint64_t id, uint64_t file_size)
{
	if (h->magic != PIN_LIST_MAGIC || h->endian != PIN_ENDIAN)
		return -EBADMSG;
	if (h->version > PIN_VERSION)
		return -EPROTONOSUPPORT;
	return h->id == id &&
		       h->check == checksum64(h, offsetof(struct pin_list_header, check), 0) &&
		       file_size >= sizeof(*h) &&
		       h->count == (file_size - sizeof(*h)) / sizeof(struct pin_list_entry)
		   ? 0
		   : -EBADMSG;
}

bool pin_list_entry_is_good(const struct pin_list_entry *e, uint64_t id, uint64_t index)
{
	return e->path[PIN_LIST_PATH - 1] == '\0' &&
	       e->check == checksum64(e, offsetof(struct pin_list_entry, check), id + index);
}

/* ---- changes ---- */

void pin_file_enter(struct pin_file *f)
{
	__atomic_fetch_add(&f->life->busy, 1, __ATOMIC_SEQ_CST);
}

/* What another thread has seen meanwhile must not be put back. */
static void see(struct pin_file *f, int rootfd)
{
	struct pin_identity is,
	    was = {.dev = f->header->dev, .ino = f->header->ino, .birth = f->header->birth};
	int tries;

	for (tries = 0; tries < TRIES; tries++) {
		int64_t before = LOAD(f->life->seen);

		if (pin_identify(rootfd, f->header->path, &is) < 0 ||
		    !pin_identity_same(&is, &was) || is.changed == before ||
		    __atomic_compare_exchange_n(&f->life->seen, &before, is.changed, false,
						__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			return;
	}
}

void pin_file_leave(struct pin_file *f, int rootfd)
{
	uint32_t busy = LOAD(f->life->busy);

	if (f->header->size >= 0)
		see(f, rootfd);
	/* Somebody may have found that it was left over, and ended it. */
	while (busy && !__atomic_compare_exchange_n(&f->life->busy, &busy, busy - 1, false,
						    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

void pin_file_set_late(struct pin_file *f)
{
	STORE(f->life->late, 1);
}

struct newest {
	const char *key; /* of the path: the file's name without the number of its pin */
	uint64_t id;	 /* 0: none so far */
};

static int find_newest(void *context, const char *name)
{
	struct newest *n = context;
	uint64_t id = pin_id_of_name(name);

	if (id > n->id && strcmp(strchr(name, '-') + 1, n->key) == 0)
		n->id = id;
	return 0;
}

bool pin_file_enter_newest(struct pin_file *f, const struct pins *p, const char *path)
{
	char name[PIN_NAME_MAX];
	struct newest n = {.id = 0};

	if (pin_file_name(name, 0, path, ".pre") < 0)
		return false;
	n.key = strchr(name, '-') + 1;
	if (pin_each_name(p->dirfd, find_newest, &n) < 0 || !n.id ||
	    pin_file_open_existing(f, p, n.id, path) < 0)
		return false;
	pin_file_enter(f);
	return true;
}

/* ---- what was changed behind the counts' back ---- */

struct adoption {
	const struct pins *p;
	int rootfd;
	const char *segment; /* NULL: of any, what a dead process was in the midst of */
};

static bool is_of_segment(const char *key, const char *segment)
{
	size_t n = strlen(segment);

	return strncmp(key, segment, n) == 0 && key[n] == '.';
}

static int identity_adopt(void *context, const char *name)
{
	const struct adoption *a = context;
	uint64_t id = pin_id_of_name(name);
	struct pin_file f;

	if (!id || !text_ends_with(name, ".pre") ||
	    (a->segment && !is_of_segment(strchr(name, '-') + 1, a->segment)) ||
	    pin_file_open_name(&f, a->p, id, name) < 0)
		return 0;
	if ((a->segment || LOAD(f.life->busy)) && f.header->size >= 0) {
		see(&f, a->rootfd);
		STORE(f.life->busy, 0);
	}
	pin_file_close(&f);
	return 0;
}

void pins_adopt(struct pins *p, int rootfd, const char *segment)
{
	struct adoption a = {.p = p, .rootfd = rootfd, .segment = segment};

	if (p->state && pins_epoch(p) && !pins_is_written(p))
		pin_each_name(p->dirfd, identity_adopt, &a);
}

void pins_segment_undone(int storefd, int rootfd, const char *segment)
{
	struct pins pins;

	if (pins_open(&pins, storefd, false) < 0)
		return;
	pins_adopt(&pins, rootfd, segment);
	pins_close(&pins);
}
