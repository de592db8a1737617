/* SPDX-License-Identifier: MIT
 *
 * `chromashim top`: what goes on in a directory, live.
 */
#include "command/top/top.h"

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/settings/config.h"

const char top_usage[] =
    "Usage: chromashim top [OPTION]... [DIR]\n"
    "\n"
    "Shows live what goes on in a Chroma directory: acts, records and bytes a second,\n"
    "transactions, syncs, who writes and how much memory that takes, the index write under way,\n"
    "who was refused, snapshots, the disk. In a terminal it is a screen that q ends, elsewhere "
    "one\n"
    "line for each interval. DIR is CHROMASHIM_DIR or ./chroma_data if not given.\n"
    "\n"
    "      --interval TIME   between two looks (default 1s, 100ms at least)\n"
    "      --count N         ends after N of them\n"
    "      --plain           lines also in a terminal\n"
    "      --json            JSON, one object for each interval\n"
    "      --utc             times in UTC\n"
    "\n"
    "Exit status: 0 done, 10 no store, 12 no such directory or no Chroma directory.\n";

#define INTERVAL_MIN UINT64_C(100000000)
#define INTERVAL_MAX (UINT64_C(24) * 3600 * SECOND)

struct arguments {
	uint64_t interval;
	uint32_t count; /* 0: for ever */
	bool plain, json, utc;
	const char *dir;
};

static int parse_arguments(struct arguments *a, int argc, char **argv)
{
	enum { INTERVAL = 256, COUNT, PLAIN, JSON, UTC };
	static const struct option options[] = {{"interval", required_argument, NULL, INTERVAL},
						{"count", required_argument, NULL, COUNT},
						{"plain", no_argument, NULL, PLAIN},
						{"json", no_argument, NULL, JSON},
						{"utc", no_argument, NULL, UTC},
						{NULL, 0, NULL, 0}};
	int option;

	*a = (struct arguments){.interval = SECOND};
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("top");
		if (option == INTERVAL &&
		    (!config_read_time(optarg, &a->interval) || a->interval < INTERVAL_MIN ||
		     a->interval > INTERVAL_MAX))
			return fail(EXIT_USAGE, 0, "See `chromashim help top`.",
				    "--interval: '%s' is not a time from 100ms to 1d", optarg);
		if (option == COUNT && !parse_number(optarg, &a->count))
			return fail(EXIT_USAGE, 0, "See `chromashim help top`.",
				    "--count: '%s' is not a number from 1 on", optarg);
		a->plain = a->plain || option == PLAIN;
		a->json = a->json || option == JSON;
		a->utc = a->utc || option == UTC;
	}
	if (argc - optind > 1)
		return fail(EXIT_USAGE, 0, "See `chromashim help top`.",
			    "top takes one directory, and there are %d", argc - optind);
	a->dir = argv[optind];
	return 0;
}

static void show(const struct top *t, bool is_screen)
{
	unsigned columns, rows;

	if (is_screen) {
		screen_size(&columns, &rows);
		top_draw(t, columns, rows);
	} else if (t->json) {
		top_json(t);
	} else {
		top_line(t);
	}
}

/* A pipe whose reader is gone says so at once. */
static bool has_reader(void)
{
	struct pollfd out = {.fd = STDOUT_FILENO, .events = 0};

	if (fflush(stdout) != 0 || terminal_is_gone())
		return false;
	return poll(&out, 1, 0) <= 0 || !(out.revents & (POLLERR | POLLNVAL));
}

static int watch(struct top *t, const struct arguments *a, bool is_screen)
{
	uint32_t shown = 0;
	int r = 0;

	while (r == 0 && !screen_wait(a->interval) && has_reader()) {
		r = top_gather(t);
		if (r == 0)
			show(t, is_screen);
		if (a->count && ++shown >= a->count)
			break;
	}
	return r;
}

int command_top(int argc, char **argv)
{
	struct arguments a;
	struct top *t;
	bool is_screen;
	int status = parse_arguments(&a, argc, argv), r;

	if (status)
		return status;
	t = calloc(1, sizeof(*t));
	if (!t)
		return fail(EXIT_FAILED, -ENOMEM, "Try again with more memory free.",
			    "cannot begin");
	t->json = a.json;
	t->utc = a.utc;
	status = top_open(t, a.dir);
	if (status == 0) {
		screen_catch_signals();
		is_screen = !a.plain && !a.json && screen_open();
		r = watch(t, &a, is_screen);
		screen_close();
		if (r < 0)
			status = digest_input_fail(&t->in, r);
	}
	top_close(t);
	free(t);
	return status;
}
