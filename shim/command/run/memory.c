/* SPDX-License-Identifier: MIT
 *
 * `chromashim run`: what a command that names no directory has used, for its next start. A small
 * file of the user's for each command and working directory; a guardian that the library has
 * started writes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/run/run.h"
#include "core/base/checksum.h"
#include "core/base/fileio.h"

#define MEMORY "CHROMASHIM_MEMORY" /* the file, for that guardian */

/* A service may have no HOME, and a user none that can be written. */
static const char *find_home(void)
{
	const char *home = getenv("HOME");
	const struct passwd *user;

	if (!home || *home != '/') {
		user = getpwuid(geteuid());
		home = user ? user->pw_dir : NULL;
	}
	return home && *home == '/' && access(home, W_OK) == 0 ? home : NULL;
}

static bool find_file(char *const *command, char out[PATH_MAX])
{
	const char *state = getenv("XDG_STATE_HOME"), *home = find_home();
	char here[PATH_MAX], place[PATH_MAX];
	uint64_t sum;

	if (!*command || !getcwd(here, sizeof(here)))
		return false;
	sum = checksum64(here, strlen(here), 0);
	for (; *command; command++)
		sum = checksum64(*command, strlen(*command), sum);
	if (state && *state == '/')
		snprintf(place, sizeof(place), "%s/chromashim", state);
	else if (home)
		snprintf(place, sizeof(place), "%s/.local/state/chromashim", home);
	else
		snprintf(place, sizeof(place), RUN_TMP, (unsigned)geteuid());
	return snprintf(out, PATH_MAX, "%s/%016" PRIx64, place, sum) < PATH_MAX;
}

/* The directory of that file, if nobody else can have put it there: a descriptor, else < 0. */
static int open_place(const char *file)
{
	char copy[PATH_MAX];

	strlcpy(copy, file, sizeof(copy));
	return run_open_own(dirname(copy));
}

bool memory_recall(char *const *command, char out[PATH_MAX])
{
	char file[PATH_MAX], database[PATH_MAX + sizeof(CHROMA_DATABASE) + 1];
	char *data = NULL;
	size_t size = 0;
	int place, fd, r;

	if (!find_file(command, file))
		return false;
	setenv(MEMORY, file, 1);
	place = open_place(file);
	if (place < 0)
		return false;
	fd = file_open_at(place, strrchr(file, '/') + 1);
	close(place);
	r = fd < 0 ? fd : file_read_all(fd, PATH_MAX - 1, &data, &size);
	if (fd >= 0)
		close(fd);
	if (r < 0)
		return false;
	strlcpy(out, data, PATH_MAX);
	free(data);
	snprintf(database, sizeof(database), "%s/" CHROMA_DATABASE, out);
	return *out == '/' && access(database, F_OK) == 0;
}

void memory_keep(const char *dir)
{
	const char *file = getenv(MEMORY);
	char copy[PATH_MAX], real[PATH_MAX], *slash;
	struct file_publish p;
	int dirfd;

	if (!file || *file != '/' || !realpath(dir, real) ||
	    strlcpy(copy, file, sizeof(copy)) >= sizeof(copy))
		return;
	for (slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(copy, 0700);
		*slash = '/';
	}
	dirfd = open_place(file);
	if (dirfd < 0)
		return;
	if (file_publish_begin(&p, dirfd, strrchr(file, '/') + 1, 0600) == 0) {
		if (file_write_all(p.fd, real, strlen(real)) == 0)
			file_publish_commit(&p);
		else
			file_publish_abort(&p);
	}
	close(dirfd);
}
