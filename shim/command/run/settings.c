/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: where its settings come from, and handing them on.
 */
#include "command/run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "core/base/fileio.h"

static int fail_file(const char *path, int error)
{
	return fail(EXIT_USAGE, error, "Name a file that can be read, or none.",
		    "cannot read the settings in '%s'", path);
}

/* Where the store is cannot be told inside it. */
static int check_store_file(const struct config *c, const char *path)
{
	static const enum config_key elsewhere[] = {CONFIG_DIR, CONFIG_STORE};
	unsigned i;

	for (i = 0; i < sizeof(elsewhere) / sizeof(elsewhere[0]); i++)
		if (c->values[elsewhere[i]].text)
			return fail(EXIT_USAGE, 0,
				    "Set it in the environment, or in a file that --config names.",
				    "%s:%u: %s cannot be set in the store itself", path,
				    c->values[elsewhere[i]].line,
				    config_settings[elsewhere[i]].name);
	return 0;
}

static int setting_merge(struct config *c, const struct config *file)
{
	unsigned i;
	int r = 0;

	for (i = 0; r == 0 && i < CONFIG_KEYS; i++) {
		if (!file->values[i].text)
			continue;
		r = config_set(c, (enum config_key)i, file->values[i].text, CONFIG_FROM_FILE);
		c->values[i].line = file->values[i].line;
	}
	return r;
}

/* Takes what the descriptor, which is closed, holds. */
static int take_file(struct run *r, int fd, const char *path, bool in_store)
{
	struct config_trouble trouble = {0};
	struct config file = {0};
	char *data = NULL;
	size_t size = 0;
	int status = 0, e;

	e = file_read_all(fd, CONFIG_FILE_MAX, &data, &size);
	close(fd);
	if (e == 0)
		e = config_parse(&file, data, size, &trouble);
	free(data);
	if (e == -EINVAL)
		status = fail(EXIT_USAGE, 0, "`chromashim run --print-config` lists the settings.",
			      "%s:%u: %s", path, trouble.line, trouble.text);
	else if (e == 0 && in_store)
		status = check_store_file(&file, path);
	if (e == 0 && status == 0)
		e = setting_merge(&r->config, &file);
	if (e < 0 && status == 0)
		status = fail_file(path, e);
	config_free(&file);
	strlcpy(r->config_path, path, sizeof(r->config_path));
	return status;
}

int run_read_settings(struct run *r)
{
	enum config_key key;
	int fd, e = config_read_environment(&r->config, &key);

	if (e < 0)
		return fail(EXIT_USAGE, e == -EINVAL ? 0 : e, "Change or unset the variable.",
			    "%s is '%s', which is not %s", config_settings[key].name,
			    getenv(config_settings[key].name), config_wanted(key));
	if (!r->config_file)
		return 0;
	fd = open(r->config_file, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return fail_file(r->config_file, -errno);
	return take_file(r, fd, r->config_file, false);
}

int run_read_store_settings(struct run *r)
{
	char path[2 * PATH_MAX + sizeof(CONFIG_FILE_NAME) + 1];
	struct data_directory t;
	int fd = -ENOENT;

	if (r->config_file)
		return 0;
	memset(&t, 0, sizeof(t));
	t.storefd = t.strayfd = -1;
	strlcpy(t.dir, r->dir, sizeof(t.dir));
	t.dirfd = open(r->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (t.dirfd < 0)
		return 0;
	data_directory_find_named_store(&t, config_get(&r->config, CONFIG_STORE));
	snprintf(path, sizeof(path), "%s/" CONFIG_FILE_NAME, t.store);
	if (t.storefd >= 0)
		fd = config_open_file(t.storefd);
	data_directory_close(&t);
	if (fd == -EPERM)
		fail(EXIT_DONE, 0, "Give it to the user that runs this: chown, chmod go-w.",
		     "'%s' is not used: it belongs to another user, or others can write to it",
		     path);
	if (fd == -ENOENT || fd == -EPERM)
		return 0;
	if (fd < 0)
		return fail_file(path, fd);
	return take_file(r, fd, path, true);
}

void run_print_settings(const struct run *r)
{
	static const char *const origins[] = {"default", "", "environment", "option"};
	unsigned i;

	printf("# data directory: %s (%s)\n", r->dir,
	       r->dir_from ? r->dir_from : "nothing names another");
	if (r->config_path[0])
		printf("# file: %s\n", r->config_path);
	for (i = 0; i < CONFIG_KEYS; i++) {
		const struct config_value *v = &r->config.values[i];
		const char *text = config_get(&r->config, (enum config_key)i);
		int n = printf("%s = %s", config_settings[i].name, text);

		printf("%*s# ", n < 40 ? 40 - n : 1, "");
		if (v->text && v->origin == CONFIG_FROM_FILE)
			printf("%s:%u", r->config_path, v->line);
		else
			printf("%s", v->text ? origins[v->origin] : origins[0]);
		printf(": %s\n", config_settings[i].meaning);
	}
}

int run_export_settings(const struct run *r)
{
	unsigned i;

	for (i = 0; i < CONFIG_KEYS; i++)
		if (r->config.values[i].text &&
		    setenv(config_settings[i].name, r->config.values[i].text, 1) < 0)
			return -errno;
	return 0;
}

bool run_is_set_to(const struct run *r, enum config_key key, const char *word)
{
	return strcmp(config_get(&r->config, key), word) == 0;
}
