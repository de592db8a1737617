/* SPDX-License-Identifier: MIT
 *
 * `chromashim replica send`: to all replicas, now; and what is noted of how that went.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command/base/terminal.h"
#include "command/replica/replica.h"
#include "command/replica/sender.h"
#include "core/base/clock.h"

static void note_end(struct sender *s, int r)
{
	uint64_t now = clock_read(CLOCK_REALTIME);

	s->state.failed = r < 0 ? now : 0;
	s->state.failures = r < 0 ? s->state.failures + 1 : 0;
	snprintf(s->state.error, sizeof(s->state.error), "%s",
		 r == 0			   ? ""
		 : s->remote.link.error[0] ? s->remote.link.error
					   : strerror(-r));
	replica_state_write(s->data->storefd, &s->state);
}

struct sending {
	bool quiet;
	bool again; /* as if nothing were there */
};

static int send_to(struct data_directory *t, const struct guard_settings *settings,
		   const struct replica_target *target, const struct sending *how)
{
	struct sender s;
	uint64_t before;
	int r = sender_open(&s, t, settings, target);

	if (r == -EBUSY) {
		sender_close(&s);
		return EXIT_BUSY;
	}
	before = s.state.snapshots;
	if (s.lockfd >= 0) {
		s.state.tried = clock_read(CLOCK_REALTIME);
		replica_state_write(t->storefd, &s.state);
		if (r == 0)
			r = how->again ? sender_send_again(&s) : sender_send_all(&s);
		note_end(&s, r);
	}
	if (r < 0)
		fail(EXIT_FAILED, 0, NULL, "cannot send to the replica '%s': %s", target->text,
		     s.remote.link.error[0] ? s.remote.link.error : strerror(-r));
	else if (!how->quiet)
		printf("%s: %" PRIu64 " snapshots sent, the newest there is %" PRIu64 "\n",
		       target->text, s.state.snapshots - before, s.state.snapshot);
	sender_close(&s);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}

/* The settings, and the places in them. 0, or the exit status after saying why. */
static int read_targets(const struct data_directory *t, struct guard_settings *settings,
			struct replica_targets *targets)
{
	char wrong[REPLICA_TARGET_SIZE];
	int r;

	guard_settings_read(settings, t->storefd);
	r = replica_targets_parse(targets, config_get(&settings->config, CONFIG_REPLICA), wrong);
	if (r == 0 && targets->count)
		return 0;
	guard_settings_free(settings);
	if (r < 0)
		return fail(EXIT_USAGE, 0,
			    "Give /A/DIRECTORY, sftp://[USER@]HOST[:PORT]/PATH or "
			    "rclone:REMOTE:PATH, with spaces or commas between.",
			    r == -E2BIG
				? "CHROMASHIM_REPLICA names more than 8 places; '%s' is too "
				  "many"
				: "CHROMASHIM_REPLICA: '%s' is no place for a replica",
			    wrong);
	return fail(EXIT_USAGE, 0, "Say where, in the environment or chromashim.conf.",
		    "CHROMASHIM_REPLICA is not set: '%s' has no replica", t->dir);
}

/* One after the other, whatever became of those before. */
static int
for_each_target(struct data_directory *t, const struct sending *how,
		int (*what)(struct data_directory *t, const struct guard_settings *settings,
			    const struct replica_target *target, const struct sending *how))
{
	struct guard_settings settings;
	struct replica_targets targets;
	int status = read_targets(t, &settings, &targets), one;
	unsigned i;

	if (status)
		return status;
	for (i = 0; i < targets.count; i++) {
		one = what(t, &settings, &targets.all[i], how);
		status = one == EXIT_DONE || status == EXIT_FAILED ? status : one;
	}
	guard_settings_free(&settings);
	return status;
}

int replica_send(struct data_directory *t, bool quiet)
{
	return for_each_target(t, &(struct sending){.quiet = quiet}, send_to);
}

int replica_resend(struct data_directory *t, bool quiet)
{
	return for_each_target(t, &(struct sending){.quiet = quiet, .again = true}, send_to);
}

/* ---- taking over ---- */

static int take_over_one(struct data_directory *t, const struct guard_settings *settings,
			 const struct replica_target *target, const struct sending *how)
{
	struct sender s;
	int r = sender_open(&s, t, settings, target);

	(void)how;
	if (r == 0)
		r = sender_claim(&s, true);
	if (r == 0)
		r = sender_remember(&s, true);
	if (r < 0)
		fail(r == -EBUSY ? EXIT_BUSY : EXIT_FAILED, 0, NULL,
		     "cannot take over the replica '%s': %s", target->text, s.remote.link.error);
	else
		printf("%s: this store sends to it from now on\n", target->text);
	sender_close(&s);
	return r == -EBUSY ? EXIT_BUSY : r < 0 ? EXIT_FAILED : EXIT_DONE;
}

int replica_take_over(struct data_directory *t)
{
	return for_each_target(t, NULL, take_over_one);
}

/* ---- the verbs ---- */

int replica_on_directory(const char *dir, int (*what)(struct data_directory *t, bool quiet),
			 bool quiet)
{
	struct data_directory t;
	int status = data_directory_open(&t, dir, true);

	if (status)
		return status;
	status = what(&t, quiet);
	data_directory_close(&t);
	return status;
}

int replica_command_send(int argc, char **argv)
{
	static const struct option options[] = {{"quiet", no_argument, NULL, 'q'},
						{NULL, 0, NULL, 0}};
	bool quiet = false;
	int option;

	while ((option = getopt_long(argc, argv, "q", options, NULL)) != -1) {
		if (option == '?')
			return fail_usage("replica");
		quiet = quiet || option == 'q';
	}
	if (argc - optind > 1) {
		warn("replica send takes one directory");
		return fail_usage("replica");
	}
	return replica_on_directory(argv[optind], replica_send, quiet);
}

static int take_over(struct data_directory *t, bool quiet)
{
	(void)quiet;
	return replica_take_over(t);
}

int replica_command_take_over(int argc, char **argv)
{
	static const struct option options[] = {{NULL, 0, NULL, 0}};

	if (getopt_long(argc, argv, "", options, NULL) != -1)
		return fail_usage("replica");
	if (argc - optind > 1) {
		warn("replica takeover takes one directory");
		return fail_usage("replica");
	}
	return replica_on_directory(argv[optind], take_over, false);
}
