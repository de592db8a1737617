/* SPDX-License-Identifier: MIT
 *
 * The table of settings, and what their values have to look like. Also runs inside the backend.
 */
#include "core/config.h"

#include <string.h>

const struct config_setting config_settings[CONFIG_KEYS] = {
#define KEY(key, name, otherwise, kind, choices, meaning) \
	[CONFIG_##key] = {name, otherwise, CONFIG_KIND_##kind, choices, meaning},
#include "core/config_keys.def"
#undef KEY
};

static bool read_number(const char **p, uint64_t *out)
{
	const char *start = *p;
	uint64_t value = 0;

	while (**p >= '0' && **p <= '9' && value < UINT64_MAX / 16)
		value = value * 10 + (uint64_t)(*(*p)++ - '0');
	*out = value;
	return *p != start;
}

/* K, M, G, T, with or without "B" or "iB". */
static bool read_bytes(const char **p, uint64_t *out)
{
	static const char units[] = "kmgt";
	const char *unit;
	int shift;

	if (!read_number(p, out))
		return false;
	while (**p == ' ')
		++*p;
	unit = **p ? strchr(units, **p | 0x20) : NULL;
	if (unit && *unit) {
		shift = 10 * (int)(unit - units + 1);
		if (*out > UINT64_MAX >> shift)
			return false;
		*out <<= shift;
		++*p;
	}
	if (**p == 'i')
		++*p;
	if (**p == 'B')
		++*p;
	return true;
}

bool config_read_size(const char *text, uint64_t *out)
{
	return read_bytes(&text, out) && !*text;
}

bool config_read_time(const char *text, uint64_t *out)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {
	    {"", UINT64_C(1000000000)},	    {"ms", UINT64_C(1000000)},
	    {"s", UINT64_C(1000000000)},    {"m", UINT64_C(60000000000)},
	    {"h", UINT64_C(3600000000000)}, {"d", UINT64_C(86400000000000)},
	};
	uint64_t number;
	size_t i;

	if (!read_number(&text, &number))
		return false;
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(text, units[i].name) != 0)
			continue;
		*out = number * units[i].ns;
		return number <= UINT64_MAX / units[i].ns;
	}
	return false;
}

bool config_read_percent(const char *text, unsigned *out)
{
	uint64_t number;

	if (!read_number(&text, &number) || number > 100 || (*text && strcmp(text, "%") != 0))
		return false;
	*out = (unsigned)number;
	return true;
}

bool config_read_room(const char *text, unsigned *percent_out, uint64_t *bytes_out)
{
	uint64_t number;

	*percent_out = 100;
	*bytes_out = UINT64_MAX;
	while (*text) {
		const char *start = text;

		if (read_number(&text, &number) && *text == '%' && number <= 100) {
			*percent_out = (unsigned)number;
			text++;
		} else {
			text = start;
			if (!read_bytes(&text, bytes_out))
				return false;
		}
		while (*text == ',' || *text == ' ')
			text++;
	}
	return true;
}

/* Is it one of "deny, wait or off"? */
static bool is_choice(const char *choices, const char *text)
{
	size_t n = strlen(text);

	while (*choices) {
		size_t length = strcspn(choices, ", ");

		if (length == n && n && memcmp(choices, text, n) == 0)
			return true;
		choices += length;
		choices += strspn(choices, ", ");
		if (strncmp(choices, "or ", 3) == 0)
			choices += 3;
	}
	return false;
}

bool config_is_valid(enum config_key key, const char *text)
{
	unsigned percent;
	uint64_t number;

	switch (config_settings[key].kind) {
	case CONFIG_KIND_WORD:
		return is_choice(config_settings[key].choices, text);
	case CONFIG_KIND_SIZE:
		return config_read_size(text, &number);
	case CONFIG_KIND_TIME:
		return config_read_time(text, &number);
	case CONFIG_KIND_PERCENT:
		return config_read_percent(text, &percent);
	case CONFIG_KIND_ROOM:
		return config_read_room(text, &percent, &number);
	default:
		return true;
	}
}

const char *config_wanted(enum config_key key)
{
	switch (config_settings[key].kind) {
	case CONFIG_KIND_WORD:
		return config_settings[key].choices;
	case CONFIG_KIND_SIZE:
		return "a size such as 256M";
	case CONFIG_KIND_TIME:
		return "a time such as 30s";
	case CONFIG_KIND_PERCENT:
		return "a percentage such as 80%";
	case CONFIG_KIND_ROOM:
		return "such as 5%, 1G or 5%,1G";
	default:
		return "a text";
	}
}
