/* SPDX-License-Identifier: MIT
 *
 * Processes: children keep the preload and its settings, whatever environment they are given.
 *
 * These run in vfork children: nothing but the stack is written to.
 */
#include <alloca.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include "preload/base/readable.h"
#include "preload/calls/call.h"
#include "preload/persist/persists.h"
#include "preload/pin/pins.h"
#include "preload/place/callers.h"
#include "preload/place/loads.h"
#include "preload/refuse/look.h"
#include "preload/refuse/readers.h"
#include "preload/refuse/refuse.h"
#include "preload/sqlite/carriers.h"
#include "preload/sqlite/transactions.h"

extern char **environ;

#define LIBRARY "libchromashim"
#define PRELOAD "LD_PRELOAD="
#define SETTING "CHROMASHIM"

/* What a child's environment must have; found at the start, before the host could change it. */
static char preload_entry[4096];
static char setting_text[4096];
static const char *setting[32];
static size_t settings_found;

void process_remember(void)
{
	const char *preload = NULL;
	size_t used = 0;
	char **e;

	for (e = environ; e && *e; e++) {
		size_t n = strlen(*e) + 1;

		if (strncmp(*e, PRELOAD, sizeof(PRELOAD) - 1) == 0)
			preload = *e + sizeof(PRELOAD) - 1;
		if (strncmp(*e, SETTING, sizeof(SETTING) - 1) != 0 ||
		    used + n > sizeof(setting_text) || settings_found >= 32)
			continue;
		memcpy(setting_text + used, *e, n);
		setting[settings_found++] = setting_text + used;
		used += n;
	}
	if (!preload || !strstr(preload, LIBRARY) ||
	    strlen(preload) + sizeof(PRELOAD) > sizeof(preload_entry))
		return; /* loaded in another way (ld.so.preload): children get it in that way */
	memcpy(preload_entry, PRELOAD, sizeof(PRELOAD));
	strcat(preload_entry, preload);
}

static const char *process_find(char *const envp[], const char *name, size_t n)
{
	for (; envp && *envp; envp++)
		if (strncmp(*envp, name, n) == 0)
			return *envp;
	return NULL;
}

static size_t process_count(char *const list[])
{
	size_t n = 0;

	while (list && list[n])
		n++;
	return n;
}

/* The entry itself, not only a library of that name: it may be another one, or gone. */
static bool has_preload(const char *preload)
{
	const char *own = preload_entry + sizeof(PRELOAD) - 1;
	const char *at = preload ? strstr(preload, own) : NULL;
	size_t n = strlen(own);

	return at && (at[-1] == '=' || at[-1] == ':' || at[-1] == ' ') &&
	       (!at[n] || at[n] == ':' || at[n] == ' ');
}

static bool has_settings(char *const envp[])
{
	size_t i;

	for (i = 0; i < settings_found; i++) {
		const char *equals = strchr(setting[i], '=');

		if (equals && !process_find(envp, setting[i], (size_t)(equals - setting[i]) + 1))
			return false;
	}
	return true;
}

static bool is_complete(char *const envp[])
{
	const char *off;

	if (!preload_entry[0] || settings.off || (envp && !list_is_readable(envp)))
		return true;
	off = process_find(envp, SETTING "=", sizeof(SETTING));
	if (off && strcmp(off, SETTING "=off") == 0)
		return true;
	return has_preload(process_find(envp, PRELOAD, sizeof(PRELOAD) - 1)) && has_settings(envp);
}

/*
 * Fills `out` (room for count(envp) + settings_found + 2) with envp and what it lacks. Another
 * preload that the host has chosen stays in front; `joined` has room for both.
 */
static void complete(char **out, char *const envp[], char *joined)
{
	const char *preload = process_find(envp, PRELOAD, sizeof(PRELOAD) - 1);
	size_t i, n = 0;

	for (; envp && *envp; envp++)
		if (*envp != preload)
			out[n++] = *envp;
	if (has_preload(preload)) {
		out[n++] = (char *)preload;
	} else if (preload && preload[sizeof(PRELOAD) - 1]) {
		strcpy(joined, preload);
		strcat(joined, ":");
		strcat(joined, preload_entry + sizeof(PRELOAD) - 1);
		out[n++] = joined;
	} else {
		out[n++] = preload_entry;
	}
	for (i = 0; i < settings_found; i++) {
		const char *equals = strchr(setting[i], '=');

		if (equals && !process_find(out, setting[i], (size_t)(equals - setting[i]) + 1)) {
			out[n++] = (char *)setting[i];
			out[n] = NULL;
		}
		out[n] = NULL;
	}
	out[n] = NULL;
}

#define COMPLETED(envp)                                                                      \
	({                                                                                   \
		char *const *env_ = (envp);                                                  \
                                                                                             \
		if (!is_complete(env_)) {                                                    \
			const char *old_ = process_find(env_, PRELOAD, sizeof(PRELOAD) - 1); \
			size_t room_ = process_count(env_) + settings_found + 3;             \
			char **new_ = alloca(room_ * sizeof(char *));                        \
			char *joined_ =                                                      \
			    alloca((old_ ? strlen(old_) : 0) + sizeof(preload_entry) + 2);   \
                                                                                             \
			memset(new_, 0, room_ * sizeof(char *));                             \
			complete(new_, env_, joined_);                                       \
			env_ = new_;                                                         \
		}                                                                            \
		env_;                                                                        \
	})

static void note_exec(const char *path)
{
	unsigned i, used = atomic_load(&protections_used);

	if (used && !text_is_readable(path))
		path = NULL;
	for (i = 0; i < used; i++) {
		struct oplog_record r = {.op = OP_EXEC, .offset = -1};

		if (!shim_borrowed())
			record_put(i, &r, path ? path : "", path ? strlen(path) : 0);
	}
}

int do_execve(const char *path, char *const argv[], char *const envp[])
{
	note_exec(path);
	return REAL_LATE(execve)(path, argv, COMPLETED(envp));
}

int do_execveat(int dirfd, const char *path, char *const argv[], char *const envp[], int flags)
{
	note_exec(path);
	return REAL_LATE(execveat)(dirfd, path, argv, COMPLETED(envp), flags);
}

int do_fexecve(int fd, char *const argv[], char *const envp[])
{
	note_exec(NULL);
	return REAL_LATE(fexecve)(fd, argv, COMPLETED(envp));
}

int do_execv(const char *path, char *const argv[])
{
	return do_execve(path, argv, environ);
}

int do_execvpe(const char *file, char *const argv[], char *const envp[])
{
	note_exec(file);
	return REAL_LATE(execvpe)(file, argv, COMPLETED(envp));
}

int do_execvp(const char *file, char *const argv[])
{
	return do_execvpe(file, argv, environ);
}

int do_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
		   const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	return REAL_LATE(posix_spawn)(pid, path, actions, attr, argv, COMPLETED(envp));
}

int do_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
		    const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	return REAL_LATE(posix_spawnp)(pid, file, actions, attr, argv, COMPLETED(envp));
}

/* ---- the variadic ones ---- */

#define EXPORT __attribute__((visibility("default")))
EXPORT int entry_execl(const char *path, const char *arg, ...) __asm__("execl");
EXPORT int entry_execlp(const char *file, const char *arg, ...) __asm__("execlp");
EXPORT int entry_execle(const char *path, const char *arg, ...) __asm__("execle");

/* Collects the arguments up to NULL; what follows (execle's environment) is left in `args`. */
#define COLLECT(args, arg)                                 \
	({                                                 \
		va_list count_;                            \
		size_t n_ = 1, i_;                         \
		char **argv_;                              \
                                                           \
		va_copy(count_, args);                     \
		while (va_arg(count_, char *))             \
			n_++;                              \
		va_end(count_);                            \
		argv_ = alloca((n_ + 1) * sizeof(char *)); \
		argv_[0] = (char *)(arg);                  \
		for (i_ = 1; i_ <= n_; i_++)               \
			argv_[i_] = va_arg(args, char *);  \
		argv_;                                     \
	})

int entry_execl(const char *path, const char *arg, ...)
{
	va_list args;
	char **argv;

	va_start(args, arg);
	argv = COLLECT(args, arg);
	va_end(args);
	return do_execve(path, argv, environ);
}

int entry_execlp(const char *file, const char *arg, ...)
{
	va_list args;
	char **argv;

	va_start(args, arg);
	argv = COLLECT(args, arg);
	va_end(args);
	return do_execvpe(file, argv, environ);
}

int entry_execle(const char *path, const char *arg, ...)
{
	va_list args;
	char **argv, **envp;

	va_start(args, arg);
	argv = COLLECT(args, arg);
	envp = va_arg(args, char **);
	va_end(args);
	return do_execve(path, argv, envp);
}

/* ---- fork and the end ---- */

void process_forks(void)
{
	streams_before_fork();
	writers_before_fork();
}

void process_forked(void)
{
	if (!shim_live)
		return;
	shim_pid = sys_getpid();
	carriers_fork();
	writers_fork();
	readers_fork();
	loads_fork();
	rooms_fork();
	thread_id_forget();
	callers_fork();
	pins_fork();
	persists_fork();
	look_fork();
	protections_fork();
	transactions_fork();
}

/* No atfork handler runs for this one. */
pid_t do_Fork(void)
{
	pid_t pid;

	process_forks();
	pid = REAL_LATE(_Fork)();
	if (pid == 0)
		process_forked();
	return pid;
}

void do_exit(int status)
{
	if (shim_live && !shim_borrowed())
		protections_finish(0);
	REAL_LATE(_exit)(status);
	for (;;)
		SYS1(SYS_exit_group, status);
}

/*
 * Servers that were asked to stop by a signal send it to themselves when all is done (uvicorn,
 * gunicorn's workers, Node's signal-exit), so that their parent sees why they ended. Does this one
 * end the process now? For init in a container the kernel throws it away.
 */
static bool ends_by(int number)
{
	unsigned long action[8] = {0}, mask = 0; /* the kernel's: the handler comes first */

	if (number != SIGTERM && number != SIGINT && number != SIGHUP)
		return false;
	return sys_getpid() != 1 &&
	       SYS4(SYS_rt_sigaction, number, NULL, action, sizeof(mask)) == 0 &&
	       action[0] == (unsigned long)SIG_DFL &&
	       SYS4(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, sizeof(mask)) == 0 &&
	       !(mask >> (number - 1) & 1);
}

int do_raise(int number)
{
	if (shim_live && !shim_borrowed() && ends_by(number))
		protections_finish(number);
	return real.raise(number);
}

int do_kill(pid_t pid, int number)
{
	if (shim_live && pid == shim_pid && !shim_borrowed() && ends_by(number))
		protections_finish(number);
	return real.kill(pid, number);
}
