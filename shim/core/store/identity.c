/* SPDX-License-Identifier: MIT
 *
 * The identity of a store: a text file of a few lines, "<key> <value>".
 *
 *	chromashim-store 1		the format of the store as a whole
 *	version 0.1.0			of the newest chromashim that has used it
 *	id 6f1c0d...			32 hexadecimal digits
 *	directory 2049 131077 1732...	device, inode, birth in ns (0: unknown)
 *	own 2049 131080 1732...		the same of the directory that this file is in
 *	path /srv/chroma
 *	store /mnt/store		if the store is elsewhere
 *
 * The format is raised by whoever brings something that a version before would harm or misread:
 *those leave the store alone from then on. What they can pass over does not raise it. A store of a
 *newer format is read for its version alone.
 *
 * Keys that are not known are passed over. A line feed in a path is written as a question mark: a
 * path only helps to find the original again.
 */
#include <string.h>
#include <sys/random.h>
#include <sys/sysmacros.h>
#include <time.h>

#include "core/base/number.h"
#include "core/base/sys.h"
#include "core/base/version.h"
#include "core/store/store.h"

#define FORMAT 1
#define FILE_MAX (2u * PATH_MAX + 1024)

/* ---- ids and places ---- */

void store_id_draw(uint8_t id[STORE_ID_SIZE])
{
	struct timespec now = {0, 0};
	uint64_t word;

	if (SYS3(SYS_getrandom, id, STORE_ID_SIZE, GRND_NONBLOCK) == STORE_ID_SIZE)
		return;
	SYS2(SYS_clock_gettime, CLOCK_REALTIME, &now);
	word = ((uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec) * UINT64_C(0x9e3779b97f4a7c15);
	memcpy(id, &word, 8);
	word = (word ^ (uint64_t)sys_gettid()) * UINT64_C(0xbf58476d1ce4e5b9);
	memcpy(id + 8, &word, 8);
}

void store_id_text(char out[STORE_ID_TEXT], const uint8_t id[STORE_ID_SIZE])
{
	unsigned i;

	for (i = 0; i < STORE_ID_SIZE; i++)
		number_put(out + 2 * i, out + 2 * i + 2, id[i], 16, 2);
	out[2 * STORE_ID_SIZE] = '\0';
}

void store_place_of(int fd, struct store_place *out)
{
	struct stat st;
	struct statx more;

	memset(out, 0, sizeof(*out));
	if (sys_fstat(fd, &st) < 0)
		return;
	out->device = (uint64_t)major(st.st_dev) << 32 | minor(st.st_dev);
	out->inode = st.st_ino;
	memset(&more, 0, sizeof(more));
	if (SYS5(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BTIME, &more) == 0 &&
	    (more.stx_mask & STATX_BTIME))
		out->born = (uint64_t)more.stx_btime.tv_sec * 1000000000u + more.stx_btime.tv_nsec;
}

/* A number without a device behind it (overlayfs, btrfs) is another one after each mount. */
static bool same_device(const struct store_place *a, const struct store_place *b)
{
	return a->device == b->device || (a->born && !(a->device >> 32) && !(b->device >> 32));
}

bool store_place_same(const struct store_place *a, const struct store_place *b)
{
	return a->inode && a->inode == b->inode && (!a->born || !b->born || a->born == b->born) &&
	       same_device(a, b);
}

/* ---- reading ---- */

static bool read_id(const char *text, uint8_t id[STORE_ID_SIZE])
{
	unsigned i, digit;

	for (i = 0; i < 2 * STORE_ID_SIZE; i++) {
		if (text[i] >= '0' && text[i] <= '9')
			digit = (unsigned)(text[i] - '0');
		else if (text[i] >= 'a' && text[i] <= 'f')
			digit = (unsigned)(text[i] - 'a') + 10;
		else
			return false;
		id[i / 2] = (uint8_t)((unsigned)id[i / 2] << 4 | digit);
	}
	return text[i] == '\0';
}

static uint64_t read_number(const char **at)
{
	uint64_t n = 0;

	while (**at == ' ')
		(*at)++;
	for (; **at >= '0' && **at <= '9'; (*at)++)
		n = n * 10 + (uint64_t)(**at - '0');
	return n;
}

static void read_place(const char *text, struct store_place *out)
{
	out->device = read_number(&text);
	out->inode = read_number(&text);
	out->born = read_number(&text);
}

/* The value if the line is of this key. */
static const char *value_of(const char *line, const char *key)
{
	size_t n = strlen(key);

	return strncmp(line, key, n) == 0 && line[n] == ' ' ? line + n + 1 : NULL;
}

/* Read from a backend's thread, whose stack may be small: a line is not held as a whole. */
struct reading {
	int fd;
	uint64_t at;	 /* of the line, in the file */
	uint64_t length; /* of it, without its end */
	char line[128];	 /* its beginning */
};

static int find_end(struct reading *r, uint64_t from)
{
	char piece[128], *end;
	ssize_t n;

	for (; from <= FILE_MAX; from += (uint64_t)n) {
		n = sys_pread_all(r->fd, piece, sizeof(piece), from);
		if (n <= 0)
			return n < 0 ? (int)n : -EBADMSG;
		end = memchr(piece, '\n', (size_t)n);
		if (end) {
			r->length = from + (uint64_t)(end - piece) - r->at;
			return 1;
		}
	}
	return -EBADMSG;
}

/* 1, or 0 at the end of the file; -EBADMSG: it has no end. */
static int next_line(struct reading *r)
{
	ssize_t n = sys_pread_all(r->fd, r->line, sizeof(r->line) - 1, r->at);
	int found;

	if (n <= 0)
		return (int)n;
	r->line[n] = '\0';
	found = find_end(r, r->at);
	if (found == 1 && r->length < (uint64_t)n)
		r->line[r->length] = '\0';
	return found;
}

/* The whole value, which begins in the line. */
static int take_text(const struct reading *r, const char *value, char out[PATH_MAX])
{
	uint64_t before = (uint64_t)(value - r->line), n = r->length - before;
	ssize_t have = n < PATH_MAX ? sys_pread_all(r->fd, out, (size_t)n, r->at + before) : 0;

	if (have < 0)
		return (int)have;
	out[have] = '\0';
	return 0;
}

static int read_lines(struct reading *r, struct store_identity *out)
{
	bool has_format = false, has_id = false, is_newer = false;
	const char *value;
	int n;

	for (; (n = next_line(r)) > 0; r->at += r->length + 1) {
		if ((value = value_of(r->line, "chromashim-store"))) {
			has_format = true;
			is_newer = read_number(&value) > FORMAT;
		} else if ((value = value_of(r->line, "version"))) {
			out->version = version_number(value);
		} else if ((value = value_of(r->line, "id"))) {
			has_id = read_id(value, out->id);
		} else if ((value = value_of(r->line, "directory"))) {
			read_place(value, &out->directory);
		} else if ((value = value_of(r->line, "own"))) {
			read_place(value, &out->own);
		} else if ((value = value_of(r->line, "path"))) {
			n = take_text(r, value, out->path);
		} else if ((value = value_of(r->line, "store"))) {
			n = take_text(r, value, out->store);
		}
		if (n < 0)
			break;
	}
	if (is_newer)
		return -EPROTONOSUPPORT;
	return n < 0 ? n : has_format && has_id ? 0 : -EBADMSG;
}

int store_identity_read(int fd, struct store_identity *out)
{
	struct reading r = {.at = 0};
	int e;

	memset(out, 0, sizeof(*out));
	r.fd = sys_openat(fd, STORE_IDENTITY, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
	if (r.fd < 0)
		return r.fd;
	e = read_lines(&r, out);
	sys_close(r.fd);
	return e;
}

/* ---- writing ---- */

struct writing {
	int fd;
	int error;
	uint64_t at;
};

static void put(struct writing *w, const char *text, size_t n)
{
	if (w->error == 0 && n)
		w->error = sys_pwrite_all(w->fd, text, n, w->at);
	w->at += n;
}

static void put_text(struct writing *w, const char *text)
{
	size_t n;

	for (; *text; text += n) {
		n = strcspn(text, "\n");
		put(w, text, n);
		if (text[n] == '\n') {
			put(w, "?", 1);
			n++;
		}
	}
}

static void put_line(struct writing *w, const char *key, const char *value)
{
	put_text(w, key);
	put(w, " ", 1);
	put_text(w, value);
	put(w, "\n", 1);
}

static void put_place(struct writing *w, const char *key, const struct store_place *place)
{
	char text[80], *end = text + sizeof(text) - 1, *at;

	at = number_put(text, end, place->device, 10, 1);
	*at++ = ' ';
	at = number_put(at, end, place->inode, 10, 1);
	*at++ = ' ';
	at = number_put(at, end, place->born, 10, 1);
	*at = '\0';
	put_line(w, key, text);
}

static int put_all(int fd, const struct store_identity *identity)
{
	struct writing w = {.fd = fd};
	char id[STORE_ID_TEXT], version[VERSION_TEXT];

	store_id_text(id, identity->id);
	version_text(version, identity->version);
	put_line(&w, "chromashim-store", "1");
	put_line(&w, "version", version);
	put_line(&w, "id", id);
	put_place(&w, "directory", &identity->directory);
	put_place(&w, "own", &identity->own);
	put_line(&w, "path", identity->path);
	if (identity->store[0])
		put_line(&w, "store", identity->store);
	return w.error;
}

static int publish_identity(int fd, const char *name, bool is_first)
{
	int r = is_first ? sys_rename_new(fd, name, fd, STORE_IDENTITY) : -EINVAL;

	return r == -EINVAL || r == -ENOSYS ? sys_renameat(fd, name, fd, STORE_IDENTITY) : r;
}

int store_identity_write(int fd, const struct store_identity *identity, bool is_first)
{
	static const char prefix[] = STORE_IDENTITY ".";
	char name[sizeof(prefix) + STORE_ID_TEXT];
	uint8_t unlike[STORE_ID_SIZE];
	int file, r;

	store_id_draw(unlike);
	memcpy(name, prefix, sizeof(prefix) - 1);
	store_id_text(name + sizeof(prefix) - 1, unlike);
	file = sys_openat(fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (file < 0)
		return file;
	r = put_all(file, identity);
	if (r == 0)
		r = sys_fsync(file);
	sys_close(file);
	if (r == 0)
		r = publish_identity(fd, name, is_first);
	if (r < 0)
		sys_unlinkat(fd, name, 0);
	else
		sys_fsync(fd);
	return r;
}
