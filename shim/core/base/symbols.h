/* SPDX-License-Identifier: MIT
 *
 * Names of errors and signals, as the headers have them. glibc has such functions from 2.32 on.
 */
#ifndef CORE_SYMBOLS_H
#define CORE_SYMBOLS_H

/* "ENOENT" of ENOENT; NULL: there is none of that number. */
const char *symbol_of_error(int error);
/* "ABRT" of SIGABRT; NULL: none, or a real-time signal. */
const char *symbol_of_signal(int signal);

#endif
