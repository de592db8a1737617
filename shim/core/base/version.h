/* SPDX-License-Identifier: MIT
 *
 * The version of this library or command, as text and as one number that can be compared.
 *
 * It stands once in each file, behind VERSION_MARK: so a command can tell the version of a library
 * without loading it.
 */
#ifndef CORE_VERSION_H
#define CORE_VERSION_H

#include <stdint.h>

#define VERSION_MARK "chromashim-version "
#define VERSION_TEXT 12 /* "255.255.255" and its end */

/* "0.1.0" */
const char *version_own(void);
/* major << 16 | minor << 8 | patch, as the log's header has it; 0: the text is no version. What
 * comes after the patch is passed over. */
uint32_t version_number(const char *text);
uint32_t version_own_number(void);
void version_text(char out[VERSION_TEXT], uint32_t number);

#endif
