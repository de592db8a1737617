/* SPDX-License-Identifier: MIT
 *
 * Reading of the settings from the environment.
 */
#include "preload/base/settings.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "chromashim_oplog.h"
#include "core/base/number.h"
#include "core/settings/config.h"
#include "preload/base/shim.h"

struct settings settings;

/* What the environment says, or the default where that is nothing or no such value. */
static const char *value_of(enum config_key key)
{
	const struct config_setting *setting = &config_settings[key];
	const char *value = getenv(setting->name);

	if (!value || !*value)
		return setting->otherwise;
	if (config_is_valid(key, value))
		return value;
	shim_say(setting->name, "=", value, ": not ", config_wanted(key), "; the default is taken",
		 NULL);
	return setting->otherwise;
}

static bool is_set_to(enum config_key key, const char *word)
{
	return strcmp(value_of(key), word) == 0;
}

static enum single_writer single_writer(void)
{
	const char *value = value_of(CONFIG_SINGLE_WRITER);

	if (strcmp(value, "off") == 0)
		return SINGLE_WRITER_OFF;
	return strcmp(value, "wait") == 0 ? SINGLE_WRITER_WAIT : SINGLE_WRITER_DENY;
}

static uint8_t log_ids(void)
{
	const char *value = value_of(CONFIG_LOG_IDS);

	if (strcmp(value, "off") == 0)
		return OPLOG_IDS_NONE;
	return strcmp(value, "on") == 0 ? OPLOG_IDS_PLAIN : OPLOG_IDS_HASH;
}

/* Its children inherit the variable, and are others. */
static bool is_backend(void)
{
	char pid[24], *end;
	const char *said = getenv(CONFIG_BACKEND_PID);

	end = number_put(pid, pid + sizeof(pid), (uint64_t)sys_getpid(), 10, 1);
	*end = '\0';
	return said && strcmp(said, pid) == 0;
}

static bool backend_is_first(void)
{
	const char *said = getenv(CONFIG_BACKEND_PID);

	return said && strcmp(said, "1") == 0;
}

void settings_read(void)
{
	settings.off = is_set_to(CONFIG_SHIM, "off") ||
		       dlsym(RTLD_DEFAULT, "chromashim_command_marker") != NULL;
	settings.log_sql = is_set_to(CONFIG_LOG_SQL, "on");
	settings.log_reads = is_set_to(CONFIG_LOG_READS, "on");
	settings.closed = is_set_to(CONFIG_ON_FAILURE, "closed");
	settings.power = is_set_to(CONFIG_DURABILITY, "power");
	settings.fence = is_set_to(CONFIG_FENCE, "on");
	settings.single_writer = single_writer();
	config_read_time(value_of(CONFIG_WAIT), &settings.wait);
	config_read_size(value_of(CONFIG_LOG_SIZE), &settings.log_size);
	config_read_size(value_of(CONFIG_ACTS_SIZE), &settings.acts_size);
	settings.log_ids = log_ids();
	settings.log_caller = is_set_to(CONFIG_LOG_CALLER, "python");
	config_read_percent(value_of(CONFIG_LOG_CALLER_SHARE), &settings.log_caller_share);
	config_read_size(value_of(CONFIG_BALLAST), &settings.ballast);
	settings.snapshots = is_set_to(CONFIG_SNAPSHOTS, "on");
	config_read_size(value_of(CONFIG_BULK_PAGES), &settings.bulk_pages);
	config_read_time(value_of(CONFIG_BURST), &settings.burst);
	config_read_size(value_of(CONFIG_UNDO_SIZE), &settings.undo_size);
	config_read_percent(value_of(CONFIG_WARN_FULL), &settings.warn_full);
	config_read_room(value_of(CONFIG_MIN_FREE), &settings.min_free_percent,
			 &settings.min_free_bytes);
	settings.guard = is_set_to(CONFIG_GUARD, "on");
	settings.preflight = is_set_to(CONFIG_PREFLIGHT, "on");
	settings.backend = is_backend();
	settings.backend_is_first = backend_is_first();
	settings.dir = getenv(config_settings[CONFIG_DIR].name);
	settings.store = getenv(config_settings[CONFIG_STORE].name);
	if (settings.store && !*settings.store)
		settings.store = NULL;
}
