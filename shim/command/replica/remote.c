/* SPDX-License-Identifier: MIT
 *
 * Looking into a replica.
 */
#include "command/replica/remote.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command/base/command.h"
#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/snapshot/chunks.h"

#define MANIFEST_MAX (UINT64_C(1) << 30)
#define CHUNK_MAX (2 * SNAPSHOT_CHUNK_SIZE)

/* ---- words ---- */

const char *remote_trouble(int error)
{
	switch (-error) {
	case ENOENT:
		return "it is not there";
	case ENODATA:
		return "it is cut short";
	case EBADMSG:
		return "it is damaged";
	case ENOKEY:
		return "it cannot be opened with this key";
	case EPROTONOSUPPORT:
		return "it was written by a newer chromashim";
	default:
		return strerror(-error);
	}
}

int remote_fail(struct remote *r, int error, const char *what)
{
	return fail(exit_code_of(error), 0,
		    "Look at the place and at the rights there, and try again.", "%s '%s': %s",
		    what, r->link.target.text, r->link.error[0] ? r->link.error : strerror(-error));
}

/* ---- opening ---- */

/* For what is on the way: at most LINK_BYTES or a manifest. */
static int open_work(void)
{
	const char *where = getenv("TMPDIR");
	char path[PATH_MAX];
	int fd;

	snprintf(path, sizeof(path), "%.4000s/chromashim-replica-XXXXXX",
		 where && *where ? where : "/tmp");
	if (!mkdtemp(path))
		return -errno;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void remove_work(int fd)
{
	char link[40], path[PATH_MAX];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	if (n > 0)
		rmdir(path);
}

static int read_key(struct remote *r, const char *key)
{
	int error;

	if (!key)
		return 0;
	error = replica_keys_read(&r->keys, key);
	r->is_sealed = error == 0 && r->keys.has_secret;
	if (r->is_sealed)
		return 0;
	return fail(error == -ENOENT ? EXIT_NOT_FOUND : EXIT_FAILED, error == -EINVAL ? 0 : error,
		    "Give the file that `chromashim replica keygen -o` wrote.", "'%s' %s", key,
		    error == -EINVAL || !error ? "holds no secret key" : "cannot be read");
}

int remote_open(struct remote *r, const char *target, const char *key, const char *ssh_config)
{
	struct replica_target t;
	int error, work;

	*r = (struct remote){.link = {.workfd = -1, .rootfd = -1}};
	if (replica_target_parse(&t, target) < 0)
		return fail(EXIT_USAGE, 0,
			    "Give /A/DIRECTORY, sftp://[USER@]HOST[:PORT]/PATH or "
			    "rclone:REMOTE:PATH.",
			    "'%s' is no place for a replica", target);
	if (replica_keys_start() < 0)
		return fail(EXIT_FAILED, 0, NULL, "libsodium does not start");
	error = read_key(r, key);
	if (error)
		return error;
	work = open_work();
	if (work < 0)
		return fail(EXIT_FAILED, work, "Set TMPDIR to a directory with room.",
			    "cannot make a directory for what is on the way");
	error = link_open(&r->link, &t, work);
	r->link.ssh_config = ssh_config ? ssh_config : getenv("CHROMASHIM_REPLICA_SSH_CONFIG");
	if (error == 0)
		error = remote_look_at_control(r);
	if (error == 0)
		error = remote_look_at_snapshots(r);
	if (error == 0)
		return 0;
	error = remote_fail(r, error, "cannot look into the replica");
	remote_close(r);
	return error;
}

void remote_close(struct remote *r)
{
	int work = r->link.workfd < 0 ? -1 : dup(r->link.workfd);

	link_close(&r->link);
	if (work >= 0) {
		remove_work(work);
		close(work);
	}
	replica_keys_forget(&r->keys);
	free(r->snapshots);
	free(r->sizes);
	free(r->marks);
	r->marks = NULL;
	r->mark_count = 0;
	r->snapshots = NULL;
	r->sizes = NULL;
	r->count = 0;
}

/* ---- control ---- */

static int take_control(void *context, const struct replica_name *name, uint64_t size)
{
	struct remote *r = context;

	(void)size;
	switch (name->mark) {
	case REPLICA_OWNER:
		/* Of two that began at the same time, one by its line. */
		if (name->epoch > r->owner.epoch ||
		    (name->epoch == r->owner.epoch && name->line < r->owner.line))
			r->owner = *name;
		break;
	case REPLICA_PRUNE:
		if (name->epoch > r->prune) {
			r->prune = name->epoch;
			r->is_pruning = true;
		}
		break;
	default:
		break;
	}
	return 0;
}

static int take_pruned(void *context, const struct replica_name *name, uint64_t size)
{
	struct remote *r = context;

	(void)size;
	if (name->mark == REPLICA_PRUNED && name->epoch == r->prune)
		r->is_pruning = false;
	return 0;
}

struct control_list {
	struct replica_name *all;
	size_t count, room;
};

static int gather_control(void *context, const struct replica_name *name, uint64_t size)
{
	struct control_list *list = context;
	struct replica_name *more;

	(void)size;
	if (list->count == list->room) {
		list->room = list->room ? 2 * list->room : 64;
		more = reallocarray(list->all, list->room, sizeof(*more));
		if (!more)
			return -ENOMEM;
		list->all = more;
	}
	list->all[list->count++] = *name;
	return 0;
}

/* In the place of the list. */
static void keep_marks(struct remote *r, struct control_list *list)
{
	size_t i;

	free(r->marks);
	r->marks = list->all;
	r->mark_count = 0;
	for (i = 0; i < list->count; i++)
		if (list->all[i].mark >= REPLICA_VERIFIED)
			r->marks[r->mark_count++] = list->all[i];
}

int remote_look_at_control(struct remote *r)
{
	struct control_list list = {NULL, 0, 0};
	int error = link_list(&r->link, REPLICA_CONTROL, gather_control, &list);
	size_t i;

	r->owner = (struct replica_name){.folder = REPLICA_CONTROL, .mark = REPLICA_OWNER};
	r->prune = 0;
	r->is_pruning = false;
	for (i = 0; error == 0 && i < list.count; i++)
		take_control(r, &list.all[i], 0);
	for (i = 0; error == 0 && i < list.count; i++)
		take_pruned(r, &list.all[i], 0);
	keep_marks(r, &list);
	return error;
}

const struct replica_name *remote_hold(const struct remote *r, const struct replica_name *snapshot)
{
	const struct replica_name *found = NULL;
	size_t i;

	for (i = 0; i < r->mark_count; i++)
		if (r->marks[i].mark >= REPLICA_HELD &&
		    replica_name_compare(&r->marks[i], snapshot) == 0 &&
		    (!found || r->marks[i].number > found->number))
			found = &r->marks[i];
	return found;
}

bool remote_is_marked_verified(const struct remote *r, const struct replica_name *snapshot)
{
	size_t i;

	for (i = 0; i < r->mark_count; i++)
		if (r->marks[i].mark == REPLICA_VERIFIED &&
		    replica_name_compare(&r->marks[i], snapshot) == 0)
			return true;
	return false;
}

int remote_put_control(struct remote *r, const struct replica_name *name,
		       const unsigned char *store_id)
{
	struct replica_control c = {.time = clock_read(CLOCK_REALTIME)};
	char text[REPLICA_NAME_SIZE];
	int fd, error = link_clear(&r->link);

	if (store_id)
		memcpy(c.store_id, store_id, sizeof(c.store_id));
	if (gethostname(c.host, sizeof(c.host) - 1) < 0)
		c.host[0] = '\0';
	replica_name_format(text, name);
	replica_control_finish(&c, text);
	fd = error == 0 ? link_stage(&r->link, name) : error;
	error = fd < 0 ? fd : file_write_all(fd, &c, sizeof(c));
	if (fd >= 0)
		close(fd);
	if (error < 0)
		return link_fail(&r->link, error, "cannot write what is to be sent: %s",
				 strerror(-error));
	return link_send(&r->link, name, 1);
}

int remote_read_owner(struct remote *r)
{
	char name[REPLICA_NAME_SIZE], *data;
	int error = link_fetch(&r->link, &r->owner, 1), fd;
	size_t size;

	r->owned = (struct replica_control){0};
	fd = error == 0 ? link_fetched(&r->link, &r->owner) : error;
	if (fd < 0)
		return fd;
	error = file_read_all(fd, 4096, &data, &size);
	close(fd);
	if (error < 0)
		return error == -EFBIG ? -EBADMSG : error;
	replica_name_format(name, &r->owner);
	error = replica_control_parse(&r->owned, name, data, size);
	free(data);
	return error;
}

/* ---- snapshots ---- */

static int take_snapshot(void *context, const struct replica_name *name, uint64_t size)
{
	struct remote *r = context;
	struct replica_name *more;
	uint64_t *sizes;

	if (r->count == r->room) {
		r->room = r->room ? 2 * r->room : 64;
		more = reallocarray(r->snapshots, r->room, sizeof(*more));
		r->snapshots = more ? more : r->snapshots;
		sizes = reallocarray(r->sizes, r->room, sizeof(*sizes));
		r->sizes = sizes ? sizes : r->sizes;
		if (!more || !sizes)
			return -ENOMEM;
	}
	r->snapshots[r->count] = *name;
	r->sizes[r->count++] = size;
	return 0;
}

int remote_look_at_snapshots(struct remote *r)
{
	int error;

	r->count = 0;
	error = link_list(&r->link, REPLICA_SNAPSHOTS, take_snapshot, r);
	if (error == 0 && r->count > 1)
		qsort(r->snapshots, r->count, sizeof(*r->snapshots), replica_name_compare);
	return error;
}

char *remote_snapshot_text(const struct remote *r, const struct replica_name *name, char out[32])
{
	const struct replica_name *newest = &r->snapshots[r->count - 1];

	if (name->epoch == newest->epoch && name->line == newest->line)
		snprintf(out, 32, "%" PRIu64, name->id);
	else
		snprintf(out, 32, "%" PRIu32 "-%" PRIu64, name->epoch, name->id);
	return out;
}

static long find_time(const struct remote *r, uint64_t time)
{
	long found = -1, i;

	for (i = 0; i < (long)r->count; i++)
		if (r->snapshots[i].time <= time &&
		    (found < 0 || r->snapshots[i].time >= r->snapshots[found].time))
			found = i;
	return found;
}

long remote_find(const struct remote *r, const char *spec)
{
	char text[32], whole[48];
	uint64_t time;
	long i, found = -1;

	if (r->count && !strcmp(spec, "latest"))
		return (long)r->count - 1;
	for (i = 0; i < (long)r->count && found < 0; i++) {
		snprintf(whole, sizeof(whole), "%" PRIu32 "-%" PRIu64, r->snapshots[i].epoch,
			 r->snapshots[i].id);
		if (!strcmp(spec, remote_snapshot_text(r, &r->snapshots[i], text)) ||
		    !strcmp(spec, whole))
			found = i;
	}
	if (found < 0 && strspn(spec, "0123456789") != strlen(spec) && parse_time(spec, &time))
		found = find_time(r, time);
	if (found < 0)
		fail(EXIT_NOT_FOUND, 0,
		     "`chromashim replica list --from REPLICA` shows what is there.",
		     r->count ? "the replica '%s' has no snapshot '%s'"
			      : "the replica '%s' has no snapshots (wanted: '%s')",
		     r->link.target.text, spec);
	return found;
}

/* ---- objects ---- */

static int unseal_fetched(struct remote *r, const struct replica_name *name, size_t limit,
			  uint32_t type, unsigned char **data, size_t *size)
{
	struct replica_body body;
	struct file_source source;
	char text[REPLICA_NAME_SIZE];
	int fd = link_fetched(&r->link, name), error;

	*data = NULL;
	if (fd < 0)
		return fd;
	replica_name_format(text, name);
	error = file_source_open(&source, fd);
	if (error == 0)
		error = replica_unseal_all(r->is_sealed ? &r->keys : NULL, text, &source, limit,
					   data, size);
	close(fd);
	if (error == 0 && *size < sizeof(body))
		error = -EBADMSG;
	if (error == 0) {
		memcpy(&body, *data, sizeof(body));
		error = body.type == type ? 0 : -EISNAM;
	}
	if (error < 0) {
		free(*data);
		*data = NULL;
	}
	return error == -EFBIG ? -EBADMSG : error;
}

int remote_manifest_named(struct remote *r, const struct replica_name *at,
			  struct replica_name *name_out, struct manifest *out,
			  unsigned char names_out[REPLICA_KEY_SIZE])
{
	const size_t start = sizeof(struct replica_body) + sizeof(struct replica_manifest);
	struct replica_manifest head;
	unsigned char *data;
	size_t size;
	int error = unseal_fetched(r, at, MANIFEST_MAX, REPLICA_MANIFEST, &data, &size);

	*out = (struct manifest){0};
	if (error < 0)
		return error;
	error = size < start ? -EBADMSG : 0;
	if (error == 0) {
		memcpy(&head, data + sizeof(struct replica_body), sizeof(head));
		head.name[sizeof(head.name) - 1] = '\0';
		memcpy(names_out, head.names, REPLICA_KEY_SIZE);
		if (!replica_name_parse(name_out, head.name) ||
		    name_out->folder != REPLICA_SNAPSHOTS)
			error = -EBADMSG;
	}
	if (error == 0)
		error = manifest_parse(out, data + start, size - start);
	if (error == 0 && (out->header.id != name_out->id || out->header.time != name_out->time))
		error = -EBADMSG;
	free(data);
	return error;
}

int remote_manifest_fetched(struct remote *r, const struct replica_name *at,
			    const struct replica_name *name, struct manifest *out,
			    unsigned char names_out[REPLICA_KEY_SIZE])
{
	struct replica_name found;
	int error = remote_manifest_named(r, at, &found, out, names_out);

	return error == 0 && name && replica_name_compare(&found, name) != 0 ? -EBADMSG : error;
}

static int64_t seal_manifest(struct remote *r, const struct replica_name *as,
			     const struct iovec *body, int count)
{
	char text[REPLICA_NAME_SIZE];
	uint64_t size = 0;
	int fd = link_stage(&r->link, as), error = fd;

	replica_name_format(text, as);
	if (fd >= 0) {
		error = replica_seal(r->is_sealed ? &r->keys : NULL, text, body, count, fd, &size);
		close(fd);
	}
	return error < 0 ? link_fail(&r->link, error, "cannot write what is to be sent: %s",
				     strerror(-error))
			 : (int64_t)size;
}

int64_t remote_stage_manifest(struct remote *r, const struct replica_name *as,
			      const struct replica_name *name, struct manifest *m,
			      const unsigned char names[REPLICA_KEY_SIZE])
{
	struct replica_body head = {.type = REPLICA_MANIFEST};
	struct replica_manifest bound = {.name = {0}};
	struct iovec body[3] = {{&head, sizeof(head)}, {&bound, sizeof(bound)}};
	int64_t size;
	char *data;
	int error = manifest_format(m, &data, &body[2].iov_len);

	if (error < 0)
		return link_fail(&r->link, error, "%s", strerror(-error));
	memcpy(bound.names, names, sizeof(bound.names));
	replica_name_format(bound.name, name);
	body[2].iov_base = data;
	size = seal_manifest(r, as, body, 3);
	free(data);
	return size;
}

int remote_manifest(struct remote *r, const struct replica_name *name, struct manifest *out,
		    unsigned char names_out[REPLICA_KEY_SIZE])
{
	int error = link_fetch(&r->link, name, 1);

	*out = (struct manifest){0};
	if (error == 0)
		error = remote_manifest_fetched(r, name, name, out, names_out);
	return error == -EISNAM ? -EBADMSG : error;
}

int remote_chunk_fetched(struct remote *r, const struct replica_name *name, unsigned char **data,
			 size_t *size)
{
	int error = unseal_fetched(r, name, CHUNK_MAX + 4096, REPLICA_CHUNK, data, size);

	if (error < 0)
		return error;
	*size -= sizeof(struct replica_body);
	memmove(*data, *data + sizeof(struct replica_body), *size);
	return 0;
}
