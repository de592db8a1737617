/* SPDX-License-Identifier: MIT
 *
 * Whether an address that the host gave may be looked at. The kernel answers a bad one with EFAULT;
 * a look at it from here would be a signal. What cannot be read is handed on as it is.
 */
#ifndef PRELOAD_READABLE_H
#define PRELOAD_READABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

bool address_is_readable(const void *at, size_t n);
/* A path: up to its end, which comes before PATH_MAX. */
bool text_is_readable(const char *text);
/* Texts with NULL behind the last. */
bool list_is_readable(char *const *list);
/* The vector, and all that it names. */
bool vector_is_readable(const struct iovec *iov, int count);
/* Something was unmapped or protected: what was found before counts no more. */
void addresses_changed(void);

#endif
