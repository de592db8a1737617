/* SPDX-License-Identifier: MIT
 *
 * `chromashim snapshot prune`: snapshots that no rule keeps are removed, and chunks with them.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "command/base/snapshots.h"
#include "command/base/terminal.h"
#include "core/base/clock.h"
#include "core/base/json.h"
#include "core/base/tree.h"
#include "core/settings/config.h"
#include "core/snapshot/retention.h"

struct prune {
	struct snapshots *s;
	struct snapshot_flags flags;
	struct prune_rules rules;
	bool is_short;
	struct retention_item *items;
	bool *gone;
	uint64_t *used;
};

/* ---- deciding ---- */

static void apply_rules(struct prune *p)
{
	size_t i;

	p->rules.policy.now = clock_read(CLOCK_REALTIME);
	for (i = 0; i < p->s->count; i++) {
		const struct manifest *m = &p->s->list[i];

		p->items[i] = (struct retention_item){
		    .time = m->header.time,
		    .held = m->tag_count > 0,
		    .verified = m->header.state == SNAPSHOT_VERIFIED,
		    .broken = m->header.state == SNAPSHOT_BROKEN,
		    .by_hand = !strcmp(m->reason, "manual"),
		};
	}
	retention_apply(&p->rules.policy, p->items, p->s->count);
	for (i = 0; i < p->s->count; i++)
		p->gone[i] = p->items[i].reasons == 0;
}

static bool exceeds(const struct prune *p, uint64_t before, uint64_t after)
{
	uint64_t room = tree_room(p->s->data.storefd), freed = before - after;

	if (p->rules.max_space && after > p->rules.max_space)
		return true;
	return p->rules.min_free && room != UINT64_MAX && room + freed < p->rules.min_free;
}

/* The oldest go until the limits are kept; what is held or the last verified one stays. */
static int apply_limits(struct prune *p)
{
	uint64_t before, after;
	size_t i;
	int r;

	if (!p->rules.max_space && !p->rules.min_free)
		return 0;
	r = snapshot_sizes(&p->s->store, p->s->list, p->s->count, NULL, p->used, &before);
	for (i = 0; r == 0;) {
		r = snapshot_sizes(&p->s->store, p->s->list, p->s->count, p->gone, p->used, &after);
		if (r < 0 || !exceeds(p, before, after))
			break;
		while (i < p->s->count &&
		       (p->gone[i] ||
			p->items[i].reasons & (RETENTION_HELD | RETENTION_LAST_VERIFIED)))
			i++;
		if (i == p->s->count) {
			p->is_short = true;
			break;
		}
		p->gone[i] = true;
	}
	return r;
}

/* ---- doing ---- */

static void join_reasons(char *out, size_t room, unsigned reasons)
{
	size_t n = 0;

	out[0] = '\0';
	for (; reasons && n < room; reasons &= reasons - 1)
		n += (size_t)snprintf(out + n, room - n, "%s%s", n ? ", " : "",
				      retention_reason(reasons));
}

static void print_plan(const struct prune *p)
{
	char reasons[160], time[40];
	size_t i;

	for (i = 0; i < p->s->count; i++) {
		const struct manifest *m = &p->s->list[i];

		format_time(time, sizeof(time), m->header.time, p->flags.utc);
		join_reasons(reasons, sizeof(reasons), p->items[i].reasons);
		if (p->gone[i])
			printf("remove %4" PRIu64 "  %s  %s\n", m->header.id, time,
			       p->items[i].reasons ? "the limit on space" : "no rule keeps it");
		else if (p->flags.verbose)
			printf("keep   %4" PRIu64 "  %s  %s\n", m->header.id, time, reasons);
	}
}

static void json_plan(const struct prune *p, uint64_t freed)
{
	struct json j = {.out = stdout};
	size_t i;

	json_begin(&j, '{');
	json_key(&j, "schema_version");
	json_uint(&j, SCHEMA_VERSION);
	json_key(&j, "dry_run");
	json_bool(&j, p->flags.dry);
	json_key(&j, "freed");
	json_uint(&j, freed);
	json_key(&j, "snapshots");
	json_begin(&j, '[');
	for (i = 0; i < p->s->count; i++) {
		unsigned reasons = p->items[i].reasons;

		json_begin(&j, '{');
		json_key(&j, "id");
		json_uint(&j, p->s->list[i].header.id);
		json_key(&j, "removed");
		json_bool(&j, p->gone[i]);
		json_key(&j, "reasons");
		json_begin(&j, '[');
		for (; reasons && !p->gone[i]; reasons &= reasons - 1)
			json_string(&j, retention_reason(reasons));
		json_end(&j, ']');
		json_end(&j, '}');
	}
	json_end(&j, ']');
	json_end(&j, '}');
	json_newline(&j);
}

static int remove_gone(struct prune *p, uint64_t *freed_out)
{
	size_t i;
	int r = 0;

	for (i = 0; i < p->s->count && r == 0; i++)
		if (p->gone[i])
			r = snapshots_remove(p->s, i);
	return r == 0 ? snapshot_collect(&p->s->store, false, freed_out) : r;
}

static int prune(struct prune *p)
{
	uint64_t before = 0, after = 0, freed = 0;
	size_t i, count = 0;
	char text[24];
	int r, status = 0;

	apply_rules(p);
	r = apply_limits(p);
	if (p->is_short)
		warn("the limit on space is not reached: what is left is held, or the last "
		     "verified one");
	for (i = 0; i < p->s->count; i++)
		count += p->gone[i];
	if (r == 0 && p->flags.dry) {
		r = snapshot_sizes(&p->s->store, p->s->list, p->s->count, NULL, p->used, &before);
		if (r == 0)
			r = snapshot_sizes(&p->s->store, p->s->list, p->s->count, p->gone, p->used,
					   &after);
		freed = before - after;
	}
	if (!p->flags.json && !p->flags.quiet)
		print_plan(p);
	if (r == 0 && !p->flags.dry) {
		status = count
			     ? snapshots_confirm(&p->flags, "Remove %zu snapshots for good?", count)
			     : 0;
		if (status)
			return status;
		r = remove_gone(p, &freed);
	}
	if (r == -EBADMSG) {
		warn("chunks are left as they are, since a manifest cannot be read; delete that "
		     "snapshot first");
		status = EXIT_WARNINGS;
	} else if (r < 0) {
		return fail(exit_code_of(r), r, "Run this as the store's owner.",
			    "cannot prune '%s'", p->s->data.store);
	}
	if (p->flags.json)
		json_plan(p, freed);
	else if (!p->flags.quiet)
		printf("%s %zu of %zu snapshots, %s\n", p->flags.dry ? "would remove" : "removed",
		       count, p->s->count, format_bytes(text, sizeof(text), freed));
	return status;
}

static bool allocate(struct prune *p)
{
	p->items = calloc(p->s->count + 1, sizeof(*p->items));
	p->gone = calloc(p->s->count + 1, sizeof(*p->gone));
	p->used = calloc(p->s->count + 1, sizeof(*p->used));
	return p->items && p->gone && p->used;
}

static void release(struct prune *p)
{
	free(p->items);
	free(p->gone);
	free(p->used);
}

static bool has_rule(const struct prune_rules *rules)
{
	return retention_has_rule(&rules->policy) || rules->max_space || rules->min_free;
}

int snapshots_prune(struct snapshots *s, const struct prune_rules *rules, struct prune_result *out)
{
	struct prune p = {.s = s, .rules = *rules};
	size_t i;
	int r = allocate(&p) ? 0 : -ENOMEM;

	p.rules.policy.unasked = true;
	*out = (struct prune_result){0};
	if (r == 0 && has_rule(rules)) {
		apply_rules(&p);
		r = apply_limits(&p);
		for (i = 0; i < s->count; i++)
			out->removed += p.gone[i];
		out->is_short = p.is_short;
		if (r == 0 && out->removed)
			r = snapshot_store_claim(&s->store);
		if (r == 0 && out->removed)
			r = remove_gone(&p, &out->freed);
		else
			out->removed = 0;
	}
	release(&p);
	return r;
}

/* ---- options ---- */

static bool parse_count(const char *text, int64_t *out)
{
	char *end;
	long value;

	errno = 0;
	value = strtol(text, &end, 10);
	if (!strcmp(text, "unlimited"))
		value = RETENTION_ALL;
	else if (end == text || text[strspn(text, "0123456789")] || *end || errno || value < 0)
		return false;
	*out = value;
	return true;
}

enum { KEEP = 256, WITHIN = KEEP + RETENTION_RULES, SPACE, FREE, JSON, UTC };

static int take_option(struct prune *p, int option, const char *value)
{
	bool good = true;

	switch (option) {
	case WITHIN:
		good =
		    config_read_span(value, &p->rules.policy.within) && p->rules.policy.within > 0;
		break;
	case SPACE:
		good = config_read_size(value, &p->rules.max_space) && p->rules.max_space > 0;
		break;
	case FREE:
		good = config_read_size(value, &p->rules.min_free) && p->rules.min_free > 0;
		break;
	case JSON:
		p->flags.json = true;
		break;
	case UTC:
		p->flags.utc = true;
		break;
	case 'n':
		p->flags.dry = true;
		break;
	case 'y':
		p->flags.yes = true;
		break;
	case 'q':
		p->flags.quiet = true;
		break;
	case 'v':
		p->flags.verbose++;
		break;
	case '?':
		return fail_usage("snapshot");
	default:
		good = parse_count(value, &p->rules.policy.count[option - KEEP]);
		break;
	}
	if (good)
		return 0;
	warn("'%s' is no %s", value,
	     option == WITHIN			 ? "age as 7d or 36h"
	     : option == SPACE || option == FREE ? "size as 512M or 10G"
						 : "count");
	return fail_usage("snapshot");
}

int snapshot_command_prune(int argc, char **argv)
{
	static const struct option options[] = {
	    {"keep-last", required_argument, NULL, KEEP + RETENTION_LAST},
	    {"keep-hourly", required_argument, NULL, KEEP + RETENTION_HOURLY},
	    {"keep-daily", required_argument, NULL, KEEP + RETENTION_DAILY},
	    {"keep-weekly", required_argument, NULL, KEEP + RETENTION_WEEKLY},
	    {"keep-monthly", required_argument, NULL, KEEP + RETENTION_MONTHLY},
	    {"keep-yearly", required_argument, NULL, KEEP + RETENTION_YEARLY},
	    {"keep-within", required_argument, NULL, WITHIN},
	    {"max-space", required_argument, NULL, SPACE},
	    {"min-free", required_argument, NULL, FREE},
	    {"json", no_argument, NULL, JSON},
	    {"utc", no_argument, NULL, UTC},
	    {"dry-run", no_argument, NULL, 'n'},
	    {"yes", no_argument, NULL, 'y'},
	    {"quiet", no_argument, NULL, 'q'},
	    {"verbose", no_argument, NULL, 'v'},
	    {NULL, 0, NULL, 0}};
	struct snapshots snapshots;
	struct prune p = {.s = &snapshots};
	int option, status = 0;

	while (status == 0 && (option = getopt_long(argc, argv, "nyqv", options, NULL)) != -1)
		status = take_option(&p, option, optarg);
	if (status)
		return status;
	if (argc - optind > 1 || !has_rule(&p.rules)) {
		warn(argc - optind > 1 ? "snapshot prune takes one directory"
				       : "snapshot prune needs a rule: --keep-…, --max-space or "
					 "--min-free");
		return fail_usage("snapshot");
	}
	status = snapshots_open(&snapshots, argv[optind], SNAPSHOT_CHANGE, false);
	if (status)
		return status;
	status = allocate(&p) ? prune(&p)
			      : fail(EXIT_FAILED, ENOMEM, "Try again with more memory free.",
				     "cannot prune '%s'", snapshots.data.store);
	release(&p);
	snapshots_close(&snapshots);
	return status;
}
