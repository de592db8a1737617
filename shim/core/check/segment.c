/* SPDX-License-Identifier: MIT
 *
 * Judging the files of a vector segment: each by itself, and their sizes against each other.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/check/internal.h"
#include "core/segment/pickle.h"
#include "core/undo/rollback_last.h"
#include "core/undo/undo.h"

enum file { HEADER, LEVEL0, LENGTH, LINKS, PICKLE, FILES };

static const char *const file_names[FILES] = {HNSW_HEADER_FILE, HNSW_LEVEL0_FILE, HNSW_LENGTH_FILE,
					      HNSW_LINKS_FILE, PICKLE_FILE};

#define TRIES 8
#define PAUSE_US 150000
#define SEGMENT_CHUNKS 8u /* of each file of a snapshot, in memory: a MiB */
#define RUNAWAY_SLACK (UINT64_C(1) << 20)

struct segment {
	const struct chroma_collection *c;
	int dirfd;	  /* -1: of a snapshot */
	int error[FILES]; /* -errno: it cannot be opened */
	int fd[FILES];
	struct snapshot_file chunks[FILES];
	struct file_source source[FILES];
	struct stat stat[FILES];
};

static struct diagnose_place place_of(const struct segment *s, enum file file)
{
	return (struct diagnose_place){s->c->name, s->c->vector_segment, file_names[file]};
}

static void open_file(struct segment *s, int i)
{
	int fd = file_open_at(s->dirfd, file_names[i]);

	s->error[i] = fd < 0 ? fd : 0;
	s->fd[i] = fd;
	if (fd < 0)
		return;
	if (i == LEVEL0 || i == LINKS)
		file_source_open_data(&s->source[i], fd);
	else
		file_source_open(&s->source[i], fd);
	fstat(fd, &s->stat[i]);
}

/* All that is read goes forward, but for a second time. */
static void open_in_snapshot(const struct diagnosis *d, struct segment *s, int i)
{
	char path[CHROMA_ID_SIZE + 64];

	s->fd[i] = -1;
	snprintf(path, sizeof(path), "%s/%s", s->c->vector_segment, file_names[i]);
	s->error[i] = snapshot_file_open(&s->chunks[i], d->store, d->manifest, path, &s->source[i]);
	if (s->error[i])
		return;
	s->chunks[i].slots = SEGMENT_CHUNKS;
	s->chunks[i].is_known = true;
	s->stat[i].st_size = (off_t)s->source[i].size;
}

static void open_files(const struct diagnosis *d, struct segment *s)
{
	int i;

	for (i = 0; i < FILES; i++)
		if (d->manifest)
			open_in_snapshot(d, s, i);
		else
			open_file(s, i);
}

static void close_files(struct segment *s)
{
	int i;

	for (i = 0; i < FILES; i++) {
		if (s->fd[i] >= 0)
			close(s->fd[i]);
		snapshot_file_close(&s->chunks[i]);
	}
	if (s->dirfd >= 0)
		close(s->dirfd);
}

/* Whether nothing was written since open_files(). */
static bool kept_still(const struct segment *s)
{
	struct stat now;
	int i;

	if (s->dirfd < 0)
		return true;
	for (i = 0; i < FILES; i++) {
		if (fstatat(s->dirfd, file_names[i], &now, AT_SYMLINK_NOFOLLOW) < 0) {
			if (s->error[i] == 0)
				return false;
			continue;
		}
		if (s->error[i] == -ENOENT)
			return false;
		if (s->error[i] == 0 &&
		    (now.st_ino != s->stat[i].st_ino || now.st_size != s->stat[i].st_size ||
		     now.st_mtim.tv_sec != s->stat[i].st_mtim.tv_sec ||
		     now.st_mtim.tv_nsec != s->stat[i].st_mtim.tv_nsec))
			return false;
	}
	return true;
}

/* ---- each file ---- */

/* The files as Chroma makes them, before the first persist: no element, no pickle. */
static bool is_initial(const struct segment *s, const struct hnsw_header *h)
{
	return s->error[PICKLE] == -ENOENT && h->count == 0;
}

static bool read_header(struct diagnosis *d, const struct segment *s, struct hnsw_header *h)
{
	struct diagnose_place place = place_of(s, HEADER);
	unsigned char raw[HNSW_HEADER_SIZE];
	unsigned faults;
	uint64_t end;
	int r = file_source_read(&s->source[HEADER], raw, sizeof(raw), 0);

	if (r == 0)
		r = hnsw_header_parse(h, raw, sizeof(raw));
	if (r == -ENODATA)
		diagnose_report(d, DIAGNOSE_HEADER_DAMAGED, place, "%llu of 100 bytes",
				(unsigned long long)s->source[HEADER].size);
	else if (r == -EPROTONOSUPPORT && h->version >= 2 && h->version < 100)
		diagnose_report(d, DIAGNOSE_HEADER_VERSION, place, "%d", h->version);
	else if (r == -EPROTONOSUPPORT)
		diagnose_report(d, DIAGNOSE_HEADER_DAMAGED, place, "version %d", h->version);
	else if (r < 0)
		diagnose_report(d, DIAGNOSE_UNREADABLE, place, "%s", strerror(-r));
	end = s->source[HEADER].size < sizeof(raw) ? s->source[HEADER].size : sizeof(raw);
	if (diagnose_zeros(&s->source[HEADER], end) == end)
		diagnose_report(d, DIAGNOSE_FILE_UNFINISHED, place, "%s",
				end ? "from its beginning on" : "it is empty");
	if (r < 0)
		return false;
	faults = hnsw_header_check(h);
	if (faults)
		diagnose_report(d, DIAGNOSE_HEADER_DAMAGED, place, "%s%s%s%s%s",
				faults & HNSW_FAULT_LAYOUT ? "sizes contradict each other; " : "",
				faults & HNSW_FAULT_COUNT ? "impossible number of elements; " : "",
				faults & HNSW_FAULT_ENTRY ? "impossible entry point; " : "",
				faults & HNSW_FAULT_MULT ? "wrong level factor; " : "",
				faults & HNSW_FAULT_EF ? "impossible parameters" : "");
	return !(faults & HNSW_FAULT_LAYOUT);
}

static void check_size(struct diagnosis *d, const struct segment *s, enum file file,
		       enum diagnose_code code, uint64_t count, uint64_t each)
{
	uint64_t have = s->source[file].size / each;

	if (have < count)
		diagnose_report(d, code, place_of(s, file), "%llu of %llu elements",
				(unsigned long long)have, (unsigned long long)count);
}

/* Chroma begins each search at the entry point, on the highest level that there is. */
static void check_entry_point(struct diagnosis *d, const struct segment *s,
			      const struct hnsw_header *h, const struct hnsw_links *links)
{
	if (h->count == 0 || hnsw_header_check(h) & HNSW_FAULT_ENTRY ||
	    (links->entry_point_on_top && links->levels == (uint64_t)h->max_level))
		return;
	diagnose_report(d, DIAGNOSE_HEADER_DAMAGED, place_of(s, HEADER),
			"its entry point is not on level %d, or there are %u levels", h->max_level,
			links->levels);
}

static void check_links(struct diagnosis *d, const struct segment *s, const struct hnsw_header *h)
{
	struct diagnose_place place = place_of(s, LINKS);
	struct hnsw_links links;
	int r = hnsw_links_walk(h, &s->source[LINKS], &links);

	if (r == -ENODATA)
		diagnose_report(d, DIAGNOSE_LINKS_SHORT, place, "%llu of %llu elements",
				(unsigned long long)links.entries, (unsigned long long)h->count);
	else if (r == -EBADMSG)
		diagnose_report(d, DIAGNOSE_LINKS_DAMAGED, place, "element %llu, at byte %llu",
				(unsigned long long)links.entries, (unsigned long long)links.bytes);
	else if (r < 0)
		diagnose_report(d, DIAGNOSE_UNREADABLE, place, "%s", strerror(-r));
	else if (links.bad_links)
		diagnose_report(d, DIAGNOSE_GRAPH, place, "%llu links",
				(unsigned long long)links.bad_links);
	if (r == 0)
		check_entry_point(d, s, h, &links);
	if ((uint64_t)s->stat[LINKS].st_size > 2 * links.bytes + RUNAWAY_SLACK)
		diagnose_report(d, DIAGNOSE_LINKS_RUNAWAY, place, "%llu bytes, %llu are used",
				(unsigned long long)s->stat[LINKS].st_size,
				(unsigned long long)links.bytes);
}

static void check_index(struct diagnosis *d, const struct segment *s, const struct hnsw_header *h)
{
	check_size(d, s, LEVEL0, DIAGNOSE_LEVEL0_SHORT, h->count, h->stride);
	check_size(d, s, LENGTH, DIAGNOSE_LENGTH_SHORT, h->count, sizeof(float));
	check_links(d, s, h);
	if (d->options->full && !d->pending_count)
		diagnose_graph(d, place_of(s, LEVEL0), h, &s->source[LEVEL0], &s->source[LINKS]);
	if (s->c->dimension > 0 && (uint64_t)s->c->dimension != hnsw_dimension(h))
		diagnose_report(d, DIAGNOSE_DIMENSION, place_of(s, HEADER),
				"%llu in the index, %lld in the collection",
				(unsigned long long)hnsw_dimension(h), (long long)s->c->dimension);
}

/* ---- the segment ---- */

static bool have_all(struct diagnosis *d, const struct segment *s)
{
	bool all = true;
	int i;

	for (i = 0; i < PICKLE; i++) {
		if (s->error[i] == 0)
			continue;
		all = false;
		diagnose_report(
		    d, s->error[i] == -ENOENT ? DIAGNOSE_FILE_MISSING : DIAGNOSE_UNREADABLE,
		    place_of(s, (enum file)i), "%s",
		    s->error[i] == -ENOENT ? "" : strerror(-s->error[i]));
	}
	return all;
}

/* git-annex puts links in the place of files. */
static bool have_links(struct diagnosis *d, const struct segment *s)
{
	char name[CHROMA_ID_SIZE + 64], target[PATH_MAX];
	bool have = false;
	int i;

	for (i = 0; i < FILES; i++) {
		ssize_t n = s->error[i] == -ELOOP
				? readlinkat(s->dirfd, file_names[i], target, sizeof(target) - 1)
				: -1;

		target[n > 0 ? n : 0] = '\0';
		if (!strstr(target, "annex/objects/"))
			continue;
		have = true;
		snprintf(name, sizeof(name), "%s/%s", s->c->vector_segment, file_names[i]);
		diagnose_link(d, place_of(s, (enum file)i), name);
	}
	return have;
}

/* Under a name that is like the file's: a file, or what an archiver or a pointer has left for it.
 */
static void judge_other_name(struct diagnosis *d, const struct segment *s, enum file file,
			     const char *alias)
{
	struct diagnose_place place = place_of(s, file);
	struct file_source source;
	bool is_other = false;
	int fd = file_open_at(s->dirfd, alias);

	place.file = alias;
	if (fd >= 0 && file_source_open(&source, fd) == 0)
		is_other = diagnose_is_copied_wrong(d, place, &source, false, false);
	if (fd >= 0)
		close(fd);
	if (!is_other)
		diagnose_report(d, DIAGNOSE_FILE_RENAMED, place_of(s, file), "%s", alias);
}

/* What else there is to be said waits until they have their names again. */
static bool have_other_names(struct diagnosis *d, const struct segment *s)
{
	char alias[CHROMA_ALIAS_SIZE];
	bool have = false;
	int i;

	for (i = 0; i < FILES; i++) {
		if (s->error[i] != -ENOENT)
			continue;
		if (diagnose_is_placeholder(d, place_of(s, (enum file)i), s->dirfd, file_names[i]))
			have = true;
		else if (chroma_find_file_alias(s->dirfd, file_names[i], alias, sizeof(alias))) {
			have = true;
			judge_other_name(d, s, (enum file)i, alias);
		}
	}
	return have;
}

static void judge_without_pickle(struct diagnosis *d, const struct segment *s,
				 const struct hnsw_header *h)
{
	struct diagnose_files none = {0};

	if (s->c->vector_mark.type != SQLITE_NULL) {
		diagnose_report(d, DIAGNOSE_PICKLE_MISSING, place_of(s, PICKLE),
				"%llu elements in the index", (unsigned long long)h->count);
		return;
	}
	if (!is_initial(s, h))
		diagnose_report(d, DIAGNOSE_PERSIST_FIRST_CUT, place_of(s, PICKLE), "%s", "");
	diagnose_ids(d, s->c, &none);
}

/* A header has 100 bytes. Of the others only vectors never look like text. */
static bool is_copied_wrong(struct diagnosis *d, const struct segment *s)
{
	bool odd = s->error[HEADER] == 0 && s->source[HEADER].size != HNSW_HEADER_SIZE;
	int i;

	for (i = 0; i < FILES; i++)
		if (s->error[i] == 0 &&
		    diagnose_is_copied_wrong(d, place_of(s, (enum file)i), &s->source[i],
					     i == LEVEL0 || odd, odd && i != HEADER))
			return true;
	return false;
}

/* Against what the store knows of the last persist. */
static void compare_with_last(struct diagnosis *d, const struct segment *s)
{
	static const enum diagnose_code codes[] = {
	    [LAST_MIXED] = DIAGNOSE_INDEX_MIXED,
	    [LAST_BEFORE] = DIAGNOSE_INDEX_BEFORE,
	    [LAST_WITHOUT_PICKLE] = DIAGNOSE_INDEX_WITHOUT_PICKLE,
	};
	struct rollback_last last;
	int undofd = d->options->storefd > 0 ? file_open_directory_at(d->options->storefd, UNDO_DIR)
					     : -ENOENT;

	if (undofd < 0)
		return;
	if (rollback_last(d->dirfd, undofd, s->c->vector_segment, &last) == 0 &&
	    last.result >= LAST_MIXED)
		diagnose_report(d, codes[last.result],
				(struct diagnose_place){s->c->name, s->c->vector_segment, NULL},
				"of its pieces %llu are as it left them, %llu as before, %llu "
				"neither",
				(unsigned long long)last.now, (unsigned long long)last.before,
				(unsigned long long)last.others);
	close(undofd);
}

/* Values that are no numbers may be what is wrong with a vector, not what tears an index. */
static uint64_t damage_so_far(const struct diagnosis *d)
{
	uint64_t count = d->summary->findings[DIAGNOSE_DAMAGE];
	unsigned i;

	for (i = 0; i < d->pending_count; i++)
		count += d->pending[i].code != DIAGNOSE_VECTOR_VALUES;
	return count;
}

/* Where the rest is whole: of a torn index the vectors and their lengths are of two moments. */
static void check_vectors(struct diagnosis *d, const struct segment *s, const struct hnsw_header *h,
			  uint64_t damage_before)
{
	if (s->c->space == CHROMA_COSINE && damage_so_far(d) == damage_before)
		diagnose_cosine(d, place_of(s, LEVEL0), place_of(s, LENGTH), h, &s->source[LEVEL0],
				&s->source[LENGTH]);
}

/* The directory itself is here, under another name or in another place. */
static bool is_renamed(struct diagnosis *d, const struct chroma_collection *c)
{
	struct diagnose_place place = {.collection = c->name, .segment = c->vector_segment};
	char alias[CHROMA_ALIAS_SIZE];

	if (c->vector_mark.type == SQLITE_NULL ||
	    !chroma_find_alias(d->db, d->dirfd, c->vector_segment, alias, sizeof(alias)))
		return false;
	d->lacks_segment = true;
	diagnose_report(d, DIAGNOSE_SEGMENT_RENAMED, place, "%s", alias);
	return true;
}

static void judge_files(struct diagnosis *d, const struct segment *s)
{
	uint64_t before = damage_so_far(d);
	struct diagnose_files files;
	struct hnsw_header h = {0};
	bool has_index;

	if (is_copied_wrong(d, s))
		return;

	if (s->error[PICKLE] == -ENOENT && s->c->vector_mark.type == SQLITE_NULL) {
		/* Never persisted: whatever the four files hold, it is made anew from the queue. */
		if (s->error[HEADER] == 0 && s->source[HEADER].size == HNSW_HEADER_SIZE)
			read_header(&(struct diagnosis){.holds_back = true,
							.pending = d->pending,
							.pending_count = DIAGNOSE_PENDING_MAX},
				    s, &h);
		judge_without_pickle(d, s, &h);
		return;
	}
	if (have_links(d, s) || have_other_names(d, s) ||
	    (!d->manifest && !chroma_holds_files(s->dirfd) && is_renamed(d, s->c)))
		return;
	has_index = have_all(d, s) && read_header(d, s, &h);
	if (has_index && s->error[PICKLE] != -ENOENT)
		check_index(d, s, &h);
	if (s->error[PICKLE] == -ENOENT) {
		judge_without_pickle(d, s, &h);
	} else if (s->error[PICKLE] < 0) {
		diagnose_report(d, DIAGNOSE_UNREADABLE, place_of(s, PICKLE), "%s",
				strerror(-s->error[PICKLE]));
	} else {
		files = (struct diagnose_files){.pickle = &s->source[PICKLE],
						.level0 = has_index ? &s->source[LEVEL0] : NULL,
						.header = has_index ? &h : NULL};
		diagnose_ids(d, s->c, &files);
		compare_with_last(d, s);
	}
	if (has_index && s->error[PICKLE] != -ENOENT)
		check_vectors(d, s, &h, before);
}

/* No directory: normal until the first write, and while everything is still in the queue. */
static void judge_missing(struct diagnosis *d, const struct chroma_collection *c, int error)
{
	struct diagnose_place place = {.collection = c->name, .segment = c->vector_segment};
	struct diagnose_files none = {0};

	if (error == -ENOENT &&
	    (is_renamed(d, c) || diagnose_is_placeholder(d, place, d->dirfd, c->vector_segment)))
		return;
	if (error == -EACCES) /* whose it is; the list of segments cannot have it */
		diagnose_ownership(d, &d->database, c->vector_segment);
	if (error == -ELOOP)
		diagnose_link(d, place, c->vector_segment);
	else if (error != -ENOENT)
		diagnose_report(d, DIAGNOSE_UNREADABLE, place, "%s", strerror(-error));
	else if (c->vector_mark.type != SQLITE_NULL)
		diagnose_report(d, DIAGNOSE_SEGMENT_MISSING, place, "%s", "");
	else
		diagnose_ids(d, c, &none);
}

/* A persist under way leaves the index newer than the pickle for a moment. */
static bool is_being_written(const struct diagnosis *d, const struct segment *s)
{
	time_t newest = 0, now = time(NULL);
	int i;

	if (!d->summary->processes)
		return false;
	for (i = 0; i < FILES; i++)
		if (s->error[i] == 0 && s->stat[i].st_mtim.tv_sec > newest)
			newest = s->stat[i].st_mtim.tv_sec;
	return now - newest < 10;
}

static void flush_pending(struct diagnosis *d)
{
	unsigned i;

	d->holds_back = false;
	for (i = 0; i < d->pending_count; i++) {
		const struct diagnose_pending *p = &d->pending[i];
		struct diagnose_place place = {p->collection[0] ? p->collection : NULL,
					       p->segment[0] ? p->segment : NULL,
					       p->file[0] ? p->file : NULL};

		d->absent += p->code == DIAGNOSE_SEGMENT_MISSING;
		diagnose_report(d, p->code, place, "%s", p->detail);
	}
	d->pending_count = 0;
}

static int open_directory(const struct diagnosis *d, const char *segment, int *out)
{
	uint32_t i;

	*out = d->manifest ? -1 : file_follow_directory_at(d->dirfd, segment);
	for (i = 0; d->manifest && i < d->manifest->file_count; i++)
		if (!strncmp(d->manifest->files[i].path, segment, strlen(segment)))
			return 0;
	return d->manifest ? -ENOENT : *out < 0 ? *out : 0;
}

/* Once, under a read transaction. True: the files kept still, and the findings stand. */
static bool judge_once(struct diagnosis *d, const struct chroma_collection *c, bool is_last)
{
	struct segment s = {.c = c};
	bool stands;
	int r;

	d->holds_back = true;
	d->pending_count = 0;
	r = open_directory(d, c->vector_segment, &s.dirfd);
	if (r < 0) {
		judge_missing(d, c, r);
		return d->pending_count == 0 || !d->summary->processes || is_last;
	}
	open_files(d, &s);
	judge_files(d, &s);
	stands = kept_still(&s);
	if (stands && d->pending_count && is_being_written(d, &s))
		stands = false;
	if (!stands && is_last) {
		d->pending_count = 0;
		d->holds_back = false;
		diagnose_report(d, DIAGNOSE_SEGMENT_BUSY,
				(struct diagnose_place){c->name, c->vector_segment, NULL}, "%s",
				"");
		stands = true;
	}
	close_files(&s);
	return stands;
}

void diagnose_segment(struct diagnosis *d, const struct chroma_collection *c)
{
	int tries;

	if (!chroma_is_uuid(c->vector_segment))
		return;
	d->persisted += c->vector_mark.type != SQLITE_NULL;
	for (tries = 1; !judge_once(d, c, tries == TRIES); tries++)
		usleep(PAUSE_US);
	flush_pending(d);
}
