/* SPDX-License-Identifier: MIT
 *
 * `chromashim log`: which records, and what the numbers in one mean.
 */
#include "command/log/log.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>

#include <bsd/string.h>
#include <sqlite3.h>

#include "core/base/symbols.h"
#include "core/oplog/acts.h"
#include "core/oplog/oplog.h"
#include "core/sqlite/page.h"

/* ---- which ---- */

#define OPS_MAX 255u /* no operation has a higher number */

static bool is_sqlite(const struct oplog_entry *e)
{
	return e->op >= OP_SQL_COPY && e->op <= OP_SQL_LOAD;
}

/* The answer that who asks expects as often as success: "make sure that it is there". */
static bool is_ordinary(const struct oplog_entry *e)
{
	switch (e->op) {
	case OP_MKDIR:
	case OP_MKDIRAT:
		return e->result == -EEXIST;
	case OP_OPEN: /* an index that another process writes: who only reads goes on without */
	case OP_OPENAT:
		return e->result == -EBUSY;
	case OP_LOCK: /* another has it; it is asked for again */
		return e->result == -EAGAIN || e->result == -EACCES;
	case OP_REMOVEXATTR:
		return e->result == -ENODATA;
	case OP_SQL_STEP: /* Chroma before 1.0 inserts what it upserts, and then updates */
		return e->result == -SQLITE_CONSTRAINT;
	default:
		return false;
	}
}

bool log_has_failed(const struct oplog_entry *e)
{
	if (e->in_flight || is_ordinary(e))
		return false;
	if (e->op >= OP_REFUSE_WRITER && e->op <= OP_REFUSE_DESTROYER)
		return true;
	if (e->op >= OP_TXN_BEGIN && e->op <= OP_SNAPSHOT_STATE)
		return false;
	return e->result < 0;
}

/* Takes one from a comma list; the rest of the list is returned. */
static const char *next_op(const char *list, char glob[64])
{
	size_t n = strcspn(list, ",");

	snprintf(glob, 64, "%.*s", (int)(n < 63 ? n : 63), list);
	return list + n + (list[n] == ',');
}

bool log_op_fits(const char *list, const char *name)
{
	char glob[64];

	if (!list)
		return true;
	while (*list) {
		list = next_op(list, glob);
		if (*glob && fnmatch(glob, name, 0) == 0)
			return true;
	}
	return false;
}

static bool op_fits(const char *list, unsigned op)
{
	const char *known = oplog_op_name(op);
	char name[24];

	if (!known)
		snprintf(name, sizeof(name), "op.%u", op);
	else
		strlcpy(name, known, sizeof(name));
	return log_op_fits(list, name);
}

bool log_ops_are_calls(const char *list)
{
	char glob[64];
	unsigned op;

	while (list && *list) {
		bool act, call = false;

		list = next_op(list, glob);
		act = fnmatch(glob, LOG_DEATH, 0) == 0 || strncmp(glob, "op.", 3) == 0;
		for (op = 0; op <= OPS_MAX && !act; op++) {
			bool fits = oplog_op_name(op) && fnmatch(glob, oplog_op_name(op), 0) == 0;

			act = fits && oplog_is_act((uint16_t)op);
			call |= fits;
		}
		if (call && !act)
			return true;
	}
	return false;
}

bool log_ops_known(const char *list, char unknown[64])
{
	unsigned op;

	while (*list) {
		list = next_op(list, unknown);
		for (op = 0; op <= OPS_MAX; op++)
			if (oplog_op_name(op) && fnmatch(unknown, oplog_op_name(op), 0) == 0)
				break;
		if (op > OPS_MAX && strncmp(unknown, "op.", 3) != 0 &&
		    fnmatch(unknown, LOG_DEATH, 0) != 0)
			return false;
	}
	return true;
}

bool log_path_fits(const char *glob, const char *path)
{
	const char *last = strrchr(path, '/');

	if (fnmatch(glob, path, 0) == 0)
		return true;
	return last && !strchr(glob, '/') && fnmatch(glob, last + 1, 0) == 0;
}

bool log_filter_wants(const struct log_filter *f, const struct oplog_entry *e)
{
	if (e->time < f->since || (f->until && e->time >= f->until))
		return false;
	if ((f->pid && e->header->pid != f->pid) || (f->tid && e->tid != f->tid))
		return false;
	if (f->in_flight && !e->in_flight)
		return false;
	if (f->failed && !log_has_failed(e))
		return false;
	if (f->protected_only && e->op != OP_PROTECT_BEGIN && e->op != OP_PROTECT_END)
		return false;
	if (e->duration < f->slower_than)
		return false;
	if (f->id && !oplog_act_has_id(e, f->store_id, f->id))
		return false;
	if (f->collection &&
	    (e->kind == OPLOG_NAME_SQL || !collection_names_fits(f->names, e->name, f->collection)))
		return false;
	if (f->ops && !op_fits(f->ops, e->op))
		return false;
	if (f->path && !(e->name && e->kind != OPLOG_NAME_SQL && log_path_fits(f->path, e->name)) &&
	    !(e->name2 && log_path_fits(f->path, e->name2)))
		return false;
	return true;
}

/* ---- details ---- */

static struct log_detail *add_detail(struct log_meaning *m, const char *key)
{
	struct log_detail *d = &m->detail[m->details];

	if (m->details < LOG_DETAILS)
		m->details++;
	else
		d = &m->detail[LOG_DETAILS - 1];
	memset(d, 0, sizeof(*d));
	d->key = key;
	return d;
}

static void add_number(struct log_meaning *m, const char *key, uint64_t value)
{
	add_detail(m, key)->number = (int64_t)value;
}

static void add_text(struct log_meaning *m, const char *key, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void add_text(struct log_meaning *m, const char *key, const char *format, ...)
{
	struct log_detail *d = add_detail(m, key);
	va_list ap;

	d->is_text = true;
	va_start(ap, format);
	vsnprintf(d->text, sizeof(d->text), format, ap);
	va_end(ap);
}

struct bit_name {
	uint64_t bits;
	const char *name;
};

/* Names joined by '|'; what has no name in hexadecimal. Wider names come first. */
static void add_bits(struct log_meaning *m, const char *key, uint64_t value, const char *start,
		     const struct bit_name *names, size_t n)
{
	char text[96];
	size_t i;

	strlcpy(text, start, sizeof(text));
	for (i = 0; i < n; i++) {
		if (!names[i].bits || (value & names[i].bits) != names[i].bits)
			continue;
		if (*text)
			strlcat(text, "|", sizeof(text));
		strlcat(text, names[i].name, sizeof(text));
		value &= ~names[i].bits;
	}
	if (value || !*text) {
		char rest[24];

		snprintf(rest, sizeof(rest), "%s0x%" PRIx64, *text ? "|" : "", value);
		strlcat(text, rest, sizeof(text));
	}
	add_text(m, key, "%s", text);
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void add_open_flags(struct log_meaning *m, uint64_t flags)
{
	static const struct bit_name names[] = {
	    {O_CREAT, "O_CREAT"},     {O_EXCL, "O_EXCL"},	    {O_TRUNC, "O_TRUNC"},
	    {O_APPEND, "O_APPEND"},   {O_SYNC, "O_SYNC"},	    {O_DSYNC, "O_DSYNC"},
	    {O_TMPFILE, "O_TMPFILE"}, {O_DIRECTORY, "O_DIRECTORY"}, {O_NOFOLLOW, "O_NOFOLLOW"},
	    {O_CLOEXEC, "O_CLOEXEC"}, {O_DIRECT, "O_DIRECT"},	    {O_NONBLOCK, "O_NONBLOCK"},
	    {O_NOATIME, "O_NOATIME"}, {O_PATH, "O_PATH"},	    {O_NOCTTY, "O_NOCTTY"},
	    {0100000, "O_LARGEFILE"},
	};
	static const char *const modes[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"};

	add_bits(m, "flags", flags & ~(uint64_t)O_ACCMODE, modes[flags & O_ACCMODE], names,
		 COUNT(names));
}

/* SQLite's lock bytes, which are worth a name. */
static const char *sqlite_lock_range(int64_t offset, uint64_t length)
{
	if (offset == SQLITE_PENDING_BYTE)
		return length == 1 ? "PENDING" : "all";
	if (offset == SQLITE_RESERVED_BYTE)
		return length == 1 ? "RESERVED" : NULL;
	return offset >= SQLITE_SHARED_FIRST && offset < SQLITE_SHARED_FIRST + SQLITE_SHARED_SIZE
		   ? "SHARED"
		   : NULL;
}

static void explain_lock(const struct oplog_entry *e, struct log_meaning *m)
{
	static const char *const kinds[] = {"read", "write", "unlock"};
	const char *range = sqlite_lock_range(e->offset, e->length);
	unsigned kind = e->arg & 0xff;

	if (kind < COUNT(kinds))
		add_text(m, "lock", "%s", kinds[kind]);
	else
		add_number(m, "lock", kind);
	if (range)
		add_text(m, "lock_name", "%s", range);
	if (e->arg & OPLOG_LOCK_WAIT)
		add_number(m, "wait", 1);
	if (e->arg & OPLOG_LOCK_OFD)
		add_number(m, "ofd", 1);
}

static void explain_map(const struct oplog_entry *e, struct log_meaning *m)
{
	static const struct bit_name names[] = {
	    {PROT_READ, "PROT_READ"}, {PROT_WRITE, "PROT_WRITE"}, {PROT_EXEC, "PROT_EXEC"}};

	add_bits(m, "protection", e->arg, "", names, COUNT(names));
}

static void explain_flock(const struct oplog_entry *e, struct log_meaning *m)
{
	static const struct bit_name names[] = {
	    {LOCK_SH, "LOCK_SH"}, {LOCK_EX, "LOCK_EX"}, {LOCK_UN, "LOCK_UN"}, {LOCK_NB, "LOCK_NB"}};

	add_bits(m, "operation", e->arg, "", names, COUNT(names));
}

static void explain_names(const struct oplog_entry *e, struct log_meaning *m)
{
	static const struct bit_name renames[] = {
	    {1, "RENAME_NOREPLACE"}, {2, "RENAME_EXCHANGE"}, {4, "RENAME_WHITEOUT"}};

	m->has_offset = m->has_length = false;
	switch (e->op) {
	case OP_RENAMEAT2:
		if (e->length)
			add_bits(m, "flags", e->length, "", renames, COUNT(renames));
		break;
	case OP_UNLINKAT:
		if (e->length)
			add_text(m, "flags", e->length == AT_REMOVEDIR ? "AT_REMOVEDIR" : "0x%x",
				 (unsigned)e->length);
		break;
	case OP_MKDIR:
	case OP_MKDIRAT:
		add_text(m, "mode", "%04o", (unsigned)e->length & 07777);
		break;
	}
}

static void explain_metadata(const struct oplog_entry *e, struct log_meaning *m)
{
	m->has_offset = m->has_length = false;
	if (e->op == OP_CHMOD)
		add_text(m, "mode", "%04o", (unsigned)e->arg & 07777);
	if (e->op != OP_CHOWN)
		return;
	add_detail(m, "uid")->number = (int32_t)e->arg;
	add_detail(m, "gid")->number = (int32_t)e->length;
}

static void explain_sqlite(const struct oplog_entry *e, struct log_meaning *m)
{
	m->has_offset = m->has_length = false;
	if (e->op == OP_SQL_COPY)
		add_text(m, "seen", "%s", e->arg == OPLOG_COPY_ABOVE ? "above" : "below");
	if ((e->op == OP_SQL_STEP || e->op == OP_SQL_EXEC) && !e->in_flight) {
		add_number(m, "rows", e->length);
		if (e->offset >= 0)
			add_number(m, "changed", (uint64_t)e->offset);
	}
	if (!e->in_flight && e->result < 0)
		add_number(m, "sqlite_code", (uint64_t)-e->result);
	m->error = NULL;
}

static void explain_transaction(const struct oplog_entry *e, struct log_meaning *m)
{
	m->has_offset = m->has_length = m->has_result = false;
	m->error = NULL;
	add_number(m, "transaction", e->arg);
	if (e->op == OP_TXN_BEGIN || e->in_flight)
		return;
	add_number(m, "pages", e->offset > 0 ? (uint64_t)e->offset : 0);
	add_number(m, "bytes", e->length);
	if (e->result)
		add_number(m, "schema_cookie", (uint64_t)e->result);
}

static void explain_own(const struct oplog_entry *e, struct log_meaning *m)
{
	m->has_offset = false;
	switch (e->op) {
	case OP_PERSIST_BEGIN:
	case OP_PERSIST_COMMIT:
	case OP_PERSIST_ROLLBACK:
	case OP_PERSIST_FREEZE:
		m->has_length = false;
		add_number(m, "group", e->arg);
		if (e->op == OP_PERSIST_COMMIT) {
			add_number(m, "preimage_bytes", e->length);
			add_number(m, "sync_ns", e->offset > 0 ? (uint64_t)e->offset : 0);
			add_number(m, "elements", e->result > 0 ? (uint64_t)e->result : 0);
		}
		break;
	case OP_SNAPSHOT_PIN:
	case OP_SNAPSHOT_STATE:
		m->has_length = false;
		add_number(m, "snapshot", e->arg);
		break;
	case OP_PROTECT_BEGIN:
	case OP_PROTECT_END:
		m->has_length = false;
		m->error = NULL; /* the caller's own word */
		add_number(m, "token", e->arg);
		break;
	}
}

static void explain_descriptor(const struct oplog_entry *e, struct log_meaning *m)
{
	switch (e->op) {
	case OP_OPEN:
	case OP_OPENAT:
	case OP_CREAT:
	case OP_MKSTEMP:
	case OP_INHERIT:
	case OP_OPEN_BY_HANDLE_AT:
		add_open_flags(m, e->arg);
		break;
	case OP_CLOSE:
	case OP_DUP:
		add_detail(m, "fd")->number = (int32_t)e->arg;
		break;
	}
	m->has_offset = m->has_length = false;
}

static void explain_data(const struct oplog_entry *e, struct log_meaning *m)
{
	switch (e->op) {
	case OP_CLONE_RANGE:
	case OP_IOCTL:
		add_text(m, "request", "0x%" PRIx64, e->arg);
		break;
	case OP_FALLOCATE:
		add_text(m, "mode", "0x%" PRIx64, e->arg);
		break;
	case OP_FSYNC:
	case OP_FDATASYNC:
	case OP_SYNCFS:
		m->has_length = false;
		break;
	}
}

static void explain_records(const struct oplog_entry *e, struct log_meaning *m)
{
	struct oplog_act_records r;

	if (oplog_act_records(e, &r) == 0) {
		add_number(m, "added", r.head.added);
		add_number(m, "updated", r.head.updated);
		add_number(m, "upserted", r.head.upserted);
		add_number(m, "deleted", r.head.deleted);
		if (r.head.other)
			add_number(m, "other", r.head.other);
		add_number(m, "at_least", r.head.more != 0);
	}
	add_number(m, "first_seq", (uint64_t)e->offset);
	add_number(m, "last_seq", e->length);
}

/* What a commit did in Chroma's words. */
static void explain_act(const struct oplog_entry *e, struct log_meaning *m)
{
	const char *first, *second;

	m->has_offset = m->has_length = false;
	if (e->op != OP_DISK)
		add_number(m, "transaction", e->arg);
	switch (e->op) {
	case OP_DISK:
		add_number(m, "free", (uint64_t)e->offset);
		add_number(m, "total", e->length);
		break;
	case OP_RECORDS:
	case OP_PURGE:
		explain_records(e, m);
		break;
	case OP_COLLECTION:
		add_text(m, "change", "%s", oplog_act_collection_word(e));
		break;
	case OP_SEGMENT:
		oplog_act_segment(e, &first, &second);
		add_text(m, "segment", "%s", first);
		add_text(m, "scope", "%s", second);
		break;
	case OP_MIGRATION:
		add_number(m, "number", (uint64_t)e->offset);
		break;
	case OP_VACUUM:
		add_number(m, "bytes_before", (uint64_t)e->offset);
		add_number(m, "bytes_after", e->length);
		break;
	}
}

static void explain_op(const struct oplog_entry *e, struct log_meaning *m)
{
	if (e->op < OP_OPEN)
		m->has_offset = m->has_length = false;
	else if (e->op < OP_READ)
		explain_descriptor(e, m);
	else if (e->op < OP_RENAME)
		explain_data(e, m);
	else if (e->op < OP_CHMOD)
		explain_names(e, m);
	else if (e->op < OP_LOCK)
		explain_metadata(e, m);
	else if (e->op == OP_LOCK)
		explain_lock(e, m);
	else if (e->op == OP_FLOCK)
		explain_flock(e, m), m->has_offset = m->has_length = false;
	else if (e->op == OP_MMAP || e->op == OP_MPROTECT)
		explain_map(e, m);
	else if (is_sqlite(e))
		explain_sqlite(e, m);
	else if (e->op >= OP_TXN_BEGIN && e->op <= OP_TXN_RECOVER)
		explain_transaction(e, m);
	else if (e->op >= OP_RECORDS)
		explain_act(e, m);
	else if (e->op >= OP_PERSIST_BEGIN)
		explain_own(e, m);
}

static const char *name_of_errno(int64_t result)
{
	return result < 0 && result > -4096 ? symbol_of_error((int)-result) : NULL;
}

static const char *told_or_number(const char *name, uint64_t number, char *room, size_t size)
{
	if (name || !number)
		return name;
	snprintf(room, size, "#%" PRIu64, number);
	return room;
}

void log_explain(const struct oplog_entry *e, struct log_meaning *m)
{
	const char *name = oplog_op_name(e->op);
	static const struct bit_name flags[] = {
	    {OPLOG_F_STDIO, "stdio"}, {OPLOG_F_SYSCALL, "syscall"}, {OPLOG_F_CUT, "cut"}};

	memset(m, 0, sizeof(*m));
	if (name)
		strlcpy(m->op, name, sizeof(m->op));
	else
		snprintf(m->op, sizeof(m->op), "op.%u", e->op);
	if (e->kind == OPLOG_NAME_SQL)
		m->sql = e->name;
	else if (e->kind != OPLOG_NAME_COLLECTION)
		m->path = told_or_number(e->name, e->file, m->path_room, sizeof(m->path_room));
	if (oplog_op_has_two_names(e->op))
		m->path2 = told_or_number(e->name2, e->arg, m->path2_room, sizeof(m->path2_room));
	m->has_offset = e->offset >= 0;
	m->has_length = true;
	m->has_result = m->has_duration = !e->in_flight;
	m->offset = e->offset;
	m->length = e->length;
	m->result = e->result;
	m->error = e->in_flight ? NULL : name_of_errno(e->result);
	explain_op(e, m);
	if (e->flags)
		add_bits(m, "through", e->flags, "", flags, COUNT(flags));
}
