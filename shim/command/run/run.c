/* SPDX-License-Identifier: MIT
 *
 * `chromashim run -- CMD...`: looks at the directory, puts the library in front, starts the
 * guardian, and becomes the command.
 *
 * Rule here: the command must not notice. Same process, hence same pid, terminal and parent; no
 * descriptor more, the same signal mask and dispositions; its exit status is its own.
 */
#include "command/run/run.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/terminal.h"
#include "core/base/owner.h"

#define EXIT_CANNOT_EXEC 126
#define EXIT_NO_PROGRAM 127

const char run_usage[] =
    "Usage: chromashim run [OPTION]... [--] COMMAND [ARGUMENT]...\n"
    "\n"
    "Starts a Chroma backend under the shim: one word in front of what starts it now.\n"
    "\n"
    "    chromashim run -- chroma run --path ./chroma_data\n"
    "    chromashim run -- uvicorn app:api\n"
    "\n"
    "First the directory is looked at: rights, other processes, the disk, persists that were cut\n"
    "off, damage, and whether this Chroma can open the database. Then a guardian is started\n"
    "beside it, and the command takes the place of this process: same pid, signals, terminal and\n"
    "exit status.\n"
    "\n"
    "      --dir=DIR        the data directory. Else CHROMASHIM_DIR; --path among the command's\n"
    "                       arguments, or what `chroma run` uses; CHROMA_PERSIST_PATH,\n"
    "                       PERSIST_DIRECTORY; else ./chroma_data\n"
    "      --check-only     only look; exit status 0 fine, 3 warnings, or why it would not start\n"
    "      --no-preflight   do not look\n"
    "      --before-open=FD look, and heal what that costs no record, and start nothing: the\n"
    "                       library in a backend asks so before it opens a directory that `run`\n"
    "                       did not know of, and waits as FD, a memory file, tells\n"
    "      --on-damage=WHAT repair (default): heal it on a copy as `recover` does, else keep a\n"
    "                       snapshot of the damage and start, unless that would make it worse;\n"
    "                       restore: the newest snapshot; refuse: do not start\n"
    "      --restore-if-missing  first restore the newest snapshot of CHROMASHIM_REPLICA, if the\n"
    "                       directory is missing or empty; one that is there is left alone\n"
    "      --takeover       then also send to that replica from now on, in place of the machine\n"
    "                       that is gone\n"
    "      --no-guard       no guardian\n"
    "      --config=FILE    settings, instead of chromashim.conf in the store\n"
    "      --set NAME=VALUE one setting, stronger than environment and file; can be repeated\n"
    "      --print-config   list all settings, where each value comes from, and stop\n"
    "  -q, --quiet          only what is wrong\n"
    "\n"
    "Exit status: the command's own; 126 it cannot be executed, 127 there is no such command; and\n"
    "if it is not started: 1 the reason is said, 2 usage, 13 no space, 14 another process is in\n"
    "the way.\n";

/* ---- options ---- */

static int set(struct run *r, enum config_key key, const char *value, const char *option)
{
	int e = config_set(&r->config, key, value, CONFIG_FROM_OPTION);

	if (e == -EINVAL)
		return fail(EXIT_USAGE, 0, "See `chromashim help run`.", "%s: '%s' is not %s",
			    option, value, config_wanted(key));
	return e < 0 ? fail(EXIT_FAILED, e, NULL, "%s", option) : 0;
}

/* NAME=VALUE */
static int set_named(struct run *r, const char *text)
{
	size_t n = strcspn(text, "=");
	enum config_key key = config_find(text, n);

	if (key == CONFIG_KEYS || !text[n])
		return fail(EXIT_USAGE, 0,
			    "`chromashim run --print-config` lists the settings there are.",
			    "--set: '%s' is not NAME=VALUE", text);
	return set(r, key, text + n + 1, config_settings[key].name);
}

enum {
	OPT_DIR = 256,
	OPT_CHECK_ONLY,
	OPT_NO_PREFLIGHT,
	OPT_BEFORE_OPEN,
	OPT_ON_DAMAGE,
	OPT_NO_GUARD,
	OPT_RESTORE,
	OPT_TAKEOVER,
	OPT_CONFIG,
	OPT_SET,
	OPT_PRINT_CONFIG,
};

static int take_option(struct run *r, int option, const char *value)
{
	switch (option) {
	case OPT_DIR:
		return set(r, CONFIG_DIR, value, "--dir");
	case OPT_CHECK_ONLY:
		r->check_only = true;
		return 0;
	case OPT_NO_PREFLIGHT:
		return set(r, CONFIG_PREFLIGHT, "off", "--no-preflight");
	case OPT_BEFORE_OPEN:
		return before_open_take(r, value);
	case OPT_ON_DAMAGE:
		return set(r, CONFIG_ON_DAMAGE, value, "--on-damage");
	case OPT_NO_GUARD:
		return set(r, CONFIG_GUARD, "off", "--no-guard");
	case OPT_RESTORE:
		r->restore_missing = true;
		return 0;
	case OPT_TAKEOVER:
		r->takeover = true;
		return 0;
	case OPT_CONFIG:
		r->config_file = value;
		return 0;
	case OPT_SET:
		return set_named(r, value);
	case OPT_PRINT_CONFIG:
		r->print_config = true;
		return 0;
	case 'q':
		r->quiet = true;
		return 0;
	default:
		return fail_usage("run");
	}
}

static int parse_arguments(struct run *r, int argc, char **argv)
{
	static const struct option options[] = {
	    {"dir", required_argument, NULL, OPT_DIR},
	    {"check-only", no_argument, NULL, OPT_CHECK_ONLY},
	    {"no-preflight", no_argument, NULL, OPT_NO_PREFLIGHT},
	    {"before-open", required_argument, NULL, OPT_BEFORE_OPEN},
	    {"on-damage", required_argument, NULL, OPT_ON_DAMAGE},
	    {"no-guard", no_argument, NULL, OPT_NO_GUARD},
	    {"restore-if-missing", no_argument, NULL, OPT_RESTORE},
	    {"takeover", no_argument, NULL, OPT_TAKEOVER},
	    {"config", required_argument, NULL, OPT_CONFIG},
	    {"set", required_argument, NULL, OPT_SET},
	    {"print-config", no_argument, NULL, OPT_PRINT_CONFIG},
	    {"quiet", no_argument, NULL, 'q'},
	    {NULL, 0, NULL, 0},
	};
	int option, status = 0;

	/* The first word that is no option begins the command, which has options of its own. */
	while (status == 0 && (option = getopt_long(argc, argv, "+q", options, NULL)) != -1)
		status = take_option(r, option, optarg);
	if (status)
		return status;
	r->command = argv + optind;
	if (r->check_only && r->config.values[CONFIG_PREFLIGHT].origin == CONFIG_FROM_OPTION &&
	    !run_is_set_to(r, CONFIG_PREFLIGHT, "on"))
		return fail(EXIT_USAGE, 0, "Leave one of them out.",
			    "--check-only and --no-preflight exclude each other");
	if (!r->command[0] && !r->print_config && !r->check_only && !r->look)
		return fail(EXIT_USAGE, 0,
			    "Say what starts the backend: chromashim run -- chroma run --path DIR",
			    "run needs a command");
	return 0;
}

/* ---- the whole ---- */

static int fail_exec(const char *program, int error)
{
	if (error == -ENOENT)
		return fail((enum exit_code)EXIT_NO_PROGRAM, 0,
			    strchr(program, '/')
				? "Look at the path, and at the script's first line."
				: "Look at PATH, or give the whole path.",
			    "there is no program '%s'", program);
	return fail((enum exit_code)EXIT_CANNOT_EXEC, error,
		    "It has to be executable for this user.", "cannot execute '%s'", program);
}

/* For children that change their directory, and for the guardian. */
static int make_absolute(struct run *r)
{
	char real[PATH_MAX], here[PATH_MAX];

	if (realpath(r->dir, real))
		strlcpy(here, real, sizeof(here));
	else if (r->dir[0] == '/' || !getcwd(here, sizeof(here)))
		return 0;
	else if (strlcat(here, "/", sizeof(here)) >= sizeof(here) ||
		 strlcat(here, r->dir, sizeof(here)) >= sizeof(here))
		return 0;
	if (!r->dir_from && access(here, F_OK) < 0)
		return 0; /* a guess, and nothing there */
	if (strchr(here, ':')) {
		run_say(r,
			"'%s': its name has a colon, so it is protected only from when Chroma "
			"opens it",
			r->dir);
		return unsetenv("CHROMASHIM_DIR");
	}
	return setenv("CHROMASHIM_DIR", here, 1) < 0 ? -errno : 0;
}

static int start(struct run *r)
{
	char pid[24];

	snprintf(pid, sizeof(pid), "%ld", (long)getpid());
	if (make_absolute(r) < 0 || setenv(CONFIG_BACKEND_PID, pid, 1) < 0)
		return fail(EXIT_FAILED, -ENOMEM, NULL, "cannot set the environment");
	if (!r->is_newer && run_is_set_to(r, CONFIG_GUARD, "on") &&
	    !run_is_set_to(r, CONFIG_SHIM, "off"))
		run_start_guardian(r);
	fflush(NULL);
	terminal_give_back();
	owner_pause(); /* with other ids the kernel calls it secure, and the loader preloads nothing
			*/
	execv(r->backend.program, r->command);
	/* A script without a first line that names its interpreter is the shell's. A program for
	 * another machine is not. */
	if (errno == ENOEXEC && !r->backend.trouble[0])
		execvp(r->command[0], r->command);
	return fail_exec(r->command[0], -errno);
}

static int prepare(struct run *r)
{
	int status = run_read_settings(r), e;

	if (status == 0)
		status = run_choose_directory(r);
	if (status == 0)
		status = run_read_store_settings(r);
	if (status)
		return status;
	if (r->print_config) {
		run_print_settings(r);
		return -1;
	}
	if (run_export_settings(r) < 0)
		return fail(EXIT_FAILED, -ENOMEM, NULL, "cannot set the environment");
	e = r->command[0] ? backend_find(r->command, &r->backend) : 0;
	return e < 0 ? fail_exec(r->command[0], e) : 0;
}

int command_run(int argc, char **argv)
{
	struct run *r = calloc(1, sizeof(*r));
	char *none[] = {NULL};
	bool warned = false;
	int status;

	if (!r)
		return fail(EXIT_FAILED, -ENOMEM, NULL, "run");
	r->command = none;
	status = parse_arguments(r, argc, argv);
	if (status == 0) {
		run_find_user(r);
		status = prepare(r);
	}
	if (status == 0 && r->look)
		return preflight_before_open(r);
	if (status == 0 && r->restore_missing && !r->check_only)
		status = run_restore_missing(r);
	if (status == 0 && (r->check_only || run_is_set_to(r, CONFIG_PREFLIGHT, "on")))
		status = preflight(r);
	if (status == EXIT_WARNINGS) {
		warned = true;
		status = 0;
	}
	if (status == 0)
		status = run_preload(r);
	if (status == 0 && !r->check_only)
		status = start(r);
	else if (status == 0 && warned)
		status = EXIT_WARNINGS;
	config_free(&r->config);
	free(r);
	return status < 0 ? EXIT_DONE : status;
}
