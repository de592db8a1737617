/* SPDX-License-Identifier: MIT
 *
 * Reading of the settings from the environment.
 */
#include "preload/settings.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "preload/shim.h"

struct settings settings;

static void say_bad(const char *name, const char *value, const char *wanted)
{
	shim_say(name, "=", value, ": not ", wanted, "; the default is taken", NULL);
}

static bool read_number(const char **p, uint64_t *out)
{
	const char *start = *p;
	uint64_t value = 0;

	while (**p >= '0' && **p <= '9' && value < UINT64_MAX / 16)
		value = value * 10 + (uint64_t)(*(*p)++ - '0');
	*out = value;
	return *p != start;
}

/* Powers of 1024: K, M, G, T, with or without "B" or "iB". */
static bool read_bytes(const char **p, uint64_t *out)
{
	static const char units[] = "kmgt";
	const char *unit;

	if (!read_number(p, out))
		return false;
	while (**p == ' ')
		++*p;
	unit = **p ? strchr(units, **p | 0x20) : NULL;
	if (unit && *unit) {
		*out <<= 10 * (unit - units + 1);
		++*p;
	}
	if (**p == 'i')
		++*p;
	if (**p == 'B')
		++*p;
	return true;
}

static uint64_t size_setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name), *p = value;
	uint64_t bytes;

	if (!value || !*value)
		return otherwise;
	if (read_bytes(&p, &bytes) && !*p)
		return bytes;
	say_bad(name, value, "a size such as 256M");
	return otherwise;
}

/* "30s", "500ms", "2m"; a bare number is seconds. */
static uint64_t time_setting(const char *name, uint64_t otherwise)
{
	const char *value = getenv(name), *p = value;
	uint64_t number;

	if (!value || !*value)
		return otherwise;
	if (read_number(&p, &number)) {
		if (strcmp(p, "ms") == 0)
			return number * 1000000;
		if (!*p || strcmp(p, "s") == 0)
			return number * 1000000000;
		if (strcmp(p, "m") == 0)
			return number * 60000000000;
	}
	say_bad(name, value, "a time such as 30s");
	return otherwise;
}

/* The number of the word in a list that ends with NULL; the first is the default. */
static unsigned word_setting(const char *name, const char *const words[], const char *wanted)
{
	const char *value = getenv(name);
	unsigned i;

	if (!value || !*value)
		return 0;
	for (i = 0; words[i]; i++)
		if (strcmp(value, words[i]) == 0)
			return i;
	say_bad(name, value, wanted);
	return 0;
}

static unsigned percent_setting(const char *name, unsigned otherwise)
{
	const char *value = getenv(name), *p = value;
	uint64_t number;

	if (!value || !*value)
		return otherwise;
	if (read_number(&p, &number) && number <= 100 && (!*p || strcmp(p, "%") == 0))
		return (unsigned)number;
	say_bad(name, value, "a percentage such as 80%");
	return otherwise;
}

/* "5%", "1G", or both with a comma between. */
static void read_min_free(void)
{
	const char *value = getenv("CHROMASHIM_MIN_FREE"), *p = value;
	uint64_t bytes = UINT64_MAX, percent = 100, number;

	settings.min_free_percent = 5;
	settings.min_free_bytes = UINT64_C(1) << 30;
	if (!value || !*value)
		return;
	while (*p) {
		const char *start = p;

		if (read_number(&p, &number) && *p == '%' && number <= 100) {
			percent = number;
			p++;
		} else {
			p = start;
			if (!read_bytes(&p, &bytes))
				break;
		}
		while (*p == ',' || *p == ' ')
			p++;
	}
	if (*p) {
		say_bad("CHROMASHIM_MIN_FREE", value, "such as 5%, 1G or 5%,1G");
		return;
	}
	settings.min_free_percent = (unsigned)percent;
	settings.min_free_bytes = bytes;
}

void settings_read(void)
{
	static const char *const on_off[] = {"on", "off", NULL};
	static const char *const durability[] = {"power", "process", NULL};
	static const char *const off_on[] = {"off", "on", NULL};
	static const char *const open_closed[] = {"open", "closed", NULL};
	static const char *const writer[] = {"deny", "wait", "off", NULL};

	settings.off = word_setting("CHROMASHIM", on_off, "on or off") == 1 ||
		       dlsym(RTLD_DEFAULT, "chromashim_command_marker") != NULL;
	settings.log_sql = word_setting("CHROMASHIM_LOG_SQL", on_off, "on or off") == 0;
	settings.log_reads = word_setting("CHROMASHIM_LOG_READS", off_on, "on or off") == 1;
	settings.closed = word_setting("CHROMASHIM_ON_FAILURE", open_closed, "open or closed") == 1;
	settings.power = word_setting("CHROMASHIM_DURABILITY", durability, "power or process") == 0;
	settings.fence = word_setting("CHROMASHIM_FENCE", on_off, "on or off") == 0;
	settings.single_writer = (enum single_writer)word_setting("CHROMASHIM_SINGLE_WRITER",
								  writer, "deny, wait or off");
	settings.wait = time_setting("CHROMASHIM_WAIT", UINT64_C(30000000000));
	settings.log_size = size_setting("CHROMASHIM_LOG_SIZE", UINT64_C(256) << 20);
	settings.ballast = size_setting("CHROMASHIM_BALLAST", UINT64_C(64) << 20);
	settings.warn_full = percent_setting("CHROMASHIM_WARN_FULL", 80);
	read_min_free();
	settings.dir = getenv("CHROMASHIM_DIR");
	settings.store = getenv("CHROMASHIM_STORE");
	if (settings.store && !*settings.store)
		settings.store = NULL;
}
