/* SPDX-License-Identifier: MIT
 *
 * What is linked for a pin, and removed when no pin needs it.
 */
#include <errno.h>
#include <string.h>

#include "core/base/sys.h"
#include "core/base/text.h"
#include "core/pin/internal.h"
#include "core/undo/undo.h"

#define SEGMENT_NAME 36 /* a UUID */
#define UNDO_PATH_MAX 32

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_SEQ_CST)
#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_SEQ_CST)

/* ---- persists under way ---- */

static int link_group(const struct pins *p, const struct pin_slot *s, int undofd, const char *name)
{
	char own[PIN_NAME_MAX];
	int r = pin_file_name(own, s->id, name, "");

	if (r == 0)
		r = sys_linkat(undofd, name, p->dirfd, own);
	return r == -ENOENT ? -EAGAIN : r == -EEXIST ? 0 : r;
}

struct linking {
	const struct pins *pins;
	const struct pin_slot *slot;
	int undofd, rootfd;
};

/* "<segment>-….<file>.moved" is of "<segment>/<file>". */
static bool path_of_moved(char path[SEGMENT_NAME + UNDO_PATH_MAX], const char *name)
{
	size_t n = strlen(name);
	unsigned file = n > SEGMENT_NAME + 7 ? (unsigned)(name[n - 7] - '0') : UNDO_FILES;

	if (file >= UNDO_FILES)
		return false;
	memcpy(path, name, SEGMENT_NAME);
	path[SEGMENT_NAME] = '/';
	strcpy(path + SEGMENT_NAME + 1, undo_file_names[file]);
	return true;
}

static void tell(const struct linking *k, struct pin_file *f)
{
	pin_file_leave(f, k->rootfd);
	pin_file_close(f);
}

/* It may have its own name still, and a link changes its change time: that is told, like any
 * change, and again if another epoch's pre-images have begun meanwhile. */
static int link_moved(const struct linking *k, const char *name)
{
	char path[SEGMENT_NAME + UNDO_PATH_MAX];
	bool is_path = path_of_moved(path, name), told;
	struct pin_file f, newer;
	int r;

	told = is_path && pin_file_enter_newest(&f, k->pins, path);
	r = link_group(k->pins, k->slot, k->undofd, name);
	if (is_path && pin_file_enter_newest(&newer, k->pins, path))
		tell(k, &newer);
	if (told)
		tell(k, &f);
	return r;
}

static int link_name(void *context, const char *name)
{
	const struct linking *k = context;

	if (text_ends_with(name, ".moved"))
		return link_moved(k, name);
	if (!text_ends_with(name, ".undo") || undo_is_ended(k->undofd, name))
		return 0;
	return link_group(k->pins, k->slot, k->undofd, name);
}

/* A group that ended between the link of its undo file and that of what it moved is not whole. */
static int is_ended(const struct linking *k, const char *name)
{
	const char *undo = strchr(name, '-') + 1;
	struct stat st;

	return sys_fstatat(k->undofd, undo, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		       undo_is_ended(k->undofd, undo)
		   ? -EAGAIN
		   : 0;
}

struct search {
	uint64_t id;
	const char *segment;
};

static int find_undo(void *context, const char *name)
{
	const struct search *k = context;

	return pin_id_of_name(name) == k->id && text_ends_with(name, ".undo") &&
		       strncmp(strchr(name, '-') + 1, k->segment, SEGMENT_NAME) == 0
		   ? -EEXIST
		   : 0;
}

/*
 * Something was saved of a segment that no linked undo file is of: its group may have begun before
 * the epoch, and ended before the links were made. What it wrote in between is nowhere then.
 */
static int is_without_group(const struct linking *k, const char *name)
{
	struct search search = {.id = k->slot->id, .segment = strchr(name, '-') + 1};
	int r;

	if (strnlen(search.segment, SEGMENT_NAME + 1) <= SEGMENT_NAME ||
	    search.segment[SEGMENT_NAME] != '.')
		return 0; /* the database */
	r = pin_each_name(k->pins->dirfd, find_undo, &search);
	return r == -EEXIST ? 0 : r < 0 ? r : -EAGAIN;
}

static int look_again(void *context, const char *name)
{
	const struct linking *k = context;

	if (pin_id_of_name(name) != k->slot->id)
		return 0;
	return text_ends_with(name, ".undo")  ? is_ended(k, name)
	       : text_ends_with(name, ".pre") ? is_without_group(k, name)
					      : 0;
}

int pin_add_groups(struct pins *p, const struct pin_slot *s, int undofd, int rootfd)
{
	struct linking k = {.pins = p, .slot = s, .undofd = undofd, .rootfd = rootfd};
	int r = undofd < 0 ? 0 : pin_each_name(undofd, link_name, &k);

	if (r >= 0 && undofd >= 0)
		r = pin_each_name(p->dirfd, look_again, &k);
	/* Last: who loses its undo file tells so first. */
	return r >= 0 && pins_is_unprotected(p) ? -EBUSY : r;
}

/* ---- letting go ---- */

struct sweeping {
	const struct pins *pins;
	uint64_t bound; /* the first id that is needed */
	uint64_t left;	/* bytes */
	int removed;
};

static int sweep_name(void *context, const char *name)
{
	struct sweeping *k = context;
	uint64_t id = pin_id_of_name(name);
	struct stat st;

	if (id && id < k->bound && sys_unlinkat(k->pins->dirfd, name, 0) == 0)
		k->removed++;
	else if (id && text_ends_with(name, ".pre") &&
		 sys_fstatat(k->pins->dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		k->left += (uint64_t)st.st_blocks * 512;
	return 0;
}

/* 0: somebody is just taking one. */
static uint64_t first_needed(struct pins *p)
{
	uint64_t bound = LOAD(p->state->next_id);
	unsigned i;

	for (i = 0; i < PIN_SLOTS; i++) {
		struct pin_slot *s = &p->slots[i];
		uint32_t state = LOAD(s->state);
		uint64_t id = LOAD(s->id);

		if (state == PIN_TAKING && LOAD(s->who) && !pin_is_alive(p, LOAD(s->who)))
			pin_drop(p, s);
		else if (state == PIN_TAKING && !id)
			return 0;
		else if ((state == PIN_TAKING || state == PIN_HELD) && id < bound)
			bound = id;
	}
	return bound;
}

int pins_sweep(struct pins *p)
{
	struct sweeping k = {.pins = p};
	int lock = pins_lock(p, false), r;

	if (lock < 0)
		return lock;
	k.bound = first_needed(p);
	r = k.bound ? pin_each_name(p->dirfd, sweep_name, &k) : 0;
	if (r == 0)
		STORE(p->state->saved, k.left);
	sys_close(lock);
	return r < 0 ? r : k.removed;
}
