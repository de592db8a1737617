/* SPDX-License-Identifier: MIT
 *
 * The table of settings, and what their values have to look like. Also runs inside the backend.
 */
#include "core/settings/config.h"

#include <string.h>

#include "core/oplog/oplog.h"

const struct config_setting config_settings[CONFIG_KEYS] = {
#define KEY(key, name, otherwise, kind, choices, meaning, more) \
	[CONFIG_##key] = {name, otherwise, CONFIG_KIND_##kind, choices, meaning},
#include "core/settings/keys.def"
#undef KEY
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Digits only; *p stays behind them. False: there are none, or the number is too big. */
static bool read_number(const char **p, uint64_t *out)
{
	const char *start = *p;
	uint64_t value = 0;

	for (; is_digit(**p); ++*p)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(**p - '0'), &value))
			return false;
	*out = value;
	return *p != start;
}

/* A number that may have a fraction, "1.5": the fraction in billionths. */
static bool read_decimal(const char **p, uint64_t *out, uint64_t *fraction)
{
	uint64_t unit = UINT64_C(1000000000);

	*fraction = 0;
	if (!read_number(p, out))
		return false;
	if (**p != '.')
		return true;
	++*p;
	if (!is_digit(**p))
		return false;
	for (; is_digit(**p); ++*p)
		*fraction += (uint64_t)(**p - '0') * (unit /= 10);
	return true;
}

/* number.fraction of `unit`; false: more than 64 bits hold. */
static bool scale(uint64_t number, uint64_t fraction, uint64_t unit, uint64_t *out)
{
	uint64_t whole, part;

	/* unit is at most 2^50 or a week, of which a millionth is whole or as good as. */
	part = unit / 1000000 * (fraction / 1000) + unit % 1000000 * fraction / 1000000000;
	return !__builtin_mul_overflow(number, unit, &whole) &&
	       !__builtin_add_overflow(whole, part, out);
}

/* K, M, G, T, P, with or without "B" or "iB", behind one blank at most. */
static bool read_bytes(const char **p, uint64_t *out)
{
	static const char units[] = "kmgtp";
	uint64_t number, fraction, unit = 1;
	unsigned i;

	if (!read_decimal(p, &number, &fraction))
		return false;
	if (**p == ' ' && (*p)[1] && (*p)[1] != ' ' && !is_digit((*p)[1]))
		++*p;
	for (i = 0; units[i]; i++) {
		if ((**p | 0x20) != units[i])
			continue;
		unit = UINT64_C(1) << 10 * (i + 1);
		++*p;
		if (**p == 'i' && (*p)[1] == 'B')
			++*p;
		break;
	}
	if (**p == 'B')
		++*p;
	if (unit == 1 && fraction)
		return false; /* half a byte */
	return scale(number, fraction, unit, out);
}

bool config_read_size(const char *text, uint64_t *out)
{
	return read_bytes(&text, out) && !*text;
}

/* The unit at *p, in ns, which is then behind it; 0: none. */
static uint64_t read_time_unit(const char **p)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {
	    {"ms", UINT64_C(1000000)},	     {"s", UINT64_C(1000000000)},
	    {"m", UINT64_C(60000000000)},    {"h", UINT64_C(3600000000000)},
	    {"d", UINT64_C(86400000000000)}, {"w", UINT64_C(604800000000000)},
	};
	size_t i;

	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t n = strlen(units[i].name);

		if (strncmp(*p, units[i].name, n) != 0)
			continue;
		*p += n;
		return units[i].ns;
	}
	return 0;
}

bool config_read_span(const char *text, uint64_t *out)
{
	uint64_t total = 0, number, fraction, part;

	if (!*text)
		return false;
	while (*text) {
		uint64_t unit;

		if (!read_decimal(&text, &number, &fraction))
			return false;
		unit = read_time_unit(&text);
		if (!unit || !scale(number, fraction, unit, &part) ||
		    __builtin_add_overflow(total, part, &total))
			return false;
	}
	*out = total;
	return true;
}

bool config_read_time(const char *text, uint64_t *out)
{
	const char *end = text;
	uint64_t seconds;

	if (read_number(&end, &seconds) && !*end)
		return scale(seconds, 0, UINT64_C(1000000000), out);
	return config_read_span(text, out);
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
	bool has_percent = false, has_bytes = false;
	uint64_t number;

	*percent_out = 100;
	*bytes_out = UINT64_MAX;
	while (*text) {
		const char *start = text;

		if (read_number(&text, &number) && *text == '%' && number <= 100 && !has_percent) {
			*percent_out = (unsigned)number;
			has_percent = true;
			text++;
		} else {
			text = start;
			if (has_bytes || !read_bytes(&text, bytes_out))
				return false;
			has_bytes = true;
		}
		if (!*text)
			return true;
		/* ",", ", " or a blank, and something behind it. */
		if (*text != ',' && *text != ' ')
			return false;
		text += *text == ',' && text[1] == ' ' ? 2 : 1;
		if (!*text)
			return false;
	}
	return has_percent || has_bytes;
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
		return config_read_size(text, &number) &&
		       (key != CONFIG_LOG_SIZE || number >= OPLOG_LIMIT_MIN);
	case CONFIG_KIND_TIME:
		return config_read_time(text, &number) ||
		       (key == CONFIG_DRILL && strcmp(text, "off") == 0);
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
		return key == CONFIG_LOG_SIZE ? "a size such as 256M, from 1M on"
					      : "a size such as 256M";
	case CONFIG_KIND_TIME:
		return key == CONFIG_DRILL ? "a time such as 7d, or off" : "a time such as 30s";
	case CONFIG_KIND_PERCENT:
		return "a percentage such as 80%";
	case CONFIG_KIND_ROOM:
		return "such as 5%, 1G or 5%,1G";
	default:
		return "a text";
	}
}
