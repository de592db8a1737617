/* SPDX-License-Identifier: MIT
 *
 * What the last drill found, read and written.
 */
#include "core/store/drill.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "core/base/checksum.h"
#include "core/base/fileio.h"

static uint64_t check_of(const struct drill_note *n)
{
	return checksum64(&n->version, sizeof(*n) - offsetof(struct drill_note, version),
			  DRILL_MAGIC);
}

int drill_note_parse(struct drill_note *out, const void *data, size_t size)
{
	int r = -EBADMSG;

	memset(out, 0, sizeof(*out));
	if (size == sizeof(*out)) {
		memcpy(out, data, size);
		if (out->magic == DRILL_MAGIC && out->check == check_of(out))
			r = out->version > DRILL_VERSION ? -EPROTONOSUPPORT : 0;
	}
	if (r < 0)
		memset(out, 0, sizeof(*out));
	out->chroma[sizeof(out->chroma) - 1] = '\0';
	out->trouble[sizeof(out->trouble) - 1] = '\0';
	return r;
}

int drill_note_read(int storefd, const char *name, struct drill_note *out)
{
	int fd = file_open_at(storefd, name);
	char data[sizeof(*out) + 1];
	ssize_t n;

	memset(out, 0, sizeof(*out));
	if (fd < 0)
		return fd;
	n = file_read_at(fd, data, sizeof(data), 0);
	close(fd);
	return n < 0 ? (int)n : drill_note_parse(out, data, (size_t)n);
}

int drill_note_write(int storefd, const char *name, struct drill_note *note)
{
	struct file_publish p;
	int r;

	note->magic = DRILL_MAGIC;
	note->version = DRILL_VERSION;
	note->check = check_of(note);
	r = file_publish_begin(&p, storefd, name, 0644);
	if (r < 0)
		return r;
	r = file_write_all(p.fd, note, sizeof(*note));
	if (r == 0)
		r = file_publish_commit(&p);
	if (r < 0)
		file_publish_abort(&p);
	return r;
}
