/* SPDX-License-Identifier: MIT
 *
 * What is in use is not taken away: removing, replacing or emptying Chroma's files is refused as a
 * whole, from the first one on, while a client has the directory open, here or in another process.
 * Chroma's own removals are not refused: they come from the library that has the database open, or
 * from Python while that works with the segment no more.
 */
#include <string.h>

#include "preload/base/shim.h"
#include "preload/place/lives.h"
#include "preload/refuse/graphs.h"
#include "preload/refuse/refuse.h"
#include "preload/sqlite/transactions.h"

/* ---- who has it open ---- */

struct users {
	bool any;    /* some SQLite of this process has the database open */
	bool caller; /* that of the library that calls */
	bool chroma; /* one that is part of Chroma, and no SQLite of the host's language */
};

static struct users users_of(unsigned protection, uint8_t by)
{
	int fd, top = atomic_load(&slots_top);
	struct users u = {false, false, false};

	for (fd = 0; fd < top; fd++) {
		union slot s = slot_of(fd);
		const char *path;

		if (s.role != ROLE_DATABASE || s.protection != protection ||
		    !transaction_library(s.object))
			continue;
		path = object_path(s.object);
		u.any = true;
		u.caller |= by && s.object == by;
		u.chroma |= !path || !strstr(path, "sqlite");
	}
	return u;
}

/* ---- what is taken away ---- */

static bool removes(const struct change *c)
{
	return ((c->op == OP_UNLINK || c->op == OP_UNLINKAT) && !(c->flags & AT_REMOVEDIR)) ||
	       change_renames(c);
}

static bool empties(const struct change *c)
{
	return change_truncates(c) || c->op == OP_TRUNCATE;
}

static bool is_database_file(unsigned role)
{
	return role == ROLE_DATABASE || role == ROLE_JOURNAL || role == ROLE_WAL;
}

static int removal_refuse(const struct change *c, union slot s, bool here)
{
	const struct protection *a = protection_of(s);
	const char *name = name_text(name_get(s.name));
	bool root = strcmp(name, ".") == 0;

	refuse_say(c, OP_REFUSE_DESTROYER, -EBUSY,
		   (const char *const[]){
		       a->spelling[0], root ? "" : "/", root ? "" : name,
		       ": removing, replacing or emptying it is refused while SQLite has ",
		       s.role == ROLE_DATABASE ? "it" : "the database", " open in ",
		       here ? "this" : "another",
		       " process: what is written afterwards would be lost. ",
		       here ? "Close the client first, and keep no collection of it"
			    : "End that one first",
		       "; nothing was removed. To go back to an earlier state, when nothing has "
		       "it open any more: chromashim restore --to latest ",
		       a->spelling[0], NULL});
	return -EBUSY;
}

static int check_database(const struct change *c, union slot s)
{
	uint8_t by = c->caller ? object_of(c->caller) : c->slot.object;
	struct users u;
	bool ends = c->op == OP_FTRUNCATE && !transaction_library(c->slot.object);

	if (!removes(c) && !empties(c) && !ends)
		return 0;
	u = users_of(s.protection, by);
	if (s.role != ROLE_DATABASE && u.caller)
		return 0;
	if (u.any)
		return removal_refuse(c, s, true);
	return !transaction_library(by) && life_used_elsewhere(protection_of(s))
		   ? removal_refuse(c, s, false)
		   : 0;
}

/* A descriptor of the root itself, as a walk through the tree has; or of the segment's index. */
static bool is_open(union slot s, bool root)
{
	const struct name *n = name_get(s.name);
	uint32_t directory = role_in_segment(s.role) ? n->directory : s.name;
	int fd, top = atomic_load(&slots_top);

	for (fd = 0; fd < top; fd++) {
		union slot o = slot_of(fd);

		if (o.protection != s.protection || !slot_protected(o))
			continue;
		if (root ? o.role == ROLE_DIRECTORY && strcmp(name_text(name_get(o.name)), ".") == 0
			 : role_in_segment(o.role) && o.role != ROLE_PICKLE &&
			       (o.writable & SLOT_WRITABLE) &&
			       name_get(o.name)->directory == directory)
			return true;
	}
	return false;
}

/*
 * Chroma empties the files of an index that has no pickle, and writes one after the header; or,
 * before 1.0, within a transaction: an index of one record is not written when that is updated.
 */
static bool replaces(const struct change *c)
{
	bool opens = change_opens(c) && c->place;

	if (!role_in_segment(c->slot.role) || segment_pickle_is_missing(c))
		return false;
	if (c->slot.role == ROLE_PICKLE)
		return opens && (c->flags & O_ACCMODE) != O_RDONLY && !graph_is_persisted(c) &&
		       transaction_thread(c->slot.protection) != thread_id();
	return empties(c) || (opens && (c->flags & O_ACCMODE) == O_WRONLY);
}

static int check_index(const struct change *c, union slot s)
{
	bool gone = removes(c);
	struct users u;

	if (!gone && !(s.all == c->slot.all && replaces(c)))
		return 0;
	u = users_of(s.protection, c->caller ? object_of(c->caller) : 0);
	if (u.caller)
		return 0;
	if (!u.any)
		return life_used_elsewhere(protection_of(s)) ? removal_refuse(c, s, false) : 0;
	if (gone && !u.chroma && !is_open(s, true) && !is_open(s, false))
		return 0; /* before 1.0 Python removes the directory of a deleted collection */
	return removal_refuse(c, s, true);
}

/* The directory itself is renamed. */
static int check_root(const struct change *c, union slot s)
{
	bool here;

	if (!change_renames(c) || strcmp(name_text(name_get(s.name)), ".") != 0)
		return 0;
	here = users_of(s.protection, 0).any;
	return here || life_used_elsewhere(protection_of(s)) ? removal_refuse(c, s, here) : 0;
}

static int check(const struct change *c, union slot s)
{
	if (is_database_file(s.role))
		return check_database(c, s);
	if (role_in_segment(s.role) || name_is_segment(name_get(s.name)))
		return check_index(c, s);
	return check_root(c, s);
}

int removal_check(const struct change *c)
{
	int r = check(c, c->slot);

	return r == 0 && c->target ? check(c, c->target->slot) : r;
}
