/* SPDX-License-Identifier: MIT
 *
 * The op log: the writer's life. Its segments are in segments.c, what goes into them in records.c.
 */
#include "core/oplog/oplog.h"

#include <string.h>
#include <sys/mman.h>

#include "core/base/clock.h"
#include "core/base/sys.h"
#include "core/oplog/segments.h"

static void identify_process(struct oplog_header *h)
{
	h->magic = OPLOG_MAGIC;
	h->version = OPLOG_VERSION;
	h->endian = OPLOG_ENDIAN;
	h->header_size = OPLOG_HEADER_SIZE;
	h->slot_size = OPLOG_SLOT_SIZE;
	h->pid = (uint32_t)sys_getpid();
	h->parent_pid = (uint32_t)SYS0(SYS_getppid);
	h->start_ticks = oplog_start_ticks("/proc/self/stat");
	oplog_boot_id(h->boot_id);
	h->claimed = 0;
	h->finished = 0;
}

void oplog_writer_prepare(struct oplog_writer *w, const int *storefd, uint64_t size_limit,
			  const struct oplog_header *identity)
{
	w->storefd = storefd;
	w->size_limit = size_limit < OPLOG_LIMIT_MIN ? OPLOG_LIMIT_MIN : size_limit;
	oplog_segments_bound(w);
	w->identity = *identity;
	identify_process(&w->identity);
	w->first = w->sequence;
	atomic_store(&w->next, NULL);
	atomic_store(&w->current, NULL);
}

int oplog_writer_open(struct oplog_writer *w, const int *storefd, uint64_t size_limit,
		      const struct oplog_header *identity)
{
	oplog_writer_prepare(w, storefd, size_limit, identity);
	return oplog_advance(w, NULL) ? 0 : atomic_load(&w->error);
}

void oplog_writer_fork(struct oplog_writer *w)
{
	unsigned i;

	if (!w->storefd)
		return;
	oplog_segments_leave(w);
	w->first = w->sequence; /* what the parent's segments know must not seem known to ours */
	for (i = 0; i < OPLOG_PLACES_MAX; i++) /* the threads that were there are not here */
		__atomic_store_n(&w->places[i].users, 0, __ATOMIC_RELAXED);
	identify_process(&w->identity);
	w->identity.features &= ~(OPLOG_HAS_WRITER | OPLOG_HAS_FENCE);
	if (!w->lazy)
		w->identity.features |= OPLOG_IDLE;
	w->quiet = true;
	w->identity.refused = 0;
	atomic_store(&w->next, NULL);
	atomic_store(&w->current, NULL);
	atomic_store(&w->lost, 0);
	atomic_store(&w->retry_at, 0);
	atomic_store(&w->error, 0);
	atomic_flag_clear(&w->making);
}

static void remove_file(const struct oplog_writer *w, const char *name)
{
	int dirfd = oplog_folder(w);

	if (dirfd < 0)
		return;
	sys_unlinkat(dirfd, name, 0);
	sys_close(dirfd);
}

/*
 * The one segment that there is, in which nothing is said. Who changes something says so before it
 * records: either that is seen here, or its record goes to another segment.
 */
static void remove_only(struct oplog_writer *w, struct oplog_segment *s)
{
	char name[OPLOG_FILE_NAME];
	struct oplog_segment *none = NULL;

	if (atomic_flag_test_and_set_explicit(&w->making, memory_order_acquire))
		return; /* there will be another one */
	if (w->sequence - w->first == 1) {
		oplog_segment_name(name, &w->identity, OPLOG_SUFFIX);
		w->quiet = true;
		atomic_store(&w->current, NULL);
		if (oplog_is_idle(w))
			remove_file(w, name);
		else
			atomic_compare_exchange_strong(&w->current, &none, s);
	}
	atomic_flag_clear_explicit(&w->making, memory_order_release);
}

void oplog_writer_finish(struct oplog_writer *w)
{
	struct oplog_segment *s = atomic_load(&w->current);

	if (s)
		s->header->finished = 1;
	if (s && oplog_is_idle(w))
		remove_only(w, s);
}

void oplog_writer_close(struct oplog_writer *w)
{
	oplog_writer_finish(w);
	atomic_store(&w->current, NULL);
	atomic_store(&w->next, NULL);
	w->storefd = NULL;
	oplog_segments_leave(w);
}

void oplog_feature(struct oplog_writer *w, uint64_t bits, bool on)
{
	if (on)
		__atomic_or_fetch(&w->identity.features, bits, __ATOMIC_SEQ_CST);
	else
		__atomic_and_fetch(&w->identity.features, ~bits, __ATOMIC_SEQ_CST);
	oplog_segment_tell(w, atomic_load(&w->current));
}

void oplog_refused(struct oplog_writer *w)
{
	uint64_t never = 0;

	if (__atomic_compare_exchange_n(&w->identity.refused, &never, clock_read(CLOCK_REALTIME),
					false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		oplog_segment_tell(w, atomic_load(&w->current));
}

bool oplog_writer_patch(struct oplog_writer *w, void *address)
{
	uintptr_t at = (uintptr_t)address;
	void *page;

	if (!oplog_segments_hold(w, at))
		return false;
	at -= at % OPLOG_HEADER_SIZE;
	page = (void *)SYS6(SYS_mmap, at, OPLOG_HEADER_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (sys_map_failed(page))
		return false;
	atomic_store(&w->current, NULL);
	return true;
}
