/* SPDX-License-Identifier: MIT
 *
 * Points in time, printed and parsed.
 */
#include "command/base/terminal.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/settings/config.h"

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

/* "+01:00" */
static bool is_zone(const char *p)
{
	static const char form[] = "sdd:dd";
	size_t i;

	for (i = 0; form[i]; i++)
		if (form[i] == 's'   ? *p != '+' && *p != '-'
		    : form[i] == 'd' ? p[i] < '0' || p[i] > '9'
				     : p[i] != form[i])
			return false;
	return p[i] == '\0';
}

/* ".123", then "Z", "+01:00" or nothing (local time). */
static bool parse_rest(const char *p, struct tm *tm, uint64_t *ns)
{
	uint64_t fraction = 0, unit = SECOND / 10;
	int day = tm->tm_mday, hours = 0, minutes = 0;
	int64_t seconds;

	if (*p == '.')
		for (p++; *p >= '0' && *p <= '9'; p++, unit /= 10)
			fraction += (uint64_t)(*p - '0') * unit;
	if (*p == '\0') {
		tm->tm_isdst = -1;
		seconds = mktime(tm);
	} else if (!strcmp(p, "Z") || !strcmp(p, "z")) {
		seconds = timegm(tm);
	} else if (is_zone(p)) {
		hours = (p[1] - '0') * 10 + p[2] - '0';
		minutes = (p[4] - '0') * 10 + p[5] - '0';
		seconds = timegm(tm) - (*p == '+' ? 60 : -60) * (hours * 60 + minutes);
	} else {
		return false;
	}
	/* The 31st of February has become a day in March. */
	if (seconds < 0 || seconds > INT64_MAX / (int64_t)SECOND || tm->tm_mday != day ||
	    hours > 23 || minutes > 59)
		return false;
	*ns = (uint64_t)seconds * SECOND + fraction;
	return true;
}

/* The middle of the day `days` before that of now, in local time: safe from changed clocks. */
static struct tm day_before(time_t now, int days)
{
	struct tm tm;

	localtime_r(&now, &tm);
	tm.tm_mday -= days;
	tm.tm_hour = 12;
	tm.tm_min = tm.tm_sec = 0;
	tm.tm_isdst = -1;
	mktime(&tm);
	return tm;
}

/* "14:02", "9:00:30.5" on that day. */
static bool parse_clock(const char *text, struct tm day, uint64_t *ns)
{
	const char *rest;

	day.tm_hour = day.tm_min = day.tm_sec = 0;
	if (*text < '0' || *text > '9')
		return false;
	rest = strptime(text, "%H:%M:%S", &day);
	if (!rest) {
		day.tm_sec = 0;
		rest = strptime(text, "%H:%M", &day);
	}
	return rest && parse_rest(rest, &day, ns);
}

/* "today", "yesterday", each also with a time of day; a time of day alone is the last such. */
static bool parse_day(const char *text, time_t now, uint64_t *ns)
{
	static const char *const words[] = {"today", "yesterday"};
	int days;

	for (days = 0; days < 2; days++) {
		size_t n = strlen(words[days]);

		if (strncmp(text, words[days], n) != 0)
			continue;
		if (text[n] == '\0')
			return parse_clock("0:00", day_before(now, days), ns);
		return (text[n] == ' ' || text[n] == 'T') &&
		       parse_clock(text + n + 1, day_before(now, days), ns);
	}
	if (!parse_clock(text, day_before(now, 0), ns))
		return false;
	return *ns <= (uint64_t)now * SECOND || parse_clock(text, day_before(now, 1), ns);
}

bool parse_duration(const char *text, uint64_t *ns_out)
{
	static const struct {
		const char *unit;
		double ns;
	} units[] = {{"ns", 1},	 {"us", 1e3}, {"µs", 1e3},   {"ms", 1e6},
		     {"s", 1e9}, {"m", 60e9}, {"min", 60e9}, {"h", 3600e9}};
	char *end;
	double value;
	size_t i;

	if (*text < '0' || *text > '9' || text[1] == 'x' || text[1] == 'X')
		return false;
	value = strtod(text, &end);
	end += *end == ' ';
	for (i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit) != 0 || value * units[i].ns > 9e18)
			continue;
		*ns_out = (uint64_t)(value * units[i].ns);
		return true;
	}
	return false;
}

bool parse_time(const char *text, uint64_t *ns_out)
{
	static const char *const forms[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S",
					    "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"};
	uint64_t age;
	size_t i;

	if (config_read_span(text + (*text == '@'), &age)) {
		*ns_out = clock_read(CLOCK_REALTIME);
		*ns_out = age < *ns_out ? *ns_out - age : 0;
		return true;
	}
	if (strcmp(text, "now") == 0) {
		*ns_out = clock_read(CLOCK_REALTIME);
		return true;
	}
	if (parse_day(text, time(NULL), ns_out))
		return true;
	for (i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct tm tm = {0};
		const char *rest = strptime(text, forms[i], &tm);

		if (rest && parse_rest(rest, &tm, ns_out))
			return true;
	}
	return false;
}

bool parse_number(const char *text, uint32_t *out)
{
	uint64_t value = 0;

	if (!*text)
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		value = value * 10 + (uint64_t)(*text - '0');
		if (value > UINT32_MAX)
			return false;
	}
	*out = (uint32_t)value;
	return value > 0;
}
