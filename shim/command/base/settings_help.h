/* SPDX-License-Identifier: MIT
 *
 * All settings as text: `chromashim help settings`, from which the man page chromashim.conf(5) is
 * made.
 */
#ifndef COMMAND_SETTINGS_HELP_H
#define COMMAND_SETTINGS_HELP_H

void settings_help(void);

#endif
