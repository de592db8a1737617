/* SPDX-License-Identifier: MIT
 *
 * What the parts of core/pin/pin.h share: pin.c (the state), file.c (pre-images), links.c
 * (other files) and writers.c.
 */
#ifndef CORE_PIN_INTERNAL_H
#define CORE_PIN_INTERNAL_H

#include "core/pin/pin.h"

/* A new file in pins/ under a name of its own. The descriptor or -errno. */
int pin_temporary(const struct pins *p, char name[PIN_NAME_MAX]);
void pin_raise(uint64_t *word, uint64_t value);
/* An id as names begin with it; how long that is. */
size_t pin_put_id(char *out, uint64_t id);
/* For each of a directory's names; ends when f gives < 0. */
int pin_each_name(int dirfd, int (*f)(void *context, const char *name), void *context);
/* What `who` says of a process of this one's life (0: there are no such locks), and whether that
 * one lives. */
uint64_t pin_who(uint64_t life);
bool pin_is_alive(const struct pins *p, uint64_t who);
/* A pre-image file by its name, for writing. */
int pin_file_open_name(struct pin_file *f, const struct pins *p, uint64_t id, const char *name);
/*
 * For a change of `path` that is not the host's: the pre-image file that the chain of its
 * identities ends in, counted in. The caller changes it, pin_file_leave()s and closes. False: there
 * is none.
 */
bool pin_file_enter_newest(struct pin_file *f, const struct pins *p, const char *path);

#endif
