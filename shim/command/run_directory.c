/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: which data directory the command is going to use.
 */
#include "command/run.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "core/fileio.h"

#define GUESS "./chroma_data"

/* `persist_path: "/data"` in the file that `chroma run FILE` reads, whatever else is in it. */
static bool read_chroma_config(const char *file, char out[PATH_MAX])
{
	int fd = open(file, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	char *data = NULL, *line, *rest;
	bool found = false;
	size_t size;

	if (fd < 0 || file_read_all(fd, CONFIG_FILE_MAX, &data, &size) < 0)
		data = NULL;
	if (fd >= 0)
		close(fd);
	rest = data;
	while (!found && rest && (line = strsep(&rest, "\n"))) {
		static const char key[] = "persist_path:";
		size_t n;

		if (strncmp(line, key, sizeof(key) - 1) != 0)
			continue;
		line += sizeof(key) - 1;
		line += strspn(line, " \t\"'");
		n = strcspn(line, "\"'\r#");
		while (n && isspace((unsigned char)line[n - 1]))
			n--;
		found = n && n < PATH_MAX;
		if (found) {
			memcpy(out, line, n);
			out[n] = '\0';
		}
	}
	free(data);
	return found;
}

/* --path X, --path=X; of `chroma run` also its file, and its own default. */
static bool in_arguments(const struct run *r, char out[PATH_MAX], const char **from)
{
	const char *config = NULL, *value = NULL;
	bool is_chroma = false;
	unsigned i;

	for (i = 0; !value && r->command[i]; i++) {
		const char *word = r->command[i];

		if (strncmp(word, "--path=", 7) == 0)
			value = word + 7;
		else if (strcmp(word, "--path") == 0 && r->command[i + 1])
			value = r->command[i + 1];
		else if (strcmp(word, "run") == 0 && i > 0 &&
			 strcmp(basename(r->command[i - 1]), "chroma") == 0)
			is_chroma = true;
		else if (is_chroma && !config && word[0] != '-' && r->command[i - 1][0] != '-')
			config = word;
	}
	*from = "--path in the command";
	if (value && *value && strlcpy(out, value, PATH_MAX) < PATH_MAX)
		return true;
	if (!is_chroma)
		return false;
	*from = "persist_path in the file that chroma reads";
	if (config && read_chroma_config(config, out))
		return true;
	*from = "the default of chroma run";
	strlcpy(out, "./chroma", PATH_MAX);
	return true;
}

static bool in_environment(char out[PATH_MAX], const char **from)
{
	static const char *const names[] = {"CHROMA_PERSIST_PATH", "PERSIST_DIRECTORY",
					    "CHROMA_PERSIST_DIRECTORY", "CHROMA_DB_PATH"};
	const char *value;
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		value = getenv(names[i]);
		if (!value || !*value || strlcpy(out, value, PATH_MAX) >= PATH_MAX)
			continue;
		*from = names[i];
		return true;
	}
	return false;
}

static const char *const origins[] = {"", "the settings file", "CHROMASHIM_DIR", "--dir"};

/* The first of several. */
static bool in_settings(const struct run *r, char out[PATH_MAX], const char **from)
{
	const struct config_value *v = &r->config.values[CONFIG_DIR];
	size_t n;

	if (!v->text || !*v->text)
		return false;
	n = v->origin == CONFIG_FROM_OPTION ? strlen(v->text) : strcspn(v->text, ":");
	if (n == 0 || n >= PATH_MAX)
		return false;
	memcpy(out, v->text, n);
	out[n] = '\0';
	*from = origins[v->origin];
	return true;
}

int run_choose_directory(struct run *r)
{
	size_t n;

	if (!in_settings(r, r->dir, &r->dir_from) && !in_arguments(r, r->dir, &r->dir_from) &&
	    !in_environment(r->dir, &r->dir_from)) {
		strlcpy(r->dir, GUESS, sizeof(r->dir));
		r->dir_from = NULL;
	}
	n = strlen(r->dir);
	while (n > 1 && r->dir[n - 1] == '/')
		r->dir[--n] = '\0';
	return 0;
}
