/* SPDX-License-Identifier: MIT
 *
 * From a call to its record in the op log, and which library called.
 */
#include "preload/place/record.h"

#include <link.h>
#include <string.h>
#include <sys/prctl.h>

#include "preload/base/exit_status.h"
#include "preload/base/shim.h"
#include "preload/place/callers.h"

#define OBJECTS 255

__thread uint8_t record_flags __attribute__((tls_model("initial-exec")));
THREAD_LOCAL uint32_t own_thread_id;
/* What acts say of this thread, and which segment of which directory knows it. */
THREAD_LOCAL struct {
	_Atomic uint32_t told;
	unsigned protection;
	char name[16];
} own_thread;

uint32_t thread_id(void)
{
	if (__builtin_expect(!own_thread_id, 0))
		own_thread_id = (uint32_t)sys_gettid();
	return own_thread_id;
}

void thread_id_forget(void)
{
	own_thread_id = 0;
}

/* A name of another directory is not known to be told in this one's log. */
static struct oplog_name name_for(unsigned protection, uint32_t number, bool act)
{
	struct name *n = name_get(number);

	return (struct oplog_name){.number = number,
				   .length = n->length,
				   .kind = n->kind,
				   .text = name_text(n),
				   .told = n->protection != protection ? NULL
					   : act		       ? &n->told_act
								       : &n->told};
}

/* ---- acts ---- */

/* Its name may change meanwhile: it is asked for when a segment has to be told. */
static struct oplog_name name_thread(unsigned protection, const struct oplog_segment *segment)
{
	if (own_thread.protection != protection)
		atomic_store(&own_thread.told, 0);
	own_thread.protection = protection;
	if (!segment || atomic_load(&own_thread.told) != segment->sequence + 1)
		SYS2(SYS_prctl, PR_GET_NAME, own_thread.name);
	return (struct oplog_name){.op = OP_THREAD,
				   .length = (uint32_t)strnlen(own_thread.name, 16),
				   .text = own_thread.name,
				   .told = &own_thread.told};
}

static struct oplog_name name_process(struct acts *acts)
{
	return (struct oplog_name){.op = OP_START,
				   .length = acts->command_size,
				   .kind = atomic_load(&acts->told) != 0,
				   .text = acts->command,
				   .told = &acts->told};
}

/* The line that called Chroma, if it is to be told and known. */
static __attribute__((noinline)) void find_caller(const struct oplog_record *r, const char *text,
						  size_t size, struct caller *out)
{
	const struct name *n = r->file ? name_get(r->file) : NULL;

	callers_find(r, n && n->kind == OPLOG_NAME_COLLECTION ? name_text(n) : NULL, text, size,
		     out);
}

static void act_put(unsigned protection, const struct oplog_record *r, const char *text,
		    size_t size, const struct caller *caller)
{
	struct acts *acts = protections[protection].acts;
	struct oplog_segment *segment = atomic_load(&acts->log.current);
	const struct oplog_name names[] = {
	    name_process(acts),
	    name_thread(protection, segment),
	    name_for(protection, r->file, true),
	};

	/* That it has begun stands at the head of each segment; of one that did nothing, nowhere.
	 */
	if (r->op == OP_TXN_COMMIT)
		exit_status_ask();
	if (r->op != OP_START && (r->op != OP_EXIT || segment))
		oplog_put_caller(&acts->log, r, text, size, caller->line, caller->size, names, 3);
}

/* Apart: whoever tells no line does without the stack for one. */
static __attribute__((noinline)) void
act_put_caller(unsigned protection, const struct oplog_record *r, const char *text, size_t size)
{
	struct caller caller;

	find_caller(r, text, size, &caller);
	act_put(protection, r, text, size, &caller);
}

static void act_tell(unsigned protection, const struct oplog_record *r, const char *text,
		     size_t size)
{
	static const struct caller nobody;

	if (settings.log_caller)
		act_put_caller(protection, r, text, size);
	else
		act_put(protection, r, text, size, &nobody);
}

void record_act(unsigned protection, struct oplog_record *r, const char *text, size_t size)
{
	int saved = errno;
	MAPS_GUARDED;

	r->tid = thread_id();
	if (!r->time)
		r->time = oplog_now();
	act_tell(protection, r, text, size);
	errno = saved;
}

/* ---- calls ---- */

/* Whether anything may be different after it. A file of SQLite's that is only made is none yet. */
static bool is_change(unsigned op, unsigned role, uint64_t arg)
{
	switch (op) {
	case OP_OPEN:
	case OP_OPENAT:
		return (arg & O_TRUNC) || ((arg & O_CREAT) && role == ROLE_OTHER);
	case OP_START:
	case OP_EXIT:
	case OP_EXEC:
	case OP_CLOSE:
	case OP_DUP:
	case OP_INHERIT:
	case OP_LOCK:
	case OP_FLOCK:
	case OP_MUNMAP:
		return false;
	default:
		return op < OP_SQL_COPY || op > OP_SQL_LOAD;
	}
}

/* False: it need not be recorded. */
static bool is_wanted(struct oplog_writer *log, unsigned op, unsigned role, uint64_t arg)
{
	bool change = is_change(op, role, arg);

	if (change && __builtin_expect(oplog_is_idle(log), 0))
		oplog_feature(log, OPLOG_IDLE, false);
	return change || !log->quiet;
}

struct oplog_claim record_begin_two(union slot s, uint32_t other, enum oplog_op op, int64_t offset,
				    uint64_t length, uint64_t arg)
{
	const struct oplog_record known = {
	    .op = (uint16_t)op,
	    .flags = record_flags,
	    .tid = thread_id(),
	    .file = s.name,
	    .offset = offset,
	    .length = length,
	    .arg = arg,
	};
	struct oplog_writer *log = &protections[s.protection].log;
	struct oplog_name names[2] = {name_for(s.protection, s.name, false)};

	MAPS_GUARDED;
	if (!is_wanted(log, op, s.role, arg))
		return (struct oplog_claim){.record = NULL};
	if (other)
		names[1] = name_for(s.protection, other, false);
	return oplog_begin(log, &known, names, other ? 2 : 1);
}

static __attribute__((noinline)) void put_caller(unsigned protection, const struct oplog_record *r,
						 const char *text, size_t size,
						 const struct oplog_name *name)
{
	struct caller caller;

	find_caller(r, text, size, &caller);
	oplog_put_caller(&protections[protection].log, r, text, size, caller.line, caller.size,
			 name, 1);
}

void record_put(unsigned protection, struct oplog_record *r, const char *text, size_t size)
{
	int saved = errno;
	struct oplog_name name;

	MAPS_GUARDED;
	if (!is_wanted(&protections[protection].log, r->op, ROLE_OTHER, r->arg))
		return;
	r->tid = thread_id();
	if (!r->time)
		r->time = oplog_now();
	name = name_for(protection, r->file, false);
	if (settings.log_caller)
		put_caller(protection, r, text, size, &name);
	else
		oplog_put(&protections[protection].log, r, text, size, &name, 1);
	if (oplog_is_act(r->op) && protections[protection].acts)
		act_tell(protection, r, text, size);
	errno = saved;
}

void record_limit(const char *text)
{
	unsigned i, used = atomic_load(&protections_used);

	for (i = 0; i < used; i++) {
		struct oplog_record r = {.op = OP_NOTE, .offset = -1};

		if (!atomic_load(&protections[i].ready) || protections[i].failed)
			continue;
		record_feature(&protections[i], OPLOG_LIMIT, true);
		record_put(i, &r, text, strlen(text));
	}
}

/* ---- which library ---- */

/* From the first on; one is taken by its start, which makes "is it there, else add it" one step. */
static struct object {
	_Atomic uintptr_t start; /* 0: free */
	_Atomic uintptr_t end;	 /* 0: not filled in yet */
	char path[256];
} objects[OBJECTS];

struct lookup {
	uintptr_t address, start, end;
	const char *path;
};

static int find_object(struct dl_phdr_info *info, size_t size, void *context)
{
	struct lookup *l = context;
	uintptr_t start = UINTPTR_MAX, end = 0;
	int i;

	(void)size;
	for (i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];

		if (p->p_type != PT_LOAD)
			continue;
		if (info->dlpi_addr + p->p_vaddr < start)
			start = info->dlpi_addr + p->p_vaddr;
		if (info->dlpi_addr + p->p_vaddr + p->p_memsz > end)
			end = info->dlpi_addr + p->p_vaddr + p->p_memsz;
	}
	if (l->address < start || l->address >= end)
		return 0;
	l->start = start;
	l->end = end;
	l->path = info->dlpi_name;
	return 1;
}

static void object_fill(struct object *o, const struct lookup *l)
{
	size_t length = strlen(l->path);

	if (!*l->path) { /* the program itself */
		ssize_t n =
		    sys_readlinkat(AT_FDCWD, "/proc/self/exe", o->path, sizeof(o->path) - 1);

		o->path[n > 0 ? n : 0] = '\0';
	} else {
		if (length >= sizeof(o->path))
			length = sizeof(o->path) - 1;
		memcpy(o->path, l->path, length);
	}
	atomic_store_explicit(&o->end, l->end, memory_order_release);
}

static uint8_t object_add(const struct lookup *l)
{
	unsigned i;

	for (i = 0; i < OBJECTS; i++) {
		uintptr_t there = 0;

		if (atomic_compare_exchange_strong(&objects[i].start, &there, l->start))
			object_fill(&objects[i], l);
		else if (there != l->start)
			continue;
		return (uint8_t)(i + 1);
	}
	return 0;
}

uint8_t object_of(const void *address)
{
	struct lookup l = {.address = (uintptr_t)address};
	unsigned i;

	for (i = 0; i < OBJECTS; i++) {
		uintptr_t start = atomic_load(&objects[i].start);

		if (!start)
			break;
		if (l.address >= start &&
		    l.address < atomic_load_explicit(&objects[i].end, memory_order_acquire))
			return (uint8_t)(i + 1);
	}
	if (!dl_iterate_phdr(find_object, &l))
		return 0;
	return object_add(&l);
}

const char *object_path(uint8_t object)
{
	return object ? objects[object - 1].path : NULL;
}
