/* SPDX-License-Identifier: MIT
 *
 * `chromashim drill`: the verb.
 */
#include "command/drill/drill.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <bsd/string.h>

#include "command/base/terminal.h"
#include "command/base/guard_settings.h"
#include "core/base/json.h"
#include "core/replica/target.h"

const char drill_usage[] =
    "Usage: chromashim drill [OPTION]... [DIR]\n"
    "\n"
    "Tries whether a snapshot is what one would want back: any one is restored to a scratch\n"
    "place, checked as `check --full` does, opened by the Chroma that the backend uses, which is\n"
    "asked for some records of each collection, compared, timed, and removed; and every chunk of\n"
    "all snapshots is read. The backend may run on. The guardian does the same every\n"
    "CHROMASHIM_DRILL (7d). What came of it stands in `status`; a failure is the event\n"
    "drill.failed, and snapshots that need a damaged chunk are no longer called verified. DIR is\n"
    "CHROMASHIM_DIR or ./chroma_data if not given.\n"
    "\n"
    "      --snapshot=ID    this one (a number, latest, @10m, a time)\n"
    "      --from=REPLICA   the newest, or --snapshot, of a replica\n"
    "      --key=FILE       the replica's secret key; else CHROMASHIM_REPLICA_KEY\n"
    "      --replicas       one from each replica as well that can be read here: a plain one, or\n"
    "                       with the key\n"
    "      --chroma=PYTHON  the Python, or virtual environment, whose Chroma opens it; else that\n"
    "                       of the backend which ran here last, if it was this user's\n"
    "      --scratch=OUT    restore it in this directory; else in the store, if that leaves its\n"
    "                       disk as free as it should be, or in $TMPDIR, /var/tmp or /tmp on\n"
    "                       another disk\n"
    "      --json           one JSON object\n"
    "  -q, --quiet          say only what goes wrong\n"
    "\n"
    "Exit status: 0 all is good, 1 it failed, 2 usage, 3 it could not be tried (no room, no\n"
    "snapshot), or no Chroma was there to open it, 10 no store, 11 busy, 12 no such snapshot.\n";

/* ---- telling ---- */

static void print_json(const struct data_directory *t, const struct drill_note *n)
{
	static const char *const outcomes[] = {"none", "good", "failed", "skipped"};
	struct json j = {.out = stdout};
	char time[40];

	json_begin(&j, '{');
	json_put_uint(&j, "schema_version", SCHEMA_VERSION);
	json_put_text(&j, "directory", t->dir);
	json_put_text(&j, "outcome", outcomes[n->outcome & 3]);
	json_put_uint(&j, "snapshot", n->snapshot);
	json_put_text(&j, "snapshot_time",
		      n->snapshot_time ? format_time_utc(time, sizeof(time), n->snapshot_time)
				       : NULL);
	json_put_uint(&j, "bytes", n->bytes);
	json_put_uint(&j, "records", n->records);
	json_put_uint(&j, "restore_ns", n->restore_ns);
	json_put_uint(&j, "check_ns", n->check_ns);
	json_put_uint(&j, "open_ns", n->open_ns);
	json_put_uint(&j, "read_ns", n->read_ns);
	json_put_uint(&j, "chunks", n->chunks);
	json_put_uint(&j, "damaged_chunks", n->damaged);
	json_put_text(&j, "chroma", n->chroma);
	json_put_uint(&j, "compared", n->compared);
	json_put_text(&j, "trouble", n->trouble);
	json_end(&j, '}');
	json_newline(&j);
}

static void print_text(const struct drill_note *n)
{
	char size[24], restore[24], check[24], open[24], read[24], time[40];

	if (n->outcome == DRILL_SKIPPED) {
		warn("no drill: %s", n->trouble);
		return;
	}
	printf("snapshot %" PRIu64 " of %.19s: %s of %" PRIu64 " records restored in %s",
	       n->snapshot, format_time(time, sizeof(time), n->snapshot_time, false),
	       format_bytes(size, sizeof(size), n->bytes), n->records,
	       format_duration(restore, sizeof(restore), n->restore_ns));
	if (n->check_ns)
		printf(", checked in %s", format_duration(check, sizeof(check), n->check_ns));
	if (n->chroma[0])
		printf(", opened by Chroma %s and %" PRIu64 " records compared in %s", n->chroma,
		       n->compared, format_duration(open, sizeof(open), n->open_ns));
	if (n->chunks)
		printf("; %" PRIu64 " chunks of all snapshots read in %s", n->chunks,
		       format_duration(read, sizeof(read), n->read_ns));
	putchar('\n');
	if (n->outcome == DRILL_FAILED)
		warn("the drill failed: %s\n  `chromashim snapshot list` says which snapshots are "
		     "good.",
		     n->trouble);
	else if (n->trouble[0])
		warn("%s", n->trouble);
	else
		puts("all is good, and removed again");
}

/* ---- the verb ---- */

struct drilling {
	struct drill_options options;
	struct engine engine;
	const char *chroma;
	bool json, replicas;
};

/* A Python, or a directory with bin/python in it. */
static int take_chroma(struct drilling *x)
{
	struct stat st;
	size_t n;

	if (strlcpy(x->engine.python, x->chroma, sizeof(x->engine.python)) >=
	    sizeof(x->engine.python))
		return fail(EXIT_USAGE, 0, "Give a shorter path.",
			    "the path of --chroma is too long");
	n = strlen(x->engine.python);
	if (stat(x->chroma, &st) == 0 && S_ISDIR(st.st_mode))
		snprintf(x->engine.python + n, sizeof(x->engine.python) - n, "/bin/python");
	x->options.engine = &x->engine;
	return 0;
}

static int one_drill(struct drilling *x, const char *dir)
{
	struct drill_note note;
	struct snapshots s;
	int status = snapshots_open(&s, dir, SNAPSHOT_KEEP, false);

	if (status)
		return status;
	if (x->chroma)
		status = take_chroma(x);
	else if (engine_read(s.data.storefd, &x->engine))
		x->options.engine = &x->engine;
	if (status == 0)
		status = drill_perform(&s, &x->options, &note);
	if (status == 0) {
		if (x->json)
			print_json(&s.data, &note);
		else if (!x->options.quiet || note.outcome != DRILL_GOOD)
			print_text(&note);
		status = note.outcome == DRILL_FAILED ? EXIT_FAILED
			 : note.trouble[0]	      ? EXIT_WARNINGS
						      : EXIT_DONE;
	}
	snapshots_close(&s);
	return status;
}

/* Those that the settings name. */
static struct replica_targets *find_replicas(const char *dir, bool *readable)
{
	struct replica_targets *t = calloc(1, sizeof(*t));
	struct guard_settings settings;
	struct data_directory data;

	if (!t || data_directory_open(&data, dir, true) != 0) {
		free(t);
		return NULL;
	}
	guard_settings_read(&settings, data.storefd);
	*readable = !strcmp(config_get(&settings.config, CONFIG_REPLICA_SEAL), "plain");
	if (replica_targets_parse(t, config_get(&settings.config, CONFIG_REPLICA), NULL) < 0)
		t->count = 0;
	guard_settings_free(&settings);
	data_directory_close(&data);
	return t;
}

static int run_drill(struct drilling *x, const char *dir)
{
	struct replica_targets *t;
	bool readable = false;
	unsigned i;
	int status, r;

	if (!x->options.key)
		x->options.key = getenv("CHROMASHIM_REPLICA_KEY");
	status = one_drill(x, dir);
	t = x->replicas && !drill_stopping ? find_replicas(dir, &readable) : NULL;
	x->options.snapshot = NULL;
	for (i = 0; t && i < t->count && (readable || x->options.key) && !drill_stopping; i++) {
		x->options.from = t->all[i].text;
		r = one_drill(x, dir);
		status = status == EXIT_FAILED || r == EXIT_DONE ? status : r;
	}
	free(t);
	return status;
}

int command_drill(int argc, char **argv)
{
	enum { SNAPSHOT = 256, CHROMA, SCRATCH, JSON, FROM, KEY_FILE, REPLICAS };
	static const struct option options[] = {{"snapshot", required_argument, NULL, SNAPSHOT},
						{"chroma", required_argument, NULL, CHROMA},
						{"scratch", required_argument, NULL, SCRATCH},
						{"json", no_argument, NULL, JSON},
						{"from", required_argument, NULL, FROM},
						{"key", required_argument, NULL, KEY_FILE},
						{"replicas", no_argument, NULL, REPLICAS},
						{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	struct drilling *x = calloc(1, sizeof(*x));
	int option, status = x ? -1 : fail(EXIT_FAILED, 0, NULL, "out of memory");

	while (status < 0 && (option = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		if (option == SNAPSHOT)
			x->options.snapshot = optarg;
		else if (option == CHROMA)
			x->chroma = optarg;
		else if (option == SCRATCH)
			x->options.scratch = optarg;
		else if (option == FROM)
			x->options.from = optarg;
		else if (option == KEY_FILE)
			x->options.key = optarg;
		else if (option == REPLICAS)
			x->replicas = true;
		else if (option == JSON)
			x->json = true;
		else if (option == 'q')
			x->options.quiet = true;
		else
			status = fail_usage("drill");
	}
	if (status < 0 && argc - optind > 1) {
		warn("drill takes one directory");
		status = fail_usage("drill");
	}
	if (status < 0)
		status = run_drill(x, argv[optind]);
	free(x);
	return status;
}
