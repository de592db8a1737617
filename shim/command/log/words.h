/* SPDX-License-Identifier: MIT
 *
 * An act in words: "conversations: 100 upserted, 3 deleted (seq 1201-1303)".
 */
#ifndef COMMAND_LOG_WORDS_H
#define COMMAND_LOG_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/chroma/collection_names.h"
#include "core/oplog/read.h"

#define WORDS_ROOM 4096

struct words_persists;

/* What is carried from act to act. Zero, and then names. */
struct words {
	struct collection_names *names; /* lent */
	bool utc;			/* of times in words */
	struct words_persists *persists;
	size_t persist_count;
};

void words_free(struct words *w);

/* Each act in order, before it is told: for what the later ones refer to. 0 or -ENOMEM. */
int words_note(struct words *w, const struct oplog_entry *e);

/*
 * In words, into out (WORDS_ROOM), which is returned. Acts that carry no news for people (the
 * beginning of a transaction, and each commit) have words as well; words_is_news() tells them.
 */
char *words_of(struct words *w, const struct oplog_entry *e, char *out);
bool words_is_news(const struct oplog_entry *e);

/* The collection that it is about, by its name, or by its id where no name is known; or NULL. */
const char *words_collection(struct words *w, const struct oplog_entry *e);

/* Something was refused, undone, broken or could not be done. */
bool words_is_bad(const struct oplog_entry *e);

#endif
