/* SPDX-License-Identifier: MIT
 *
 * `chromashim replica keygen`: a pair of keys, of which only the public one stays on this machine.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bsd/string.h>

#include "command/replica/replica.h"
#include "core/base/fileio.h"
#include "core/base/owner.h"
#include "core/base/tree.h"
#include "core/replica/keys.h"

#define HEAD                                                                               \
	"# chromashim: the secret key of a replica. Whoever has it can read the replica; " \
	"without\n"                                                                        \
	"# it nobody can. Keep it, twice, where the machine that is copied cannot get at it.\n"

static bool is_below(const char *path, const char *dir)
{
	char real[PATH_MAX];
	size_t n;

	if (!realpath(dir, real))
		return false;
	n = strlen(real);
	return strncmp(path, real, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

/* Where a lost machine would take it along, or a found replica have it beside it. */
static int refuse_place(const struct data_directory *t, const char *file)
{
	char copy[PATH_MAX], real[PATH_MAX];

	strlcpy(copy, file, sizeof(copy));
	if (!realpath(dirname(copy), real))
		return fail(EXIT_NOT_FOUND, -errno, "Name a directory that is there.",
			    "cannot write '%s'", file);
	if (!is_below(real, t->dir) && !is_below(real, t->store))
		return 0;
	return fail(EXIT_USAGE, 0,
		    "Put it on another disk or machine: with the data it would be lost, or found.",
		    "'%s' is in the data directory or its store", file);
}

static int write_secret(const struct replica_keys *keys, const char *file)
{
	char text[1024];
	int n, fd, r;

	owner_pause();
	fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : 0;
	owner_resume();
	if (r < 0)
		return fail(EXIT_FAILED, r,
			    r == -EEXIST
				? "Nothing is written over; give another name, or `--use` it."
				: "Give a place that can be written.",
			    "cannot write '%s'", file);
	n = snprintf(text, sizeof(text), HEAD);
	n += replica_keys_format(keys, true, text + n, sizeof(text) - (size_t)n);
	r = file_write_all(fd, text, (size_t)n);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	close(fd);
	explicit_bzero(text, sizeof(text));
	if (r < 0)
		unlink(file);
	return r < 0 ? fail(exit_code_of(r), r, "Give another place.", "cannot write '%s'", file)
		     : 0;
}

static int use_file(struct replica_keys *keys, const char *file)
{
	int r = replica_keys_read(keys, file);

	if (r < 0)
		return fail(r == -ENOENT ? EXIT_NOT_FOUND : EXIT_FAILED, r == -EINVAL ? 0 : r,
			    "Give a file that `chromashim replica keygen -o` wrote.", "'%s' %s",
			    file, r == -EINVAL ? "holds no key" : "cannot be read");
	explicit_bzero(keys->secret_key, sizeof(keys->secret_key));
	keys->has_secret = false;
	replica_keys_draw_names(keys);
	return 0;
}

static int keygen(struct data_directory *t, const char *out, const char *use, bool force)
{
	struct replica_keys keys;
	int r = replica_keys_read_store(&keys, t->storefd), status;

	if (r == 0 && !force)
		return fail(EXIT_FAILED, 0,
			    "Add --force for a new one: what is sent from then on needs the new "
			    "secret key, what was sent before the old one.",
			    "the store of '%s' has a key already", t->dir);
	if (replica_keys_start() < 0)
		return fail(EXIT_FAILED, 0, NULL, "libsodium does not start");
	if (use) {
		status = use_file(&keys, use);
	} else {
		replica_keys_draw(&keys);
		status = refuse_place(t, out);
		status = status ? status : write_secret(&keys, out);
	}
	r = status ? 0 : replica_keys_write_store(&keys, t->storefd);
	replica_keys_forget(&keys);
	if (r < 0)
		return fail(exit_code_of(r), r, "Run this as the store's owner.",
			    "cannot write the public key into '%s'", t->store);
	if (status == 0 && out)
		printf("the secret key is in %s: keep it, twice, away from this machine. Without "
		       "it no replica can be read\n",
		       out);
	return status;
}

int replica_command_keygen(int argc, char **argv)
{
	enum { USE = 256 };
	static const struct option options[] = {{"output", required_argument, NULL, 'o'},
						{"use", required_argument, NULL, USE},
						{"force", no_argument, NULL, 'f'},
						{NULL, 0, NULL, 0}};
	const char *out = NULL, *use = NULL;
	struct data_directory t;
	bool force = false;
	int option, status, r;

	while ((option = getopt_long(argc, argv, "o:f", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("replica");
		out = option == 'o' ? optarg : out;
		use = option == USE ? optarg : use;
		force = force || option == 'f';
	}
	if (argc - optind > 1 || !out == !use) {
		warn(argc - optind > 1
			 ? "replica keygen takes one directory"
			 : "replica keygen needs -o FILE for the secret key, or --use "
			   "FILE of one that there is");
		return fail_usage("replica");
	}
	status = data_directory_open(&t, argv[optind], false);
	if (status)
		return status;
	r = data_directory_make_store(&t);
	status = r < 0 ? fail(exit_code_of(r), r, "Run this as the owner of the data directory.",
			      "cannot make the store '%s'", t.store)
		       : keygen(&t, out, use, force);
	data_directory_close(&t);
	return status;
}
