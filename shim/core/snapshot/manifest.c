/* SPDX-License-Identifier: MIT
 *
 * Reading and writing manifests.
 */
#include "core/snapshot/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/checksum.h"
#include "core/base/fileio.h"
#include "core/chroma/chroma.h"

#define SIZE_MAX_READ (UINT64_C(1) << 30) /* 4 TB in chunks */
#define CHECK_SIZE 8u
#define MODE_MASK 07777u

/* ---- the thing itself ---- */

void manifest_forget_collections(struct manifest *m)
{
	uint32_t i;

	for (i = 0; i < m->collection_count; i++) {
		free(m->collections[i].id);
		free(m->collections[i].name);
	}
	free(m->collections);
	m->collections = NULL;
	m->collection_count = 0;
}

void manifest_forget_contents(struct manifest *m)
{
	uint32_t i;

	manifest_forget_collections(m);
	for (i = 0; i < m->file_count; i++) {
		free(m->files[i].path);
		free(m->files[i].chunks);
		free(m->files[i].sums);
	}
	free(m->files);
	m->files = NULL;
	m->file_count = 0;
}

void manifest_free(struct manifest *m)
{
	uint32_t i;

	for (i = 0; i < m->tag_count; i++)
		free(m->tags[i]);
	manifest_forget_contents(m);
	free(m->tags);
	free(m->reason);
	free(m->description);
	free(m->trouble);
	*m = (struct manifest){0};
}

uint64_t manifest_total_size(const struct manifest *m)
{
	uint64_t total = 0;
	uint32_t i;

	for (i = 0; i < m->file_count; i++)
		total += m->files[i].size;
	return total;
}

uint64_t manifest_records(const struct manifest *m)
{
	uint64_t total = 0;
	uint32_t i;

	for (i = 0; i < m->collection_count; i++)
		total += m->collections[i].records;
	return total;
}

const struct manifest_file *manifest_find(const struct manifest *m, const char *path)
{
	uint32_t i;

	for (i = 0; i < m->file_count; i++)
		if (!strcmp(m->files[i].path, path))
			return &m->files[i];
	return NULL;
}

const char *snapshot_state_name(uint32_t state)
{
	static const char *const names[] = {
	    [SNAPSHOT_PINNED] = "pinned",     [SNAPSHOT_HYDRATING] = "hydrating",
	    [SNAPSHOT_COMPLETE] = "complete", [SNAPSHOT_VERIFIED] = "verified",
	    [SNAPSHOT_BROKEN] = "broken",
	};

	return state >= 1 && state < sizeof(names) / sizeof(names[0]) ? names[state] : "unknown";
}

int manifest_set_text(char **text, const char *value)
{
	size_t n = strlen(value);
	char *copy;

	if (n > SNAPSHOT_TEXT_MAX)
		for (n = SNAPSHOT_TEXT_MAX; ((unsigned char)value[n] & 0xc0) == 0x80; n--)
			;
	copy = strndup(value, n);
	if (!copy)
		return -ENOMEM;
	free(*text);
	*text = copy;
	return 0;
}

/* Room for one more in an array that grows in powers of two. */
static void *grow(void *array, uint32_t count, size_t each)
{
	if (count >= SNAPSHOT_COUNT_MAX)
		return NULL;
	return count & (count - 1) ? array
				   : reallocarray(array, count ? 2 * (size_t)count : 1, each);
}

bool manifest_has_tag(const struct manifest *m, const char *tag)
{
	uint32_t i;

	for (i = 0; i < m->tag_count; i++)
		if (!strcmp(m->tags[i], tag))
			return true;
	return false;
}

int manifest_add_tag(struct manifest *m, const char *tag)
{
	char **tags = grow(m->tags, m->tag_count, sizeof(*tags));

	if (!tags)
		return -ENOMEM;
	m->tags = tags;
	tags[m->tag_count] = NULL;
	if (manifest_set_text(&tags[m->tag_count], tag) < 0)
		return -ENOMEM;
	m->tag_count++;
	return 0;
}

unsigned manifest_remove_tag(struct manifest *m, const char *tag)
{
	uint32_t i, kept = 0, before = m->tag_count;

	for (i = 0; i < before; i++) {
		if (tag && strcmp(m->tags[i], tag) != 0)
			m->tags[kept++] = m->tags[i];
		else
			free(m->tags[i]);
	}
	m->tag_count = kept;
	return before - kept;
}

struct manifest_file *manifest_add_file(struct manifest *m, const char *path)
{
	struct manifest_file *files = grow(m->files, m->file_count, sizeof(*files));

	if (!files)
		return NULL;
	m->files = files;
	files[m->file_count] = (struct manifest_file){0};
	files[m->file_count].path = strdup(path);
	return files[m->file_count].path ? &files[m->file_count++] : NULL;
}

void manifest_remove_last_file(struct manifest *m)
{
	struct manifest_file *f = &m->files[--m->file_count];

	free(f->path);
	free(f->chunks);
	free(f->sums);
}

int manifest_add_collection(struct manifest *m, const char *id, const char *name, uint64_t records)
{
	struct manifest_collection *all = grow(m->collections, m->collection_count, sizeof(*all));
	struct manifest_collection c = {.records = records};

	if (!all)
		return -ENOMEM;
	m->collections = all;
	if (manifest_set_text(&c.id, id) < 0 || manifest_set_text(&c.name, name) < 0) {
		free(c.id);
		return -ENOMEM;
	}
	all[m->collection_count++] = c;
	return 0;
}

bool manifest_path_is_valid(const char *path)
{
	const char *slash = strchr(path, '/');
	char directory[CHROMA_ID_SIZE];

	if (slash) {
		if ((size_t)(slash - path) >= sizeof(directory))
			return false;
		memcpy(directory, path, (size_t)(slash - path));
		directory[slash - path] = '\0';
		if (!chroma_is_uuid(directory))
			return false;
		path = slash + 1;
	}
	return *path && strlen(path) < 256 && !strchr(path, '/') && strcmp(path, ".") != 0 &&
	       strcmp(path, "..") != 0;
}

/* ---- reading ---- */

struct cursor {
	const unsigned char *at, *end;
};

static bool manifest_take(struct cursor *c, void *out, size_t n)
{
	if (n > (size_t)(c->end - c->at))
		return false;
	if (n)
		memcpy(out, c->at, n);
	c->at += n;
	return true;
}

static bool take32(struct cursor *c, uint32_t *out)
{
	unsigned char b[4];

	if (!manifest_take(c, b, sizeof(b)))
		return false;
	*out = get_le32(b);
	return true;
}

static bool take64(struct cursor *c, uint64_t *out)
{
	unsigned char b[8];

	if (!manifest_take(c, b, sizeof(b)))
		return false;
	*out = get_le64(b);
	return true;
}

/* -EBADMSG also for a zero byte in it: as a string it would end there. */
static int take_text(struct cursor *c, char **out)
{
	uint32_t n;
	char *text;

	if (!take32(c, &n) || n > SNAPSHOT_TEXT_MAX || n > (size_t)(c->end - c->at))
		return -EBADMSG;
	text = malloc((size_t)n + 1);
	if (!text)
		return -ENOMEM;
	manifest_take(c, text, n);
	text[n] = '\0';
	*out = text;
	return strlen(text) == n ? 0 : -EBADMSG;
}

static int take_count(struct cursor *c, uint32_t *out)
{
	return take32(c, out) && *out <= SNAPSHOT_COUNT_MAX ? 0 : -EBADMSG;
}

static int take_tags(struct cursor *c, struct manifest *m)
{
	uint32_t count, i;
	int r = take_count(c, &count);

	for (i = 0; i < count && r == 0; i++) {
		char *tag = NULL;

		r = take_text(c, &tag);
		if (r == 0)
			r = manifest_add_tag(m, tag);
		free(tag);
	}
	return r;
}

static int take_collections(struct cursor *c, struct manifest *m)
{
	uint32_t count, i;
	int r = take_count(c, &count);

	for (i = 0; i < count && r == 0; i++) {
		char *id = NULL, *name = NULL;
		uint64_t records = 0;

		r = take_text(c, &id);
		if (r == 0)
			r = take_text(c, &name);
		if (r == 0 && !take64(c, &records))
			r = -EBADMSG;
		if (r == 0)
			r = manifest_add_collection(m, id, name, records);
		free(id);
		free(name);
	}
	return r;
}

static int take_file(struct cursor *c, struct manifest *m)
{
	struct manifest_file *f;
	char *path = NULL;
	uint64_t mtime, count;
	int r = take_text(c, &path);

	if (r == 0 && !manifest_path_is_valid(path))
		r = -EBADMSG;
	f = r == 0 ? manifest_add_file(m, path) : NULL;
	free(path);
	if (!f)
		return r < 0 ? r : -ENOMEM;
	if (!take32(c, &f->mode) || !take32(c, &f->mtime_ns) || !take64(c, &mtime) ||
	    !take64(c, &f->size) || f->size > SNAPSHOT_SIZE_MAX || f->mode & ~MODE_MASK ||
	    f->mtime_ns >= 1000000000)
		return -EBADMSG;
	f->mtime = (int64_t)mtime;
	count = manifest_chunk_count(f->size);
	if (count > (size_t)(c->end - c->at) / SNAPSHOT_NAME_SIZE)
		return -EBADMSG;
	if (!count)
		return 0;
	f->chunks = malloc((size_t)count * sizeof(*f->chunks));
	if (!f->chunks)
		return -ENOMEM;
	manifest_take(c, f->chunks, (size_t)count * sizeof(*f->chunks));
	return 0;
}

static int take_files(struct cursor *c, struct manifest *m)
{
	uint32_t count, i;
	int r = take_count(c, &count);

	for (i = 0; i < count && r == 0; i++)
		r = take_file(c, m);
	return r;
}

static int take_header(struct snapshot_header *h, const void *data, size_t size)
{
	const unsigned char *p = data;

	if (size < sizeof(*h) + CHECK_SIZE)
		return size >= 8 && memcmp(p, "CHSSSNAP", 8) != 0 ? -EBADMSG : -ENODATA;
	memcpy(h, p, sizeof(*h));
	if (h->magic != SNAPSHOT_MAGIC)
		return -EBADMSG;
	if (h->version > SNAPSHOT_VERSION)
		return -EPROTONOSUPPORT;
	if (h->size > size)
		return -ENODATA;
	if (h->size != size || checksum64(p, size - CHECK_SIZE, h->id) != get_le64(p + size - 8))
		return -EBADMSG;
	return h->version && h->state >= SNAPSHOT_PINNED && h->state <= SNAPSHOT_BROKEN && h->id
		   ? 0
		   : -EBADMSG;
}

int manifest_parse(struct manifest *out, const void *data, size_t size)
{
	struct cursor c;
	int r;

	*out = (struct manifest){0};
	r = take_header(&out->header, data, size);
	if (r < 0)
		return r;
	c.at = (const unsigned char *)data + sizeof(out->header);
	c.end = (const unsigned char *)data + size - CHECK_SIZE;
	r = take_text(&c, &out->reason);
	if (r == 0)
		r = take_text(&c, &out->description);
	if (r == 0)
		r = take_text(&c, &out->trouble);
	if (r == 0)
		r = take_tags(&c, out);
	if (r == 0)
		r = take_collections(&c, out);
	if (r == 0)
		r = take_files(&c, out);
	return r == 0 && c.at != c.end ? -EBADMSG : r;
}

/* ---- writing ---- */

static void put32(FILE *out, uint32_t value)
{
	fwrite(&value, sizeof(value), 1, out);
}

static void put64(FILE *out, uint64_t value)
{
	fwrite(&value, sizeof(value), 1, out);
}

static void put_text(FILE *out, const char *text)
{
	uint32_t n = text ? (uint32_t)strlen(text) : 0;

	put32(out, n);
	if (n)
		fwrite(text, 1, n, out);
}

static void put_body(FILE *out, const struct manifest *m)
{
	uint32_t i;

	put_text(out, m->reason);
	put_text(out, m->description);
	put_text(out, m->trouble);
	put32(out, m->tag_count);
	for (i = 0; i < m->tag_count; i++)
		put_text(out, m->tags[i]);
	put32(out, m->collection_count);
	for (i = 0; i < m->collection_count; i++) {
		put_text(out, m->collections[i].id);
		put_text(out, m->collections[i].name);
		put64(out, m->collections[i].records);
	}
	put32(out, m->file_count);
	for (i = 0; i < m->file_count; i++) {
		const struct manifest_file *f = &m->files[i];

		put_text(out, f->path);
		put32(out, f->mode);
		put32(out, f->mtime_ns);
		put64(out, (uint64_t)f->mtime);
		put64(out, f->size);
		if (f->size)
			fwrite(f->chunks, sizeof(*f->chunks), (size_t)manifest_chunk_count(f->size),
			       out);
	}
}

int manifest_format(struct manifest *m, char **data_out, size_t *size_out)
{
	FILE *out = open_memstream(data_out, size_out);
	uint64_t check;
	int bad;

	if (!out)
		return -ENOMEM;
	m->header.magic = SNAPSHOT_MAGIC;
	m->header.version = SNAPSHOT_VERSION;
	fwrite(&m->header, sizeof(m->header), 1, out);
	put_body(out, m);
	put64(out, 0);
	bad = ferror(out);
	if (fclose(out) != 0 || bad) {
		free(*data_out);
		return -ENOMEM;
	}
	m->header.size = *size_out;
	memcpy(*data_out, &m->header, sizeof(m->header));
	check = checksum64(*data_out, *size_out - CHECK_SIZE, m->header.id);
	memcpy(*data_out + *size_out - CHECK_SIZE, &check, sizeof(check));
	return 0;
}

/* ---- files ---- */

void manifest_file_name(char out[MANIFEST_NAME_SIZE], uint64_t id)
{
	snprintf(out, MANIFEST_NAME_SIZE, "%08" PRIu64 MANIFEST_SUFFIX,
		 id % UINT64_C(1000000000000));
}

uint64_t manifest_id_of_name(const char *name)
{
	char again[MANIFEST_NAME_SIZE];
	uint64_t id;

	if (name[0] < '0' || name[0] > '9')
		return 0;
	id = strtoull(name, NULL, 10);
	manifest_file_name(again, id);
	return strcmp(name, again) == 0 ? id : 0;
}

int manifest_read(int dirfd, uint64_t id, struct manifest *out)
{
	char name[MANIFEST_NAME_SIZE], *data;
	size_t size;
	int fd, r;

	*out = (struct manifest){0};
	manifest_file_name(name, id);
	fd = file_open_at(dirfd, name);
	if (fd < 0)
		return fd;
	r = file_read_all(fd, SIZE_MAX_READ, &data, &size);
	close(fd);
	if (r < 0)
		return r;
	r = manifest_parse(out, data, size);
	free(data);
	return r == 0 && out->header.id != id ? -EBADMSG : r;
}

int manifest_write(int dirfd, struct manifest *m)
{
	char name[MANIFEST_NAME_SIZE], *data;
	struct file_publish file;
	size_t size;
	int r = manifest_format(m, &data, &size);

	if (r < 0)
		return r;
	manifest_file_name(name, m->header.id);
	r = file_publish_begin(&file, dirfd, name, 0600);
	if (r == 0) {
		r = file_write_all(file.fd, data, size);
		if (r == 0)
			r = file_publish_commit(&file);
		else
			file_publish_abort(&file);
	}
	free(data);
	return r;
}
