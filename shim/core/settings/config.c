/* SPDX-License-Identifier: MIT
 *
 * Settings put together from a file, the environment and options.
 */
#include "core/settings/config.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/fileio.h"

enum config_key config_find(const char *name, size_t length)
{
	unsigned i;

	for (i = 0; i < CONFIG_KEYS; i++)
		if (strlen(config_settings[i].name) == length &&
		    memcmp(config_settings[i].name, name, length) == 0)
			break;
	return (enum config_key)i;
}

int config_set(struct config *c, enum config_key key, const char *text, enum config_origin origin)
{
	struct config_value *value = &c->values[key];
	char *copy;

	if (!config_is_valid(key, text) || strlen(text) >= CONFIG_VALUE_MAX)
		return -EINVAL;
	if (value->text && value->origin > origin)
		return 0;
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	free(value->text);
	*value = (struct config_value){.text = copy, .origin = origin};
	return 0;
}

const char *config_get(const struct config *c, enum config_key key)
{
	return c->values[key].text ? c->values[key].text : config_settings[key].otherwise;
}

int config_read_environment(struct config *c, enum config_key *key_out)
{
	unsigned i;
	int r = 0;

	for (i = 0; r == 0 && i < CONFIG_KEYS; i++) {
		const char *text = getenv(config_settings[i].name);

		*key_out = (enum config_key)i;
		if (text && *text)
			r = config_set(c, *key_out, text, CONFIG_FROM_ENVIRONMENT);
	}
	return r;
}

void config_free(struct config *c)
{
	unsigned i;

	for (i = 0; i < CONFIG_KEYS; i++)
		free(c->values[i].text);
	memset(c, 0, sizeof(*c));
}

/* ---- the file ---- */

int config_open_file(int storefd)
{
	int fd = file_open_at(storefd, CONFIG_FILE_NAME);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) == 0 && (st.st_uid == geteuid() || st.st_uid == 0) &&
	    !(st.st_mode & (S_IWGRP | S_IWOTH)))
		return fd;
	close(fd);
	return -EPERM;
}

struct parser {
	struct config *config;
	struct config_trouble *trouble;
	unsigned line;
	unsigned seen[CONFIG_KEYS]; /* in which line */
};

static int config_refuse(const struct parser *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static int config_refuse(const struct parser *p, const char *format, ...)
{
	va_list ap;

	p->trouble->line = p->line;
	va_start(ap, format);
	vsnprintf(p->trouble->text, sizeof(p->trouble->text), format, ap);
	va_end(ap);
	return -EINVAL;
}

static char *skip_blanks(char *text)
{
	return text + strspn(text, " \t");
}

/* Quotes are taken off, and what is behind the value has to be a comment. NULL: it is not. */
static char *cut_value(char *text)
{
	char *end, *rest;

	if (*text == '"') {
		end = strchr(++text, '"');
		if (!end)
			return NULL;
		rest = skip_blanks(end + 1);
		*end = '\0';
		return *rest && *rest != '#' ? NULL : text;
	}
	for (end = text; *end; end++)
		if (*end == '#' && (end == text || isblank((unsigned char)end[-1])))
			break;
	while (end > text && isblank((unsigned char)end[-1]))
		end--;
	*end = '\0';
	return text;
}

static int parse_setting(struct parser *p, char *text)
{
	char *equals = strchr(text, '='), *value;
	size_t length = strcspn(text, " \t=");
	enum config_key key;
	int r;

	if (!equals || skip_blanks(text + length) != equals)
		return config_refuse(p, "this is no \"NAME = value\"");
	key = config_find(text, length);
	if (key == CONFIG_KEYS)
		return config_refuse(p, "there is no setting '%.*s'",
				     (int)(length < 80 ? length : 80), text);
	if (p->seen[key])
		return config_refuse(p, "%s is set already, in line %u", config_settings[key].name,
				     p->seen[key]);
	p->seen[key] = p->line;
	value = cut_value(skip_blanks(equals + 1));
	if (!value)
		return config_refuse(p, "%s: a quote is not closed, or something is behind it",
				     config_settings[key].name);
	if (!*value)
		return 0; /* as an empty variable */
	r = config_set(p->config, key, value, CONFIG_FROM_FILE);
	if (r == -EINVAL)
		return config_refuse(p, "%s: '%.100s' is not %s", config_settings[key].name, value,
				     config_wanted(key));
	if (r == 0 && p->config->values[key].origin == CONFIG_FROM_FILE)
		p->config->values[key].line = p->line;
	return r;
}

static int parse_line(struct parser *p, const char *data, size_t size)
{
	char line[CONFIG_VALUE_MAX + 128], *text;

	if (size && data[size - 1] == '\r')
		size--;
	if (size >= sizeof(line))
		return config_refuse(p, "the line is too long");
	memcpy(line, data, size);
	line[size] = '\0';
	if (strlen(line) != size)
		return config_refuse(p, "there is a zero byte in it");
	text = skip_blanks(line);
	return !*text || *text == '#' ? 0 : parse_setting(p, text);
}

int config_parse(struct config *c, const char *data, size_t size, struct config_trouble *trouble)
{
	struct parser p = {.config = c, .trouble = trouble};
	int r = 0;

	*trouble = (struct config_trouble){0};
	/* Editors of Windows put it there. */
	if (size >= 3 && memcmp(data, "\xef\xbb\xbf", 3) == 0) {
		data += 3;
		size -= 3;
	}
	while (r == 0 && size) {
		const char *end = memchr(data, '\n', size);
		size_t n = end ? (size_t)(end - data) : size;

		p.line++;
		r = parse_line(&p, data, n);
		n += end != NULL;
		data += n;
		size -= n;
	}
	return r;
}
