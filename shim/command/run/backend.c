/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: what program the command leads to, whether the library can be preloaded into
 * it, and where its Chroma is.
 */
#include "command/run/run.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <bsd/string.h>

#include "core/base/fileio.h"
#include "core/chroma/installation.h"

#define SCRIPTS 5 /* that lead to each other, at most; as in the kernel */
#define HEAD 2048

/* ---- from a word to a program ---- */

static int backend_look(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) && access(path, X_OK) == 0 ? 0 : -EACCES;
}

/* Finds the program as execvp() does. */
static int find_program(const char *word, char out[PATH_MAX])
{
	const char *at = getenv("PATH");
	int r, error = -ENOENT;
	size_t n;

	if (!*word)
		return -ENOENT;
	if (strchr(word, '/'))
		return strlcpy(out, word, PATH_MAX) < PATH_MAX ? backend_look(out) : -ENOENT;
	if (!at)
		at = "/bin:/usr/bin";
	for (;; at += n + 1) {
		n = strcspn(at, ":");
		if (snprintf(out, PATH_MAX, "%.*s/%s", n ? (int)n : 1, n ? at : ".", word) <
		    PATH_MAX) {
			r = backend_look(out);
			if (r == 0)
				return 0;
			error = r == -EACCES ? r : error;
		}
		if (!at[n])
			break;
	}
	return error;
}

static size_t read_head(const char *path, char head[HEAD])
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	ssize_t n = fd < 0 ? 0 : file_read_at(fd, head, HEAD - 1, 0);

	if (fd >= 0)
		close(fd);
	n = n > 0 ? n : 0;
	head[n] = '\0';
	return (size_t)n;
}

/* "/usr/bin/env -S python3 -u": the program that env is going to run. */
static char *word_for_env(char *rest)
{
	char *word;

	while ((word = strsep(&rest, " \t")))
		if (*word && *word != '-' && !strchr(word, '='))
			return word;
	return NULL;
}

/*
 * pip's way around paths with spaces, or that are too long: #!/bin/sh, and in the next line
 * '''exec' "/a b/bin/python" "$0" "$@"
 */
static char *word_for_shell(char *second_line)
{
	static const char start[] = "'''exec' ";
	char *end;

	if (strncmp(second_line, start, sizeof(start) - 1) != 0)
		return NULL;
	second_line += sizeof(start) - 1;
	if (*second_line == '"')
		second_line++;
	end = strpbrk(second_line, second_line[-1] == '"' ? "\"" : " \n");
	if (!end)
		return NULL;
	*end = '\0';
	return second_line;
}

/* The interpreter of the script at *path, in *path. False: it is no script. */
static bool follow_script(char path[PATH_MAX])
{
	char head[HEAD], next[PATH_MAX], *line = head, *rest, *word;

	if (read_head(path, head) < 4 || head[0] != '#' || head[1] != '!')
		return false;
	rest = strchr(line, '\n');
	if (rest)
		*rest++ = '\0';
	line += 2 + strspn(line + 2, " \t");
	word = strsep(&line, " \t\r");
	if (line && strcmp(basename(word), "env") == 0)
		word = word_for_env(line);
	else if (rest && strcmp(basename(word), "sh") == 0 && word_for_shell(rest))
		word = rest + strlen("'''exec' ") + (rest[strlen("'''exec' ")] == '"');
	if (!word || find_program(word, next) < 0)
		return false;
	strlcpy(path, next, PATH_MAX);
	return true;
}

/* ---- can anything be preloaded? ---- */

static const char *text_of_machine(const Elf64_Ehdr *e)
{
	static char other[24];

	switch (e->e_machine) {
	case EM_X86_64:
		return "x86-64";
	case EM_386:
		return "x86 with 32 bits";
	case EM_AARCH64:
		return "aarch64";
	case EM_ARM:
		return "ARM with 32 bits";
	default:
		snprintf(other, sizeof(other), "machine %u", e->e_machine);
		return other;
	}
}

/* The loader that the program names, "" if it names none. */
static void read_loader(const char *head, size_t size, char *out, size_t room)
{
	Elf64_Ehdr e;
	Elf64_Phdr p;
	unsigned i;

	*out = '\0';
	memcpy(&e, head, sizeof(e));
	for (i = 0; i < e.e_phnum; i++) {
		uint64_t at = e.e_phoff + (uint64_t)i * sizeof(p);

		if (e.e_phoff > HEAD || at + sizeof(p) > size)
			return;
		memcpy(&p, head + at, sizeof(p));
		if (p.p_type != PT_INTERP || p.p_offset >= size)
			continue;
		snprintf(out, room, "%.*s", (int)(size - p.p_offset), head + p.p_offset);
		return;
	}
}

/* The loader drops LD_PRELOAD where the program gains rights. */
static bool gains_rights(const char *path, const char **how)
{
	struct stat st;
	char value[64];

	if (stat(path, &st) < 0)
		return false;
	*how = "set-user-ID";
	if (st.st_mode & S_ISUID && st.st_uid != getuid())
		return true;
	*how = "set-group-ID";
	if (st.st_mode & S_ISGID && st.st_mode & S_IXGRP && st.st_gid != getgid())
		return true;
	*how = "given capabilities (setcap)";
	return getuid() != 0 && getxattr(path, "security.capability", value, sizeof(value)) > 0;
}

void backend_judge(struct backend *b)
{
	char head[HEAD], own[HEAD], loader[256];
	size_t n = read_head(b->interpreter, head);
	const char *how;
	Elf64_Ehdr e, self;

	if (n < sizeof(e) || memcmp(head, ELFMAG, SELFMAG) != 0)
		return; /* a script without #!, which a shell runs; or what exec will refuse */
	if (read_head("/proc/self/exe", own) < sizeof(self))
		memcpy(own, head, sizeof(self)); /* there is no /proc: it is not judged */
	memcpy(&e, head, sizeof(e));
	memcpy(&self, own, sizeof(self));
	if (e.e_machine != self.e_machine || head[EI_CLASS] != own[EI_CLASS]) {
		snprintf(b->trouble, sizeof(b->trouble), "it is built for %s, the library for %s",
			 text_of_machine(&e), text_of_machine(&self));
		return;
	}
	read_loader(head, n, loader, sizeof(loader));
	if (!*loader)
		snprintf(b->trouble, sizeof(b->trouble),
			 "it is linked statically (what it starts may be protected all the same)");
	else if (strstr(loader, "ld-musl"))
		snprintf(b->trouble, sizeof(b->trouble),
			 "it uses the C library musl, the library glibc");
	else if (gains_rights(b->interpreter, &how))
		snprintf(b->trouble, sizeof(b->trouble),
			 "it is %s, and the loader preloads nothing into such programs", how);
}

/* ---- where its Chroma is ---- */

static bool is_chroma_at(const char *path, struct backend *b)
{
	struct installation found;

	if (!path || !*path || installation_find(path, &found) < 0)
		return false;
	strlcpy(b->installation, path, sizeof(b->installation));
	return true;
}

static bool in_list(const char *list, struct backend *b)
{
	char one[PATH_MAX];
	size_t n;

	for (; list && *list; list += n + (list[n] == ':')) {
		n = strcspn(list, ":");
		if (n && n < sizeof(one)) {
			memcpy(one, list, n);
			one[n] = '\0';
			if (is_chroma_at(one, b))
				return true;
		}
	}
	return false;
}

/* node_modules here or above. */
static bool above_here(struct backend *b)
{
	char dir[PATH_MAX], *slash;

	if (!getcwd(dir, sizeof(dir)))
		return false;
	for (;;) {
		if (is_chroma_at(dir, b))
			return true;
		slash = strrchr(dir, '/');
		if (!slash || slash == dir)
			return false;
		*slash = '\0';
	}
}

static bool is_named(const char *path, const char *name)
{
	return strncmp(basename(path), name, strlen(name)) == 0;
}

/* The files among the arguments: a script is near what it uses. */
static bool near_arguments(char *const *command, struct backend *b)
{
	struct stat st;
	unsigned i;

	for (i = 1; command[i]; i++)
		if (command[i][0] != '-' && stat(command[i], &st) == 0 && S_ISREG(st.st_mode) &&
		    is_chroma_at(command[i], b))
			return true;
	return false;
}

static void find_chroma(char *const *command, struct backend *b)
{
	bool is_python = is_named(b->interpreter, "python");
	bool is_node = is_named(b->interpreter, "node");

	if (is_python && in_list(getenv("PYTHONPATH"), b))
		return;
	if (is_node && (near_arguments(command, b) || above_here(b)))
		return;
	if (is_chroma_at(b->interpreter, b) || is_chroma_at(b->program, b))
		return;
	if (!is_node && !near_arguments(command, b))
		is_chroma_at(getenv("VIRTUAL_ENV"), b);
}

/* Programs that only prepare something and run the rest of the command. */
static char *const *skip_launchers(char *const *command)
{
	static const char *const launchers[] = {
	    "env",     "nice", "ionice",    "nohup",	 "timeout", "setsid",  "stdbuf", "chrt",
	    "taskset", "tini", "dumb-init", "gosu",	 "su-exec", "setpriv", "uv",	 "poetry",
	    "pipenv",  "pdm",  "hatch",	    "catatonit", "npx",	    "pnpm",    "yarn"};
	char path[PATH_MAX];
	unsigned i, k;

	for (i = 0; i < sizeof(launchers) / sizeof(launchers[0]); i++) {
		if (strcmp(basename(command[0]), launchers[i]) != 0)
			continue;
		for (k = 1; command[k]; k++)
			if (command[k][0] != '-' && find_program(command[k], path) == 0)
				return skip_launchers(command + k);
	}
	return command;
}

int backend_find(char *const *command, struct backend *out)
{
	int i, r;

	memset(out, 0, sizeof(*out));
	r = find_program(command[0], out->program);
	if (r < 0)
		return r;
	command = skip_launchers(command);
	if (find_program(command[0], out->interpreter) < 0)
		strlcpy(out->interpreter, out->program, sizeof(out->interpreter));
	for (i = 0; i < SCRIPTS && follow_script(out->interpreter); i++)
		;
	backend_judge(out);
	find_chroma(command, out);
	return 0;
}
