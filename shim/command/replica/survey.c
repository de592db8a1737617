/* SPDX-License-Identifier: MIT
 *
 * Going through a replica, or through all that a directory has.
 */
#include "command/replica/survey.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command/base/guard_settings.h"

#define MANIFESTS 16u /* on the way at once */

/* ---- manifests ---- */

int survey_manifests(struct remote *r, survey_manifest_fn *fn, void *context)
{
	unsigned char names[REPLICA_KEY_SIZE];
	struct manifest m;
	size_t at, i, n;
	int error = 0, one;

	for (at = 0; at < r->count && error >= 0; at += n) {
		n = r->count - at < MANIFESTS ? r->count - at : MANIFESTS;
		error = link_fetch(&r->link, r->snapshots + at, n);
		for (i = at; i < at + n && error >= 0; i++) {
			one = remote_manifest_fetched(r, &r->snapshots[i], &r->snapshots[i], &m,
						      names);
			if (one < 0) {
				manifest_free(&m);
				memset(names, 0, sizeof(names));
			}
			error = fn(context, &r->snapshots[i], one, &m, names);
			manifest_free(&m);
		}
	}
	link_clear(&r->link);
	return error;
}

int survey_chunks(const struct replica_name *name, const struct manifest *m,
		  const unsigned char names[REPLICA_KEY_SIZE], survey_chunk_fn *fn, void *context)
{
	struct replica_chunk_name chunk;
	char text[REPLICA_NAME_SIZE];
	uint64_t i;
	uint32_t f;
	int r;

	replica_name_format(text, name);
	replica_chunk_name_of(names, text, strlen(text), &chunk);
	r = fn(context, &chunk);
	for (f = 0; f < m->file_count; f++)
		for (i = 0; i < manifest_chunk_count(m->files[f].size) && r >= 0; i++) {
			if (chunk_is_zero(&m->files[f].chunks[i]))
				continue;
			replica_chunk_name_of(names, &m->files[f].chunks[i],
					      sizeof(m->files[f].chunks[i]), &chunk);
			r = fn(context, &chunk);
		}
	return r;
}

/* ---- names ---- */

struct gathering {
	struct replica_name *all;
	size_t count, room;
};

static int gather(void *context, const struct replica_name *name, uint64_t size)
{
	struct gathering *g = context;
	struct replica_name *more;

	(void)size;
	if (g->count == g->room) {
		g->room = g->room ? 2 * g->room : 1024;
		more = reallocarray(g->all, g->room, sizeof(*more));
		if (!more)
			return -ENOMEM;
		g->all = more;
	}
	g->all[g->count++] = *name;
	return 0;
}

int survey_names(struct remote *r, enum replica_folder folder, struct replica_name **out,
		 size_t *count_out)
{
	struct gathering g = {NULL, 0, 0};
	int error = link_list(&r->link, folder, gather, &g);

	if (error < 0) {
		free(g.all);
		g = (struct gathering){NULL, 0, 0};
	}
	*out = g.all;
	*count_out = g.count;
	return error;
}

/* ---- options ---- */

static bool read_percent(const char *text, unsigned *out)
{
	return config_read_percent(text, out) && *out > 0;
}

int survey_arguments(struct survey_options *o, const char *verb, const char *wanted, int argc,
		     char **argv)
{
	static const struct option options[] = {{"from", required_argument, NULL, 'F'},
						{"key", required_argument, NULL, 'K'},
						{"keep", required_argument, NULL, 'R'},
						{"read-data-subset", required_argument, NULL, 'S'},
						{"json", no_argument, NULL, 'j'},
						{"utc", no_argument, NULL, 'u'},
						{"dry-run", no_argument, NULL, 'n'},
						{"yes", no_argument, NULL, 'y'},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	int option;

	*o = (struct survey_options){.percent = 100};
	while ((option = getopt_long(argc, argv, "nyq", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("replica");
		if (!strchr(wanted, option)) {
			warn("that is no option of replica %s", verb);
			return fail_usage("replica");
		}
		o->from = option == 'F' ? optarg : o->from;
		o->key = option == 'K' ? optarg : o->key;
		o->keep = option == 'R' ? optarg : o->keep;
		o->json = o->json || option == 'j';
		o->utc = o->utc || option == 'u';
		o->dry = o->dry || option == 'n';
		o->yes = o->yes || option == 'y';
		o->quiet = o->quiet || option == 'q';
		if (option == 'S' && !read_percent(optarg, &o->percent)) {
			warn("'%s' is no share such as 5%%", optarg);
			return fail_usage("replica");
		}
	}
	if (argc - optind <= 1 && (!o->from || argc == optind))
		return 0;
	warn(o->from ? "replica %s takes --from or a directory, not both"
		     : "replica %s takes one directory",
	     verb);
	return fail_usage("replica");
}

/* ---- which replicas ---- */

static int survey_one(const struct survey_options *o, const char *target, const char *ssh_config,
		      survey_verb_fn *fn)
{
	struct remote r;
	int status = remote_open(&r, target, o->key, ssh_config);

	if (status)
		return status;
	status = fn(&r, o);
	remote_close(&r);
	return status;
}

int survey_each(const struct survey_options *o, const char *dir, survey_verb_fn *fn)
{
	struct guard_settings settings;
	struct replica_targets targets;
	struct data_directory t;
	int status, worst = EXIT_DONE;
	unsigned i;

	if (o->from)
		return survey_one(o, o->from, NULL, fn);
	status = data_directory_open(&t, dir, true);
	if (status)
		return status;
	guard_settings_read(&settings, t.storefd);
	if (replica_targets_parse(&targets, config_get(&settings.config, CONFIG_REPLICA), NULL) <
		0 ||
	    !targets.count)
		worst = fail(EXIT_USAGE, 0, "Give one with --from, or set CHROMASHIM_REPLICA.",
			     "'%s' has no replica", t.dir);
	for (i = 0; i < targets.count; i++) {
		const char *ssh = config_get(&settings.config, CONFIG_REPLICA_SSH_CONFIG);

		status = survey_one(o, targets.all[i].text, *ssh ? ssh : NULL, fn);
		worst = status ? status : worst;
	}
	guard_settings_free(&settings);
	data_directory_close(&t);
	return worst;
}
