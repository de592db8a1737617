/* SPDX-License-Identifier: MIT
 *
 * Stores: each directory has one, whatever is moved, copied, shared or named.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <sys/wait.h>

#include "chromashim.h"
#include "core/base/alive.h"
#include "core/base/version.h"
#include "core/store/store.h"
#include "scratch.h"

static struct scratch base;
static struct store store;

static int setup(void **state)
{
	(void)state;
	scratch_make(&base);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	scratch_remove(&base);
	return 0;
}

static int run(const char *format, const char *a, const char *b)
{
	char command[512], line[600];

	snprintf(command, sizeof(command), format, a, b);
	snprintf(line, sizeof(line), "cd %s && %s", base.path, command);
	return system(line);
}

/* Opens the store of base/<name>, and closes it again. */
static int meet(const char *name, const char *named, enum store_access access)
{
	char path[128];
	int fd, r;

	snprintf(path, sizeof(path), "%s/%s", base.path, name);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	r = store_open(&store, fd, path, named, access);
	close(fd);
	if (r == 0)
		close(store.fd);
	return r;
}

static void id_of(const char *name, const char *named, uint8_t id[STORE_ID_SIZE])
{
	assert_int_equal(meet(name, named, STORE_USE), 0);
	memcpy(id, store.id, STORE_ID_SIZE);
}

static void assert_id(const uint8_t *a, const uint8_t *b, bool same)
{
	static const uint8_t none[STORE_ID_SIZE];

	assert_memory_not_equal(a, none, STORE_ID_SIZE);
	if (same)
		assert_memory_equal(a, b, STORE_ID_SIZE);
	else
		assert_memory_not_equal(a, b, STORE_ID_SIZE);
}

/* Where it is, from base. */
static const char *place(void)
{
	size_t n = strlen(base.path);

	return strncmp(store.path, base.path, n) == 0 ? store.path + n + 1 : store.path;
}

static void test_inside(void **state)
{
	uint8_t first[STORE_ID_SIZE], again[STORE_ID_SIZE];

	(void)state;
	run("mkdir d", "", "");
	assert_int_equal(meet("d", NULL, STORE_LOOK), -ENOENT);
	assert_int_equal(run("test ! -e d/.chromashim", "", ""), 0);
	id_of("d", NULL, first);
	assert_int_equal(store.met, STORE_NEW);
	assert_true(store.inside);
	assert_string_equal(place(), "d/.chromashim");
	id_of("d", NULL, again);
	assert_int_equal(store.met, STORE_KNOWN);
	assert_id(first, again, true);
	run("mv d e", "", "");
	id_of("e", NULL, again);
	assert_int_equal(store.met, STORE_KNOWN);
	assert_id(first, again, true);
	assert_int_equal(run("test $(stat -c %%a e/.chromashim) = 700", "", ""), 0);
}

static void test_inside_copied(void **state)
{
	static const char *const ways[] = {"cp -a d c", "mkdir c && tar cC d . | tar xC c",
					   "cp -a d c && rm -rf d", "cp -r d c && mv d elsewhere"};
	uint8_t first[STORE_ID_SIZE], other[STORE_ID_SIZE];
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		run("rm -rf *; mkdir d", "", "");
		id_of("d", NULL, first);
		run(ways[i], "", "");
		/* A look changes nothing. */
		assert_int_equal(meet("c", NULL, STORE_LOOK), 0);
		id_of("c", NULL, other);
		assert_int_equal(store.met, STORE_ADOPTED);
		assert_id(first, other, false);
		id_of("c", NULL, first);
		assert_int_equal(store.met, STORE_KNOWN);
		assert_id(first, other, true);
	}
}

/* A backup put where the directory was: the inode may even be the same. */
static void test_put_back(void **state)
{
	uint8_t first[STORE_ID_SIZE], other[STORE_ID_SIZE];

	(void)state;
	run("mkdir d", "", "");
	id_of("d", NULL, first);
	run("cp -a d backup && rm -rf d && cp -a backup d", "", "");
	id_of("d", NULL, other);
	assert_int_equal(store.met, STORE_ADOPTED);
	assert_id(first, other, false);
}

static void test_old_store(void **state)
{
	uint8_t id[STORE_ID_SIZE];

	(void)state;
	run("mkdir -p d/.chromashim/oplog s/oplog s/snapshots && touch s/writer.lock", "", "");
	assert_int_equal(meet("d", NULL, STORE_LOOK), 0);
	id_of("d", NULL, id);
	assert_int_equal(store.met, STORE_TAKEN_ON);
	run("mkdir e", "", "");
	assert_int_equal(meet("e", "../s", STORE_LOOK), 0);
	id_of("e", "../s", id);
	assert_int_equal(store.met, STORE_TAKEN_ON);
	assert_string_equal(place(), "e/../s");
}

static void test_elsewhere(void **state)
{
	uint8_t first[STORE_ID_SIZE], again[STORE_ID_SIZE];

	(void)state;
	run("mkdir d", "", "");
	assert_int_equal(meet("d", "../s", STORE_LOOK), -ENOENT);
	id_of("d", "../s", first);
	assert_false(store.inside);
	/* Without the variable as well, and from a directory that has another name. */
	id_of("d", NULL, again);
	assert_id(first, again, true);
	assert_string_equal(place(), "d/../s");
	run("mv d e", "", "");
	assert_int_equal(meet("e", NULL, STORE_LOOK), 0);
	assert_string_equal(place(), "e/../s");
	id_of("e", "../s", again);
	assert_id(first, again, true);
	/* What says so was removed. */
	run("rm -r e/.chromashim", "", "");
	id_of("e", "../s", again);
	assert_id(first, again, true);
	assert_string_equal(place(), "e/../s");
}

static void test_shared(void **state)
{
	uint8_t a[STORE_ID_SIZE], b[STORE_ID_SIZE], again[STORE_ID_SIZE];
	char of_b[2 * PATH_MAX];

	(void)state;
	run("mkdir a b", "", "");
	id_of("a", "../s", a);
	assert_int_equal(meet("b", "../s", STORE_LOOK), -ENOENT);
	id_of("b", "../s", b);
	assert_id(a, b, false);
	snprintf(of_b, sizeof(of_b), "%s", place());
	assert_true(strncmp(of_b, "b/../s/", 7) == 0 && strlen(of_b) == 7 + 32);
	id_of("a", "../s", again);
	assert_id(a, again, true);
	assert_string_equal(place(), "a/../s");
	assert_int_equal(meet("b", "../s", STORE_LOOK), 0);
	assert_string_equal(place(), of_b);
	assert_int_equal(meet("b", NULL, STORE_LOOK), 0);
	assert_string_equal(place(), of_b);
	id_of("b", NULL, again);
	assert_id(b, again, true);
	assert_int_equal(store.met, STORE_KNOWN);
}

/* A copy of a directory whose store is elsewhere: the store is the original's, as long as it is
 * there; both copied together are a world of their own. */
static void test_elsewhere_copied(void **state)
{
	uint8_t d[STORE_ID_SIZE], b[STORE_ID_SIZE], id[STORE_ID_SIZE], again[STORE_ID_SIZE];

	(void)state;
	run("mkdir d b", "", "");
	id_of("d", "../s", d);
	id_of("b", "../s", b);
	run("cp -a d c", "", "");
	assert_int_equal(meet("c", "../s", STORE_LOOK), -ENOENT);
	id_of("c", "../s", id);
	assert_int_equal(store.met, STORE_ADOPTED);
	assert_id(d, id, false);
	assert_true(strlen(place()) > 30);
	id_of("d", NULL, again);
	assert_id(d, again, true);
	assert_string_equal(place(), "d/../s");

	run("cp -a d d2 && cp -a b b2 && cp -a s s2", "", "");
	assert_int_equal(meet("d2", "../s2", STORE_LOOK), 0);
	assert_string_equal(place(), "d2/../s2");
	assert_int_equal(meet("b2", "../s2", STORE_LOOK), 0);
	id_of("b2", "../s2", again);
	assert_int_equal(store.met, STORE_ADOPTED);
	assert_id(b, again, false);
	assert_int_equal(run("test $(ls -d s2/*/identity | wc -l) = 2", "", ""), 0);
	id_of("d2", "../s2", again);
	assert_int_equal(store.met, STORE_ADOPTED);
	assert_id(d, again, false);
	assert_string_equal(place(), "d2/../s2");
	/* A second copy of the directory does not get the store that is d2's now. */
	run("cp -a d d3", "", "");
	id_of("d3", "../s2", again);
	assert_true(strlen(place()) > 30);
	id_of("d", "../s", again);
	assert_id(d, again, true);
}

static void test_elsewhere_moved(void **state)
{
	uint8_t d[STORE_ID_SIZE], id[STORE_ID_SIZE];

	(void)state;
	run("mkdir d", "", "");
	id_of("d", "../s", d);
	run("cp -a d e && rm -rf d", "", ""); /* to another file system */
	assert_int_equal(meet("e", "../s", STORE_LOOK), 0);
	id_of("e", "../s", id);
	assert_int_equal(store.met, STORE_ADOPTED);
	assert_string_equal(place(), "e/../s");
	assert_id(d, id, false);
	run("cp -a s t", "", ""); /* the store alone */
	id_of("e", "../t", d);
	assert_id(d, id, true);
	assert_string_equal(place(), "e/../t");
}

static void test_refused(void **state)
{
	char mode[] = "test $(stat -c %%a %s) = %s";

	(void)state;
	run("mkdir d other empty shared && touch other/file && chmod 755 other empty && "
	    "chmod 1777 shared && touch notdir && ln -s empty link",
	    "", "");
	assert_int_equal(meet("d", "../other", STORE_USE), -ENOTEMPTY);
	assert_int_equal(meet("d", "../shared", STORE_USE), -ENOTEMPTY);
	assert_int_equal(meet("d", "../shared", STORE_MAKE), -ENOTEMPTY);
	assert_int_equal(meet("d", ".", STORE_USE), -EINVAL);
	assert_int_equal(meet("d", "../d", STORE_USE), -EINVAL);
	assert_int_equal(meet("d", "../not/there", STORE_USE), -ENOENT);
	assert_int_equal(meet("d", "../notdir", STORE_USE), -ENOTDIR);
	assert_true(meet("d", "../link", STORE_USE) < 0);
	assert_int_equal(meet("d", "../empty", STORE_USE), 0);
	assert_int_equal(run(mode, "empty", "755"), 0);
	assert_int_equal(run(mode, "other", "755"), 0);
	assert_int_equal(run(mode, "shared", "1777"), 0);
	assert_int_equal(run("test $(ls -A other) = file", "", ""), 0);
}

/* One command with a store of its own does not move the backend's. */
static void test_one_command(void **state)
{
	(void)state;
	run("mkdir d", "", "");
	assert_int_equal(meet("d", NULL, STORE_USE), 0);
	assert_int_equal(meet("d", "../s", STORE_MAKE), 0);
	assert_int_equal(meet("d", NULL, STORE_USE), 0);
	assert_true(store.inside);
	/* The backend does, and brings it home by its own name. */
	assert_int_equal(meet("d", "../s", STORE_USE), 0);
	assert_int_equal(meet("d", NULL, STORE_LOOK), 0);
	assert_string_equal(place(), "d/../s");
	assert_int_equal(meet("d", STORE_NAME, STORE_LOOK), 0);
	assert_int_equal(meet("d", NULL, STORE_LOOK), 0);
	assert_false(store.inside);
	assert_int_equal(meet("d", STORE_NAME, STORE_USE), 0);
	assert_true(store.inside);
	assert_int_equal(meet("d", NULL, STORE_USE), 0);
	assert_true(store.inside);
}

/* A disk that is not mounted is not the store. */
static void test_lost(void **state)
{
	(void)state;
	run("mkdir d", "", "");
	assert_int_equal(meet("d", "../s", STORE_USE), 0);
	run("mv s away && mkdir s", "", "");
	assert_int_equal(meet("d", NULL, STORE_USE), 0);
	assert_true(store.inside && store.lost);
	assert_int_equal(run("test -z \"$(ls -A s)\"", "", ""), 0);
	run("rmdir s && mv away s", "", "");
	assert_int_equal(meet("d", NULL, STORE_USE), 0);
	assert_false(store.inside || store.lost);
}

/* In a row: which place has an undo file, which one is named then, and which one is the store. */
static void test_left(void **state)
{
	static const struct {
		const char *first, *home, *then, *store;
		enum store_former former;
	} cases[] = {
	    {"../a", "a", "../b", "d/../a", STORE_FORMER_WAITS},
	    {"../a", "a", STORE_NAME, "d/../a", STORE_FORMER_WAITS},
	    {"../a", "a", NULL, "d/../a", STORE_FORMER_NONE},
	    {NULL, "d/.chromashim", "../b", "d/.chromashim", STORE_FORMER_WAITS},
	    {"../a", "d/.chromashim", NULL, "d/.chromashim", STORE_FORMER_WAITS},
	    {"../a", "d/.chromashim", "../b", "d/.chromashim", STORE_FORMER_WAITS},
	    {"../a", "elsewhere", "../b", "d/../b", STORE_FORMER_NONE},
	    {"../a", "elsewhere", "../a", "d/../a", STORE_FORMER_NONE},
	};
	static const enum store_access accesses[] = {STORE_LOOK, STORE_MAKE, STORE_USE};
	unsigned i, k;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		run("rm -rf a b d elsewhere && mkdir d", "", "");
		assert_int_equal(meet("d", cases[i].first, STORE_USE), 0);
		run("mkdir -p %s/undo && echo torn > %s/undo/x.undo", cases[i].home, cases[i].home);
		for (k = 0; k < 3; k++) {
			if (accesses[k] == STORE_LOOK && strcmp(cases[i].store, "d/../b") == 0)
				continue;
			assert_int_equal(meet("d", cases[i].then, accesses[k]), 0);
			assert_string_equal(place(), cases[i].store);
			assert_int_equal(store.former, cases[i].former);
		}
		if (cases[i].former == STORE_FORMER_NONE)
			continue;
		/* Once it is undone, the store is the one that is named. */
		run("rm %s/undo/x.undo && mkdir %s/oplog", cases[i].home, cases[i].home);
		assert_int_equal(meet("d", cases[i].then, STORE_USE), 0);
		assert_string_not_equal(place(), cases[i].store);
		assert_int_equal(run("grep -q '^store ../b$' d/.chromashim/identity", "", "") == 0,
				 cases[i].then && strcmp(cases[i].then, "../b") == 0);
	}
}

/* What waits in the part of a shared store; in the store of a copy's original; and who lives. */
static void test_left_of_others(void **state)
{
	uint64_t life;
	char path[128];
	int storefd, fd;

	(void)state;
	run("mkdir d e", "", "");
	assert_int_equal(meet("d", "../a", STORE_USE), 0);
	assert_int_equal(meet("e", "../a", STORE_USE), 0);
	run("mkdir a/undo && echo torn > a/undo/x.undo", "", "");
	assert_int_equal(meet("e", "../b", STORE_LOOK), -ENOENT);
	run("mv a/undo undo && mv undo a/*/", "", "");
	assert_int_equal(meet("d", "../b", STORE_LOOK), -ENOENT);
	assert_int_equal(meet("e", "../b", STORE_USE), 0);
	assert_int_equal(store.former, STORE_FORMER_WAITS);
	assert_int_equal(strncmp(place(), "e/../a/", 7), 0);

	run("cp -a e f", "", "");
	assert_int_equal(meet("f", "../b", STORE_USE), 0);
	assert_string_equal(place(), "f/../b");

	snprintf(path, sizeof(path), "%s/a", base.path);
	storefd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = alive_open(storefd);
	assert_int_equal(alive_begin(fd, &life), 0);
	assert_int_equal(meet("d", "../c", STORE_USE), 0);
	assert_int_equal(store.former, STORE_FORMER_LIVES);
	assert_string_equal(place(), "d/../a");
	close(fd);
	close(storefd);
	run("mkdir a/oplog", "", "");
	assert_int_equal(meet("d", "../c", STORE_USE), 0);
	assert_int_equal(store.former, STORE_FORMER_LEFT);
	assert_string_equal(store.former_path, "../a");
	assert_int_equal(meet("d", "../c", STORE_USE), 0);
	assert_int_equal(store.former, STORE_FORMER_NONE);
	run("mv c away", "", "");
	assert_int_equal(meet("d", "../g", STORE_USE), 0);
	assert_int_equal(store.former, STORE_FORMER_GONE);
	assert_int_equal(meet("d", "../g", STORE_USE), 0);
	assert_int_equal(store.former, STORE_FORMER_NONE);
}

static void test_bad_identities(void **state)
{
	static const char *const texts[] = {"",
					    "\n",
					    "garbage\n",
					    "chromashim-store 1\n",
					    "chromashim-store 1\nid 12\n",
					    "id",
					    ("chromashim-store 1\nid "
					     "00112233445566778899aabbccddeeff")};
	unsigned i;

	(void)state;
	run("mkdir -p d/.chromashim", "", "");
	for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		scratch_put(base.fd, "d/.chromashim/identity", texts[i], strlen(texts[i]));
		assert_int_equal(meet("d", NULL, STORE_LOOK), 0);
		assert_int_equal(meet("d", NULL, STORE_USE), 0);
		assert_int_equal(store.met, STORE_TAKEN_ON);
	}
	scratch_put(base.fd, "d/.chromashim/identity", "chromashim-store 2\n", 19);
	assert_int_equal(meet("d", NULL, STORE_USE), -EPROTONOSUPPORT);
}

/* Several that meet new directories at the same moment agree on each one's id and store. */
static void test_at_once(void **state)
{
	static const char *const directories[] = {"a", "b"};
	static const char *const places[] = {NULL, "../s"};
	char first[2][STORE_ID_SIZE + 256], got[STORE_ID_SIZE + 256];
	int ends[2], k, i, n;

	(void)state;
	for (n = 0; n < 10; n++) {
		const char *named = places[n % 2];

		run("rm -rf a b s && mkdir a b", "", "");
		memset(first, 0, sizeof(first));
		assert_int_equal(pipe(ends), 0);
		for (k = 0; k < 12; k++) {
			if (fork() != 0)
				continue;
			memset(got, 0, sizeof(got));
			got[0] = (char)(k % 2);
			if (meet(directories[k % 2], named, STORE_USE) < 0)
				_exit(1);
			memcpy(got + 1, store.id, STORE_ID_SIZE);
			snprintf(got + 1 + STORE_ID_SIZE, sizeof(got) - 1 - STORE_ID_SIZE, "%.200s",
				 place());
			_exit(write(ends[1], got, sizeof(got)) != sizeof(got));
		}
		for (k = 0; k < 12; k++) {
			assert_int_equal(read(ends[0], got, sizeof(got)), sizeof(got));
			i = got[0];
			if (!first[i][1 + STORE_ID_SIZE])
				memcpy(first[i], got, sizeof(got));
			assert_memory_equal(first[i], got, sizeof(got));
		}
		assert_memory_not_equal(first[0] + 1, first[1] + 1, STORE_ID_SIZE);
		while (wait(NULL) > 0)
			;
		close(ends[0]);
		close(ends[1]);
	}
}

/* ---- versions ---- */

static void says(const char *file, const char *line)
{
	char command[300];

	snprintf(command, sizeof(command), "grep -qx '%s' %s", line, file);
	assert_int_equal(run("%s%s", command, ""), 0);
}

static void alter(const char *file, const char *how)
{
	char command[300];

	snprintf(command, sizeof(command), "sed -i '%s' %s", how, file);
	assert_int_equal(run("%s%s", command, ""), 0);
}

#define IDENTITY "d/.chromashim/identity"

/* It says the newest that has used it, from the first use on; a look changes nothing. */
static void test_version(void **state)
{
	uint32_t own = version_own_number(), newer = version_number("201.2.3");
	char line[40];

	(void)state;
	run("mkdir d", "", "");
	assert_int_equal(meet("d", NULL, STORE_USE), 0);
	assert_int_equal(store.version, own);
	snprintf(line, sizeof(line), "version %s", CHROMASHIM_VERSION);
	says(IDENTITY, line);
	alter(IDENTITY, "/^version/d");
	assert_int_equal(meet("d", NULL, STORE_LOOK), 0);
	assert_int_equal(store.version, 0);
	assert_int_equal(run("grep -q ^version " IDENTITY, "", ""), 256);
	assert_int_equal(meet("d", NULL, STORE_USE), 0);
	says(IDENTITY, line);
	alter(IDENTITY, "s/^version.*/version 0.0.9/");
	assert_int_equal(meet("d", NULL, STORE_LOOK), 0);
	assert_int_equal(store.version, version_number("0.0.9"));
	assert_int_equal(meet("d", NULL, STORE_MAKE), 0);
	says(IDENTITY, line);
	/* A newer one that has left the format as it is; what is written since does not hide it. */
	alter(IDENTITY, "s/^version.*/version 201.2.3/");
	alter(IDENTITY, "s|^path .*|path /elsewhere|");
	assert_int_equal(meet("d", NULL, STORE_USE), 0);
	assert_int_equal(store.version, newer);
	says(IDENTITY, "version 201.2.3");
	assert_int_equal(run("grep -qx 'path /elsewhere' " IDENTITY, "", ""), 256);
}

/* Elsewhere as well, also in that of another directory. */
static void test_version_elsewhere(void **state)
{
	static const char *const names[] = {"s/identity", "d/.chromashim/identity",
					    "s/[0-9a-f]*/identity"};
	unsigned i;

	(void)state;
	run("mkdir d e", "", "");
	assert_int_equal(meet("d", "../s", STORE_USE), 0);
	assert_int_equal(meet("e", "../s", STORE_USE), 0);
	for (i = 0; i < 3; i++)
		alter(names[i], "s/^version.*/version 0.0.9/");
	assert_int_equal(meet("d", "../s", STORE_USE), 0);
	assert_int_equal(meet("e", "../s", STORE_USE), 0);
	for (i = 0; i < 3; i++)
		says(names[i], "version " CHROMASHIM_VERSION);
}

static void assert_newer(const char *directory, const char *named, bool waits)
{
	static const enum store_access ways[] = {STORE_LOOK, STORE_MAKE, STORE_USE};
	static const char list[] = "find . -printf '%%p %%T@ %%C@ %%s\n' | sort > /tmp/%s.%s";
	char me[24];
	unsigned i;

	snprintf(me, sizeof(me), "store-%d", (int)getpid());
	run(list, me, "before");
	for (i = 0; i < 3; i++) {
		assert_int_equal(meet(directory, named, ways[i]), -EPROTONOSUPPORT);
		assert_int_equal(store.version, version_number("201.0.0"));
		assert_int_equal(store.waits, waits);
	}
	run(list, me, "after");
	assert_int_equal(run("cmp /tmp/%s.before /tmp/%s.after", me, me), 0);
	run("rm /tmp/%s.before /tmp/%s.after", me, me);
}

/* Of a format that only a newer one knows: nothing is made or changed in it, by nobody. */
static void test_newer(void **state)
{
	static const char newer[] =
	    "s/^chromashim-store.*/chromashim-store 2/; s/^version.*/version 201.0.0/; "
	    "s/^id .*/id of another kind/";

	(void)state;
	run("mkdir d", "", "");
	assert_int_equal(meet("d", NULL, STORE_USE), 0);
	alter(IDENTITY, newer);
	assert_newer("d", NULL, false);
	assert_newer("d", "../s", false);
	run("mkdir d/.chromashim/undo && echo x >d/.chromashim/undo/9.undo", "", "");
	assert_newer("d", NULL, true);
	run("rm -r d && mkdir d", "", "");
	assert_int_equal(meet("d", "../s", STORE_USE), 0);
	alter("s/identity", newer);
	assert_newer("d", "../s", false);
	assert_newer("d", NULL, false);
	run("rm -r d s; mkdir d e", "", "");
	assert_int_equal(meet("e", "../s", STORE_USE), 0);
	assert_int_equal(meet("d", "../s", STORE_USE), 0);
	alter("s/[0-9a-f]*/identity", newer);
	assert_newer("d", "../s", false);
}

static void test_version_numbers(void **state)
{
	static const struct {
		const char *text;
		uint32_t number;
	} numbers[] = {
	    {"0.1.0", 0x000100},
	    {"1.2.3", 0x010203},
	    {"255.255.255", 0xffffff},
	    {"999.0.0", 0xff0000},
	    {"1.2.3rc1", 0x010203},
	    {"1.2", 0},
	    {"", 0},
	    {"v1.2.3", 0},
	    {"1..3", 0},
	    {"1.2.99999999999", 0x0102ff},
	};
	char text[VERSION_TEXT];
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
		assert_int_equal(version_number(numbers[i].text), numbers[i].number);
	version_text(text, 0xffffff);
	assert_string_equal(text, "255.255.255");
	version_text(text, version_own_number());
	assert_string_equal(text, CHROMASHIM_VERSION);
	assert_string_equal(version_own(), CHROMASHIM_VERSION);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_inside),
	    TEST(test_inside_copied),
	    TEST(test_put_back),
	    TEST(test_old_store),
	    TEST(test_elsewhere),
	    TEST(test_shared),
	    TEST(test_elsewhere_copied),
	    TEST(test_elsewhere_moved),
	    TEST(test_refused),
	    TEST(test_one_command),
	    TEST(test_lost),
	    TEST(test_left),
	    TEST(test_left_of_others),
	    TEST(test_bad_identities),
	    TEST(test_at_once),
	    TEST(test_version),
	    TEST(test_version_elsewhere),
	    TEST(test_newer),
	    TEST(test_version_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
