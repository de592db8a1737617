/* SPDX-License-Identifier: MIT
 *
 * The op log of many short processes: each has left a small segment, and of those only the newest
 * are kept. What a longer process has left is bounded by its bytes alone.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/fileio.h"
#include "core/oplog/file.h"
#include "core/oplog/oplog.h"
#include "core/oplog/read.h"

struct leftover {
	char name[64];
	unsigned pid, sequence;
	bool packed; /* hence of one that is dead, or done with it */
	bool is_short;
};

struct leftovers {
	struct leftover *list;
	size_t count, room;
};

static int thin_add(struct leftovers *all, const char *name)
{
	struct leftover o = {.packed = false}, *list;
	unsigned long long time;

	if (!oplog_name_stem(name, &o.packed) || strlen(name) >= sizeof(o.name) ||
	    sscanf(name, "%16llx-%u-%u", &time, &o.pid, &o.sequence) != 3)
		return 0;
	if (all->count == all->room) {
		size_t room = all->room ? 2 * all->room : 256;

		list = realloc(all->list, room * sizeof(*list));
		if (!list)
			return -ENOMEM;
		all->list = list;
		all->room = room;
	}
	strcpy(o.name, name);
	all->list[all->count++] = o;
	return 0;
}

static int by_process(const void *a, const void *b)
{
	const struct leftover *x = a, *y = b;

	if (x->pid != y->pid)
		return x->pid < y->pid ? -1 : 1;
	return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

static int by_age(const void *a, const void *b, void *soon)
{
	return oplog_name_compare(((const struct leftover *)a)->name,
				  ((const struct leftover *)b)->name, soon);
}

/* No segment of the same process goes before or after it, as far as its number tells. */
static bool is_alone(const struct leftovers *all, size_t i)
{
	const struct leftover *o = &all->list[i];
	size_t before = i, after = i;

	while (before > 0 && by_process(&all->list[before], o) == 0)
		before--;
	while (after + 1 < all->count && by_process(&all->list[after], o) == 0)
		after++;
	return (all->list[before].pid != o->pid || all->list[before].sequence + 1 != o->sequence) &&
	       (all->list[after].pid != o->pid || o->sequence + 1 != all->list[after].sequence);
}

/* Leaves those of short processes, by age. */
static void keep_short(struct leftovers *all)
{
	char soon[OPLOG_NAME_TIME];
	size_t i, n = 0;

	oplog_name_soon(soon);
	qsort(all->list, all->count, sizeof(*all->list), by_process);
	for (i = 0; i < all->count; i++)
		all->list[i].is_short = all->list[i].packed && is_alone(all, i);
	for (i = 0; i < all->count; i++)
		if (all->list[i].is_short)
			all->list[n++] = all->list[i];
	all->count = n;
	qsort_r(all->list, all->count, sizeof(*all->list), by_age, soon);
}

static int thin_folder(int storefd, const char *folder, unsigned keep)
{
	struct leftovers all = {.list = NULL};
	const struct dirent *d;
	int removed = 0, r;
	size_t i;
	DIR *dir;

	r = file_names_at(storefd, folder, &dir);
	if (r < 0)
		return r;
	while (r == 0 && (d = readdir(dir)))
		r = thin_add(&all, d->d_name);
	if (r == 0 && all.count > keep) {
		keep_short(&all);
		for (i = 0; i + keep < all.count; i++)
			removed += unlinkat(dirfd(dir), all.list[i].name, 0) == 0;
	}
	closedir(dir);
	free(all.list);
	return r < 0 ? r : removed;
}

int oplog_thin(int storefd, unsigned keep)
{
	int acts = thin_folder(storefd, OPLOG_ACTS_DIR, keep);
	int r = thin_folder(storefd, OPLOG_DIR, keep);

	return r < 0 || acts >= 0 || acts == -ENOENT ? r : acts;
}
