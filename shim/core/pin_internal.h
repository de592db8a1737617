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
/* When a process was started; 0: there is none of that number. */
uint64_t pin_start_ticks(uint32_t pid);

#endif
