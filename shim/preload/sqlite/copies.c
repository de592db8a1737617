/* SPDX-License-Identifier: MIT
 *
 * Finds the SQLite libraries of this process.
 *
 * dlopen() and dlsym() may wait for the dynamic linker and allocate, so they are called only when
 * a database is opened and libraries have been loaded since, and no lock is held meanwhile.
 */
#include "preload/sqlite/copies.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <sched.h>
#include <string.h>

#include "preload/base/shim.h"
#include "preload/place/record.h"

#define MARK "sqlite3_open_v2" /* who defines this is a SQLite */
#define CALLERS 256
#define SEEN 16

/* ---- what is not there ---- */

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-parameter"
#define ABSENT(ret, name, params, value) \
	static ret absent_##name params  \
	{                                \
		return value;            \
	}
#define CALL(...)
#define SAME(...)
#define LATE(...)
#define VARIADIC(...)
#define LEFT(...)
#define SQLITE(ret, name, params, args, body) \
	ABSENT(ret, name, params, (ret) _Generic((ret)0, int : SQLITE_MISUSE, default : 0))
#include "preload/base/calls.def"
#undef SQLITE
ABSENT(const char *, sqlite3_db_filename, (sqlite3 * db, const char *schema), NULL)
ABSENT(const char *, sqlite3_sql, (sqlite3_stmt * stmt), NULL)
ABSENT(int, sqlite3_stmt_readonly, (sqlite3_stmt * stmt), 0)
ABSENT(int, sqlite3_total_changes, (sqlite3 * db), 0)
ABSENT(int, sqlite3_errcode, (sqlite3 * db), SQLITE_ERROR)
ABSENT(int, sqlite3_backup_pagecount, (sqlite3_backup * backup), 0)
ABSENT(int, sqlite3_backup_remaining, (sqlite3_backup * backup), 0)
#pragma GCC diagnostic pop

#define HELPERS(X)                  \
	X(sqlite3_db_filename)      \
	X(sqlite3_sql)              \
	X(sqlite3_stmt_readonly)    \
	X(sqlite3_total_changes)    \
	X(sqlite3_errcode)          \
	X(sqlite3_backup_pagecount) \
	X(sqlite3_backup_remaining)

#define IS_ABSENT(name) .name = absent_##name,
#define SQLITE(ret, name, params, args, body) IS_ABSENT(name)

struct sqlite_copy sqlite_copies[SQLITE_COPIES + 1] = {[SQLITE_COPIES] = {.calls = {
#include "preload/base/calls.def"
#undef SQLITE
									      HELPERS(IS_ABSENT)}}};
_Atomic unsigned sqlite_copies_used;

/* ---- who defines the mark ---- */

struct definer {
	uintptr_t base;
	char path[PATH_MAX];
};

struct search {
	struct definer found;
	unsigned skip; /* definers before the one to be found */
	unsigned long long loads;
};

extern const char __ehdr_start[] __attribute__((visibility("hidden")));

static uint32_t gnu_hash(const char *name)
{
	uint32_t h = 5381;

	while (*name)
		h = h * 33 + (unsigned char)*name++;
	return h;
}

struct symbols {
	const ElfW(Sym) * table;
	const char *strings;
	const uint32_t *gnu, *sysv;
};

static bool is_defined(const struct symbols *s, uint32_t i, const char *name)
{
	return s->table[i].st_shndx != SHN_UNDEF &&
	       strcmp(s->strings + s->table[i].st_name, name) == 0;
}

static bool in_gnu_table(const struct symbols *s, const char *name)
{
	const uint32_t *h = s->gnu;
	uint32_t count = h[0], first = h[1], hash = gnu_hash(name), i;
	const uint32_t *buckets = (const uint32_t *)((const ElfW(Addr) *)(h + 4) + h[2]);
	const uint32_t *chain = buckets + count;

	i = count ? buckets[hash % count] : 0;
	if (!i || i < first)
		return false;
	for (;; i++) {
		if ((chain[i - first] | 1) == (hash | 1) && is_defined(s, i, name))
			return true;
		if (chain[i - first] & 1)
			return false;
	}
}

static bool in_sysv_table(const struct symbols *s, const char *name)
{
	uint32_t i;

	for (i = 0; i < s->sysv[1]; i++)
		if (is_defined(s, i, name))
			return true;
	return false;
}

/* The dynamic linker has relocated these addresses, but for the kernel's own object, which may have
 * been linked for any place: what lies in the object tells. */
static const void *address_in(const struct dl_phdr_info *info, ElfW(Addr) value)
{
	int i;

	for (i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *load = &info->dlpi_phdr[i];
		ElfW(Addr) start = info->dlpi_addr + load->p_vaddr;

		if (load->p_type != PT_LOAD)
			continue;
		if (value - start < load->p_memsz)
			return (const void *)value;
		if (info->dlpi_addr + value - start < load->p_memsz)
			return (const void *)(info->dlpi_addr + value);
	}
	return NULL;
}

static bool defines(const struct dl_phdr_info *info, const char *name)
{
	struct symbols s = {0};
	const ElfW(Dyn) *d = NULL;
	int i;

	for (i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			d = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	for (; d && d->d_tag != DT_NULL; d++) {
		if (d->d_tag == DT_SYMTAB)
			s.table = address_in(info, d->d_un.d_ptr);
		else if (d->d_tag == DT_STRTAB)
			s.strings = address_in(info, d->d_un.d_ptr);
		else if (d->d_tag == DT_GNU_HASH)
			s.gnu = address_in(info, d->d_un.d_ptr);
		else if (d->d_tag == DT_HASH)
			s.sysv = address_in(info, d->d_un.d_ptr);
	}
	if (!s.table || !s.strings)
		return false;
	return s.gnu ? in_gnu_table(&s, name) : s.sysv && in_sysv_table(&s, name);
}

/* A program that defines SQLite itself comes before us, so its calls never reach us. */
static int find_definer(struct dl_phdr_info *info, size_t size, void *context)
{
	struct search *search = context;
	size_t length = info->dlpi_name ? strlen(info->dlpi_name) : 0;

	(void)size;
	if (!length || length >= sizeof(search->found.path) ||
	    info->dlpi_addr == (ElfW(Addr))__ehdr_start || !defines(info, MARK))
		return 0;
	if (search->skip) {
		search->skip--;
		return 0;
	}
	search->found.base = info->dlpi_addr;
	memcpy(search->found.path, info->dlpi_name, length + 1);
	return 1;
}

static int count_loads(struct dl_phdr_info *info, size_t size, void *context)
{
	(void)size;
	((struct search *)context)->loads = info->dlpi_adds;
	return 1;
}

/* ---- the table ---- */

static atomic_flag changing = ATOMIC_FLAG_INIT;

static void copy_add(const struct sqlite_copy *copy)
{
	unsigned i, used;

	while (atomic_flag_test_and_set(&changing))
		SYS0(SYS_sched_yield);
	used = atomic_load(&sqlite_copies_used);
	for (i = 0; i < used && sqlite_copies[i].base != copy->base; i++)
		;
	if (i == used && used < SQLITE_COPIES) {
		sqlite_copies[i].calls = copy->calls;
		sqlite_copies[i].base = copy->base;
		sqlite_copies[i].object = copy->object;
		atomic_store(&sqlite_copies_used, used + 1);
	}
	atomic_flag_clear(&changing);
}

static bool copy_is_known(uintptr_t base)
{
	unsigned i, used = atomic_load(&sqlite_copies_used);

	for (i = 0; i < used; i++)
		if (sqlite_copies[i].base == base)
			return true;
	return false;
}

/* The reference is kept: what calls go to must not be unloaded. */
static void copy_bind(const struct definer *d)
{
	struct sqlite_copy copy = {.calls = sqlite_copies[SQLITE_COPIES].calls, .base = d->base};
	void *handle = dlopen(d->path, RTLD_NOLOAD | RTLD_LAZY), *address;

	if (!handle)
		return;
#define BIND(name)                      \
	address = dlsym(handle, #name); \
	if (address)                    \
		copy.calls.name = (__typeof__(copy.calls.name))address;
#define SQLITE(ret, name, params, args, body) BIND(name)
#include "preload/base/calls.def"
#undef SQLITE
	HELPERS(BIND)
	copy.object = object_of((const void *)copy.calls.sqlite3_open_v2);
	copy_add(&copy);
}

static void copies_refresh(void)
{
	static _Atomic unsigned long long loads_seen;
	struct search search = {.skip = 0};
	unsigned at;

	dl_iterate_phdr(count_loads, &search);
	if (search.loads == atomic_load(&loads_seen))
		return;
	for (at = 0; at < SQLITE_COPIES; at++) {
		search.skip = at;
		if (!dl_iterate_phdr(find_definer, &search))
			break;
		if (!copy_is_known(search.found.base))
			copy_bind(&search.found);
	}
	atomic_store(&loads_seen, search.loads);
}

/* ---- which one ---- */

static unsigned copy_with(const void *mark)
{
	unsigned i, used = atomic_load(&sqlite_copies_used);

	for (i = 0; mark && i < used; i++)
		if ((const void *)sqlite_copies[i].calls.sqlite3_open_v2 == mark)
			return i;
	return SQLITE_COPIES;
}

static unsigned copy_by_scope(void *caller)
{
	const void *mark = dlsym(RTLD_NEXT, MARK);
	unsigned copy = copy_with(mark);
	void *handle = NULL;
	Dl_info info;

	if (copy < SQLITE_COPIES)
		return copy;
	if (dladdr(caller, &info) && info.dli_fname)
		handle = dlopen(info.dli_fname, RTLD_NOLOAD | RTLD_LAZY);
	if (!handle)
		return SQLITE_COPIES;
	copy = copy_with(dlsym(handle, MARK));
	dlclose(handle);
	return copy;
}

unsigned sqlite_copy_of(void *caller)
{
	static _Atomic uint64_t cache[CALLERS]; /* address << 8 | copy + 1 */
	uint64_t address = (uint64_t)(uintptr_t)caller;
	_Atomic uint64_t *entry = &cache[(address ^ address >> 8) % CALLERS];
	uint64_t known = atomic_load_explicit(entry, memory_order_relaxed);
	unsigned used = atomic_load(&sqlite_copies_used), copy;
	int saved = errno;

	if (used == 0)
		copies_refresh();
	used = atomic_load(&sqlite_copies_used);
	errno = saved;
	if (used < 2)
		return used ? 0 : SQLITE_COPIES;
	if (known >> 8 == (address & UINT64_MAX >> 8) && known)
		return (unsigned)(known & 255) - 1;
	copy = copy_by_scope(caller);
	/* Nothing in sight of the caller, so it got our address in some other way. */
	if (copy == SQLITE_COPIES)
		copy = 0;
	atomic_store_explicit(entry, address << 8 | (copy + 1), memory_order_relaxed);
	errno = saved;
	return copy;
}

unsigned sqlite_copy_for_open(void *caller)
{
	int saved = errno;
	unsigned copy;

	copies_refresh();
	errno = saved;
	copy = sqlite_copy_of(caller);
	if (copy < SQLITE_COPIES)
		atomic_store_explicit(&sqlite_copies[copy].met, true, memory_order_relaxed);
	return copy;
}

/* ---- what the op log is told ---- */

static _Atomic uint8_t seen_place[256]; /* of an object: place in `told` + 1 */
static _Atomic unsigned seen_used;
static _Atomic uint32_t told[SEEN][PROTECTIONS]; /* segment (sequence + 1) * 2 + enum oplog_copy */

bool sqlite_is_above(uint8_t object)
{
	unsigned i, used = atomic_load_explicit(&sqlite_copies_used, memory_order_acquire);

	for (i = 0; i < used; i++)
		if (sqlite_copies[i].object == object &&
		    atomic_load_explicit(&sqlite_copies[i].met, memory_order_relaxed))
			return true;
	return false;
}

static unsigned place_in_told(uint8_t object)
{
	unsigned place = atomic_load_explicit(&seen_place[object], memory_order_relaxed);

	if (place)
		return place;
	place = atomic_fetch_add(&seen_used, 1) + 1;
	if (place > SEEN) {
		atomic_store(&seen_used, SEEN);
		return 0;
	}
	atomic_store(&seen_place[object], (uint8_t)place);
	return place;
}

static void tell_copy(unsigned protection, uint8_t object, unsigned how)
{
	const char *path = object_path(object);
	struct oplog_record r = {.op = OP_SQL_COPY, .offset = -1, .arg = how};

	r.file = name_intern_kind(protection, path, strlen(path), OPLOG_NAME_OBJECT);
	record_put(protection, &r, NULL, 0);
}

void sqlite_copy_seen(unsigned protection, uint8_t object)
{
	struct oplog_segment *s =
	    atomic_load_explicit(&protections[protection].log.current, memory_order_acquire);
	unsigned place, how;
	uint32_t now;

	if (!object || !s)
		return;
	place = place_in_told(object);
	if (!place)
		return;
	how = sqlite_is_above(object) ? OPLOG_COPY_ABOVE : OPLOG_COPY_BELOW;
	now = (s->sequence + 1) * 2 + how;
	if (atomic_load_explicit(&told[place - 1][protection], memory_order_relaxed) == now)
		return;
	atomic_store_explicit(&told[place - 1][protection], now, memory_order_relaxed);
	tell_copy(protection, object, how);
}

/* In a forked child, whose log begins anew. */
void sqlite_copies_fork(void)
{
	unsigned place, protection, used = atomic_load(&protections_used);

	atomic_flag_clear(&changing);
	for (place = 0; place < SEEN; place++)
		for (protection = 0; protection < used; protection++)
			atomic_store_explicit(&told[place][protection], 0, memory_order_relaxed);
}
