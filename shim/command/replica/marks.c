/* SPDX-License-Identifier: MIT
 *
 * What becomes of a snapshot after its manifest was sent, which is not written over: that it is
 * held, or not any more, and that it was found good. Who prunes goes by it.
 */
#include <errno.h>
#include <unistd.h>

#include "command/replica/sender.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"

#define VERIFIED_EVERY (3600 * SECOND) /* or there would be as many of them as snapshots */

struct marking {
	struct sender *s;
	int dirfd;		      /* the snapshots here */
	struct replica_name verified; /* the newest that is, here; time 0: none */
	uint64_t told_verified;	      /* the time of the newest that is told to be */
};

/* Only where it differs from what was told last. */
static int mark_hold(struct marking *k, const struct replica_name *name, bool is_held)
{
	struct remote *m = &k->s->remote;
	const struct replica_name *last = remote_hold(m, name);
	struct replica_name mark = *name;

	if (is_held == (last && last->mark == REPLICA_HELD))
		return 0;
	mark.folder = REPLICA_CONTROL;
	mark.mark = is_held ? REPLICA_HELD : REPLICA_RELEASED;
	mark.number = last ? last->number + 1 : 1;
	return remote_put_control(m, &mark, NULL);
}

static int look_at(struct marking *k, const struct replica_name *name)
{
	struct manifest m;
	int r = manifest_read(k->dirfd, name->id, &m);

	/* What is not here any more, or damaged, stays as it is there. */
	if (r < 0 || m.header.time != name->time) {
		manifest_free(&m);
		return 0;
	}
	/* Else its manifest says so, or a mark does. */
	if (m.header.state == SNAPSHOT_VERIFIED && m.header.verified > k->s->done_before &&
	    name->time > k->verified.time)
		k->verified = *name;
	r = mark_hold(k, name, m.tag_count > 0);
	manifest_free(&m);
	return r;
}

static int mark_verified(struct marking *k)
{
	struct replica_name mark = k->verified;

	if (!mark.time || (k->told_verified && mark.time < k->told_verified + VERIFIED_EVERY))
		return 0;
	mark.folder = REPLICA_CONTROL;
	mark.mark = REPLICA_VERIFIED;
	return remote_put_control(&k->s->remote, &mark, NULL);
}

int sender_mark(struct sender *s)
{
	struct marking k = {.s = s,
			    .dirfd = file_open_directory_at(s->data->storefd, SNAPSHOTS_DIR)};
	const struct remote *m = &s->remote;
	size_t i;
	int r = 0;

	if (k.dirfd < 0)
		return 0;
	for (i = 0; i < m->mark_count; i++)
		if (m->marks[i].mark == REPLICA_VERIFIED && m->marks[i].time > k.told_verified)
			k.told_verified = m->marks[i].time;
	for (i = 0; i < m->count && r == 0; i++)
		if (sender_has_sent(s, &m->snapshots[i]))
			r = look_at(&k, &m->snapshots[i]);
	if (r == 0)
		r = mark_verified(&k);
	close(k.dirfd);
	return r;
}
