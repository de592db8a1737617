/* SPDX-License-Identifier: MIT
 *
 * Sending to one replica: opening it, whose it is, and what it has.
 */
#include "command/replica/sender.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/base/tree.h"

#define LOCK_FILE "lock"
#define SENDING "sending" /* while it is there, what is remembered may be wrong */
#define WORK "work"

/* ---- opening ---- */

static int open_place(struct sender *s, const char *target)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char place[REPLICA_PLACE_SIZE];
	int parent = tree_make_directory(s->data->storefd, REPLICA_DIR);

	if (parent < 0)
		return parent;
	replica_place(place, target);
	s->placefd = tree_make_directory(parent, place);
	close(parent);
	if (s->placefd < 0)
		return s->placefd;
	s->lockfd = openat(s->placefd, LOCK_FILE, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (s->lockfd < 0)
		return -errno;
	if (fcntl(s->lockfd, F_OFD_SETLK, &lock) < 0)
		return errno == EACCES || errno == EAGAIN ? -EBUSY : -errno;
	return 0;
}

static int read_keys(struct sender *s)
{
	struct replica_link *l = &s->remote.link;
	int r;

	if (!strcmp(config_get(&s->settings->config, CONFIG_REPLICA_SEAL), "plain"))
		return 0;
	r = replica_keys_read_store(&s->remote.keys, s->data->storefd);
	s->remote.is_sealed = r == 0;
	if (r == -ENOENT)
		return link_fail(l, -ENOKEY,
				 "there is no key to seal it with: `chromashim replica keygen -o "
				 "FILE` makes one (or set CHROMASHIM_REPLICA_SEAL=plain, for a "
				 "replica that anybody can read)");
	return r < 0 ? link_fail(l, r, "%s/" REPLICA_DIR "/" REPLICA_KEY_FILE " %s", s->data->store,
				 r == -EINVAL
				     ? "holds no keys: `chromashim replica keygen` makes new ones"
				     : strerror(-r))
		     : 0;
}

int sender_open(struct sender *s, const struct data_directory *t,
		const struct guard_settings *settings, const struct replica_target *target)
{
	const char *ssh = config_get(&settings->config, CONFIG_REPLICA_SSH_CONFIG);
	int r, work;

	*s = (struct sender){.data = t, .settings = settings, .placefd = -1, .lockfd = -1};
	s->remote.link = (struct replica_link){.workfd = -1, .rootfd = -1};
	s->sent.fd = -1;
	r = replica_keys_start();
	if (r == 0)
		r = open_place(s, target->text);
	if (r < 0)
		return link_fail(&s->remote.link, r, "%s",
				 r == -EBUSY ? "another process sends to it" : strerror(-r));
	replica_state_read(t->storefd, target->text, &s->state);
	s->done_before = s->state.done;
	work = tree_make_directory(s->placefd, WORK);
	s->data_room = malloc(SNAPSHOT_CHUNK_SIZE);
	if (work < 0 || !s->data_room)
		return link_fail(&s->remote.link, work < 0 ? work : -ENOMEM, "%s",
				 strerror(work < 0 ? -work : ENOMEM));
	r = link_open(&s->remote.link, target, work);
	s->remote.link.ssh_config = *ssh ? ssh : NULL;
	config_read_size(config_get(&settings->config, CONFIG_REPLICA_RATE), &s->remote.link.rate);
	return r == 0 ? read_keys(s) : r;
}

void sender_close(struct sender *s)
{
	replica_sent_close(&s->sent);
	if (s->is_store_open)
		snapshot_store_close(&s->store);
	link_close(&s->remote.link);
	replica_keys_forget(&s->remote.keys);
	free(s->remote.snapshots);
	free(s->remote.sizes);
	free(s->remote.marks);
	free(s->sizes);
	free(s->data_room);
	if (s->placefd >= 0)
		close(s->placefd);
	if (s->lockfd >= 0)
		close(s->lockfd);
	s->placefd = s->lockfd = -1;
}

/* ---- whose it is ---- */

static uint64_t line_of(const struct replica_name *owner)
{
	return (uint64_t)owner->epoch << 32 | owner->line;
}

bool sender_has_sent(const struct sender *s, const struct replica_name *snapshot)
{
	return line_of(snapshot) == s->state.line;
}

static int fail_owned(struct sender *s)
{
	struct remote *m = &s->remote;
	char time[40];
	int r = remote_read_owner(m);

	if (r < 0 && r != -EBADMSG && r != -ENODATA && r != -EPROTONOSUPPORT)
		return r;
	format_time_utc(time, sizeof(time), m->owned.time);
	return link_fail(&m->link, -EPERM,
			 "another store sends to it: that of '%s', since %.19sZ. If that one is "
			 "gone, `chromashim replica takeover` makes it this one's",
			 r == 0 ? m->owned.host : "?", time);
}

/* The state was lost, and the store is the same. */
static bool is_known_owner(struct sender *s)
{
	return s->state.line == 0 && remote_read_owner(&s->remote) == 0 &&
	       memcmp(s->remote.owned.store_id, s->data->store_id, STORE_ID_SIZE) == 0;
}

static int begin_line(struct sender *s)
{
	struct remote *m = &s->remote;
	struct replica_name name = {.folder = REPLICA_CONTROL,
				    .mark = REPLICA_OWNER,
				    .epoch = m->owner.epoch + 1,
				    .line = randombytes_random()};
	int r = remote_put_control(&s->remote, &name, s->data->store_id);

	if (r == 0)
		r = remote_look_at_control(m);
	if (r == 0 && line_of(&m->owner) != line_of(&name))
		return fail_owned(s);
	if (r < 0)
		return r;
	s->state.line = line_of(&name);
	s->state.snapshot = s->state.snapshot_time = s->state.intent = s->state.snapshots = 0;
	return replica_state_write(s->data->storefd, &s->state);
}

int sender_claim(struct sender *s, bool take_over)
{
	struct remote *m = &s->remote;
	int r = remote_look_at_control(m);

	if (r < 0)
		return r;
	if (take_over || (m->owner.epoch == 0 && s->state.line == 0))
		return begin_line(s);
	if (m->owner.epoch == 0)
		return link_fail(&m->link, -ENOENT,
				 "it is empty, although something was sent to it before: is it not "
				 "mounted? `chromashim replica rebuild` sends all of it again");
	if (line_of(&m->owner) != s->state.line) {
		if (!is_known_owner(s))
			return fail_owned(s);
		s->state.line = line_of(&m->owner);
		s->is_adopted = true;
	}
	return m->is_pruning
		   ? link_fail(&m->link, -EAGAIN, "a prune is under way there; it is tried again")
		   : 0;
}

int sender_still_may(struct sender *s)
{
	struct remote *m = &s->remote;
	uint32_t prune = m->prune;
	int r = remote_look_at_control(m);

	if (r < 0)
		return r;
	if (line_of(&m->owner) != s->state.line)
		return fail_owned(s);
	if (m->is_pruning || m->prune != prune)
		return link_fail(&m->link, -EAGAIN,
				 "a prune is under way there; it is tried again");
	return 0;
}

/* ---- what it has ---- */

struct noting {
	struct sender *s;
	struct replica_chunk_name names[512];
	size_t count;
};

static int flush_noted(struct noting *n)
{
	int r = n->count ? replica_sent_add(&n->s->sent, n->names, n->count) : 0;

	n->count = 0;
	return r;
}

static int note_size(struct sender *s, const struct replica_chunk_name *name, uint64_t size)
{
	struct sender_size *more;

	if (s->size_count == s->size_room) {
		s->size_room = s->size_room ? 2 * s->size_room : 1024;
		more = reallocarray(s->sizes, s->size_room, sizeof(*more));
		if (!more)
			return -ENOMEM;
		s->sizes = more;
	}
	s->sizes[s->size_count++] = (struct sender_size){get_le64(name->bytes), size};
	return 0;
}

static int compare_sizes(const void *a, const void *b)
{
	const struct sender_size *x = a, *y = b;

	return x->name < y->name ? -1 : x->name > y->name;
}

bool sender_has_cut(struct sender *s, const struct replica_chunk_name *name, uint64_t size)
{
	struct sender_size key = {get_le64(name->bytes), 0}, *found;

	found = s->size_count ? bsearch(&key, s->sizes, s->size_count, sizeof(key), compare_sizes)
			      : NULL;
	if (!found || found->size == size)
		return false;
	found->size = size; /* from now on, or all of it fails */
	return true;
}

/* An empty one is what a cut has left somewhere. */
static int note_chunk(void *context, const struct replica_name *name, uint64_t size)
{
	struct noting *n = context;

	if (size)
		n->names[n->count++] = name->chunk;
	if (n->s->remote.link.target.kind == REPLICA_RCLONE &&
	    note_size(n->s, &name->chunk, size) < 0)
		return -ENOMEM;
	return n->count == sizeof(n->names) / sizeof(n->names[0]) ? flush_noted(n) : 0;
}

static int list_what_is_there(struct sender *s)
{
	struct noting n = {.s = s, .count = 0};
	int r;

	s->size_count = 0;
	r = link_list(&s->remote.link, REPLICA_CHUNKS, note_chunk, &n);
	if (s->size_count)
		qsort(s->sizes, s->size_count, sizeof(*s->sizes), compare_sizes);
	return r == 0 ? flush_noted(&n) : r;
}

static int make_marker(struct sender *s)
{
	int fd = openat(s->placefd, SENDING, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	close(fd);
	return tree_sync(s->placefd);
}

void sender_is_sure(struct sender *s)
{
	unlinkat(s->placefd, SENDING, 0);
}

int sender_remember(struct sender *s, bool anew)
{
	int r;

	anew = anew || faccessat(s->placefd, SENDING, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
	       s->state.pruned != s->remote.prune;
	r = make_marker(s);
	if (r == 0)
		r = replica_sent_open(&s->sent, s->placefd, anew);
	if (r == 1) {
		r = list_what_is_there(s);
	} else if (r < 0) {
		link_fail(&s->remote.link, r, "cannot write in the store: %s", strerror(-r));
	}
	if (r < 0)
		return r;
	s->state.pruned = s->remote.prune;
	return replica_state_write(s->data->storefd, &s->state);
}
