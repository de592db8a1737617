/* SPDX-License-Identifier: MIT
 *
 * `chromashim replica rebuild`: where a list was lost. On the machine that sends, what it remembers
 * of the replica is made anew, and what is missing there is sent again. With --from and the key, on
 * any machine, the list of snapshots in the replica comes back from the second copies of manifests
 * among the chunks.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "command/base/command.h"
#include "command/base/snapshots.h"
#include "command/replica/replica.h"
#include "command/replica/survey.h"

struct rebuilding {
	struct remote *r;
	const struct survey_options *o;
	struct replica_name *good; /* snapshots whose manifest can be read */
	size_t good_count;
	size_t put;
};

static int note_good(void *context, const struct replica_name *name, int error,
		     const struct manifest *m, const unsigned char names[REPLICA_KEY_SIZE])
{
	struct rebuilding *b = context;

	(void)m;
	(void)names;
	if (error == 0)
		b->good[b->good_count++] = *name;
	return 0;
}

static bool is_among(const struct replica_name *all, size_t count, const struct replica_name *name)
{
	size_t i;

	for (i = 0; i < count; i++)
		if (replica_name_compare(&all[i], name) == 0)
			return true;
	return false;
}

/* Where one is that cannot be read, it goes first. */
static int put_manifest(struct rebuilding *b, const struct replica_name *name, struct manifest *m,
			const unsigned char names[REPLICA_KEY_SIZE])
{
	struct remote *r = b->r;
	int error = 0;

	b->put++;
	printf("%s snapshot %" PRIu32 "-%" PRIu64 "\n", b->o->dry ? "would put back" : "put back",
	       name->epoch, name->id);
	if (b->o->dry)
		return 0;
	if (is_among(r->snapshots, r->count, name))
		error = link_remove(&r->link, name, 1);
	link_clear(&r->link);
	if (error == 0)
		error = remote_stage_manifest(r, name, name, m, names) < 0 ? -EIO : 0;
	return error < 0 ? error : link_send(&r->link, name, 1);
}

struct found {
	struct replica_name name;
	struct manifest m;
	unsigned char names[REPLICA_KEY_SIZE];
};

/* Those of a batch are kept until all of it has been read: what is put back needs the same room. */
static int look_at_batch(struct rebuilding *b, const struct replica_name *batch, size_t n)
{
	struct found found[LINK_BATCH];
	size_t i, count = 0;
	int error = link_fetch(&b->r->link, batch, n);

	for (i = 0; i < n && error == 0; i++) {
		struct found *f = &found[count];

		if (remote_manifest_named(b->r, &batch[i], &f->name, &f->m, f->names) == 0 &&
		    !is_among(b->good, b->good_count, &f->name))
			count++;
		else
			manifest_free(&f->m);
	}
	for (i = 0; i < count; i++) {
		if (error == 0)
			error = put_manifest(b, &found[i].name, &found[i].m, found[i].names);
		manifest_free(&found[i].m);
	}
	return error;
}

static int rebuild_list(struct rebuilding *b)
{
	struct replica_name *chunks = NULL;
	size_t count = 0, at, n;
	int error;

	b->good = calloc(b->r->count + 1, sizeof(*b->good));
	error = b->good ? survey_manifests(b->r, note_good, b) : -ENOMEM;
	if (error == 0)
		error = survey_names(b->r, REPLICA_CHUNKS, &chunks, &count);
	for (at = 0; at < count && error == 0; at += n) {
		n = count - at < LINK_BATCH ? count - at : LINK_BATCH;
		error = look_at_batch(b, chunks + at, n);
	}
	free(chunks);
	free(b->good);
	return error;
}

static int rebuild(struct remote *r, const struct survey_options *o)
{
	struct rebuilding b = {.r = r, .o = o};
	int error = rebuild_list(&b);

	if (error < 0)
		return remote_fail(r, error, "cannot rebuild the replica");
	if (!o->quiet)
		printf("%s: %zu snapshots %s\n", r->link.target.text, b.put,
		       o->dry ? "would be put back" : "put back");
	return EXIT_DONE;
}

int replica_command_rebuild(int argc, char **argv)
{
	struct survey_options o;
	int status = survey_arguments(&o, "rebuild", "FKnq", argc, argv);

	if (status)
		return status;
	if (o.from)
		return survey_each(&o, NULL, rebuild);
	if (o.key || o.dry) {
		warn("replica rebuild takes --key and --dry-run with --from only");
		return fail_usage("replica");
	}
	return replica_on_directory(argv[optind], replica_resend, o.quiet);
}
