/* SPDX-License-Identifier: MIT
 *
 * `chromashim replica list`: which snapshots a replica has. With the key also what is in them, and
 * whether all that they need is there.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/command.h"
#include "command/base/terminal.h"
#include "command/replica/replica.h"
#include "command/replica/survey.h"
#include "core/base/json.h"

struct listing {
	struct remote *r;
	const struct survey_options *o;
	struct replica_sent there;
	struct json json;
	size_t missing; /* of the snapshot at hand */
	bool is_bad;
};

static int note_there(void *context, const struct replica_name *name, uint64_t size)
{
	struct listing *l = context;

	return size ? replica_sent_note(&l->there, &name->chunk) : 0;
}

static int count_missing(void *context, const struct replica_chunk_name *name)
{
	struct listing *l = context;

	l->missing += !replica_sent_has(&l->there, name);
	return 0;
}

static void list_json(struct listing *l, const struct replica_name *name, const char *state,
		      const struct manifest *m)
{
	char text[40];

	json_begin(&l->json, '{');
	json_put_text(&l->json, "replica", l->r->link.target.text);
	json_put_text(&l->json, "snapshot", remote_snapshot_text(l->r, name, text));
	json_put_uint(&l->json, "id", name->id);
	json_put_uint(&l->json, "epoch", name->epoch);
	json_put_text(&l->json, "time", format_time_utc(text, sizeof(text), name->time));
	json_put_text(&l->json, "state", state);
	json_key(&l->json, "size");
	if (m)
		json_uint(&l->json, manifest_total_size(m));
	else
		json_null(&l->json);
	json_key(&l->json, "records");
	if (m)
		json_uint(&l->json, manifest_records(m));
	else
		json_null(&l->json);
	json_end(&l->json, '}');
}

static void list_text(const struct listing *l, const struct replica_name *name, const char *state,
		      const struct manifest *m)
{
	char id[32], time[40], size[24] = "-", records[24] = "-";

	format_time(time, sizeof(time), name->time, l->o->utc);
	memmove(time + 19, l->o->utc ? "Z" : "", l->o->utc ? 2 : 1);
	if (m) {
		format_bytes(size, sizeof(size), manifest_total_size(m));
		snprintf(records, sizeof(records), "%" PRIu64, manifest_records(m));
	}
	printf("%8s  %-20s %10s %10s  %s\n", remote_snapshot_text(l->r, name, id), time, size,
	       records, state);
}

static int list_one(void *context, const struct replica_name *name, int error,
		    const struct manifest *m, const unsigned char names[REPLICA_KEY_SIZE])
{
	struct listing *l = context;
	char state[64] = "there";
	bool sealed = error == -ENOKEY && !l->r->is_sealed;

	l->missing = 0;
	if (error == 0)
		survey_chunks(name, m, names, count_missing, l);
	if (sealed)
		snprintf(state, sizeof(state), "sealed");
	else if (error < 0)
		snprintf(state, sizeof(state), "broken: %s", remote_trouble(error));
	else if (l->missing)
		snprintf(state, sizeof(state), "broken: %zu chunks are missing", l->missing);
	l->is_bad = l->is_bad || (error < 0 && !sealed) || l->missing;
	if (l->o->json)
		list_json(l, name, state, error == 0 ? m : NULL);
	else
		list_text(l, name, state, error == 0 ? m : NULL);
	return 0;
}

static int list(struct remote *r, const struct survey_options *o)
{
	struct listing l = {.r = r, .o = o, .there = {.fd = -1}, .json = {.out = stdout}};
	int error = link_list(&r->link, REPLICA_CHUNKS, note_there, &l);

	if (error == 0 && !o->json && !o->quiet)
		printf("%s%s\n%8s  %-20s %10s %10s  %s%s\n", terminal_colour(COLOUR_BOLD),
		       r->link.target.text, "ID", "TIME", "SIZE", "RECORDS", "STATE",
		       terminal_colour(COLOUR_PLAIN));
	if (error == 0 && o->json)
		json_begin(&l.json, '[');
	if (error == 0)
		error = survey_manifests(r, list_one, &l);
	if (o->json) {
		json_end(&l.json, ']');
		json_newline(&l.json);
	}
	replica_sent_close(&l.there);
	if (error < 0)
		return remote_fail(r, error, "cannot list the replica");
	return l.is_bad ? EXIT_WARNINGS : EXIT_DONE;
}

int replica_command_list(int argc, char **argv)
{
	struct survey_options o;
	int status = survey_arguments(&o, "list", "FKjuq", argc, argv);

	return status ? status : survey_each(&o, argv[optind], list);
}
