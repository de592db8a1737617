/* SPDX-License-Identifier: MIT
 *
 * Names of Chroma's files, and of those in the store that several parts share.
 */
#ifndef CORE_NAMES_H
#define CORE_NAMES_H

#define CHROMA_DATABASE "chroma.sqlite3"

/* In the store: the right to write, and who has it. */
#define WRITER_LOCK "writer.lock"

#endif
