/* SPDX-License-Identifier: MIT
 *
 * What the user's own Chroma says of what was restored: a few records of each collection are taken
 * from the files and given to a Python that has that Chroma, which asks for them. It may not take
 * the machine's memory or its time: it is left out where the snapshot is large for what is free,
 * and ended after ten minutes.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/base/terminal.h"
#include "command/drill/drill.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/owner.h"
#include "core/chroma/installation.h"
#include "core/export/export.h"
#include "core/oplog/oplog.h"

#define COLLECTIONS 64
#define SAMPLES 5	   /* of a collection */
#define DOCUMENT_MAX 4000u /* a longer one is not compared */
#define TIME (600 * SECOND)
#define SAID 4096u

extern char **environ;

volatile sig_atomic_t drill_stopping;

/* ---- what is asked for ---- */

struct sampler {
	struct json json;
	unsigned collections;
	const struct chroma_collection *now;
	char *samples[SAMPLES]; /* JSON */
	uint64_t records;	/* of the collection, so far */
	uint64_t seed;
};

static uint64_t next_random(struct sampler *s)
{
	s->seed = s->seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return s->seed >> 33;
}

static char *sample_json(const struct export_record *e)
{
	char *text = NULL;
	size_t size;
	struct json j = {.out = open_memstream(&text, &size)};
	uint64_t i;

	if (!j.out)
		return NULL;
	json_begin(&j, '{');
	json_key(&j, "id");
	json_bytes(&j, e->id, e->id_size);
	json_key(&j, "document");
	if (e->document && e->document->text && e->document->size <= DOCUMENT_MAX)
		json_bytes(&j, e->document->text, e->document->size);
	else
		json_null(&j);
	json_key(&j, "vector");
	if (e->vector)
		json_begin(&j, '[');
	else
		json_null(&j);
	for (i = 0; e->vector && i < e->dimension; i++)
		json_double(&j, (double)e->vector[i]);
	if (e->vector)
		json_end(&j, ']');
	json_end(&j, '}');
	return fclose(j.out) == 0 ? text : NULL;
}

/* Each record has the same chance. */
static int note_record(void *context, const struct export_record *e)
{
	struct sampler *s = context;
	uint64_t at = s->records < SAMPLES ? s->records : next_random(s) % (s->records + 1);
	size_t i;

	s->records++;
	for (i = 0; i < e->id_size; i += utf8_length(e->id + i, e->id_size - i))
		if (!utf8_length(e->id + i, e->id_size - i))
			return 0; /* no client can ask for it */
	if (at >= SAMPLES)
		return 0;
	free(s->samples[at]);
	s->samples[at] = sample_json(e);
	return 0;
}

static void end_collection(struct sampler *s)
{
	bool any = false;
	unsigned i;

	if (!s->now)
		return;
	json_put_uint(&s->json, "records", s->records);
	json_key(&s->json, "samples");
	json_begin(&s->json, '[');
	for (i = 0; i < SAMPLES; i++) {
		if (s->samples[i])
			fprintf(s->json.out, "%s%s", any ? "," : "", s->samples[i]);
		any |= s->samples[i] != NULL;
		free(s->samples[i]);
		s->samples[i] = NULL;
	}
	json_end(&s->json, ']');
	json_end(&s->json, '}');
	s->now = NULL;
}

static int begin_collection(void *context, const struct export_collection *e)
{
	struct sampler *s = context;
	const struct chroma_collection *c = e->collection;

	end_collection(s);
	if (s->collections++ >= COLLECTIONS)
		return 0;
	s->now = c;
	s->records = 0;
	json_begin(&s->json, '{');
	json_put_text(&s->json, "name", c->name);
	json_put_text(&s->json, "database", c->database);
	json_put_text(&s->json, "tenant", c->tenant);
	json_put_text(&s->json, "space", chroma_space_names[c->space]);
	return 0;
}

static int note_of_known(void *context, const struct export_record *e)
{
	struct sampler *s = context;

	return s->now ? note_record(context, e) : 0;
}

static void ignore_trouble(void *context, const char *collection, const char *what, int error)
{
	(void)context, (void)collection, (void)what, (void)error;
}

/* A descriptor with all of it, at its beginning; or -errno. */
static int take_samples(const char *path, int dirfd)
{
	int fd = memfd_create("chromashim-drill", MFD_CLOEXEC), copy = fd < 0 ? -1 : dup(fd), r;
	struct sampler s = {.json = {.out = copy < 0 ? NULL : fdopen(copy, "w")},
			    .seed = clock_read(CLOCK_MONOTONIC)};
	struct export_options options = {.vectors = true,
					 .begin = begin_collection,
					 .record = note_of_known,
					 .trouble = ignore_trouble,
					 .context = &s};
	struct export_summary summary;

	if (!s.json.out) {
		if (fd >= 0)
			close(fd);
		return -EMFILE;
	}
	json_begin(&s.json, '[');
	r = export_directory(path, dirfd, &options, &summary);
	end_collection(&s);
	json_end(&s.json, ']');
	if (fclose(s.json.out) != 0 && r == 0)
		r = -EIO;
	if (r == 0 && lseek(fd, 0, SEEK_SET) == 0)
		return fd;
	close(fd);
	return r < 0 ? r : -EIO;
}

/* ---- memory ---- */

static uint64_t read_number_of(const char *path, const char *key)
{
	char line[256];
	uint64_t value = UINT64_MAX;
	size_t n = strlen(key);
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, n) && sscanf(line + n, " %" SCNu64, &value) == 1)
			break;
	if (f)
		fclose(f);
	return value;
}

/* What this machine, or this container, has left. */
static uint64_t free_memory(void)
{
	uint64_t all = read_number_of("/proc/meminfo", "MemAvailable:");
	uint64_t max = read_number_of("/sys/fs/cgroup/memory.max", "");
	uint64_t now = read_number_of("/sys/fs/cgroup/memory.current", "");

	all = all < UINT64_MAX / 1024 ? all * 1024 : UINT64_MAX;
	if (max != UINT64_MAX && now != UINT64_MAX)
		return max > now ? (max - now < all ? max - now : all) : 0;
	return all;
}

/* ---- asking ---- */

/* As the backend's, but without the library: it is a copy, which is thrown away. */
static char **environment_of_python(void)
{
	static char off[] = "CHROMASHIM=off", quiet[] = "ANONYMIZED_TELEMETRY=False",
		    bare[] = "PYTHONDONTWRITEBYTECODE=1", offline[] = "HF_HUB_OFFLINE=1";
	char *const more[] = {off, quiet, bare, offline};
	size_t n = 0, i, k = 0;
	char **all;

	while (environ[n])
		n++;
	all = calloc(n + sizeof(more) / sizeof(more[0]) + 1, sizeof(*all));
	for (i = 0; all && i < n; i++)
		if (strncmp(environ[i], "LD_PRELOAD=", 11) && strncmp(environ[i], "CHROMA", 6))
			all[k++] = environ[i];
	for (i = 0; all && i < sizeof(more) / sizeof(more[0]); i++)
		all[k++] = more[i];
	return all;
}

static int spawn_python(pid_t *pid, const struct engine *engine, const char *path, int in, int out)
{
	char python[PATH_MAX], dir[PATH_MAX], packages[PATH_MAX], option[] = "-c";
	char *script = strdup(drill_script), **env = environment_of_python();
	char *argv[] = {python, option, script, dir, packages, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int r = script && env ? 0 : ENOMEM;

	strlcpy(python, engine->python, sizeof(python));
	strlcpy(dir, path, sizeof(dir));
	strlcpy(packages, engine->packages, sizeof(packages));
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	posix_spawn_file_actions_adddup2(&actions, out, 2);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
	owner_pause();
	if (r == 0)
		r = posix_spawnp(pid, argv[0], &actions, &attributes, argv, env);
	owner_resume();
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	free(env);
	free(script);
	return r;
}

/* All that it says, the end of it if it is much. False: it took too long. */
static bool listen_to(int fd, char said[SAID])
{
	uint64_t deadline = oplog_now() + TIME;
	size_t have = 0;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = oplog_now();
		ssize_t n;

		if (drill_stopping || now >= deadline ||
		    poll(&p, 1, (int)((deadline - now) / 1000000 + 1)) == 0)
			return false;
		if (!p.revents)
			continue; /* a signal */
		if (have > SAID / 2) {
			memmove(said, said + SAID / 4, have - SAID / 4);
			have -= SAID / 4;
		}
		n = read(fd, said + have, SAID - 1 - have);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		have += (size_t)n;
		said[have] = '\0';
	}
	return true;
}

static void understand(char *said, int status, struct drill_answers *out)
{
	char *line, *rest = said, last[sizeof(out->trouble)] = "";
	bool done = false;

	while ((line = strsep(&rest, "\n"))) {
		if (!strncmp(line, "release ", 8)) {
			strlcpy(out->release, line + 8, sizeof(out->release));
		} else if (!strncmp(line, "trouble ", 8)) {
			strlcpy(out->trouble, line + 8, sizeof(out->trouble));
			out->failed = true;
		} else if (sscanf(line, "compared %" SCNu64, &out->compared) == 1) {
			done = true;
		} else if (*line) {
			strlcpy(last, line, sizeof(last));
		}
	}
	if (done && status == 0)
		return;
	/* A Python that has no Chroma any more says nothing of the snapshot. */
	out->failed |= out->release[0] != '\0';
	if (!out->trouble[0])
		snprintf(out->trouble, sizeof(out->trouble), "%s: %.300s",
			 out->release[0]       ? "Chroma could not open it"
			 : WIFSIGNALED(status) ? "the Python was ended by a signal"
					       : "the Python has no Chroma to open it with",
			 last);
}

static void ask(const char *path, int samples, const struct engine *engine,
		struct drill_answers *out)
{
	char said[SAID] = "";
	int ends[2], status = -1, r;
	bool in_time;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return;
	r = spawn_python(&pid, engine, path, samples, ends[1]);
	close(ends[1]);
	if (r) {
		snprintf(out->trouble, sizeof(out->trouble), "'%.200s' cannot be started: %s",
			 engine->python, strerror(r));
		close(ends[0]);
		return;
	}
	in_time = listen_to(ends[0], said);
	close(ends[0]);
	if (!in_time)
		kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	understand(said, status, out);
	if (!in_time) {
		out->failed = out->release[0] != '\0';
		strlcpy(out->trouble, "Chroma took more than ten minutes to open it and answer",
			sizeof(out->trouble));
	}
}

/* Whether it is too old for the database: says nothing of the snapshot. */
static bool is_too_old(const struct engine *engine, const struct manifest *m)
{
	struct installation *i = calloc(1, sizeof(*i));
	enum migration_verdict verdict = MIGRATION_UNKNOWN;

	if (i && installation_find(engine->packages[0] ? engine->packages : engine->python, i) == 0)
		verdict = installation_judge(i, m->header.migrations);
	free(i);
	return verdict == MIGRATION_PANICS || verdict == MIGRATION_FAILS;
}

void drill_ask(const char *path, int dirfd, const struct engine *engine, const struct manifest *m,
	       struct drill_answers *out)
{
	uint64_t room = free_memory(), bytes = manifest_total_size(m);
	char need[24], have[24];
	int samples;

	memset(out, 0, sizeof(*out));
	if (!engine || !engine->python[0]) {
		strlcpy(out->trouble, "no Python with Chroma in it is known here (--chroma PYTHON)",
			sizeof(out->trouble));
		return;
	}
	if (is_too_old(engine, m)) {
		strlcpy(out->trouble,
			"it was not opened by Chroma: the one that is known is older than the "
			"snapshot's",
			sizeof(out->trouble));
		return;
	}
	if (bytes > room / 2) {
		snprintf(out->trouble, sizeof(out->trouble),
			 "it was not opened by Chroma: it has %s, and %s of memory are free",
			 format_bytes(need, sizeof(need), bytes),
			 format_bytes(have, sizeof(have), room));
		return;
	}
	samples = take_samples(path, dirfd);
	if (samples < 0) {
		out->failed = true;
		snprintf(out->trouble, sizeof(out->trouble), "its records cannot be read: %s",
			 strerror(-samples));
		return;
	}
	ask(path, samples, engine, out);
	close(samples);
}
