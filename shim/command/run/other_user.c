/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: as whom the backend will run. Root starts services by `sudo -u app ...` and its
 * like; what is made for the backend is then that user's.
 */
#include "command/run/run.h"

#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "command/base/terminal.h"

#define WORDS_LOOKED_AT 12 /* launchers stand in front */

/* Programs that go on as another user. */
static const struct launcher {
	const char *name;
	const char
	    *options[3]; /* with the user behind, or none: the first word that is no option */
} launchers[] = {
    {"sudo", {"-u", "--user"}},
    {"doas", {"-u"}},
    {"runuser", {"-u", "--user"}},
    {"chpst", {"-u"}},
    {"setpriv", {"--reuid", "--ruid"}},
    {"su", {NULL}},
    {"gosu", {NULL}},
    {"su-exec", {NULL}},
    {"setuidgid", {NULL}},
    {"s6-setuidgid", {NULL}},
};

/* USER, or USER:GROUP; both as a name or a number. */
static bool take_user(struct run *r, const char *text)
{
	char name[64];
	const struct passwd *user;
	const struct group *group;
	const char *colon = strchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : strlen(text);
	uint32_t number;

	if (*text == '#') { /* sudo's way to say a number */
		text++;
		n--;
	}
	if (n == 0 || n >= sizeof(name))
		return false;
	memcpy(name, text, n);
	name[n] = '\0';
	user = getpwnam(name);
	if (!user && parse_number(name, &number)) {
		user = getpwuid((uid_t)number);
		r->uid = (uid_t)number;
		r->gid = (gid_t)number;
	} else if (!user) {
		return false;
	}
	if (user) {
		r->uid = user->pw_uid;
		r->gid = user->pw_gid;
	}
	group = colon ? getgrnam(colon + 1) : NULL;
	if (group)
		r->gid = group->gr_gid;
	else if (colon && parse_number(colon + 1, &number))
		r->gid = (gid_t)number;
	return true;
}

/* -u USER, -uUSER, -Eu USER, --user USER, --user=USER */
static const char *value_of(char *const *word, const char *option)
{
	size_t n = strlen(option), length = strlen(*word);

	if (n == 2 && length > 2 && (*word)[0] == '-' && (*word)[1] != '-' &&
	    (*word)[length - 1] == option[1])
		return word[1];
	if (strncmp(*word, option, n) != 0)
		return NULL;
	if ((*word)[n] == '\0')
		return word[1];
	return (*word)[n] == '=' ? *word + n + 1 : option[1] != '-' ? *word + n : NULL;
}

static const char *user_in(const struct launcher *l, char *const *words)
{
	unsigned i, k;

	for (i = 0; words[i] && i < WORDS_LOOKED_AT; i++) {
		if (!l->options[0] && words[i][0] != '-')
			return words[i];
		for (k = 0; k < 3 && l->options[k]; k++) {
			const char *value = value_of(words + i, l->options[k]);

			if (value)
				return value;
		}
		if (words[i][0] != '-' && strcmp(l->name, "runuser") == 0)
			return words[i]; /* as su */
	}
	return NULL;
}

void run_find_user(struct run *r)
{
	unsigned i, k;

	r->uid = geteuid();
	r->gid = getegid();
	if (r->uid != 0)
		return;
	for (i = 0; r->command[i] && i < WORDS_LOOKED_AT; i++)
		for (k = 0; k < sizeof(launchers) / sizeof(launchers[0]); k++) {
			const char *user;

			if (strcmp(basename(r->command[i]), launchers[k].name) != 0)
				continue;
			user = user_in(&launchers[k], r->command + i + 1);
			if (user && take_user(r, user))
				return;
		}
}
