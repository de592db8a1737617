/* SPDX-License-Identifier: MIT
 *
 * Faults on demand, for tests. Compiled in with -DCHROMASHIM_FAULTS alone, which makes
 * libchromashim-faults.so; in the library itself nothing of this is left.
 *
 * CHROMASHIM_FAULT=kill:K    SIGKILL at the K-th point: before, around and after every change, and
 *			      at the steps of a persist's own work
 *		    stop:K    SIGSTOP there, and at each one after it
 *		    kill:K:segments, stop:K:segments
 *			      before the K-th write, truncation or creation of a segment, whatever
 *			      else is done; also :sqlite and :own, as below
 *		    error:K:E the K-th write, truncation or creation of a segment fails with errno
 *			      E, and so do all after it that are made to the same file
 *		    error:K:E:pickles
 *			      the same of their pickles alone
 *		    error:K:E:sqlite
 *			      the same of SQLite's files; also their syncs and removal
 *		    error:K:E:own
 *			      the K-th call by which the shim changes its own files, or puts a
 *			      persist back, fails, and all after it
 *		    once:...  as error:..., but that one alone
 *		    quota:FILE
 *			      the user has a disk quota: FILE says of how many bytes, and how
 *			      many of them are left
 *		    count     says at the end how many points there were, and calls of each kind
 */
#ifndef PRELOAD_FAULTS_H
#define PRELOAD_FAULTS_H

#include "core/base/quota.h"
#include "preload/place/change.h"

#ifdef CHROMASHIM_FAULTS
void fault_point(void);
/* 0, or the errno with which this change is to fail. */
int fault_of_change(const struct change *c);
/* The same for a write that was held back, to the file of that number in its segment; -errno. */
int fault_of_held(unsigned file);
/* Before a sync: true if it is to fail; errno is set. */
bool fault_of_sync(union slot s);
/* False: the kernel's answer holds. */
bool fault_of_quota(struct quota *out);
void fault_count(void);
#else
static inline void fault_point(void)
{
}

static inline int fault_of_change(const struct change *c)
{
	(void)c;
	return 0;
}

static inline int fault_of_held(unsigned file)
{
	(void)file;
	return 0;
}

static inline bool fault_of_sync(union slot s)
{
	(void)s;
	return false;
}

static inline bool fault_of_quota(struct quota *out)
{
	(void)out;
	return false;
}

static inline void fault_count(void)
{
}
#endif

#endif
