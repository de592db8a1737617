/* SPDX-License-Identifier: MIT
 *
 * With which status the host ends.
 */
#ifndef PRELOAD_EXIT_STATUS_H
#define PRELOAD_EXIT_STATUS_H

/* Once main() runs; what it asks for is asked for once. */
void exit_status_ask(void);
/* When exit() has begun, 0 to 255; -1: not known. */
int exit_status(void);

#endif
