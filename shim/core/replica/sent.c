/* SPDX-License-Identifier: MIT
 *
 * A set of names, and the file that it is kept in.
 */
#include "core/replica/sent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/base/text.h"

#define SENT_FILE "sent"
#define SENT_MAGIC "CHSRSNT1"
#define NAME sizeof(struct replica_chunk_name)
#define BLOCK 1024u /* names read at once */
#define ROOM 1024u

static struct replica_chunk_name *sent_slot(const struct replica_sent *s,
					    const struct replica_chunk_name *name)
{
	uint64_t at = get_le64(name->bytes);

	for (;; at++) {
		struct replica_chunk_name *slot = &s->slots[at & (s->room - 1)];

		if (bytes_are_zero(slot, NAME) || memcmp(slot, name, NAME) == 0)
			return slot;
	}
}

bool replica_sent_has(const struct replica_sent *s, const struct replica_chunk_name *name)
{
	return s->count && !bytes_are_zero(sent_slot(s, name), NAME);
}

static int grow_sent(struct replica_sent *s)
{
	struct replica_sent bigger = {.room = s->room ? 2 * s->room : ROOM, .fd = s->fd};
	size_t i;

	bigger.slots = calloc(bigger.room, NAME);
	if (!bigger.slots)
		return -ENOMEM;
	for (i = 0; i < s->room; i++)
		if (!bytes_are_zero(&s->slots[i], NAME))
			*sent_slot(&bigger, &s->slots[i]) = s->slots[i];
	bigger.count = s->count;
	free(s->slots);
	*s = bigger;
	return 0;
}

int replica_sent_note(struct replica_sent *s, const struct replica_chunk_name *name)
{
	struct replica_chunk_name *slot;

	if (bytes_are_zero(name, NAME))
		return 0;
	if (2 * (s->count + 1) > s->room && grow_sent(s) < 0)
		return -ENOMEM;
	slot = sent_slot(s, name);
	s->count += bytes_are_zero(slot, NAME);
	*slot = *name;
	return 0;
}

/* What a death has left of the last name is cut off. */
static int read_names(struct replica_sent *s)
{
	struct replica_chunk_name *block = malloc(BLOCK * NAME);
	uint64_t at = strlen(SENT_MAGIC);
	ssize_t n;
	size_t i;
	int r = block ? 0 : -ENOMEM;

	while (r == 0 && (n = file_read_at(s->fd, block, BLOCK * NAME, at)) != 0) {
		if (n < 0)
			r = (int)n;
		for (i = 0; r == 0 && i < (size_t)n / NAME; i++)
			r = replica_sent_note(s, &block[i]);
		at += r == 0 ? (uint64_t)n / NAME * NAME : 0;
		if (r == 0 && (size_t)n % NAME)
			break;
	}
	free(block);
	if (r == 0 && ftruncate(s->fd, (off_t)at) < 0)
		r = -errno;
	return r;
}

static int begin_anew(struct replica_sent *s)
{
	if (ftruncate(s->fd, 0) < 0)
		return -errno;
	if (pwrite(s->fd, SENT_MAGIC, strlen(SENT_MAGIC), 0) != (ssize_t)strlen(SENT_MAGIC))
		return -EIO;
	return 1;
}

int replica_sent_open(struct replica_sent *s, int dirfd, bool anew)
{
	char magic[8];
	int r;

	*s = (struct replica_sent){.fd = -1};
	s->fd =
	    openat(dirfd, SENT_FILE, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (s->fd < 0)
		return -errno;
	if (anew || file_read_at(s->fd, magic, sizeof(magic), 0) != (ssize_t)sizeof(magic) ||
	    memcmp(magic, SENT_MAGIC, sizeof(magic)) != 0)
		r = begin_anew(s);
	else
		r = read_names(s);
	if (r < 0)
		replica_sent_close(s);
	return r;
}

void replica_sent_close(struct replica_sent *s)
{
	free(s->slots);
	if (s->fd >= 0)
		close(s->fd);
	*s = (struct replica_sent){.fd = -1};
}

int replica_sent_add(struct replica_sent *s, const struct replica_chunk_name *names, size_t count)
{
	size_t i;
	int r = 0;

	for (i = 0; i < count && r == 0; i++)
		r = replica_sent_note(s, &names[i]);
	if (r == 0 && s->fd >= 0 && lseek(s->fd, 0, SEEK_END) < 0)
		r = -errno;
	if (r == 0 && s->fd >= 0)
		r = file_write_all(s->fd, names, count * NAME);
	if (r == 0 && s->fd >= 0 && fdatasync(s->fd) < 0)
		r = -errno;
	return r;
}
