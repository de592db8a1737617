/* SPDX-License-Identifier: MIT
 *
 * What the parts of core/pin.h share: pin.c (the state), pin_file.c (pre-images), pin_links.c
 * (other files) and pin_writers.c.
 */
#ifndef CORE_PIN_INTERNAL_H
#define CORE_PIN_INTERNAL_H

#include "core/pin.h"

/* A new file in pins/ under a name of its own. The descriptor or -errno. */
int pin_temporary(const struct pins *p, char name[PIN_NAME_MAX]);
void pin_raise(uint64_t *word, uint64_t value);
bool pin_ends_with(const char *name, const char *suffix);
/* For each of a directory's names; ends when f gives < 0. */
int pin_each_name(int dirfd, int (*f)(void *context, const char *name), void *context);
/* What `who` says of a process of this one's life (0: there are no such locks), and whether that
 * one lives. */
uint64_t pin_who(uint64_t life);
bool pin_is_alive(const struct pins *p, uint64_t who);
/* A pre-image file by its name, for writing. */
int pin_file_open_name(struct pin_file *f, const struct pins *p, uint64_t id, const char *name);

#endif
