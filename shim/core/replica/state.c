/* SPDX-License-Identifier: MIT
 *
 * The state of a replica as a file.
 */
#include "core/replica/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/checksum.h"
#include "core/base/fileio.h"
#include "core/base/number.h"
#include "core/base/tree.h"

#define STATE_FILE "state"
#define STATE_MAGIC UINT64_C(0x5441545352534843) /* "CHSRSTAT" in memory */
#define STATE_VERSION 1u

struct state_file {
	uint64_t magic;
	uint32_t version, size;
	struct replica_state state;
	uint64_t check; /* XXH3-64 of all before it */
};

_Static_assert(sizeof(struct replica_state) == 96 + REPLICA_TARGET_SIZE + REPLICA_ERROR_SIZE,
	       "layout is fixed");

void replica_place(char out[REPLICA_PLACE_SIZE], const char *target)
{
	char *end = out + REPLICA_PLACE_SIZE - 1;

	*number_put(out, end, checksum64(target, strlen(target), 0), 16, 16) = '\0';
}

static uint64_t check_of(const struct state_file *f)
{
	return checksum64(f, offsetof(struct state_file, check), STATE_MAGIC);
}

int replica_state_parse(struct replica_state *out, const void *data, size_t size)
{
	struct state_file f;

	*out = (struct replica_state){0};
	if (size < sizeof(f))
		return -EBADMSG;
	memcpy(&f, data, sizeof(f));
	if (f.magic != STATE_MAGIC)
		return -EBADMSG;
	if (f.version > STATE_VERSION)
		return -EPROTONOSUPPORT;
	if (size != sizeof(f) || f.size != sizeof(f) || f.check != check_of(&f) ||
	    !memchr(f.state.target, '\0', sizeof(f.state.target)) ||
	    !memchr(f.state.error, '\0', sizeof(f.state.error)))
		return -EBADMSG;
	*out = f.state;
	return 0;
}

static int open_place(int storefd, const char *target, int make)
{
	char place[REPLICA_PLACE_SIZE];
	int parent = make ? tree_make_directory(storefd, REPLICA_DIR)
			  : file_open_directory_at(storefd, REPLICA_DIR);
	int fd;

	if (parent < 0)
		return parent;
	replica_place(place, target);
	fd = make ? tree_make_directory(parent, place) : file_open_directory_at(parent, place);
	close(parent);
	return fd;
}

static void name_target(struct replica_state *state, const char *target)
{
	size_t n = strnlen(target, sizeof(state->target) - 1);

	*state = (struct replica_state){0};
	memcpy(state->target, target, n);
}

int replica_state_read(int storefd, const char *target, struct replica_state *out)
{
	int dirfd = open_place(storefd, target, 0), fd, r;
	size_t size;
	char *data;

	name_target(out, target);
	if (dirfd < 0)
		return dirfd;
	fd = file_open_at(dirfd, STATE_FILE);
	close(dirfd);
	if (fd < 0)
		return fd;
	r = file_read_all(fd, 2 * sizeof(struct state_file), &data, &size);
	close(fd);
	if (r == -EFBIG)
		return -EBADMSG;
	if (r < 0)
		return r;
	r = replica_state_parse(out, data, size);
	free(data);
	if (r == 0 && strcmp(out->target, target) != 0)
		r = -EBADMSG;
	if (r < 0)
		name_target(out, target);
	return r;
}

int replica_state_write(int storefd, const struct replica_state *state)
{
	struct state_file f;
	struct file_publish file;
	int dirfd = open_place(storefd, state->target, 1), r;

	if (dirfd < 0)
		return dirfd;
	memset(&f, 0, sizeof(f));
	f.magic = STATE_MAGIC;
	f.version = STATE_VERSION;
	f.size = sizeof(f);
	f.state = *state;
	f.check = check_of(&f);
	r = file_publish_begin(&file, dirfd, STATE_FILE, 0600);
	if (r == 0) {
		r = file_write_all(file.fd, &f, sizeof(f));
		if (r == 0)
			r = file_publish_commit(&file);
		else
			file_publish_abort(&file);
	}
	close(dirfd);
	return r;
}
