/* SPDX-License-Identifier: MIT
 *
 * A malformed database: the copy of it that is made from its pages (salvage/salvage.h) takes its
 * place.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/sys.h"
#include "core/recover/internal.h"
#include "core/salvage/salvage.h"
#include "core/sqlite/wal.h"

#define SALVAGE "salvage.sqlite3"

/* Frames that are committed, where SQLite does not see from page 1 that there is a log. */
static int play_frames(const struct file_source *log, int to)
{
	unsigned char *page = malloc(SQLITE_PAGE_MAX);
	struct sqlite_wal_pages p = {0};
	int r = page ? sqlite_wal_pages(&p, log) : -ENOMEM;
	size_t i;

	/* Behind the size that the last commit tells is what was cut off since. */
	for (i = 0; r == 0 && i < p.count && p.pages[i].page <= p.size / p.page_size; i++) {
		r = file_source_read(log, page, p.page_size, p.pages[i].at);
		if (r == 0)
			r = sys_pwrite_all(to, page, p.page_size,
					   (uint64_t)(p.pages[i].page - 1) * p.page_size);
	}
	free(p.pages);
	free(page);
	return r;
}

/* The database is a copy. */
static int play_log(struct recovery *r)
{
	int from = file_open_at(r->dirfd, CHROMA_DATABASE "-wal"), to, error;
	struct file_source source;

	if (from < 0)
		return from == -ENOENT ? 0 : from;
	to = openat(r->dirfd, CHROMA_DATABASE, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	error = to < 0 ? -errno : file_source_open(&source, from);
	if (error == 0)
		error = play_frames(&source, to);
	close(from);
	if (to >= 0)
		close(to);
	return error;
}

static int copy_all(const struct recovery *r, struct salvage *s)
{
	char file[sizeof(r->path) + sizeof(SALVAGE)];
	int error;

	snprintf(file, sizeof(file), "%s/" SALVAGE, r->path);
	error = salvage_into(s, file);
	sqlite3_close(s->to);
	return error;
}

static int take_place(struct recovery *r)
{
	struct stat st;
	int error;

	sqlite3_close(r->db);
	r->db = NULL;
	if (fstatat(r->dirfd, CHROMA_DATABASE, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (fchmodat(r->dirfd, SALVAGE, st.st_mode & 07777, 0) < 0 ||
		    (geteuid() == 0 && fchownat(r->dirfd, SALVAGE, st.st_uid, st.st_gid, 0) < 0))
			return -errno;
	}
	unlinkat(r->dirfd, CHROMA_DATABASE "-journal", 0);
	unlinkat(r->dirfd, CHROMA_DATABASE "-wal", 0);
	unlinkat(r->dirfd, CHROMA_DATABASE "-shm", 0);
	if (renameat(r->dirfd, SALVAGE, r->dirfd, CHROMA_DATABASE) < 0)
		return -errno;
	error = recover_open(r);
	if (error == 0)
		recover_read_release(r);
	return error;
}

/* ---- what a recovery has beside the pages ---- */

static int note_harm(void *context, const char *collection, const char *id, size_t id_size)
{
	struct recovery *r = context;

	return recover_account_note(r->options->account, collection, id, id_size);
}

static void say_sentence(void *context, const char *collection, const char *sentence)
{
	recover_say(context, RECOVER_PAGES, collection, "%s", sentence);
}

/* Whose ids and vectors are something, also where no row is left. */
static bool has_segments(int dirfd)
{
	const struct dirent *entry;
	bool found = false;
	DIR *dir;

	if (file_names_at(dirfd, NULL, &dir) < 0)
		return false;
	while (!found && (entry = readdir(dir)))
		found = chroma_is_segment(dirfd, entry->d_name);
	closedir(dir);
	return found;
}

/* ---- the step ---- */

static void say_pages(struct recovery *r, const struct salvage *s)
{
	recover_say(r, RECOVER_PAGES, NULL,
		    "the malformed database was copied into a new one: %" PRIu64 " rows of %" PRIu64
		    " tables; %" PRIu64 " of these had pages that cannot be read",
		    s->rows, s->tables, s->damaged);
	if (s->unreadable)
		recover_say(r, RECOVER_PAGES, NULL,
			    "%" PRIu64 " rows were damaged and are left out", s->unreadable);
	if (s->doubtful)
		recover_say(r, RECOVER_PAGES, NULL,
			    "%" PRIu64
			    " rows stood on pages that nothing leads to any more, and the "
			    "list of free pages is lost: some of them may have been deleted before",
			    s->doubtful);
}

int recover_pages(struct recovery *r)
{
	const struct salvage_help help = {.context = r,
					  .find_collections =
					      r->options->snapshots ? recover_collections : NULL,
					  .note = r->options->account ? note_harm : NULL,
					  .say = say_sentence,
					  .has_more = has_segments(r->dirfd)};
	struct salvage s = {.dirfd = r->dirfd, .help = &help};
	int64_t again;
	int error = play_log(r);

	if (error == 0)
		error = copy_all(r, &s);
	if (r->options->account) {
		r->options->account->lacks_segments |= s.lost_segments;
		r->options->account->may_lack |= s.lost_queue;
		r->options->account->nameless += s.nameless;
	}
	if (error < 0) {
		unlinkat(r->dirfd, SALVAGE, 0);
		if (!salvage_is_unreadable(error))
			return error;
		recover_say(r, RECOVER_PAGES, NULL,
			    "nothing of its collections and records can be read");
		return 0;
	}
	error = take_place(r);
	if (error == 0)
		error = recover_replay(r, false, &again);
	if (error < 0)
		return error;
	r->healed++;
	r->lost_pages = true;
	r->lost_rows |= s.lost_records;
	r->lacks_queue = s.lacks_queue;
	r->lost_segments = s.lost_segments;
	r->lost_marks = s.lost_marks;
	say_pages(r, &s);
	return 0;
}
