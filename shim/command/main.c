/* SPDX-License-Identifier: MIT
 *
 * The chromashim command: a table of verbs.
 */
#include "command/base/command.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "command/base/settings_help.h"
#include "command/base/terminal.h"
#include "command/base/version.h"
#include "core/sqlite/database.h"

/* By this symbol the library knows the command, and stays out of it whatever LD_PRELOAD says. */
extern const char chromashim_command_marker;
__attribute__((visibility("default"), used)) const char chromashim_command_marker = 1;

static int command_help(int argc, char **argv);

static const struct command commands[] = {
    {"run", command_run, "start a Chroma backend under the shim", run_usage, 0},
    {"status", command_status, "is a process protected now, and what is recorded", status_usage,
     COMMAND_READ_ONLY | COMMAND_JSON},
    {"log", command_log, "what was done to the data directory", log_usage, COMMAND_JSON},
    {"report", command_report, "what happened, in one page of HTML", report_usage,
     COMMAND_READ_ONLY},
    {"top", command_top, "what goes on in it, live", top_usage, COMMAND_READ_ONLY | COMMAND_JSON},
    {"blame", command_blame, "what made it grow, slow, and sync", blame_usage,
     COMMAND_READ_ONLY | COMMAND_JSON},
    {"support", command_support, "a bundle without names, to send to somebody", support_usage,
     COMMAND_READ_ONLY},
    {"check", command_check, "judge a Chroma directory by its files; changes nothing", check_usage,
     COMMAND_READ_ONLY | COMMAND_JSON},
    {"doctor", command_doctor, "what is missing where a backend is started", doctor_usage,
     COMMAND_READ_ONLY},
    {"explain", command_explain, "what an error message of Chroma's means", explain_usage,
     COMMAND_READ_ONLY | COMMAND_JSON},
    {"export", command_export, "every record as JSON Lines, straight from the files", export_usage,
     COMMAND_READ_ONLY | COMMAND_JSON},
    {"recover", command_recover, "heal a damaged directory on a copy, and exchange them",
     recover_usage, COMMAND_JSON | COMMAND_DRY_RUN},
    {"snapshot", command_snapshot, "take, list, compare, verify, keep and remove snapshots",
     snapshot_usage, COMMAND_JSON | COMMAND_DRY_RUN},
    {"restore", command_restore, "bring a snapshot back, in place or elsewhere", restore_usage,
     COMMAND_DRY_RUN},
    {"replica", command_replica, "copies of snapshots that outlive this machine", replica_usage, 0},
    {"drill", command_drill, "restore a snapshot to a scratch place, and try it", drill_usage,
     COMMAND_JSON},
    {"guard", command_guard, "work beside the backend: copy, verify and look after snapshots",
     guard_usage, 0},
    {"help", command_help, "this, or all about one command",
     "Usage: chromashim help [COMMAND]\n"
     "       chromashim help settings\n",
     COMMAND_READ_ONLY},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct command *find_command(const char *name)
{
	size_t i;

	for (i = 0; i < COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static void print_overview(FILE *out)
{
	size_t i;

	fputs("Usage: chromashim COMMAND [OPTION]... [DIR]\n"
	      "\n"
	      "Looks after a Chroma directory that is protected by libchromashim.so. DIR is\n"
	      "CHROMASHIM_DIR or ./chroma_data if not given, else the only directory here that has "
	      "a\n"
	      "chroma.sqlite3.\n"
	      "\n",
	      out);
	for (i = 0; i < COMMANDS; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
	fputs("\n"
	      "`chromashim help COMMAND` tells all about one, `chromashim help settings` all "
	      "settings,\n"
	      "and `chromashim --version -v` the version, and what is in it.\n",
	      out);
}

static int fail_unknown(const char *name)
{
	return fail(EXIT_USAGE, 0, "`chromashim help` lists what there is.",
		    "there is no command '%s'", name);
}

static int command_help(int argc, char **argv)
{
	const struct command *c;

	if (argc < 2) {
		print_overview(stdout);
		return EXIT_DONE;
	}
	if (!strcmp(argv[1], "settings")) {
		settings_help();
		return EXIT_DONE;
	}
	c = find_command(argv[1]);
	if (!c)
		return fail_unknown(argv[1]);
	fputs(c->usage, stdout);
	return EXIT_DONE;
}

/* Before a `--`; of run, before the backend's command, which has options of its own. */
static bool asks_for_help(const struct command *c, int argc, char **argv)
{
	int i;

	for (i = 2; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
		if (c->run == command_run && argv[i][0] != '-')
			return false;
	}
	return false;
}

int main(int argc, char **argv)
{
	static char help[] = "help", program[] = "chromashim";
	const struct command *c;
	int status;

	terminal_start();
	database_spare_owners();
	if (argc < 2) {
		print_overview(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		version_print(argc > 2 && !strcmp(argv[2], "-v"));
		return terminal_finish(EXIT_DONE);
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		argv[1] = help;
	c = find_command(argv[1]);
	if (!c)
		return fail_unknown(argv[1]);
	if (asks_for_help(c, argc, argv)) {
		fputs(c->usage, stdout);
		return terminal_finish(EXIT_DONE);
	}
	/* getopt names the program in its messages. */
	argv[1] = program;
	status = c->run(argc - 1, argv + 1);
	return terminal_finish(status);
}
