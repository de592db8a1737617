/* SPDX-License-Identifier: MIT
 *
 * The table of settings, told in whole sentences.
 */
#include "command/base/settings_help.h"

#include <stdio.h>
#include <string.h>

#include "core/settings/config.h"

#define WIDTH 92
#define INDENT 6

/* Only the command carries these texts, so they are no part of config_settings. */
static const char *const sentences[CONFIG_KEYS] = {
#define KEY(key, name, otherwise, kind, choices, meaning, more) [CONFIG_##key] = more,
#include "core/settings/keys.def"
#undef KEY
};

/* A paragraph, broken between words. */
static void settings_wrap(const char *text)
{
	size_t column = 0;

	while (*text) {
		size_t word = strcspn(text, " ");

		if (column == 0)
			column = (size_t)printf("%*s%.*s", INDENT, "", (int)word, text);
		else if (column + 1 + word > WIDTH)
			column = (size_t)printf("\n%*s%.*s", INDENT, "", (int)word, text) - 1;
		else
			column += (size_t)printf(" %.*s", (int)word, text);
		text += word;
		text += strspn(text, " ");
	}
	putchar('\n');
}

void settings_help(void)
{
	unsigned i;

	fputs(
	    "Settings: environment variables of the process that Chroma runs in, and of the other\n"
	    "commands. `chromashim run` takes them from `--set NAME=VALUE`, else from the "
	    "environment,\n"
	    "else from chromashim.conf in the store (`--config FILE` names another file), and "
	    "hands\n"
	    "them on to the backend and to the guardian. `chromashim run --print-config` says "
	    "which\n"
	    "value each one has, and where it is from. A line of the file is `NAME = value`, and "
	    "#\n"
	    "begins a comment. The file counts only if nobody but its owner, who is this user or\n"
	    "root, can write it. CHROMASHIM_DIR and CHROMASHIM_STORE cannot be set in the store.\n",
	    stdout);
	for (i = 0; i < CONFIG_KEYS; i++) {
		const struct config_setting *s = &config_settings[i];

		printf("\n  %s   %s; %s%s\n", s->name, config_wanted((enum config_key)i),
		       *s->otherwise ? "default " : "no default", s->otherwise);
		settings_wrap(sentences[i]);
	}
}
