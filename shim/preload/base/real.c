/* SPDX-License-Identifier: MIT
 *
 * Binding of the next definitions. Compiled without sibling calls: dlsym(RTLD_NEXT) as a tail call
 * would be answered for the dynamic linker itself and crash.
 */
#include "preload/base/real.h"

#include <dlfcn.h>
#include <errno.h>

#include "core/base/sys.h"

#define SAME(...)
#define VARIADIC(...)
#define SQLITE(...)
#define LEFT(...)

#define LATE(...)
#define CALL(ret, name, params, args, body, early)              \
	static ret early_##name params                          \
	{                                                       \
		long r_ = (long)(early);                        \
                                                                \
		if ((unsigned long)r_ > (unsigned long)-4096) { \
			errno = (int)-r_;                       \
			r_ = -1;                                \
		}                                               \
		return (ret)r_;                                 \
	}
#include "preload/base/calls.def"
#undef CALL

struct real real = {
#define CALL(ret, name, params, args, body, early) .name = early_##name,
#include "preload/base/calls.def"
#undef CALL
};
#undef LATE

static void look_up(void *where, const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (found)
		*(void **)where = found;
}

void real_bind(void)
{
	int saved = errno;

#define LATE(ret, name, params, args, body) look_up(&real.name, #name);
#define CALL(ret, name, params, args, body, early) look_up(&real.name, #name);
#include "preload/base/calls.def"
	look_up(&real.fopencookie, "fopencookie");
	errno = saved;
}
