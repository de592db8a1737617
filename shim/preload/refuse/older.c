/* SPDX-License-Identifier: MIT
 *
 * An older Chroma on a database that a newer one wrote: `run` only sees what it starts itself, and
 * this process may be a child of it.
 *
 * Runs once for a directory, in the thread that opens the database: raw system calls, and bounds on
 * what is read. Which Chroma this is, is told by where its native library lies: beside it pip has
 * made a directory with the release in its name.
 */
#include "preload/refuse/older.h"

#include <fcntl.h>
#include <string.h>

#include "core/chroma/written_by.h"
#include "preload/base/shim.h"
#include "preload/place/record.h"

#define PLACE 512 /* of a line of maps; the stack may be small */
#define MAPS_MAX (8u << 20)
#define ENTRIES_MAX (1u << 20)		 /* bytes of names in site-packages */
#define PANIC_ENDS UINT64_C(0x100020002) /* 1.2.2 */
#define RUST UINT64_C(0x100000000)	 /* 1.0.0 */

struct entry {
	uint64_t ino;
	int64_t off;
	unsigned short length;
	unsigned char type;
	char name[];
};

/* What only a process with Chroma has; for a path that is whole, the directory that both are in. */
static bool cut_to_packages(char *line)
{
	static const char *const libraries[] = {"/chromadb_rust_bindings/", "/hnswlib.",
						"/chroma_hnswlib."};
	char *path = strchr(line, '/'), *at = NULL;
	unsigned i;

	for (i = 0; path && !at && i < sizeof(libraries) / sizeof(libraries[0]); i++)
		at = strstr(path, libraries[i]);
	if (!at)
		return false;
	*at = '\0';
	memmove(line, path, (size_t)(at - path) + 1);
	return true;
}

/* The directory that holds the packages of this process's Chroma, in line. */
static bool find_packages(char line[PLACE])
{
	int fd = sys_openat(AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
	char block[512];
	size_t n = 0, total = 0;
	bool found = false;
	ssize_t got, i;

	while (fd >= 0 && !found && total < MAPS_MAX &&
	       (got = sys_read(fd, block, sizeof(block))) > 0) {
		total += (size_t)got;
		for (i = 0; i < got && !found; i++) {
			if (block[i] != '\n') {
				line[n] = block[i];
				n += n < PLACE - 1;
				continue;
			}
			line[n] = '\0';
			n = 0;
			found = cut_to_packages(line);
		}
	}
	if (fd >= 0)
		sys_close(fd);
	return found;
}

/* chromadb-1.0.8.dist-info */
static uint64_t release_of(const char *name, char out[WRITTEN_BY_RELEASE])
{
	static const char start[] = "chromadb-";
	const char *end = strstr(name, ".dist-info");
	size_t n;

	if (!end || strncmp(name, start, sizeof(start) - 1) != 0)
		return 0;
	name += sizeof(start) - 1;
	n = (size_t)(end - name);
	if (n == 0 || n >= WRITTEN_BY_RELEASE)
		return 0;
	memcpy(out, name, n);
	out[n] = '\0';
	return written_by_release(out);
}

static uint64_t find_release(const char *packages, char out[WRITTEN_BY_RELEASE])
{
	int fd = sys_openat(AT_FDCWD, packages, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	union {
		char bytes[512];
		uint64_t aligned;
	} buffer;
	uint64_t release = 0;
	ssize_t n, at, total = 0;

	while (fd >= 0 && !release && total < (ssize_t)ENTRIES_MAX &&
	       (n = sys_getdents(fd, buffer.bytes, sizeof(buffer.bytes))) > 0) {
		total += n;
		for (at = 0; at < n && !release;) {
			const struct entry *e = (const void *)(buffer.bytes + at);

			release = release_of(e->name, out);
			at += e->length;
		}
	}
	if (fd >= 0)
		sys_close(fd);
	return release;
}

/* The same in the log, where others look for it. */
static void note(unsigned protection, const struct written_by *by, const char *release,
		 bool will_panic)
{
	const char *parts[] = {"the database " OLDER_CHROMA " (",
			       by->first,
			       " to ",
			       by->last,
			       "); this one is ",
			       release,
			       will_panic ? " and will panic" : " and will fail on it"};
	struct oplog_record r = {.op = OP_NOTE, .offset = -1};
	char text[160];
	size_t n = 0, i, size;

	for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		size = strlen(parts[i]);
		if (size > sizeof(text) - n)
			break;
		memcpy(text + n, parts[i], size);
		n += size;
	}
	record_put(protection, &r, text, n);
}

void older_report(const struct protection *a, int database)
{
	char path[PLACE], release[WRITTEN_BY_RELEASE];
	struct written_by by;
	uint64_t own;

	if (a->store_fd < 0 || !written_by_read(a->store_fd, &by) ||
	    written_by_schema(database) != by.schema || !find_packages(path))
		return;
	own = find_release(path, release);
	if (!own || own >= PANIC_ENDS || own >= written_by_release(by.first))
		return;
	note((unsigned)(a - protections), &by, release, own >= RUST);
	shim_say(a->spelling[0], " " OLDER_CHROMA " (", by.first, " to ", by.last,
		 "); this one is ", release,
		 own >= RUST ? " and will panic (\"range start index ... out of range\")"
			     : " and will fail on it",
		 ". Nothing is damaged: start Chroma ", by.last,
		 " instead, or go back to a snapshot from before: `chromashim snapshot list` shows "
		 "them.",
		 NULL);
}
