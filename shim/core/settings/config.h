/* SPDX-License-Identifier: MIT
 *
 * The settings: their names and defaults (keys.def), what a value has to look like, and the
 * file chromashim.conf.
 *
 *	# a comment
 *	CHROMASHIM_LOG_SIZE = 512M     # another
 *	CHROMASHIM_HOOK = "/opt/my hooks/tell"
 */
#ifndef CORE_CONFIG_H
#define CORE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONFIG_FILE_NAME "chromashim.conf" /* in the store */
#define CONFIG_FILE_MAX (UINT32_C(1) << 20)
#define CONFIG_VALUE_MAX 4096u /* with its terminating zero */

enum config_kind {
	CONFIG_KIND_WORD,
	CONFIG_KIND_SIZE,    /* 256M: powers of 1024 */
	CONFIG_KIND_TIME,    /* 30s, 500ms, 1h30m, 1d; a bare number is seconds */
	CONFIG_KIND_PERCENT, /* 80% or 80 */
	CONFIG_KIND_ROOM,    /* 5%, 1G or both with a comma between */
	CONFIG_KIND_TEXT,
};

enum config_key {
#define KEY(key, name, otherwise, kind, choices, meaning, more) CONFIG_##key,
#include "core/settings/keys.def"
#undef KEY
	CONFIG_KEYS
};

struct config_setting {
	const char *name;
	const char *otherwise; /* the default; "": none */
	enum config_kind kind;
	const char *choices; /* of a word: "deny, wait or off" */
	const char *meaning;
};

extern const struct config_setting config_settings[CONFIG_KEYS];

/* No setting: `chromashim run` tells the library which process is the backend itself. */
#define CONFIG_BACKEND_PID "CHROMASHIM_BACKEND_PID"

/* ---- values (values.c): no allocation, no libc state; also for inside the backend ---- */

/*
 * The only readers of sizes and times, for settings and options alike. What is not understood to
 * its last character, or does not fit, is false. Times are in ns; a bare number is seconds, but no
 * span.
 */
bool config_read_span(const char *text, uint64_t *out); /* "1h30m", "1.5d" */
bool config_read_time(const char *text, uint64_t *out);
bool config_read_size(const char *text, uint64_t *out);
bool config_read_percent(const char *text, unsigned *out);
/* What is not given comes out as "no limit": 100 percent, UINT64_MAX. */
bool config_read_room(const char *text, unsigned *percent_out, uint64_t *bytes_out);
#define CONFIG_FEW_INODES 32 /* fewer count as none; of this there is no setting */

bool config_is_valid(enum config_key key, const char *text);
/* What it should be: "a size such as 256M", "on or off". */
const char *config_wanted(enum config_key key);

/* ---- all of them, and where each is from ---- */

enum config_origin {
	CONFIG_FROM_DEFAULT,
	CONFIG_FROM_FILE,
	CONFIG_FROM_ENVIRONMENT,
	CONFIG_FROM_OPTION,
};

struct config {
	struct config_value {
		char *text; /* NULL: the default */
		enum config_origin origin;
		unsigned line; /* in the file */
	} values[CONFIG_KEYS];
};

/* Where and why a file is refused. */
struct config_trouble {
	unsigned line;
	char text[256];
};

/* The key of a name, or CONFIG_KEYS. */
enum config_key config_find(const char *name, size_t length);

/*
 * Sets it unless what is there comes from somewhere stronger (a later enum config_origin). -EINVAL:
 * no such value; -ENOMEM.
 */
int config_set(struct config *c, enum config_key key, const char *text, enum config_origin origin);

/* Never NULL. */
const char *config_get(const struct config *c, enum config_key key);

/* A file's content. -EINVAL with *trouble filled in, -ENOMEM. */
int config_parse(struct config *c, const char *data, size_t size, struct config_trouble *trouble);

/*
 * The store's file, opened. It names programs that are run, so it counts only if it belongs to this
 * user or root and no other can write it: else -EPERM. -ENOENT: there is none.
 */
int config_open_file(int storefd);

/* What the environment says; an empty variable counts as none. -EINVAL: *key_out is not valid. */
int config_read_environment(struct config *c, enum config_key *key_out);

void config_free(struct config *c);

#endif
