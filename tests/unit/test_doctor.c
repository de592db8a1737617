/* SPDX-License-Identifier: MIT */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "command/verbs/doctor.h"

struct file {
	const char *text, *kind;
	const char *lines; /* a piece of each line of advice, in their order, with bars between */
};

static const struct file files[] = {
    /* pm2: what people write */
    {"module.exports = { apps: [{ name: 'chroma', script: 'chroma', args: 'run' }] };", "pm2",
     "under chromashim|kill_timeout|treekill"},
    {"module.exports = { apps: [{ script: './node_modules/x', treekill: false,\n"
     " kill_timeout: 60_000, args: 'chromashim run -- node server.js', // a // b\n"
     " /* watch: true, */ cwd: 'http://x' }] }",
     "pm2", ""},
    {"{\"apps\": [{\"script\": \"chromashim-launch\", \"interpreter\": \"none\",\n"
     "\"instances\": \"max\", \"exec_mode\": \"cluster\", \"watch\": true,\n"
     "\"kill_timeout\": 3000, \"treekill\": true, \"stop_exit_codes\": [0]}]}",
     "pm2", "cluster mode|kill_timeout|treekill|watch|stop_exit_codes"},
    {"apps:\n  - script: chroma\n    interpreter: /usr/bin/chromashim-launch\n    instances: 2\n"
     "    kill_timeout: 60000\n    treekill: false\n",
     "pm2", "one may write"},
    /* cluster mode: also where nothing but the instances says so, and LD_PRELOAD is in `env` */
    {"x = { apps: [{ script: 'chroma.cjs', instances: 1, kill_timeout: t, treekill: false,\n"
     " env: { LD_PRELOAD: '/usr/lib/libchromashim.so' } }] }",
     "pm2", "cluster mode"},
    {"x = { apps: [{ script: 'chroma.cjs', instances: 1, exec_mode: 'fork', kill_timeout: t,\n"
     " treekill: false, env: { LD_PRELOAD: '/usr/lib/libchromashim.so' } }] }",
     "pm2", ""},
    {"apps:\n  - script: chroma.py\n    exec_mode: cluster_mode\n    kill_timeout: 60000\n"
     "    treekill: false\n    args: chromashim\n",
     "pm2", "cluster mode"},
    {"apps:\n  - script: chromashim-launch\n    interpreter: none\n    args: chroma run\n"
     "    kill_timeout: 60000\n    treekill: false # kept\n",
     "pm2", ""},
    /* a front end beside it is none of our business; an expression is taken as good */
    {"module.exports = { apps: [{ name: 'web', script: 'next', instances: 4 },\n"
     "{ name: 'db', script: 'chromashim-launch', interpreter: 'none', args: ['chroma', 'run'],\n"
     "  env: { A: `${b}` }, kill_timeout: 60 * 1000, treekill: false, instances: 1 }] };",
     "pm2", ""},
    {"x = { apps: [{ script: 'chromashim-launch', kill_timeout: t, treekill: false }] }", "pm2",
     "by Node"},
    /* systemd */
    {"[Unit]\nDescription=Chroma\n[Service]\nExecStart=/opt/venv/bin/chroma run\n", "systemd",
     "under chromashim|KillMode|Restart"},
    {"[Service]\n# KillMode=control-group\nExecStart=/usr/bin/chromashim run -- chroma run\n"
     "KillMode=process\nRestart=always\nTimeoutStopSec=2min\n",
     "systemd", ""},
    {"[Service]\nExecStart=/usr/bin/chromashim run -- chroma run\nKillMode=mixed\nRestart=no\n"
     "TimeoutStopSec=5\nProtectSystem=strict\n",
     "systemd", "KillMode|TimeoutStopSec|Restart|ReadWritePaths"},
    /* Compose */
    {"services:\n  web:\n    image: nginx\n  db:\n    image: chromadb/chroma\n"
     "    deploy:\n      replicas: 3\nvolumes:\n  v:\n",
     "compose", "under chromashim|volumes|stop_grace_period|replicas|unless-stopped"},
    {"version: '3'\nservices:\n\n    db:\n        build: ./chroma\n        volumes: [v:/data]\n"
     "        restart: always\n        stop_grace_period: 1m\n",
     "compose", ""},
    /* none of these */
    {"print('script')\n", NULL, ""},
    {"", NULL, ""},
};

static void check_lines(const struct file *f, const struct doctor_advice *a)
{
	char pieces[256], *rest = pieces, *piece;
	unsigned n = 0;

	strcpy(pieces, f->lines);
	while ((piece = strsep(&rest, "|")) && *piece) {
		if (n >= a->count || !strstr(a->lines[n], piece))
			fail_msg("%s\nline %u is not about %s: %s", f->text, n, piece,
				 n < a->count ? a->lines[n] : "none");
		n++;
	}
	if (n != a->count)
		fail_msg("%s\none line too many: %s", f->text, a->lines[n]);
}

static void test_what_is_missing(void **state)
{
	struct doctor_advice a;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(files) / sizeof(*files); i++) {
		char *text = strdup(files[i].text);

		assert_int_equal(doctor_judge(text, &a), files[i].kind != NULL);
		free(text);
		if (!files[i].kind)
			continue;
		assert_string_equal(a.kind, files[i].kind);
		check_lines(&files[i], &a);
	}
}

/* Cut anywhere: it ends, and reads nothing beyond. */
static void test_cut_files(void **state)
{
	struct doctor_advice a;
	size_t i, n;

	(void)state;
	for (i = 0; i < sizeof(files) / sizeof(*files); i++)
		for (n = 0; n < strlen(files[i].text); n++) {
			char *text = strndup(files[i].text, n);

			doctor_judge(text, &a);
			assert_true(a.count <= DOCTOR_MOST);
			free(text);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_what_is_missing),
	    cmocka_unit_test(test_cut_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
