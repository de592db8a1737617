/* SPDX-License-Identifier: MIT
 *
 * Processes that have a database open and are not under the shim: found once, when this process
 * first opens it for writing.
 */
#ifndef PRELOAD_OTHERS_H
#define PRELOAD_OTHERS_H

/* One line and one record for each. Looks through /proc; costs milliseconds, and has an end. */
void other_openers_report(unsigned protection);

#endif
