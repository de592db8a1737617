/* SPDX-License-Identifier: MIT
 *
 * The guardian's settings.
 */
#include "command/base/guard_settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/fileio.h"

#define HOUR (3600 * SECOND)

static uint64_t size_of(const struct config *c, enum config_key key)
{
	uint64_t size = 0;

	config_read_size(config_get(c, key), &size);
	return size;
}

/* "hourly=24"; `within` takes a time. */
static bool take_rule(struct retention_policy *p, const char *word, size_t n)
{
	const char *equals = memchr(word, '=', n);
	char value[32], *end;
	unsigned i;

	if (!equals || n - (size_t)(equals - word) > sizeof(value))
		return false;
	snprintf(value, sizeof(value), "%.*s", (int)(n - (size_t)(equals - word) - 1), equals + 1);
	n = (size_t)(equals - word);
	if (n == strlen("within") && !strncmp(word, "within", n))
		return config_read_span(value, &p->within) && p->within > 0;
	for (i = 0; i < RETENTION_RULES; i++) {
		const char *name = retention_reason(1u << i);

		if (strlen(name) != n || strncmp(word, name, n) != 0)
			continue;
		errno = 0;
		p->count[i] = !strcmp(value, "unlimited") ? RETENTION_ALL : strtol(value, &end, 10);
		return !strcmp(value, "unlimited") ||
		       (*value && !errno && !value[strspn(value, "0123456789")]);
	}
	return false;
}

bool guard_settings_parse_keep(struct retention_policy *p, const char *text)
{
	memset(p, 0, sizeof(*p));
	while (*(text += strspn(text, " ,"))) {
		size_t n = strcspn(text, " ,");

		if (!take_rule(p, text, n))
			return false;
		text += n;
	}
	return true;
}

static void read_keep(struct guard_settings *s)
{
	const struct config_setting *setting = &config_settings[CONFIG_KEEP];
	const char *value = config_get(&s->config, CONFIG_KEEP);

	if (!strcmp(value, "all")) {
		memset(&s->prune.policy, 0, sizeof(s->prune.policy));
	} else if (!guard_settings_parse_keep(&s->prune.policy, value)) {
		warn("%s is '%s', which is no list of rules; '%s' is used instead", setting->name,
		     value, setting->otherwise);
		guard_settings_parse_keep(&s->prune.policy, setting->otherwise);
	}
}

static void read_file(struct config *c, int storefd)
{
	struct config_trouble trouble;
	char *data;
	size_t size;
	int fd = storefd < 0 ? -1 : config_open_file(storefd);

	if (fd < 0)
		return;
	if (file_read_all(fd, CONFIG_FILE_MAX, &data, &size) == 0) {
		if (config_parse(c, data, size, &trouble) == -EINVAL)
			warn(CONFIG_FILE_NAME ":%u: %s; the file is not used", trouble.line,
			     trouble.text);
		free(data);
	}
	close(fd);
}

void guard_settings_read(struct guard_settings *s, int storefd)
{
	enum config_key bad;

	*s = (struct guard_settings){.every = 0};
	while (config_read_environment(&s->config, &bad) == -EINVAL) {
		warn("%s is '%s', which is not %s; it is not used", config_settings[bad].name,
		     getenv(config_settings[bad].name), config_wanted(bad));
		unsetenv(config_settings[bad].name);
	}
	read_file(&s->config, storefd);
	config_read_time(config_get(&s->config, CONFIG_EVERY), &s->every);
	/* What is no time is "off". */
	if (!config_read_time(config_get(&s->config, CONFIG_DRILL), &s->drill))
		s->drill = 0;
	s->rate = size_of(&s->config, CONFIG_RATE);
	s->prune.max_space = size_of(&s->config, CONFIG_KEEP_SPACE);
	s->prune.min_free = size_of(&s->config, CONFIG_KEEP_FREE);
	s->undo_size = size_of(&s->config, CONFIG_UNDO_SIZE);
	config_read_percent(config_get(&s->config, CONFIG_WARN_FULL), &s->warn_full);
	s->hook = config_get(&s->config, CONFIG_HOOK);
	s->hook = *s->hook ? s->hook : NULL;
	read_keep(s);
}

void guard_settings_free(struct guard_settings *s)
{
	config_free(&s->config);
}
