/* SPDX-License-Identifier: MIT
 *
 * `chromashim replica prune`: snapshots that no rule keeps go, and then what no snapshot needs. It
 * is run by somebody who may remove there, and marks its begin and its end for those who send.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "command/base/guard_settings.h"
#include "command/base/terminal.h"
#include "command/replica/replica.h"
#include "command/replica/survey.h"
#include "core/base/clock.h"

struct pruning {
	struct remote *r;
	const struct survey_options *o;
	struct retention_policy policy;
	struct retention_item *items;
	struct replica_name *gone; /* snapshots, then chunks */
	size_t gone_snapshots, gone_marks, gone_chunks;
	struct replica_sent needed, there;
	size_t missing; /* of the snapshot at hand */
	int error;	/* of a manifest that cannot be read */
};

/* ---- deciding ---- */

static bool is_gone(const struct pruning *p, const struct replica_name *name)
{
	size_t i;

	for (i = 0; i < p->gone_snapshots; i++)
		if (replica_name_compare(&p->gone[i], name) == 0)
			return true;
	return false;
}

static int note_there(void *context, const struct replica_name *name, uint64_t size)
{
	struct pruning *p = context;

	return size ? replica_sent_note(&p->there, &name->chunk) : 0;
}

static int count_missing(void *context, const struct replica_chunk_name *name)
{
	struct pruning *p = context;

	p->missing += !replica_sent_has(&p->there, name);
	return 0;
}

/* What is not whole takes the place of none that is. Without the key that is not known. */
static int judge(void *context, const struct replica_name *name, int error,
		 const struct manifest *m, const unsigned char names[REPLICA_KEY_SIZE])
{
	struct pruning *p = context;
	struct retention_item *item = &p->items[name - p->r->snapshots];
	const struct replica_name *hold = remote_hold(p->r, name);

	p->missing = 0;
	if (error == 0)
		survey_chunks(name, m, names, count_missing, p);
	*item = (struct retention_item){
	    .time = name->time,
	    .held = hold ? hold->mark == REPLICA_HELD : m->tag_count > 0,
	    .verified =
		m->header.state == SNAPSHOT_VERIFIED || remote_is_marked_verified(p->r, name),
	    .broken = (error < 0 && error != -ENOKEY) || p->missing,
	};
	item->verified = item->verified && !item->broken;
	return 0;
}

static int judge_all(struct pruning *p)
{
	int r = link_list(&p->r->link, REPLICA_CHUNKS, note_there, p);

	return r == 0 ? survey_manifests(p->r, judge, p) : r;
}

/* Marks of what goes, or is gone. */
static void choose_marks(struct pruning *p)
{
	const struct remote *r = p->r;
	size_t i, k;

	for (i = 0; i < r->mark_count; i++) {
		for (k = 0; k < r->count; k++)
			if (replica_name_compare(&r->marks[i], &r->snapshots[k]) == 0)
				break;
		if (k == r->count || is_gone(p, &r->snapshots[k]))
			p->gone[p->gone_snapshots + p->gone_marks++] = r->marks[i];
	}
}

/* By the clock, whoever sent them: the rules speak of days. */
static int compare_items(const void *a, const void *b, void *items)
{
	const struct retention_item *all = items;
	uint64_t x = all[*(const size_t *)a].time, y = all[*(const size_t *)b].time;

	return x < y ? -1 : x > y;
}

static int choose_snapshots(struct pruning *p)
{
	struct remote *r = p->r;
	struct retention_item *sorted = calloc(r->count + 1, sizeof(*sorted));
	size_t *order = calloc(r->count + 1, sizeof(*order)), i;
	int error = sorted && order ? judge_all(p) : -ENOMEM;

	for (i = 0; i < r->count && error == 0; i++)
		order[i] = i;
	if (error == 0)
		qsort_r(order, r->count, sizeof(*order), compare_items, p->items);
	for (i = 0; i < r->count && error == 0; i++)
		sorted[i] = p->items[order[i]];
	p->policy.now = clock_read(CLOCK_REALTIME);
	if (error == 0)
		retention_apply(&p->policy, sorted, r->count);
	for (i = 0; i < r->count && error == 0; i++)
		/* The newest stays whatever the rules say. */
		if (!sorted[i].reasons && order[i] != r->count - 1)
			p->gone[p->gone_snapshots++] = r->snapshots[order[i]];
	free(sorted);
	free(order);
	if (error == 0)
		choose_marks(p);
	return error;
}

static int need(void *context, const struct replica_chunk_name *name)
{
	struct pruning *p = context;

	return replica_sent_note(&p->needed, name);
}

static int need_manifest(void *context, const struct replica_name *name, int error,
			 const struct manifest *m, const unsigned char names[REPLICA_KEY_SIZE])
{
	struct pruning *p = context;
	char text[32];

	if (is_gone(p, name))
		return 0;
	if (error < 0 && !p->error)
		warn("snapshot %s cannot be read: %s", remote_snapshot_text(p->r, name, text),
		     remote_trouble(error));
	p->error = error < 0 ? error : p->error;
	return error < 0 ? 0 : survey_chunks(name, m, names, need, p);
}

/* After the mark: what has come meanwhile is needed as well. */
static int choose_chunks(struct pruning *p)
{
	struct replica_name *all, *more;
	size_t count, before, i;
	int r = remote_look_at_snapshots(p->r);

	if (r == 0)
		r = survey_manifests(p->r, need_manifest, p);
	if (r < 0 || p->error)
		return r;
	r = survey_names(p->r, REPLICA_CHUNKS, &all, &count);
	before = p->gone_snapshots + p->gone_marks;
	more = r == 0 ? reallocarray(p->gone, before + count + 1, sizeof(*more)) : NULL;
	if (r == 0 && !more)
		r = -ENOMEM;
	p->gone = more ? more : p->gone;
	for (i = 0; i < count && r == 0; i++)
		if (!replica_sent_has(&p->needed, &all[i].chunk))
			p->gone[before + p->gone_chunks++] = all[i];
	free(all);
	return r;
}

/* ---- doing ---- */

static int mark(struct pruning *p, struct replica_name *name, enum replica_mark which)
{
	name->mark = which;
	return remote_put_control(p->r, name, NULL);
}

static int remove_all(struct pruning *p)
{
	size_t at, n, count = p->gone_snapshots + p->gone_marks + p->gone_chunks;
	int r = 0;

	for (at = 0; at < count && r == 0; at += n) {
		n = count - at < LINK_BATCH ? count - at : LINK_BATCH;
		/* No snapshot outlives what it needs. */
		if (at < p->gone_snapshots && at + n > p->gone_snapshots)
			n = p->gone_snapshots - at;
		r = link_remove(&p->r->link, p->gone + at, n);
	}
	return r;
}

static void tell(const struct pruning *p)
{
	char id[32], time[40];
	size_t i;

	for (i = 0; i < p->gone_snapshots && !p->o->quiet; i++)
		printf("remove %8s  %s\n", remote_snapshot_text(p->r, &p->gone[i], id),
		       format_time(time, sizeof(time), p->gone[i].time, p->o->utc));
}

static int prune(struct pruning *p)
{
	struct replica_name name = {
	    .folder = REPLICA_CONTROL, .epoch = p->r->prune + 1, .line = randombytes_random()};
	struct replica_link *l = &p->r->link;
	char why[sizeof(l->error)];
	int r = mark(p, &name, REPLICA_PRUNE), ended;

	if (r < 0)
		return r;
	r = choose_chunks(p);
	if (r == 0 && !p->error)
		r = remove_all(p);
	memcpy(why, l->error, sizeof(why));
	/* Also where nothing was removed, or not all: who sends waits for it. */
	ended = mark(p, &name, REPLICA_PRUNED);
	if (r < 0)
		memcpy(l->error, why, sizeof(why));
	return r < 0 ? r : ended;
}

static int ask(struct pruning *p)
{
	struct snapshot_flags flags = {.yes = p->o->yes, .quiet = p->o->quiet};

	return snapshots_confirm(&flags, "Remove %zu snapshots from '%s' for good?",
				 p->gone_snapshots, p->r->link.target.text);
}

static int prune_replica(struct remote *r, const struct survey_options *o)
{
	struct pruning p = {.r = r, .o = o, .needed = {.fd = -1}, .there = {.fd = -1}};
	size_t before = r->count;
	int error, status = EXIT_DONE;

	guard_settings_parse_keep(&p.policy, o->keep);
	p.items = calloc(r->count + 1, sizeof(*p.items));
	p.gone = calloc(r->count + r->mark_count + 1, sizeof(*p.gone));
	error = p.items && p.gone ? choose_snapshots(&p) : -ENOMEM;
	if (error == 0)
		tell(&p);
	if (error == 0 && !o->dry && p.gone_snapshots)
		status = ask(&p);
	if (error == 0 && !o->dry && status == EXIT_DONE)
		error = prune(&p);
	if (error < 0)
		status = remote_fail(r, error, "cannot prune the replica");
	else if (p.error)
		status =
		    fail(EXIT_FAILED, 0, "Give its key with --key, or remove that snapshot first.",
			 "nothing is removed from '%s': what a snapshot needs is not known",
			 r->link.target.text);
	else if (status == EXIT_DONE && !o->quiet)
		printf("%s: %s %zu of %zu snapshots, %zu chunks\n", r->link.target.text,
		       o->dry ? "would remove" : "removed", p.gone_snapshots, before,
		       p.gone_chunks);
	replica_sent_close(&p.needed);
	replica_sent_close(&p.there);
	free(p.items);
	free(p.gone);
	return status;
}

int replica_command_prune(int argc, char **argv)
{
	struct retention_policy policy;
	struct survey_options o;
	int status = survey_arguments(&o, "prune", "FKRunyq", argc, argv);

	if (status)
		return status;
	if (!o.keep || !guard_settings_parse_keep(&policy, o.keep) ||
	    !retention_has_rule(&policy)) {
		warn("replica prune needs rules: --keep='last=3 daily=7'");
		return fail_usage("replica");
	}
	return survey_each(&o, argv[optind], prune_replica);
}
