/* SPDX-License-Identifier: MIT
 *
 * `chromashim replica check`: whether all that the snapshots of a replica need is there, and
 * whether what is there is what it was: each object is read and opened, or a share of them, drawn
 * anew each time.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>
#include <zstd.h>

#include "command/base/progress.h"
#include "command/base/command.h"
#include "command/base/snapshots.h"
#include "command/replica/replica.h"
#include "command/replica/survey.h"
#include "core/base/fileio.h"
#include "core/snapshot/chunks.h"

struct checking {
	struct remote *r;
	struct replica_sent there;
	struct replica_name *chunks;
	size_t count, read, missing, bad;
	void *decompressor;
	unsigned char *plain;
};

static void tell_bad(struct checking *c, const struct replica_name *name, const char *why)
{
	char text[REPLICA_NAME_SIZE];

	replica_name_format(text, name);
	printf("damaged: %s: %s\n", text, why);
	c->bad++;
}

/* ---- what the snapshots need ---- */

static int look_for(void *context, const struct replica_chunk_name *name)
{
	struct checking *c = context;

	c->missing += !replica_sent_has(&c->there, name);
	return 0;
}

static int check_manifest(void *context, const struct replica_name *name, int error,
			  const struct manifest *m, const unsigned char names[REPLICA_KEY_SIZE])
{
	struct checking *c = context;
	char text[32];
	size_t before = c->missing;

	if (error < 0) {
		tell_bad(c, name, remote_trouble(error == -EISNAM ? -EBADMSG : error));
		return 0;
	}
	survey_chunks(name, m, names, look_for, c);
	if (c->missing > before)
		printf("broken: snapshot %s: %zu of its chunks are missing\n",
		       remote_snapshot_text(c->r, name, text), c->missing - before);
	return 0;
}

/* ---- what is in the objects ---- */

/* As what is in it is named by its content, and the object bound to its name, this is all. */
static int check_content(struct checking *c, const unsigned char *file, size_t size)
{
	struct snapshot_chunk head;

	if (size < sizeof(head))
		return -ENODATA;
	memcpy(&head, file, sizeof(head));
	if (head.plain > SNAPSHOT_CHUNK_SIZE)
		return -EBADMSG;
	return chunk_decode(c->decompressor, file, size, c->plain, head.plain);
}

static int check_object(struct checking *c, const struct replica_name *name)
{
	unsigned char *file, names[REPLICA_KEY_SIZE];
	struct manifest m;
	size_t size;
	int r = remote_chunk_fetched(c->r, name, &file, &size);

	if (r == 0) {
		r = check_content(c, file, size);
		free(file);
	} else if (r == -EISNAM) {
		r = remote_manifest_fetched(c->r, name, NULL, &m, names);
		manifest_free(&m);
	}
	c->read++;
	if (r < 0)
		tell_bad(c, name, remote_trouble(r));
	return r == -ENOMEM ? r : 0;
}

static int check_batch(struct checking *c, const struct replica_name *names, size_t n)
{
	size_t i;
	int r = link_fetch(&c->r->link, names, n);

	for (i = 0; i < n && r == 0; i++)
		r = check_object(c, &names[i]);
	link_clear(&c->r->link);
	return r;
}

static int check_objects(struct checking *c, unsigned percent, bool quiet)
{
	struct replica_name batch[LINK_BATCH];
	struct progress p;
	size_t i, n = 0;
	int r = 0;

	progress_start(&p, "reading", quiet);
	for (i = 0; i < c->count && r == 0; i++) {
		if (percent < 100 && randombytes_uniform(100) >= percent)
			continue;
		batch[n++] = c->chunks[i];
		if (n == LINK_BATCH) {
			r = check_batch(c, batch, n);
			n = 0;
		}
		progress_step(&p, i, c->count);
	}
	if (r == 0 && n)
		r = check_batch(c, batch, n);
	progress_end(&p);
	return r;
}

static int check_control(struct checking *c)
{
	struct replica_control control;
	struct replica_name *all;
	char text[REPLICA_NAME_SIZE], *data;
	size_t count, i, size;
	int r = survey_names(c->r, REPLICA_CONTROL, &all, &count), fd, one;

	for (i = 0; i < count && r == 0; i++) {
		r = link_fetch(&c->r->link, &all[i], 1);
		fd = r == 0 ? link_fetched(&c->r->link, &all[i]) : -1;
		one = fd < 0 ? -ENOENT : file_read_all(fd, 4096, &data, &size);
		if (fd >= 0)
			close(fd);
		replica_name_format(text, &all[i]);
		if (one == 0) {
			one = replica_control_parse(&control, text, data, size);
			free(data);
		}
		if (r == 0 && one < 0)
			tell_bad(c, &all[i], remote_trouble(one));
	}
	free(all);
	return r;
}

/* ---- the whole ---- */

static int check_all(struct checking *c, const struct survey_options *o)
{
	size_t i;
	int r = survey_names(c->r, REPLICA_CHUNKS, &c->chunks, &c->count);

	for (i = 0; i < c->count && r == 0; i++)
		r = replica_sent_note(&c->there, &c->chunks[i].chunk);
	if (r == 0)
		r = check_control(c);
	if (r == 0)
		r = survey_manifests(c->r, check_manifest, c);
	return r == 0 ? check_objects(c, o->percent, o->quiet) : r;
}

static int check(struct remote *r, const struct survey_options *o)
{
	struct checking *c = calloc(1, sizeof(*c));
	int error, status;

	if (!c)
		return fail(EXIT_FAILED, -ENOMEM, NULL, "cannot check");
	c->r = r;
	c->there.fd = -1;
	c->decompressor = ZSTD_createDCtx();
	c->plain = malloc(SNAPSHOT_CHUNK_SIZE);
	error = c->plain && c->decompressor ? check_all(c, o) : -ENOMEM;
	status = error < 0		? remote_fail(r, error, "cannot check the replica")
		 : c->bad || c->missing ? EXIT_FAILED
					: EXIT_DONE;
	if (error == 0 && (!o->quiet || status))
		printf(
		    "%s: %zu snapshots, %zu chunks, %zu of them read: %zu damaged, %zu missing\n",
		    r->link.target.text, r->count, c->count, c->read, c->bad, c->missing);
	ZSTD_freeDCtx(c->decompressor);
	replica_sent_close(&c->there);
	free(c->chunks);
	free(c->plain);
	free(c);
	return status;
}

int replica_command_check(int argc, char **argv)
{
	struct survey_options o;
	int status = survey_arguments(&o, "check", "FKSq", argc, argv);

	return status ? status : survey_each(&o, argv[optind], check);
}
