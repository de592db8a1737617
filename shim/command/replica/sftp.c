/* SPDX-License-Identifier: MIT
 *
 * A replica reached with OpenSSH's sftp: a batch of commands at a time. It asks nothing, so that a
 * missing key is an error and no wait; ssh ends by itself when the other side is silent.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "command/replica/link.h"

#define BATCH "batch" /* in the working directory */

static FILE *begin_batch(struct replica_link *l)
{
	int fd =
	    openat(l->workfd, BATCH, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	FILE *out = fd < 0 ? NULL : fdopen(fd, "w");

	if (!out && fd >= 0)
		close(fd);
	return out;
}

/* Its exit status is 0 if all commands without a dash in front went well. */
static int run_batch(struct replica_link *l, FILE *batch, link_line_fn *line, void *context)
{
	char port[16], rate[32];
	const char *argv[32] = {"sftp",
				"-q",
				"-b",
				BATCH,
				"-oBatchMode=yes",
				"-oConnectTimeout=20",
				"-oServerAliveInterval=15",
				"-oServerAliveCountMax=4"};
	unsigned n = 8;
	int r;

	if (fclose(batch) != 0)
		return link_fail(l, -errno, "cannot write the batch for sftp: %s", strerror(errno));
	if (l->ssh_config && *l->ssh_config) {
		argv[n++] = "-F";
		argv[n++] = l->ssh_config;
	}
	if (l->target.port) {
		snprintf(port, sizeof(port), "%u", l->target.port);
		argv[n++] = "-P";
		argv[n++] = port;
	}
	if (l->rate) {
		snprintf(rate, sizeof(rate), "%llu",
			 (unsigned long long)(l->rate / 125 ? l->rate / 125 : 1));
		argv[n++] = "-l";
		argv[n++] = rate;
	}
	argv[n++] = l->target.host;
	argv[n] = NULL;
	r = link_run(l, argv, line, context);
	return r > 0 ? -EIO : r;
}

static int fail_batch(struct replica_link *l)
{
	return link_fail(l, -errno, "cannot write a batch for sftp: %s", strerror(errno));
}

/* ---- listing ---- */

static int sftp_list(struct replica_link *l, enum replica_folder folder, link_object_fn *fn,
		     void *context)
{
	struct link_listing listing = {folder, true, fn, context};
	const char *path = l->target.path;
	FILE *out = begin_batch(l);
	unsigned i;

	if (!out)
		return fail_batch(l);
	/* The place itself has to be there; what is below is made when something is sent. */
	fprintf(out, "cd \"%s\"\n", path);
	for (i = 0; folder == REPLICA_CHUNKS && i < 256; i++)
		fprintf(out, "-ls -ln \"chunks/%02x\"\n", i);
	if (folder != REPLICA_CHUNKS)
		fprintf(out, "-ls -ln \"%s\"\n", replica_folder_name(folder));
	return run_batch(l, out, link_take_listed, &listing);
}

/* ---- sending, fetching, removing ---- */

static void make_directories(FILE *out, const struct replica_name *names, size_t count)
{
	bool made[256] = {false}, folders[REPLICA_FOLDERS] = {false};
	size_t i;

	for (i = 0; i < count; i++) {
		const struct replica_name *name = &names[i];
		unsigned char first = name->chunk.bytes[0];

		if (!folders[name->folder])
			fprintf(out, "-mkdir \"%s\"\n", replica_folder_name(name->folder));
		folders[name->folder] = true;
		if (name->folder == REPLICA_CHUNKS && !made[first])
			fprintf(out, "-mkdir \"chunks/%02x\"\n", first);
		made[first] = made[first] || name->folder == REPLICA_CHUNKS;
	}
}

/* Under another name first, then renamed in the way that never replaces (-l). */
static int sftp_send(struct replica_link *l, const struct replica_name *names, size_t count)
{
	FILE *out = begin_batch(l);
	unsigned long long random = 0;
	char text[REPLICA_NAME_SIZE];
	size_t i;

	if (!out)
		return fail_batch(l);
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		random = (unsigned long long)getpid();
	fprintf(out, "cd \"%s\"\n", l->target.path);
	make_directories(out, names, count);
	for (i = 0; i < count; i++) {
		const char *last;

		replica_name_format(text, &names[i]);
		last = strrchr(text, '/') + 1;
		fprintf(out, "put -f \"" LINK_TREE "/%s\" \"%.*s.%016llx-%zu.part\"\n", text,
			(int)(last - text), text, random, i);
		fprintf(out, "rename -l \"%.*s.%016llx-%zu.part\" \"%s\"\n", (int)(last - text),
			text, random, i, text);
	}
	return run_batch(l, out, NULL, NULL);
}

static int sftp_fetch(struct replica_link *l, const struct replica_name *names, size_t count)
{
	FILE *out = begin_batch(l);
	char text[REPLICA_NAME_SIZE];
	size_t i;

	if (!out)
		return fail_batch(l);
	fprintf(out, "cd \"%s\"\n", l->target.path);
	for (i = 0; i < count; i++) {
		link_make_room(l, &names[i]);
		replica_name_format(text, &names[i]);
		fprintf(out, "-get \"%s\" \"" LINK_TREE "/%s\"\n", text, text);
	}
	return run_batch(l, out, NULL, NULL);
}

/* Each object that is listed is one too many. */
static int count_left(void *left, const char *line)
{
	struct replica_name name;
	uint64_t size;
	unsigned i;

	for (i = 0; i < REPLICA_FOLDERS; i++)
		*(size_t *)left +=
		    replica_listing_parse(line, (enum replica_folder)i, true, &name, &size);
	return 0;
}

/* An object that is not there and one that may not be removed fail alike: what is left tells. */
static int sftp_remove(struct replica_link *l, const struct replica_name *names, size_t count)
{
	FILE *out = begin_batch(l);
	char text[REPLICA_NAME_SIZE];
	size_t i, left = 0;
	int r;

	if (!out)
		return fail_batch(l);
	fprintf(out, "cd \"%s\"\n", l->target.path);
	for (i = 0; i < count; i++) {
		replica_name_format(text, &names[i]);
		fprintf(out, "-rm \"%s\"\n-ls -ln \"%s\"\n", text, text);
	}
	r = run_batch(l, out, count_left, &left);
	return r == 0 && left ? link_fail(l, -EPERM,
					  "%zu of %zu objects are still there: this account may "
					  "not remove them",
					  left, count)
			      : r;
}

const struct link_kind link_sftp = {sftp_list, sftp_send, sftp_fetch, sftp_remove};
