/* SPDX-License-Identifier: MIT
 *
 * What a process that may not write is told: who writes, and what to do about it.
 */
#ifndef PRELOAD_WRITER_REFUSAL_H
#define PRELOAD_WRITER_REFUSAL_H

#include "preload/place/change.h"
#include "preload/refuse/intent.h"

/* Says it. -errno for the call. */
int writer_refusal(const struct change *c, enum intent intent);

#endif
