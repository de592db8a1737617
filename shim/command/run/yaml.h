/* SPDX-License-Identifier: MIT
 *
 * One value out of a YAML file: that of a key of the mapping that the file is.
 */
#ifndef COMMAND_YAML_H
#define COMMAND_YAML_H

#include <stddef.h>

enum yaml_answer {
	YAML_NONE,	     /* there is no such key, or its value is empty */
	YAML_FOUND,	     /* and it is a scalar, in *out */
	YAML_NOT_UNDERSTOOD, /* an alias, a collection, or what this does not read */
};

/* Block and flow mappings (hence JSON), all styles of scalars, comments, tags and anchors. */
enum yaml_answer yaml_find(const char *text, const char *key, char *out, size_t room);

#endif
