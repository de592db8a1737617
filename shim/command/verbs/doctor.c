/* SPDX-License-Identifier: MIT
 *
 * `chromashim doctor`: what is missing where a backend is started.
 */
#include "command/verbs/doctor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/command.h"
#include "command/base/processes.h"
#include "core/base/fileio.h"
#include "core/chroma/chroma.h"

const char doctor_usage[] =
    "Usage: chromashim doctor [FILE | PID | FOLDER]...\n"
    "\n"
    "Looks at what starts a backend, and says in at most five lines what is missing: a pm2\n"
    "file (ecosystem.config.js), a systemd unit, a Compose file, or a backend that runs.\n"
    "Without a word: those in this folder, and all backends that run. Nothing is changed.\n"
    "\n"
    "Exit status: 0 nothing is missing, 1 something is, 12 there is nothing to look at.\n";

#define FILE_MOST (1u << 20)

struct visit {
	unsigned seen, missing;
};

/* ---- files ---- */

static void tell(const char *path, const struct doctor_advice *a)
{
	unsigned i;

	if (!a->count)
		printf("%s (%s): nothing is missing\n", path, a->kind);
	else
		printf("%s (%s): %u %s missing\n", path, a->kind, a->count,
		       a->count == 1 ? "thing is" : "things are");
	for (i = 0; i < a->count; i++)
		printf("  %s\n", a->lines[i]);
}

/* Of a file that was found and not named, nothing is said where it is none of these. */
static int visit_file(struct visit *v, const char *path, bool is_named)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), r;
	struct doctor_advice advice;
	char *text = NULL;
	size_t size;
	bool known;

	r = fd < 0 ? -errno : file_read_all(fd, FILE_MOST, &text, &size);
	if (fd >= 0)
		close(fd);
	if (r < 0)
		return is_named ? fail(exit_code_of(r), r, NULL, "cannot read '%s'", path) : 0;
	known = doctor_judge(text, &advice);
	free(text);
	if (!known)
		return is_named
			   ? fail(EXIT_NOT_FOUND, 0,
				  "Name an ecosystem.config.js, a unit, or a Compose file.",
				  "'%s' is neither a file of pm2's, nor systemd's, nor Compose's",
				  path)
			   : 0;
	tell(path, &advice);
	v->seen++;
	v->missing += advice.count;
	return 0;
}

static void visit_folder(struct visit *v, const char *folder)
{
	static const char *const names[] = {
	    "ecosystem.config.js", "ecosystem.config.cjs", "ecosystem.json",
	    "ecosystem.yml",	   "pm2.config.js",	   "pm2.json",
	    "compose.yaml",	   "compose.yml",	   "docker-compose.yml",
	    "docker-compose.yaml",
	};
	char path[PATH_MAX];
	DIR *dir = opendir(folder);
	struct dirent *e;
	size_t i, n;

	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		visit_file(v, strcmp(folder, ".") == 0 ? names[i] : path, false);
	}
	while (dir && (e = readdir(dir))) {
		n = strlen(e->d_name);
		if (n < 9 || strcmp(e->d_name + n - 8, ".service") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		visit_file(v, strcmp(folder, ".") == 0 ? e->d_name : path, false);
	}
	if (dir)
		closedir(dir);
}

/* ---- backends that run ---- */

static void read_command(uint32_t pid, char out[256])
{
	char path[64];
	ssize_t i, n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/cmdline", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? 0 : read(fd, out, 255);
	if (fd >= 0)
		close(fd);
	n = n > 0 ? n : 0;
	for (i = 0; i < n; i++)
		if (!out[i] || out[i] == '\n')
			out[i] = ' ';
	while (n > 0 && out[n - 1] == ' ')
		n--;
	out[n] = '\0';
}

/* The directory whose database it has open; "": none, or it cannot be looked into. */
static void find_directory(uint32_t pid, char out[PATH_MAX])
{
	static const char name[] = "/" CHROMA_DATABASE;
	char path[64];
	struct dirent *e;
	DIR *fds;
	ssize_t n;

	out[0] = '\0';
	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/fd", pid);
	fds = opendir(path);
	while (fds && (e = readdir(fds))) {
		n = readlinkat(dirfd(fds), e->d_name, out, PATH_MAX - 1);
		out[n > 0 ? n : 0] = '\0';
		if (n > (ssize_t)sizeof(name) && strcmp(out + n - (sizeof(name) - 1), name) == 0) {
			out[n - (ssize_t)(sizeof(name) - 1)] = '\0';
			break;
		}
		out[0] = '\0';
	}
	if (fds)
		closedir(fds);
}

static bool has_library(uint32_t pid)
{
	const struct stat none = {.st_ino = 0};

	return process_has_library(pid, "/nowhere/", &none) > 0;
}

/* A client of a server has Chroma's libraries as well, and no database. */
static void visit_process(struct visit *v, uint32_t pid, bool is_named)
{
	char command[256], dir[PATH_MAX];

	read_command(pid, command);
	find_directory(pid, dir);
	if (!is_named && !dir[0])
		return;
	v->seen++;
	if (has_library(pid)) {
		printf("pid %" PRIu32 " (%s): the library is in it\n", pid, command);
		if (dir[0])
			printf("  chromashim status %s tells more\n", dir);
		return;
	}
	v->missing++;
	printf("pid %" PRIu32 " (%s): UNPROTECTED, the library is not in it\n", pid, command);
	printf("  start it by: chromashim run -- %s\n", command);
	if (dir[0])
		printf("  it has '%s' open; `chromashim snapshot create` keeps its state now\n",
		       dir);
}

static void visit_processes(struct visit *v)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	char *end;
	unsigned long pid;

	while (proc && (e = readdir(proc))) {
		pid = strtoul(e->d_name, &end, 10);
		if (pid && !*end && process_is_chroma((uint32_t)pid))
			visit_process(v, (uint32_t)pid, false);
	}
	if (proc)
		closedir(proc);
}

/* ---- the whole ---- */

static int visit(struct visit *v, const char *word)
{
	char *end, path[64];
	unsigned long pid = strtoul(word, &end, 10);
	struct stat st;
	bool is_there = stat(word, &st) == 0;

	if (!is_there && pid && pid <= UINT32_MAX && !*end) {
		snprintf(path, sizeof(path), "/proc/%lu", pid);
		if (access(path, F_OK) != 0)
			return fail(EXIT_NOT_FOUND, 0, NULL, "there is no process %lu", pid);
		visit_process(v, (uint32_t)pid, true);
		return 0;
	}
	if (is_there && S_ISDIR(st.st_mode)) {
		visit_folder(v, word);
		return 0;
	}
	return visit_file(v, word, true);
}

int command_doctor(int argc, char **argv)
{
	static const struct option options[] = {{NULL, 0, NULL, 0}};
	struct visit v = {0, 0};
	int i, status = 0, r;

	if (getopt_long(argc, argv, "", options, NULL) != -1)
		return fail_usage("doctor");
	for (i = optind; i < argc; i++) {
		r = visit(&v, argv[i]);
		status = status ? status : r;
	}
	if (optind == argc) {
		visit_folder(&v, ".");
		visit_processes(&v);
	}
	if (status)
		return status;
	if (!v.seen)
		return fail(EXIT_NOT_FOUND, 0,
			    "Name the file by which your backend is started, or its pid.",
			    "there is nothing here that starts a backend, and none runs");
	return v.missing ? EXIT_FAILED : EXIT_DONE;
}
