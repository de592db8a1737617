/* SPDX-License-Identifier: MIT
 *
 * Points in time, spans and sizes, printed and parsed.
 */
#include "command/terminal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND UINT64_C(1000000000)

char *format_time_utc(char *out, size_t room, uint64_t ns)
{
	time_t seconds = (time_t)(ns / SECOND);
	char day[24];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(day, sizeof(day), "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(out, room, "%s.%09" PRIu64 "Z", day, ns % SECOND);
	return out;
}

char *format_time(char *out, size_t room, uint64_t ns, bool utc)
{
	time_t seconds = (time_t)(ns / SECOND);
	char day[24];
	struct tm tm;

	if (utc)
		gmtime_r(&seconds, &tm);
	else
		localtime_r(&seconds, &tm);
	strftime(day, sizeof(day), "%Y-%m-%d %H:%M:%S", &tm);
	snprintf(out, room, "%s.%06" PRIu64 "%s", day, ns % SECOND / 1000, utc ? "Z" : "");
	return out;
}

/* "1h30m", "10s", "2d"; a number alone is no age. */
static bool parse_age(const char *p, uint64_t *ns)
{
	static const struct {
		const char *name;
		uint64_t ns;
	} units[] = {{"ms", SECOND / 1000}, {"s", SECOND},	   {"m", 60 * SECOND},
		     {"h", 3600 * SECOND},  {"d", 86400 * SECOND}, {"w", 604800 * SECOND}};
	uint64_t total = 0;

	if (*p == '@')
		p++;
	if (!*p)
		return false;
	while (*p) {
		char *end;
		double value = strtod(p, &end);
		size_t i, best = 6;

		if (end == p || !(value >= 0) || *p == '+' || *p == '-')
			return false;
		for (i = 0; i < 6; i++)
			if (!strncmp(end, units[i].name, strlen(units[i].name)) &&
			    (best == 6 || strlen(units[i].name) > strlen(units[best].name)))
				best = i;
		if (best == 6 || value * (double)units[best].ns > 9e18)
			return false;
		total += (uint64_t)(value * (double)units[best].ns);
		p = end + strlen(units[best].name);
	}
	*ns = total;
	return true;
}

/* ".123", then "Z", "+01:00" or nothing (local time). */
static bool parse_rest(const char *p, struct tm *tm, uint64_t *ns)
{
	uint64_t fraction = 0, unit = SECOND / 10;
	int hours, minutes, n = 0;
	int64_t seconds;
	char sign;

	if (*p == '.')
		for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
			fraction += (uint64_t)(*p - '0') * unit;
	if (*p == '\0') {
		tm->tm_isdst = -1;
		seconds = mktime(tm);
	} else if (!strcmp(p, "Z") || !strcmp(p, "z")) {
		seconds = timegm(tm);
	} else if (sscanf(p, "%c%2d:%2d%n", &sign, &hours, &minutes, &n) == 3 && !p[n] &&
		   (sign == '+' || sign == '-')) {
		int64_t shift = hours * 3600 + minutes * 60;

		seconds = timegm(tm) - (sign == '+' ? shift : -shift);
	} else {
		return false;
	}
	if (seconds < 0)
		return false;
	*ns = (uint64_t)seconds * SECOND + fraction;
	return true;
}

bool parse_time(const char *text, uint64_t *ns_out)
{
	static const char *const forms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S",
					    "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"};
	struct timespec now;
	uint64_t age;
	size_t i;

	if (parse_age(text, &age)) {
		clock_gettime(CLOCK_REALTIME, &now);
		*ns_out = (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
		*ns_out = age < *ns_out ? *ns_out - age : 0;
		return true;
	}
	for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm tm = {0};
		const char *rest = strptime(text, forms[i], &tm);

		if (rest && parse_rest(rest, &tm, ns_out))
			return true;
	}
	return false;
}

uint64_t parse_span(const char *text)
{
	uint64_t ns;

	return parse_age(text, &ns) ? ns : 0;
}

uint64_t parse_size(const char *text)
{
	static const char units[] = "KMGT";
	const char *unit;
	char *end;
	double value = strtod(text, &end);

	if (end == text || !(value > 0))
		return 0;
	unit = *end ? strchr(units, *end & ~0x20) : NULL;
	if (unit) {
		value *= (double)(UINT64_C(1) << 10 * (unit - units + 1));
		end++;
	}
	if (!strcmp(end, "iB") || !strcmp(end, "B"))
		end += strlen(end);
	return *end || value > 9e18 ? 0 : (uint64_t)value;
}
