/* SPDX-License-Identifier: MIT
 *
 * The one pipeline that every change goes through: the rooms that refuse, save and recognise are
 * asked in one order, and from nowhere else.
 */
#ifndef PRELOAD_PIPELINE_H
#define PRELOAD_PIPELINE_H

#include "preload/place/change.h"

/* Before the call. Keeps errno unless it answers. */
enum change_verdict change_begin(struct change *c);
/* After a failed call: whether to make it once more. */
bool change_retry(struct change *c);
/* After the call; ret as it returned it. Keeps errno. */
void change_end(struct change *c, int64_t ret);

/* The whole of it around a call that returns -1 and errno. */
#define CHANGED(what, call)                                    \
	({                                                     \
		struct change c_ = what;                       \
		__typeof__(call) ret_;                         \
                                                               \
		if (change_begin(&c_) == CHANGE_ANSWERED) {    \
			ret_ = (__typeof__(call))c_.result;    \
		} else {                                       \
			do                                     \
				ret_ = (call);                 \
			while (ret_ < 0 && change_retry(&c_)); \
			change_end(&c_, (int64_t)ret_);        \
		}                                              \
		ret_;                                          \
	})

#endif
