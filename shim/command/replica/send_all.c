/* SPDX-License-Identifier: MIT
 *
 * Sending to one replica: which snapshots are not there yet. The newest goes first, since it is
 * what a lost machine would want; those that it was away for follow.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "command/replica/sender.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"

/* A snapshot of this store's that is in the replica, or was tried. */
struct known {
	uint64_t id, time;
};

struct knowns {
	struct known *all;
	size_t count, room;
};

static int know(struct knowns *k, uint64_t id, uint64_t time)
{
	struct known *more;

	if (k->count == k->room) {
		k->room = k->room ? 2 * k->room : 64;
		more = reallocarray(k->all, k->room, sizeof(*more));
		if (!more)
			return -ENOMEM;
		k->all = more;
	}
	k->all[k->count++] = (struct known){id, time};
	return 0;
}

static bool is_known(const struct knowns *k, uint64_t id)
{
	size_t i;

	for (i = k->count; i > 0; i--)
		if (k->all[i - 1].id == id)
			return true;
	return false;
}

/* One that this store has never sent, in its own line: the store has a copy that sends as well. */
static int fail_copied(struct sender *s, uint64_t id)
{
	return link_fail(&s->remote.link, -EPERM,
			 "snapshot %" PRIu64 " is there, and this store has not sent it: a copy of "
			 "this directory sends, too. `chromashim replica takeover` makes the "
			 "replica this one's",
			 id);
}

static int read_theirs(struct sender *s, struct knowns *k)
{
	struct remote *m = &s->remote;
	uint64_t newest = s->state.snapshot, time = 0;
	size_t i;
	int r = remote_look_at_snapshots(m);

	for (i = 0; i < m->count && r == 0; i++) {
		const struct replica_name *name = &m->snapshots[i];

		if (!sender_has_sent(s, name))
			continue;
		/* Its manifest was sent, or a part of it, and a prune may have begun meanwhile. */
		if (name->id == s->state.intent)
			continue;
		if (name->id > s->state.snapshot && !s->is_adopted)
			return fail_copied(s, name->id);
		time = name->id > newest ? name->time : time;
		newest = name->id > newest ? name->id : newest;
		r = know(k, name->id, name->time);
	}
	if (newest > s->state.snapshot) {
		s->state.snapshot = newest;
		s->state.snapshot_time = time;
	}
	return r;
}

/* The newest here that is not there; 0: none. */
static uint64_t next_one(const struct sender *s, const struct knowns *k)
{
	int dirfd = file_open_directory_at(s->data->storefd, SNAPSHOTS_DIR);
	const struct dirent *entry;
	uint64_t found = 0, id;
	DIR *dir = NULL;

	if (dirfd >= 0)
		file_names_of(dirfd, &dir);
	while (dir && (entry = readdir(dir))) {
		id = manifest_id_of_name(entry->d_name);
		if (id > found && !is_known(k, id))
			found = id;
	}
	if (dir)
		closedir(dir);
	return found;
}

/* What was cut off first: another's being cut off would make it forgotten. */
static uint64_t choose_next(const struct sender *s, const struct knowns *k)
{
	return s->state.intent && !is_known(k, s->state.intent) ? s->state.intent : next_one(s, k);
}

/* What was cut off is not here any more: what is there of it is no copy of this store's making. */
static void give_up_intent(struct sender *s)
{
	const struct remote *m = &s->remote;
	size_t i;

	for (i = 0; i < m->count; i++)
		if (m->snapshots[i].id == s->state.intent && s->state.intent > s->state.snapshot)
			s->state.snapshot = s->state.intent;
	s->state.intent = 0;
}

static int send_what_is_new(struct sender *s, struct knowns *k)
{
	int r = 0, first = 0;
	uint64_t id;

	while (r >= 0 && (id = choose_next(s, k)) != 0) {
		r = know(k, id, 0);
		if (r == 0)
			r = sender_send(s, id);
		/* One that is damaged here holds up none of the others. */
		if (r == -ENOENT || r == -EBADMSG || r == -ENODATA) {
			first = first ? first : r;
			s->waiting = 0;
			link_clear(&s->remote.link);
			r = 0;
		} else if (r == 1 && id == s->state.intent) {
			give_up_intent(s);
		}
	}
	return r < 0 ? r : first;
}

/* As if nothing were there: what is, is found by its list. */
int sender_send_again(struct sender *s)
{
	struct knowns k = {NULL, 0, 0};
	int r;

	r = remote_look_at_control(&s->remote);
	if (r == 0 && s->remote.owner.epoch == 0)
		s->state.line = 0; /* it was emptied */
	if (r == 0)
		r = sender_claim(s, false);
	if (r == 0)
		r = read_theirs(s, &k);
	k.count = 0;
	if (r == 0)
		r = sender_remember(s, true);
	if (r == 0)
		r = send_what_is_new(s, &k);
	if (r == 0)
		r = sender_mark(s);
	if (r == 0)
		sender_is_sure(s);
	free(k.all);
	return r;
}

int sender_send_all(struct sender *s)
{
	struct knowns k = {NULL, 0, 0};
	int r = sender_claim(s, false);

	if (r == 0)
		r = read_theirs(s, &k);
	if (r == 0 && choose_next(s, &k) != 0) {
		r = sender_remember(s, false);
		if (r == 0)
			r = send_what_is_new(s, &k);
		if (r == 0)
			sender_is_sure(s);
	}
	if (r == 0)
		r = sender_mark(s);
	free(k.all);
	return r;
}
