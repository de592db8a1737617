/* SPDX-License-Identifier: MIT
 *
 * Whether Chroma's full-text index has all documents, and building it again.
 */
#ifndef CORE_FULLTEXT_H
#define CORE_FULLTEXT_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#define FULLTEXT_TABLE "embedding_fulltext_search" /* since 0.4.6 */

/*
 * Walks the whole index, which takes ten times as long as the check of all the rest.
 * *documents_out: those of collections that it lacks, or has otherwise; *terms_out: places of terms
 * that its documents have and it lacks. -EBADMSG: it is malformed. 0 without such an index.
 */
int fulltext_missing(sqlite3 *db, int64_t *documents_out, int64_t *terms_out);

/* Every document into an index that is empty. 0 without one. */
int fulltext_fill(sqlite3 *db);
/* Makes it where there is none, but a part of one, or another. After an error as below. */
int fulltext_make(sqlite3 *db);
/* False: a part of it lacks or is damaged, and every use of it fails; sqlite3_errmsg() says why. */
bool fulltext_works(sqlite3 *db);
enum fulltext_make {
	FULLTEXT_CHROMAS, /* or there is none */
	FULLTEXT_OTHER,	  /* with another tokenizer or other options: it works, and finds less */
	FULLTEXT_NONE,	  /* another table, view or module */
};
/* By the words that it was made with. */
enum fulltext_make fulltext_made_as(sqlite3 *db);
/* Makes the index anew, from the documents. After an error a transaction is to be rolled back. */
int fulltext_refill(sqlite3 *db);

#endif
