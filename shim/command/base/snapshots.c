/* SPDX-License-Identifier: MIT
 *
 * What the verbs about snapshots share.
 */
#include "command/base/snapshots.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/base/progress.h"
#include "command/base/guard_lock.h"
#include "command/base/guard_settings.h"
#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"
#include "core/oplog/oplog.h"
#include "core/pin/outside.h"
#include "core/snapshot/hydrate.h"
#include "core/undo/rollback.h"

#define WAIT_MS 10000 /* for another chromashim that changes the store */

/* ---- opening ---- */

static int fail_open(const struct snapshots *s, int r)
{
	if (r == -EBUSY)
		return fail(EXIT_BUSY, 0, "Wait until it is done, and try again.",
			    "another chromashim is at work on the snapshots in '%s'",
			    s->data.store);
	if (r == -ENOENT)
		return fail(EXIT_NO_STORE, 0, "`chromashim snapshot create` takes one.",
			    "there are no snapshots in '%s'", s->data.store);
	return fail(exit_code_of(r), r,
		    r == -ENOSPC   ? "Make room on that file system."
		    : r == -EACCES ? "Run this as the owner of the data directory."
				   : "The store has to be a directory that can be written.",
		    "cannot open the snapshots in '%s'", s->data.store);
}

static bool is_listed(const struct manifest *list, size_t count, uint64_t id)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (list[i].header.id == id)
			return true;
	return false;
}

static bool is_pinned(const struct snapshots *s, uint64_t id)
{
	return pins_find((struct pins *)&s->pins, id) != NULL;
}

static int compare_ids(const void *a, const void *b)
{
	const struct manifest *x = a, *y = b;

	return x->header.id < y->header.id ? -1 : x->header.id > y->header.id;
}

/* Pins as they are now; before the manifests are read, so that none falls between. */
static int describe_pins(struct snapshots *s, struct manifest **out, size_t *count)
{
	unsigned i;
	int r = 0;

	*out = NULL;
	*count = 0;
	if (pins_open(&s->pins, s->data.storefd, false) < 0) {
		s->pins = (struct pins){.dirfd = -1};
		return 0;
	}
	*out = calloc(PIN_SLOTS, sizeof(**out));
	for (i = 0; *out && i < PIN_SLOTS && r == 0; i++) {
		uint32_t state = __atomic_load_n(&s->pins.slots[i].state, __ATOMIC_SEQ_CST);

		if ((state == PIN_HELD && !pin_is_base(&s->pins.slots[i])) || state == PIN_BROKEN)
			r = hydrate_describe(&s->pins.slots[i], &(*out)[(*count)++]);
	}
	return *out ? r : -ENOMEM;
}

static int merge_pins(struct snapshots *s, struct manifest *pinned, size_t count)
{
	struct manifest *all = reallocarray(s->list, s->count + count + 1, sizeof(*all));
	size_t i, had = s->count;

	if (!all)
		return -ENOMEM;
	s->list = all;
	for (i = 0; i < had; i++)
		if (all[i].header.state == SNAPSHOT_HYDRATING && !is_pinned(s, all[i].header.id)) {
			all[i].header.state = SNAPSHOT_BROKEN;
			if (manifest_set_text(&all[i].trouble, "its pin is lost") < 0)
				return -ENOMEM;
		}
	for (i = 0; i < count; i++) {
		if (is_listed(all, had, pinned[i].header.id))
			continue;
		all[s->count++] = pinned[i];
		pinned[i] = (struct manifest){0};
	}
	if (s->count)
		qsort(all, s->count, sizeof(*all), compare_ids);
	return 0;
}

static int read_list(struct snapshots *s)
{
	struct manifest *pinned;
	size_t count;
	int r = describe_pins(s, &pinned, &count);

	if (r == 0)
		r = s->only_heads ? snapshot_list_heads(&s->store, &s->list, &s->count)
				  : snapshot_list(&s->store, &s->list, &s->count);
	if (r == 0)
		r = merge_pins(s, pinned, count);
	snapshot_list_free(pinned, count);
	return r;
}

static int open_store(struct snapshots *s, enum snapshot_access access, bool make, unsigned wait_ms)
{
	struct pins pins;
	int r;

	if (access >= SNAPSHOT_ADD && !make &&
	    faccessat(s->data.storefd, SNAPSHOTS_DIR, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		r = -errno;
	else
		r = snapshot_store_open(&s->store, s->data.storefd, access, wait_ms);
	/* Only pins so far: the place for manifests is made for them. */
	if (r == -ENOENT && !make && pins_open(&pins, s->data.storefd, false) == 0) {
		bool any = pins_any(&pins);

		pins_close(&pins);
		if (any)
			r = snapshot_store_open(&s->store, s->data.storefd,
						access > SNAPSHOT_ADD ? access : SNAPSHOT_ADD,
						wait_ms);
	}
	return r;
}

int snapshots_load(struct snapshots *s, enum snapshot_access access, bool make, unsigned wait_ms)
{
	int r = make ? data_directory_make_store(&s->data) : s->data.storefd < 0 ? -ENOENT : 0;

	s->list = NULL;
	s->count = 0;
	if (r == 0)
		r = open_store(s, access, make, wait_ms);
	if (r < 0)
		return r;
	r = read_list(s);
	if (r < 0)
		snapshots_unload(s);
	return r;
}

void snapshots_unload(struct snapshots *s)
{
	snapshot_list_free(s->list, s->count);
	s->list = NULL;
	s->count = 0;
	if (s->pins.state)
		pins_close(&s->pins);
	s->pins = (struct pins){.dirfd = -1};
	snapshot_store_close(&s->store);
}

static void prepare(struct snapshots *s)
{
	memset(s, 0, sizeof(*s));
	s->pins.dirfd = s->store.dirfd = s->store.lockfd = s->store.chunks.dirfd = -1;
}

static int snapshots_open_data(struct snapshots *s, const char *dir)
{
	prepare(s);
	return data_directory_open(&s->data, dir, false);
}

int snapshots_load_opened(struct snapshots *s, enum snapshot_access access, bool make)
{
	int r = snapshots_load(s, access, make, WAIT_MS);

	return r < 0 ? fail_open(s, r) : 0;
}

static int load_or_close(struct snapshots *s, enum snapshot_access access, bool make)
{
	int status = snapshots_load_opened(s, access, make);

	if (status)
		data_directory_close(&s->data);
	return status;
}

int snapshots_open(struct snapshots *s, const char *dir, enum snapshot_access access, bool make)
{
	int status = snapshots_open_data(s, dir);

	return status ? status : load_or_close(s, access, make);
}

int snapshots_open_what_is_there(struct snapshots *s, const char *dir, enum snapshot_access access)
{
	int status = snapshots_open_data(s, dir), r;

	if (status)
		return status;
	r = snapshots_load(s, access, false, WAIT_MS);
	if (r == 0 || r == -ENOENT)
		return 0;
	status = fail_open(s, r);
	data_directory_close(&s->data);
	return status;
}

int snapshots_open_at_rest(struct snapshots *s, const char *dir, enum snapshot_access access)
{
	int status = snapshots_open_data(s, dir);

	if (status)
		return status;
	if (s->data.storefd >= 0)
		guard_wait_for_last(&s->data);
	return load_or_close(s, access, false);
}

int snapshots_open_new(struct snapshots *s, const char *dir, const struct stat *like)
{
	int status;

	prepare(s);
	status = data_directory_open_new(&s->data, dir, like);
	return status ? status : load_or_close(s, SNAPSHOT_CHANGE, true);
}

void snapshots_close(struct snapshots *s)
{
	data_directory_leave_nothing(&s->data);
	snapshots_unload(s);
	data_directory_close(&s->data);
}

/* ---- what is only pinned ---- */

static bool is_only_pinned(const struct manifest *m)
{
	return m->header.state == SNAPSHOT_PINNED || m->header.state == SNAPSHOT_HYDRATING;
}

static int upgrade(struct snapshots *s)
{
	if (s->store.access >= SNAPSHOT_ADD)
		return 0;
	snapshot_store_close(&s->store);
	return snapshot_store_open(&s->store, s->data.storefd, SNAPSHOT_ADD, WAIT_MS);
}

/* The guardian may have done it meanwhile. */
static int hydrate(struct snapshots *s, struct manifest *m, const struct snapshot_flags *flags,
		   struct snapshot_trouble *t)
{
	struct pin_slot *slot = pins_find(&s->pins, m->header.id);
	struct guard_settings settings;
	struct progress p;
	struct hydrate_options options = {
	    .dirfd = s->data.dirfd, .progress = progress_step, .context = &p};
	uint64_t id = m->header.id;
	int r;

	guard_settings_read(&settings, s->data.storefd);
	options.rate = settings.rate;
	guard_settings_free(&settings);
	manifest_free(m);
	*m = (struct manifest){0};
	if (!slot)
		return manifest_read(s->store.dirfd, id, m);
	progress_start(&p, "copying", flags->quiet);
	r = hydrate_pin(&s->store, &s->pins, slot, &options, m, t);
	progress_end(&p);
	return r;
}

int snapshots_settle(struct snapshots *s, long at, const struct snapshot_flags *flags)
{
	struct manifest *m = &s->list[at];
	struct snapshot_trouble t = {{0}, {0}};
	uint64_t id = m->header.id;
	int r;

	if (!is_only_pinned(m))
		return 0;
	r = upgrade(s);
	if (r < 0)
		return fail_open(s, r);
	r = hydrate(s, m, flags, &t);
	if (r == 0 && m->header.state == 0)
		return fail(EXIT_NOT_FOUND, 0, "Use another one.",
			    "snapshot %" PRIu64
			    " held nothing yet: it was pinned while Chroma made "
			    "its tables",
			    id);
	if (r == 0 && m->header.state != SNAPSHOT_BROKEN)
		return 0;
	if (r == 0)
		return fail(EXIT_FAILED, 0,
			    "Use another one; `chromashim snapshot create` takes a new one.",
			    "snapshot %" PRIu64 " is broken: %s", id, m->trouble);
	m->header.id = id;
	if (!t.file[0] && !t.detail[0])
		snprintf(t.detail, sizeof(t.detail), "%s", strerror(-r));
	return snapshots_fail(s, r, &t, "cannot copy what is pinned of");
}

int snapshots_settle_all(struct snapshots *s, const struct snapshot_flags *flags)
{
	size_t i;
	int status;

	for (i = 0; i < s->count; i++) {
		status = snapshots_settle(s, (long)i, flags);
		if (status && status != EXIT_NOT_FOUND &&
		    s->list[i].header.state != SNAPSHOT_BROKEN)
			return status;
	}
	return 0;
}

int snapshots_remove(struct snapshots *s, size_t at)
{
	uint64_t id = s->list[at].header.id;
	struct pin_slot *slot = pins_find(&s->pins, id);
	int r = snapshot_remove(&s->store, id);

	if (r < 0 && !(slot && r == -ENOENT))
		return r;
	if (slot) {
		pin_drop(&s->pins, slot);
		pins_sweep(&s->pins);
	}
	return 0;
}

const char *snapshots_state(const struct manifest *m, char *out, size_t room)
{
	if (m->header.state != SNAPSHOT_HYDRATING)
		return snapshot_state_name(m->header.state);
	snprintf(out, room, "hydrating %u %%", m->header.progress);
	return out;
}

bool snapshots_time_tells(const struct snapshots *s, size_t at)
{
	uint64_t time = s->list[at].header.time;
	size_t i;

	for (i = 0; i < s->count; i++) {
		uint64_t other = s->list[i].header.time;

		if (i < at ? clock_was_ahead(other, time) : clock_was_ahead(time, other))
			return false;
	}
	return !clock_was_ahead(time, clock_read(CLOCK_REALTIME));
}

/* ---- which one ---- */

static bool is_restorable(const struct manifest *m)
{
	return m->header.state == SNAPSHOT_VERIFIED || m->header.state == SNAPSHOT_COMPLETE ||
	       is_only_pinned(m);
}

static long find_number(const struct snapshots *s, const char *spec)
{
	uint64_t id;
	size_t i;

	errno = 0;
	id = strtoull(spec, NULL, 10);
	if (errno)
		return -1;
	for (i = 0; i < s->count; i++)
		if (s->list[i].header.id == id)
			return (long)i;
	return -1;
}

/* What a restore kept is the state that somebody wanted to get rid of. */
static bool is_offered(const struct manifest *m)
{
	return is_restorable(m) && strcmp(m->reason, "restore") != 0;
}

/* The newest of those on offer, with that reason (or `run`'s for the same) if one is given. By its
 * number: a clock that was ahead, or behind, tells nothing of their order. */
static long find_newest(const struct snapshots *s, const char *reason)
{
	long i;

	for (i = (long)s->count - 1; i >= 0; i--) {
		const struct manifest *m = &s->list[i];

		if (is_offered(m) &&
		    (!reason || !strcmp(m->reason, reason) || !strcmp(m->reason, "migration")))
			return i;
	}
	return -1;
}

/* Of those on offer that are not after it, the one next to it. */
static long find_at(const struct snapshots *s, uint64_t time)
{
	long i, found = -1;

	for (i = 0; i < (long)s->count; i++) {
		const struct manifest *m = &s->list[i];

		if (is_offered(m) && m->header.time <= time &&
		    (found < 0 || m->header.time >= s->list[found].header.time))
			found = i;
	}
	return found;
}

long snapshots_find(const struct snapshots *s, const char *spec)
{
	struct stat st;
	uint64_t time;
	char hint[512];
	long found;

	if (*spec && spec[strspn(spec, "0123456789")] == '\0') {
		found = find_number(s, spec);
	} else if (!strcmp(spec, "latest")) {
		found = find_newest(s, NULL);
	} else if (!strcmp(spec, "before-schema")) {
		found = find_newest(s, "schema");
	} else if (parse_time(spec, &time)) {
		found = find_at(s, time);
	} else if (stat(spec, &st) == 0 && S_ISDIR(st.st_mode)) {
		snprintf(hint, sizeof(hint),
			 "It is a directory, and one is given with a slash: ./%.400s", spec);
		fail(EXIT_USAGE, 0, hint, "'%s' names no snapshot", spec);
		return -1;
	} else {
		fail(EXIT_USAGE, 0,
		     "Give a number, latest, before-schema, an age as @10m, or a time as "
		     "2026-01-31T10:00.",
		     "'%s' names no snapshot", spec);
		return -1;
	}
	if (found < 0)
		fail(EXIT_NOT_FOUND, 0, "`chromashim snapshot list` shows what there is.",
		     "there is no snapshot '%s' in '%s'", spec, s->data.store);
	return found;
}

/* ---- telling and asking ---- */

int snapshots_fail(const struct snapshots *s, int error, const struct snapshot_trouble *t,
		   const char *what)
{
	const char *todo = "`chromashim check` tells more about the directory.";
	bool has_detail = t->detail[0] && error != -ENOSPC;

	switch (-error) {
	case ENOSPC:
	case EDQUOT:
		todo =
		    "Make room on the store's file system, or prune: `chromashim snapshot prune`.";
		break;
	case EBUSY:
		todo = "The backend was busy all the time; try again.";
		break;
	case EACCES:
	case EPERM:
		todo = "Run this as the owner of the data directory.";
		break;
	case EFBIG:
	case EROFS:
		todo = "The store must be on a file system that takes such files.";
		break;
	case EXDEV:
		todo = "The store is on another file system: restore with -o, then exchange the "
		       "directories yourself.";
		break;
	default:
		break;
	}
	if (t->file[0])
		return fail(exit_code_of(error), has_detail ? 0 : error, todo, "%s '%s': %s%s%s",
			    what, s->data.dir, t->file, has_detail ? ": " : "",
			    has_detail ? t->detail : "");
	return fail(exit_code_of(error), has_detail ? 0 : error, todo, "%s '%s'%s%s", what,
		    s->data.dir, has_detail ? ": " : "", has_detail ? t->detail : "");
}

int snapshots_confirm(const struct snapshot_flags *flags, const char *question, ...)
{
	char answer[16] = "";
	bool is_there;
	va_list ap;

	if (flags->yes)
		return 0;
	fflush(stdout);
	va_start(ap, question);
	vfprintf(stderr, question, ap);
	va_end(ap);
	fputs(" [y/N] ", stderr);
	fflush(stderr);
	is_there = fgets(answer, sizeof(answer), stdin) != NULL;
	if (!isatty(STDIN_FILENO)) { /* which shows the end of the line itself */
		fputc('\n', stderr);
		if (!is_there)
			return fail(EXIT_USAGE, 0,
				    "Add -y to say yes, or -n to see what would be done.",
				    "this needs an answer, and the standard input has none");
	}
	/* The whole line: what a script reads there itself is no answer. */
	answer[strcspn(answer, "\r\n")] = '\0';
	if (strcasecmp(answer, "y") == 0 || strcasecmp(answer, "yes") == 0)
		return 0;
	warn("nothing was changed");
	return EXIT_FAILED;
}

/* ---- verifying ---- */

int snapshots_verify(struct snapshots *s, struct manifest *m, const struct snapshot_flags *flags)
{
	struct snapshot_trouble t;
	struct progress p;
	int r;

	if (is_only_pinned(m)) {
		r = snapshots_settle(s, m - s->list, flags);
		if (r)
			return r;
	}
	if (m->header.magic != SNAPSHOT_MAGIC)
		return fail(EXIT_FAILED, 0,
			    "What it had is lost; `chromashim snapshot delete` removes it from the "
			    "list.",
			    "snapshot %" PRIu64 ": %s", m->header.id, m->trouble);
	progress_start(&p, "verifying", flags->quiet);
	r = verify_snapshot(&s->store, m, progress_step, &p, &t);
	progress_end(&p);
	if (r < 0)
		return snapshots_fail(s, r, &t, "cannot verify a snapshot of");
	if (m->header.state == SNAPSHOT_BROKEN)
		return fail(EXIT_FAILED, 0,
			    "Use another one; `chromashim snapshot create` takes a new one.",
			    "snapshot %" PRIu64 " is broken: %s", m->header.id, m->trouble);
	if (m->header.state != SNAPSHOT_VERIFIED) {
		warn("snapshot %" PRIu64 " is complete, but could not be verified: %s",
		     m->header.id, m->trouble);
		return EXIT_WARNINGS;
	}
	return EXIT_DONE;
}

/* ---- before one is taken ---- */

/* The snapshot says if a segment is torn. */
static void tell_pins(void *context, const struct rollback_outcome *outcome)
{
	const struct data_directory *t = context;

	if (outcome->result <= ROLLBACK_COMMITTED)
		pins_segment_undone(t->storefd, t->dirfd, outcome->header.segment);
}

void snapshots_roll_back(const struct data_directory *t)
{
	struct rollback rb = {
	    .rootfd = t->dirfd, .report = tell_pins, .context = (void *)(uintptr_t)t};

	rb.undofd = file_open_directory_at(t->storefd, UNDO_DIR);
	if (rb.undofd < 0)
		return;
	rollback_directory(&rb);
	close(rb.undofd);
}
