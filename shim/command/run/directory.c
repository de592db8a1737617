/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: which data directory the command is going to use.
 */
#include "command/run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/run/yaml.h"
#include "core/base/fileio.h"
#include "core/chroma/installation.h"

#define GUESS "./chroma_data"

extern char **environ;

/* What names a directory, and which. */
struct named {
	char *out;	   /* PATH_MAX */
	const char **from; /* of r->dir_from */
};

static bool directory_take(const struct named *n, const char *value, const char *from)
{
	if (!value || !*value || strlcpy(n->out, value, PATH_MAX) >= PATH_MAX)
		return false;
	*n->from = from;
	return true;
}

/* ---- chroma run ---- */

/* persist_path in the file that `chroma run FILE` reads. */
static bool in_chroma_config(const struct run *r, const char *file, const struct named *n)
{
	int fd = open(file, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	enum yaml_answer answer = YAML_NONE;
	char *data = NULL, value[PATH_MAX];
	size_t size;

	if (fd >= 0 && file_read_all(fd, CONFIG_FILE_MAX, &data, &size) == 0)
		answer = yaml_find(data, "persist_path", value, sizeof(value));
	if (fd >= 0)
		close(fd);
	free(data);
	if (answer == YAML_NOT_UNDERSTOOD && !r->print_config)
		warn("persist_path in '%s' is not understood; name the directory: --dir DIR", file);
	return answer == YAML_FOUND &&
	       directory_take(n, value, "persist_path in the file that chroma reads");
}

/* Chroma reads its configuration with figment, for which the case of letters does not matter. */
static bool in_chroma_variable(const struct named *n)
{
	static const char name[] = "CHROMA_PERSIST_PATH=";
	char **e;

	for (e = environ; e && *e; e++)
		if (strncasecmp(*e, name, sizeof(name) - 1) == 0)
			return directory_take(n, *e + sizeof(name) - 1, "CHROMA_PERSIST_PATH");
	return false;
}

/* Since 1.0 `chroma` is a native program, with another default. */
static bool is_before_1_0(char *const *command)
{
	struct backend *found = calloc(1, sizeof(*found));
	struct installation *chroma = calloc(1, sizeof(*chroma));
	bool old;

	old = found && chroma && backend_find(command, found) == 0 && found->installation[0] &&
	      installation_find(found->installation, chroma) == 0 &&
	      strncmp(chroma->release, "0.", 2) == 0;
	free(found);
	free(chroma);
	return old;
}

/* Of `chroma run [FILE]`, which takes no --path beside a file, and reads no variable without one.
 */
static bool in_chroma_run(const struct run *r, const char *file, const struct named *n)
{
	if (file && (in_chroma_variable(n) || in_chroma_config(r, file, n)))
		return true;
	return directory_take(n, !file && is_before_1_0(r->command) ? GUESS : "./chroma",
			      "the default of chroma run");
}

/* ---- the command ---- */

/* Its value if `word` is --NAME=VALUE or --NAME with VALUE behind it, else NULL. */
static const char *value_of(char *const *word, const char *name)
{
	size_t n = strlen(name);

	if (strncmp(*word, name, n) != 0)
		return NULL;
	return (*word)[n] == '=' ? *word + n + 1 : (*word)[n] == '\0' ? word[1] : NULL;
}

static bool in_arguments(const struct run *r, const struct named *n)
{
	static const struct {
		const char *name, *from;
	} options[] = {
	    {"--path", "--path in the command"},
	    {"--data-dir", "--data-dir in the command"}, /* chroma-mcp */
	    {"--persist-path", "--persist-path in the command"},
	    {"--persist-directory", "--persist-directory in the command"},
	};
	const char *file = NULL;
	bool is_chroma = false;
	unsigned i, k;

	for (i = 0; r->command[i]; i++) {
		const char *word = r->command[i];

		for (k = 0; k < sizeof(options) / sizeof(options[0]); k++)
			if (directory_take(n, value_of(r->command + i, options[k].name),
					   options[k].from))
				return true;
		if (strcmp(word, "run") == 0 && i > 0 &&
		    strcmp(basename(r->command[i - 1]), "chroma") == 0)
			is_chroma = true;
		else if (is_chroma && !file && word[0] != '-' && r->command[i - 1][0] != '-')
			file = word;
	}
	return is_chroma && in_chroma_run(r, file, n);
}

static bool in_environment(const struct named *n)
{
	static const char *const names[] = {"CHROMA_PERSIST_PATH", "PERSIST_DIRECTORY",
					    "CHROMA_PERSIST_DIRECTORY", "CHROMA_DB_PATH",
					    "CHROMA_DATA_DIR"};
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (directory_take(n, getenv(names[i]), names[i]))
			return true;
	return false;
}

/* Where the command goes before it starts what it is for: `env -C DIR`, `uv run --directory DIR`.
 * NULL: it stays here. */
static const char *changes_to(char *const *command)
{
	static const char *const programs[][3] = {{"env", "-C", "--chdir"},
						  {"uv", "--directory", "--directory"},
						  {"poetry", "-C", "--directory"}};
	char *const *word;
	unsigned k;

	for (k = 0; k < sizeof(programs) / sizeof(programs[0]); k++) {
		if (strcmp(basename(command[0]), programs[k][0]) != 0)
			continue;
		for (word = command + 1; *word; word++) {
			const char *to = value_of(word, programs[k][1]);

			if (to || (to = value_of(word, programs[k][2])))
				return to;
			if (**word != '-' && !strchr(*word, '=') && strcmp(*word, "run") != 0)
				break;
		}
	}
	return NULL;
}

static void follow(struct run *r)
{
	const char *to = changes_to(r->command);
	char path[PATH_MAX];

	if (to && r->dir[0] != '/' &&
	    (size_t)snprintf(path, sizeof(path), "%s/%s", to, r->dir) < sizeof(path))
		strlcpy(r->dir, path, PATH_MAX);
}

/* ---- the whole ---- */

/* The first of several. */
static bool in_settings(const struct run *r, const struct named *n)
{
	static const char *const origins[] = {"", "the settings file", "CHROMASHIM_DIR", "--dir"};
	const struct config_value *v = &r->config.values[CONFIG_DIR];
	char first[PATH_MAX];
	size_t length;

	if (!v->text)
		return false;
	length = v->origin == CONFIG_FROM_OPTION ? strlen(v->text) : strcspn(v->text, ":");
	if (length >= sizeof(first))
		return false;
	memcpy(first, v->text, length);
	first[length] = '\0';
	return directory_take(n, first, origins[v->origin]);
}

int run_choose_directory(struct run *r)
{
	const struct named named = {r->dir, &r->dir_from};
	size_t n;

	if (!in_settings(r, &named)) {
		if (in_arguments(r, &named) || in_environment(&named))
			follow(r);
		else if (memory_recall(r->command, r->dir))
			r->dir_from = "what this command has used before";
		else
			directory_take(&named, GUESS, NULL);
	}
	n = strlen(r->dir);
	while (n > 1 && r->dir[n - 1] == '/')
		r->dir[--n] = '\0';
	return 0;
}
