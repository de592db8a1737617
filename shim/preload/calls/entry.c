/* SPDX-License-Identifier: MIT
 *
 * The exported symbols: one jump each from the name in base/calls.def to its body.
 */
#include "preload/calls/bodies.h"
#include "preload/sqlite/calls.h"

#define CALLER __builtin_return_address(0)
#define EXPORT __attribute__((visibility("default")))

/* The name is given to the assembler, so that headers' own declarations do not get in the way. */
#define SAME(ret, name, params, args, body)            \
	EXPORT ret entry_##name params __asm__(#name); \
	ret entry_##name params                        \
	{                                              \
		return body args;                      \
	}
#define CALL(ret, name, params, args, body, early) SAME(ret, name, params, args, body)
#define LATE SAME
#define SQLITE SAME
#define VARIADIC(name)
#define LEFT(name, why)
#include "preload/base/calls.def"
