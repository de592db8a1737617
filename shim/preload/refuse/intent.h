/* SPDX-License-Identifier: MIT
 *
 * What is an act of writing, and which of them only open the database.
 */
#ifndef PRELOAD_INTENT_H
#define PRELOAD_INTENT_H

#include "preload/place/change.h"

enum intent { READS, MAY_WRITE, WRITES };

enum intent intent_of(const struct change *c);
bool intent_opens(enum oplog_op op); /* a file */

#endif
