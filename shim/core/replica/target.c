/* SPDX-License-Identifier: MIT
 *
 * Taking apart where replicas are.
 */
#include "core/replica/target.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define SFTP "sftp://"
#define RCLONE "rclone:"

/* Into batch files and on command lines goes only what needs no thought there. */
static bool is_plain(const char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 127 || strchr("\"\\*?[]", *text))
			return false;
	return true;
}

static bool is_host(const char *text)
{
	return text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				 "._-@:[]%+")] == '\0';
}

static bool take_path(struct replica_target *t, const char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		n--;
	if (n >= sizeof(t->path))
		return false;
	memcpy(t->path, path, n);
	t->path[n] = '\0';
	return true;
}

static bool take_port(struct replica_target *t, const char *text, size_t n)
{
	unsigned value = 0;
	size_t i;

	if (n == 0 || n > 5)
		return false;
	for (i = 0; i < n; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (unsigned)(text[i] - '0');
	}
	t->port = value;
	return value > 0 && value < 65536;
}

/* [user@]host[:port]/path, where the host may be [::1]. */
static bool take_sftp(struct replica_target *t, const char *text)
{
	const char *slash = strchr(text, '/'), *at, *host, *close, *colon;
	size_t n = slash ? (size_t)(slash - text) : 0;

	if (n == 0 || n >= sizeof(t->host))
		return false;
	at = memchr(text, '@', n);
	host = at ? at + 1 : text;
	close = *host == '[' ? memchr(host, ']', (size_t)(slash - host)) : NULL;
	if (*host == '[' && !close)
		return false;
	colon = memchr(close ? close : host, ':', (size_t)(slash - (close ? close : host)));
	if (colon && !take_port(t, colon + 1, (size_t)(slash - colon) - 1))
		return false;
	n = (size_t)((colon ? colon : slash) - text);
	if ((colon ? colon : slash) == host || at == text)
		return false;
	memcpy(t->host, text, n);
	t->host[n] = '\0';
	/* What begins with a dash would be an option of ssh's. */
	return t->host[0] != '-' && host[0] != '-' && is_plain(slash) && is_host(t->host) &&
	       take_path(t, slash);
}

int replica_target_parse(struct replica_target *out, const char *text)
{
	bool good;

	*out = (struct replica_target){.kind = REPLICA_DIRECTORY};
	if (strlen(text) >= sizeof(out->text))
		return -EINVAL;
	snprintf(out->text, sizeof(out->text), "%s", text);
	if (text[0] == '/') {
		return take_path(out, text) ? 0 : -EINVAL;
	} else if (strncmp(text, SFTP, strlen(SFTP)) == 0) {
		out->kind = REPLICA_SFTP;
		good = take_sftp(out, text + strlen(SFTP));
	} else {
		out->kind = REPLICA_RCLONE;
		text += strncmp(text, RCLONE, strlen(RCLONE)) == 0 ? strlen(RCLONE) : strlen(text);
		good = is_plain(text) && text[0] && text[0] != '-' && text[0] != ':' &&
		       strchr(text, ':') && take_path(out, text);
	}
	return good ? 0 : -EINVAL;
}

int replica_targets_parse(struct replica_targets *out, const char *setting, char *wrong_out)
{
	char word[REPLICA_TARGET_SIZE];
	size_t n;

	*out = (struct replica_targets){.count = 0};
	for (; *(setting += strspn(setting, " ,\t")); setting += n) {
		n = strcspn(setting, " ,\t");
		snprintf(word, sizeof(word), "%.*s", (int)n, setting);
		if (wrong_out)
			snprintf(wrong_out, sizeof(word), "%s", word);
		if (out->count == REPLICA_TARGETS)
			return -E2BIG;
		if (n >= sizeof(word) || replica_target_parse(&out->all[out->count], word) < 0)
			return -EINVAL;
		out->count++;
	}
	return 0;
}
