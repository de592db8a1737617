/* SPDX-License-Identifier: MIT
 *
 * The files of pm2 (JavaScript, JSON or YAML), systemd's units, and Compose. They are not parsed as
 * what they are: a key is looked for with its value, in the part that has to do with Chroma. A
 * value that is an expression is taken as good.
 */
#include "command/verbs/doctor.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/settings/config.h"

#define LONG_ENOUGH UINT64_C(10000) /* ms until it is killed */

struct part {
	const char *at, *end;
};

/* ---- texts ---- */

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '-' || c == '.';
}

static const char *doctor_file_find(struct part p, const char *what)
{
	size_t n = strlen(what);

	for (; p.at + n <= p.end; p.at++)
		if (strncasecmp(p.at, what, n) == 0)
			return p.at;
	return NULL;
}

static bool has(struct part p, const char *what)
{
	return doctor_file_find(p, what) != NULL;
}

/* Its command and its environment name variables in capitals: those alone start nothing. */
static bool names_command(struct part p)
{
	for (; p.at + 10 <= p.end; p.at++)
		if (memcmp(p.at, "chromashim", 10) == 0)
			return true;
	return false;
}

/* Behind `key` and its sign; blanks are skipped. NULL: there is none. */
static const char *value_of(struct part p, const char *key, char sign)
{
	size_t n = strlen(key);
	const char *at, *after;

	for (at = p.at; at + n < p.end; at++) {
		if (memcmp(at, key, n) != 0 || (at > p.at && is_word(at[-1])) || is_word(at[n]))
			continue;
		after = at + n;
		after += *after == '"' || *after == '\'';
		while (after < p.end && (*after == ' ' || *after == '\t'))
			after++;
		if (after >= p.end || *after != sign)
			continue;
		for (after++; after < p.end && (*after == ' ' || *after == '\t'); after++)
			;
		return after;
	}
	return NULL;
}

static bool is(const char *value, const char *what)
{
	size_t n = strlen(what);

	if (!value)
		return false;
	value += *value == '"' || *value == '\'';
	return strncasecmp(value, what, n) == 0 && !is_word(value[n]);
}

/* A plain number; -1: there is none, or more than that. */
static int64_t number_of(const char *value)
{
	int64_t n = 0;
	bool any = false;

	if (!value)
		return -1;
	value += *value == '"' || *value == '\'';
	for (; isdigit((unsigned char)*value) || (any && *value == '_'); value++) {
		if (*value != '_')
			n = n < INT32_MAX ? n * 10 + (*value - '0') : n;
		any = true;
	}
	value += *value == '"' || *value == '\'';
	value += strspn(value, " \t");
	return any && (!*value || strchr(",}]\r\n#", *value)) ? n : -1;
}

/* In milliseconds; a number alone is of seconds. UINT64_MAX: not told. */
static uint64_t time_of(const char *value)
{
	char text[32];
	uint64_t ns;
	size_t n;

	if (!value)
		return UINT64_MAX;
	value += *value == '"' || *value == '\'';
	n = strcspn(value, " \t\r\n\"'#");
	if (n + 2 > sizeof(text))
		return UINT64_MAX;
	memcpy(text, value, n);
	text[n] = '\0';
	if (n && strspn(text, "0123456789") == n)
		memcpy(text + n, "s", 2);
	else if (n > 3 && strcmp(text + n - 3, "min") == 0)
		memcpy(text + n - 3, "m", 2);
	return config_read_time(text, &ns) ? ns / 1000000 : UINT64_MAX;
}

static void blank(char *from, char *end)
{
	for (; from < end; from++)
		if (*from != '\n')
			*from = ' ';
}

/* `//` only where no address has it, and neither within a string of one line. */
static void blank_comments(char *text, bool is_script)
{
	char quote = 0, *at, *end;

	for (at = text; *at; at++) {
		if (*at == '\n')
			quote = 0;
		if (quote) {
			if (*at == '\\' && at[1] && at[1] != '\n')
				at++;
			else if (*at == quote)
				quote = 0;
			continue;
		}
		if (*at == '"' || *at == '\'' || *at == '`')
			quote = is_script || at == text || !is_word(at[-1]) ? *at : 0;
		end = NULL;
		if (is_script && at[0] == '/' && at[1] == '*')
			end = strstr(at + 2, "*/") ? strstr(at + 2, "*/") + 2 : at + strlen(at);
		else if (is_script ? at[0] == '/' && at[1] == '/'
				   : *at == '#' && (at == text || isspace((unsigned char)at[-1])))
			end = at + strcspn(at, "\n");
		if (end) {
			blank(at, end);
			at = end - 1;
		}
	}
}

static void advise(struct doctor_advice *out, bool wanted, const char *line)
{
	unsigned i;

	for (i = 0; i < out->count; i++)
		wanted &= out->lines[i] != line; /* of another part */
	if (!wanted)
		return;
	out->all++;
	if (out->count < DOCTOR_MOST)
		out->lines[out->count++] = line;
}

/* ---- pm2 ---- */

static bool is_for_node(struct part script, const char *interpreter)
{
	if (interpreter)
		return is(interpreter, "node") || is(interpreter, "bun");
	return has(script, ".js") || has(script, ".mjs") || has(script, ".cjs") ||
	       has(script, ".ts");
}

/* Where nothing is said of the mode, `instances` alone makes it cluster for what Node runs. */
static bool is_in_cluster_mode(struct part p, struct part script)
{
	const char *mode = value_of(p, "exec_mode", ':');

	if (mode)
		return is(mode, "cluster") || is(mode, "cluster_mode");
	return value_of(p, "instances", ':') &&
	       is_for_node(script, value_of(p, "interpreter", ':'));
}

static void judge_app(struct part p, struct doctor_advice *out)
{
	const char *instances = value_of(p, "instances", ':'),
		   *codes = value_of(p, "stop_exit_codes", ':'), *at = value_of(p, "script", ':');
	struct part script = {at ? at : p.end, at ? at + strcspn(at, ",\n") : p.end};
	int64_t n = number_of(instances), kill = number_of(value_of(p, "kill_timeout", ':'));
	bool cluster = is_in_cluster_mode(p, script);

	advise(out, !names_command(p),
	       "it does not start under chromashim: script: \"chromashim-launch\", interpreter: "
	       "\"none\", and in args what is started now");
	advise(out, has(script, "chromashim") && !value_of(p, "interpreter", ':'),
	       "pm2 would run chromashim by Node: interpreter: \"none\"");
	advise(out, cluster,
	       "in cluster mode, which `instances` alone means for Node, pm2 loads it into a Node "
	       "that has started without the library: exec_mode: \"fork\", instances: 1");
	advise(out,
	       !cluster &&
		   (is(instances, "max") || (instances && n != 1 && (n >= 0 || *instances == '-'))),
	       "of several instances all but one are refused, since one may write: exec_mode: "
	       "\"fork\", instances: 1");
	advise(out,
	       !value_of(p, "kill_timeout", ':') || (kill >= 0 && (uint64_t)kill < LONG_ENOUGH),
	       "pm2 kills what has not ended after 1.6 s, and a large index takes longer to be "
	       "written: kill_timeout: 60000");
	advise(out, !is(value_of(p, "treekill", ':'), "false"),
	       "pm2 ends the guardian with the backend, before its last snapshot: treekill: false");
	advise(out, is(value_of(p, "watch", ':'), "true"),
	       "pm2 restarts it whenever a file is written, as Chroma does all the time: watch: "
	       "false");
	advise(
	    out, codes && number_of(codes + (*codes == '[')) == 0,
	    "pm2 takes the death by a signal for exit status 0, and would not start it again: no "
	    "0 in stop_exit_codes");
}

/* The object that is around, or all of the file where there are no braces (YAML). */
static struct part object_around(struct part p, const char *at)
{
	struct part found = p;
	const char *s;
	int depth = 0;

	for (s = at; s > p.at; s--) {
		depth += *s == '}' ? 1 : *s == '{' ? -1 : 0;
		if (depth < 0) {
			found.at = s + 1;
			break;
		}
	}
	for (s = at, depth = 0; s < p.end; s++) {
		depth += *s == '{' ? 1 : *s == '}' ? -1 : 0;
		if (depth < 0) {
			found.end = s;
			break;
		}
	}
	return found;
}

/* Those that have to do with Chroma; where none says so, all of them. */
static void judge_apps(struct part p, bool all, struct doctor_advice *out)
{
	struct part rest = p, app;
	const char *script;

	while ((script = value_of(rest, "script", ':'))) {
		app = object_around(p, script);
		if (all || has(app, "chroma"))
			judge_app(app, out);
		rest.at = script;
	}
}

/* ---- systemd ---- */

static void judge_unit(struct part p, struct doctor_advice *out)
{
	const char *mode = value_of(p, "KillMode", '=');
	uint64_t stop = time_of(value_of(p, "TimeoutStopSec", '='));

	advise(out, !names_command(p),
	       "it does not start under chromashim: ExecStart=/usr/local/bin/chromashim run -- "
	       "and what is started now");
	advise(out, !is(mode, "process") && !is(mode, "none"),
	       "systemd ends the guardian with the backend, before its last snapshot: "
	       "KillMode=process");
	advise(out, stop < LONG_ENOUGH,
	       "it is killed too soon, when a large index is still being written: "
	       "TimeoutStopSec=120");
	advise(out, !value_of(p, "Restart", '=') || is(value_of(p, "Restart", '='), "no"),
	       "it stays down after a crash: Restart=on-failure");
	advise(out,
	       is(value_of(p, "ProtectSystem", '='), "strict") &&
		   !value_of(p, "ReadWritePaths", '=') && !value_of(p, "StateDirectory", '='),
	       "it may write nowhere (ProtectSystem=strict): StateDirectory=, or ReadWritePaths= "
	       "with the data directory");
}

/* ---- Compose ---- */

static void judge_service(struct part p, struct doctor_advice *out)
{
	const char *replicas = value_of(p, "replicas", ':'), *scale = value_of(p, "scale", ':');
	const char *grace = value_of(p, "stop_grace_period", ':');

	advise(out, !has(p, "chromashim") && !value_of(p, "build", ':'),
	       "it does not start under chromashim: build its image as wrappers/docker does, and "
	       "command: chromashim run -- and what is started now");
	advise(out, !value_of(p, "volumes", ':'),
	       "the data is in the container's own layer, and goes with it: volumes:");
	advise(out, !grace || time_of(grace) <= LONG_ENOUGH,
	       "it is killed after 10 s, when a large index is still being written: "
	       "stop_grace_period: 60s");
	advise(out, number_of(replicas) > 1 || number_of(scale) > 1,
	       "of several containers on one volume all but one are refused, since one may write: "
	       "replicas: 1");
	advise(out, !value_of(p, "restart", ':') && !value_of(p, "restart_policy", ':'),
	       "it stays down after a crash: restart: unless-stopped");
}

static size_t indent_of(const char *line)
{
	return strspn(line, " ");
}

static bool is_blank(const char *line)
{
	return !line[strspn(line, " \t\r")] || line[strspn(line, " \t\r")] == '\n';
}

static const char *next_line(struct part p, const char *line)
{
	line += strcspn(line, "\n");
	return line < p.end ? line + 1 : p.end;
}

static void judge_services(struct part p, const char *services, bool all, struct doctor_advice *out)
{
	const char *line = next_line(p, services);
	size_t indent = 0;
	struct part one;

	while (line < p.end && is_blank(line))
		line = next_line(p, line);
	indent = indent_of(line);
	while (line < p.end && indent && indent_of(line) == indent) {
		one = (struct part){line, next_line(p, line)};
		while (one.end < p.end && (is_blank(one.end) || indent_of(one.end) > indent))
			one.end = next_line(p, one.end);
		if (all || has(one, "chroma"))
			judge_service(one, out);
		line = one.end;
	}
}

/* ---- which it is ---- */

/* At the beginning of a line. */
static const char *find_line(char *text, const char *what)
{
	char *at = text;

	while ((at = strstr(at, what)) && at > text && at[-1] != '\n')
		at++;
	return at;
}

bool doctor_judge(char *text, struct doctor_advice *out)
{
	struct part all = {text, text + strlen(text)};
	const char *services;
	bool is_script = !find_line(text, "[Service]") && !find_line(text, "services:") &&
			 !find_line(text, "apps:");

	blank_comments(text, is_script);
	*out = (struct doctor_advice){.count = 0};
	if (find_line(text, "[Service]")) {
		out->kind = "systemd";
		judge_unit(all, out);
	} else if ((services = find_line(text, "services:"))) {
		out->kind = "compose";
		judge_services(all, services, !has(all, "chroma"), out);
	} else if (value_of(all, "script", ':')) {
		out->kind = "pm2";
		judge_apps(all, !has(all, "chroma"), out);
	}
	return out->kind != NULL;
}
