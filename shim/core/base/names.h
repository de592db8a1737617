/* SPDX-License-Identifier: MIT
 *
 * Names of Chroma's files.
 */
#ifndef CORE_NAMES_H
#define CORE_NAMES_H

#define CHROMA_DATABASE "chroma.sqlite3"

#endif
