/* SPDX-License-Identifier: MIT
 *
 * Chunks: stored once, found damaged whatever was done to them, written again on doubt.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "core/snapshot/chunks.h"
#include "scratch.h"

/* Calls of the library that fail: the one whose turn it is, counted down; 0: none. */
static int countdown, failed, whole; /* syncs of the file system */
static bool lasts;		     /* and all after it */

static bool fails_now(int error)
{
	static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER; /* syncs are made side by side */
	bool fails;

	pthread_mutex_lock(&turn);
	fails = countdown && --countdown == 0;
	if (fails) {
		countdown = lasts;
		failed++;
	}
	pthread_mutex_unlock(&turn);
	errno = fails ? error : errno;
	return fails;
}

int fdatasync(int fd)
{
	return fails_now(EIO) ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
	return fails_now(EIO) ? -1 : (int)syscall(SYS_fsync, fd);
}

int syncfs(int fd)
{
	whole++;
	return fails_now(EIO) ? -1 : (int)syscall(SYS_syncfs, fd);
}

int mkdirat(int fd, const char *name, mode_t mode)
{
	return fails_now(ENOSPC) ? -1 : (int)syscall(SYS_mkdirat, fd, name, mode);
}

int renameat(int from, const char *name, int to, const char *other)
{
	return fails_now(ENOSPC) ? -1 : (int)syscall(SYS_renameat, from, name, to, other);
}

ssize_t write(int fd, const void *data, size_t n)
{
	/* Half of it got through. */
	if (fails_now(ENOSPC))
		return syscall(SYS_write, fd, data, n / 2) < 0 ? -1 : (errno = ENOSPC, -1);
	return syscall(SYS_write, fd, data, n);
}

struct fixture {
	struct scratch dir;
	struct chunks chunks;
	unsigned char data[SNAPSHOT_CHUNK_SIZE], back[SNAPSHOT_CHUNK_SIZE];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	size_t i;

	assert_non_null(f);
	scratch_make(&f->dir);
	assert_int_equal(chunks_open(&f->chunks, f->dir.fd, true), 0);
	for (i = 0; i < sizeof(f->data); i++)
		f->data[i] = (unsigned char)(i * i >> 7);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	chunks_close(&f->chunks);
	scratch_remove(&f->dir);
	free(f);
	return 0;
}

static void path_of(const struct chunk_name *name, char out[96])
{
	char *at = out + sprintf(out, CHUNKS_DIR "/%02x/", name->bytes[0]);
	unsigned i;

	for (i = 0; i < SNAPSHOT_NAME_SIZE; i++)
		at += sprintf(at, "%02x", name->bytes[i]);
}

static void put(struct fixture *f, struct chunk_name *name)
{
	assert_int_equal(chunks_put(&f->chunks, f->data, sizeof(f->data), name), 0);
	assert_int_equal(chunks_flush(&f->chunks), 0);
}

static void test_round_trip(void **state)
{
	static const size_t sizes[] = {1, 23, 4096, SNAPSHOT_CHUNK_SIZE};
	struct fixture *f = *state;
	struct chunk_name name;
	uint64_t stored;
	size_t i;

	for (i = 0; i < 4; i++) {
		f->data[0] = 7;
		assert_int_equal(chunks_put(&f->chunks, f->data, sizes[i], &name), 0);
		assert_int_equal(chunks_flush(&f->chunks), 0);
		memset(f->back, 0xee, sizeof(f->back));
		assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizes[i]), 0);
		assert_memory_equal(f->back, f->data, sizes[i]);
		assert_int_equal(chunks_stat(&f->chunks, &name, &stored), 0);
		assert_true(stored > sizeof(struct snapshot_chunk));
		/* Another size than it was stored with is not what was asked for. */
		assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizes[i] - 1), -EBADMSG);
	}
}

static void test_known_name(void **state)
{
	static const unsigned char abc[4] = {0xba, 0x78, 0x16, 0xbf}; /* FIPS 180-2, B.1 */
	struct chunk_name name;

	(void)state;
	chunk_name_of("abc", 3, &name);
	assert_memory_equal(name.bytes, abc, sizeof(abc));
}

static void test_zeros_need_no_file(void **state)
{
	struct fixture *f = *state;
	struct chunk_name name;
	uint64_t stored;

	memset(f->data, 0, sizeof(f->data));
	put(f, &name);
	assert_true(chunk_is_zero(&name));
	assert_int_equal(chunks_stat(&f->chunks, &name, &stored), 0);
	assert_int_equal(stored, 0);
	memset(f->back, 1, sizeof(f->back));
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizeof(f->back)), 0);
	assert_memory_equal(f->back, f->data, sizeof(f->back));
}

static void test_same_content_once(void **state)
{
	struct fixture *f = *state;
	struct chunk_name name, again;
	uint64_t added;

	/* In one batch, and over batches. */
	assert_int_equal(chunks_put(&f->chunks, f->data, sizeof(f->data), &name), 0);
	added = f->chunks.added_bytes;
	put(f, &again);
	put(f, &again);
	assert_memory_equal(&name, &again, sizeof(name));
	assert_int_equal(f->chunks.added_bytes, added);
	assert_int_equal(f->chunks.reused, 2);
}

static void test_many(void **state)
{
	struct fixture *f = *state;
	struct chunk_name names[3 * CHUNKS_BATCH + 5];
	unsigned i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		memcpy(f->data, &i, sizeof(i));
		assert_int_equal(chunks_put(&f->chunks, f->data, 5000, &names[i]), 0);
	}
	assert_int_equal(chunks_flush(&f->chunks), 0);
	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		memcpy(f->data, &i, sizeof(i));
		assert_int_equal(chunks_get(&f->chunks, &names[i], f->back, 5000), 0);
		assert_memory_equal(f->back, f->data, 5000);
	}
}

static void test_missing(void **state)
{
	struct fixture *f = *state;
	struct chunk_name name;
	uint64_t stored;
	char path[96];

	put(f, &name);
	path_of(&name, path);
	assert_int_equal(unlinkat(f->dir.fd, path, 0), 0);
	assert_int_equal(chunks_stat(&f->chunks, &name, &stored), -ENOENT);
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizeof(f->back)), -ENOENT);
	put(f, &name);
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizeof(f->back)), 0);
}

/* No bit of a chunk file can be another one unnoticed. */
static void test_every_flipped_byte(void **state)
{
	struct fixture *f = *state;
	struct chunk_name name;
	char path[96], *file;
	size_t size, i;

	assert_int_equal(chunks_put(&f->chunks, f->data, 700, &name), 0);
	assert_int_equal(chunks_flush(&f->chunks), 0);
	path_of(&name, path);
	file = scratch_get(f->dir.fd, path, &size);
	for (i = 0; i < size; i++) {
		int r;

		file[i] ^= (char)(1 << i % 8);
		scratch_put(f->dir.fd, path, file, size);
		r = chunks_get(&f->chunks, &name, f->back, 700);
		if (r == 0) /* zstd ignores a bit of its header; the content is what counts */
			assert_memory_equal(f->back, f->data, 700);
		else
			assert_true(r == -EBADMSG || r == -ENODATA || r == -EPROTONOSUPPORT);
		file[i] ^= (char)(1 << i % 8);
	}
	free(file);
}

static void test_every_cut(void **state)
{
	struct fixture *f = *state;
	struct chunk_name name;
	char path[96], *file;
	uint64_t stored;
	size_t size, i;

	assert_int_equal(chunks_put(&f->chunks, f->data, 700, &name), 0);
	assert_int_equal(chunks_flush(&f->chunks), 0);
	path_of(&name, path);
	file = scratch_get(f->dir.fd, path, &size);
	for (i = 0; i < size; i++) {
		scratch_put(f->dir.fd, path, file, i);
		assert_int_equal(chunks_stat(&f->chunks, &name, &stored), -ENODATA);
		assert_int_equal(chunks_get(&f->chunks, &name, f->back, 700), -ENODATA);
	}
	/* On doubt it is written again. */
	assert_int_equal(chunks_put(&f->chunks, f->data, 700, &name), 0);
	assert_int_equal(chunks_flush(&f->chunks), 0);
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, 700), 0);
	free(file);
}

static void test_set_aside(void **state)
{
	struct fixture *f = *state;
	uint64_t count, bytes;
	struct chunk_name name;

	put(f, &name);
	assert_int_equal(chunks_set_aside(&f->chunks, &name), 0);
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizeof(f->back)), -ENOENT);
	put(f, &name);
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizeof(f->back)), 0);
	assert_int_equal(chunks_collect(&f->chunks, NULL, NULL, false, &count, &bytes), 0);
	assert_int_equal(count, 1);
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizeof(f->back)), 0);
}

static bool is_kept(void *context, const struct chunk_name *name)
{
	return memcmp(context, name, sizeof(*name)) == 0;
}

static void test_collect(void **state)
{
	struct fixture *f = *state;
	struct chunk_name kept, other;
	uint64_t count, bytes;

	put(f, &kept);
	f->data[0]++;
	put(f, &other);
	scratch_put(f->chunks.dirfd, ".77-0.tmp", "x", 1);
	assert_int_equal(chunks_collect(&f->chunks, is_kept, &kept, true, &count, &bytes), 0);
	assert_int_equal(count, 2);
	assert_int_equal(chunks_get(&f->chunks, &other, f->back, sizeof(f->back)), 0);
	assert_int_equal(chunks_collect(&f->chunks, is_kept, &kept, false, &count, &bytes), 0);
	assert_int_equal(count, 2);
	assert_int_equal(chunks_get(&f->chunks, &other, f->back, sizeof(f->back)), -ENOENT);
	assert_int_equal(chunks_get(&f->chunks, &kept, f->back, sizeof(f->back)), 0);
}

/* One that gives up half-way, and tries again in the same process. */
static void test_collect_in_between(void **state)
{
	struct fixture *f = *state;
	uint64_t count, bytes;
	struct chunk_name name;

	assert_int_equal(chunks_put(&f->chunks, f->data, 900, &name), 0);
	assert_int_equal(chunks_collect(&f->chunks, NULL, NULL, false, &count, &bytes), 0);
	assert_int_equal(chunks_put(&f->chunks, f->data, 900, &name), 0);
	assert_int_equal(chunks_flush(&f->chunks), 0);
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, 900), 0);
}

/* In a child, since the limit cannot be raised again. 0: put failed as it should. */
static int put_without_room(struct fixture *f)
{
	struct rlimit none = {100, 100};
	struct chunk_name name;
	uint64_t stored;
	size_t i;

	signal(SIGXFSZ, SIG_IGN);
	for (i = 0; i < sizeof(f->data); i++)
		f->data[i] = (unsigned char)rand();
	setrlimit(RLIMIT_FSIZE, &none);
	if (chunks_put(&f->chunks, f->data, sizeof(f->data), &name) != -EFBIG)
		return 1;
	chunks_close(&f->chunks);
	if (chunks_open(&f->chunks, f->dir.fd, true) < 0)
		return 2;
	return chunks_stat(&f->chunks, &name, &stored) == -ENOENT ? 0 : 3;
}

static void test_full_disk(void **state)
{
	struct fixture *f = *state;
	uint64_t count, bytes;
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(put_without_room(f));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(chunks_collect(&f->chunks, NULL, NULL, true, &count, &bytes), 0);
	assert_int_equal(count, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, set_up, tear_down)

/* What was called stored, and flushed, is there, whichever call failed before. */
static void check_named(struct fixture *f, const struct chunk_name *names, const int *put, int n)
{
	int i;

	for (i = 0; i < n; i++) {
		memset(f->data, 1 + i, 3000);
		if (put[i] == 0)
			assert_int_equal(chunks_get(&f->chunks, &names[i], f->back, 3000), 0);
		if (put[i] == 0)
			assert_memory_equal(f->back, f->data, 3000);
	}
}

static void test_each_call_fails_once(void **state)
{
	enum { COUNT = CHUNKS_BATCH + 25 }; /* side by side, and the others in one go */
	struct fixture *f = *state;
	struct chunk_name names[COUNT];
	int put[COUNT], at, i, flushed;

	/* Each of the first ones; of those that are alike every eleventh. */
	for (at = 1;; at += at < 8 ? 1 : 11) {
		chunks_close(&f->chunks);
		scratch_remove(&f->dir);
		scratch_make_fast(&f->dir);
		assert_int_equal(chunks_open(&f->chunks, f->dir.fd, true), 0);
		failed = 0;
		countdown = at;
		for (i = 0; i < COUNT; i++) {
			memset(f->data, 1 + i, 3000);
			put[i] = chunks_put(&f->chunks, f->data, 3000, &names[i]);
			if (put[i] < 0) /* there is room again */
				put[i] = chunks_put(&f->chunks, f->data, 3000, &names[i]);
		}
		flushed = chunks_flush(&f->chunks);
		countdown = 0;
		if (flushed == 0)
			check_named(f, names, put, COUNT);
		else
			assert_int_equal(failed, 1);
		if (!failed)
			break;
	}
	assert_true(at > 2 * COUNT);
}

static void test_what_was_put_stays_lost(void **state)
{
	struct fixture *f = *state;
	struct chunk_name name;
	uint64_t count, bytes;

	assert_int_equal(chunks_put(&f->chunks, f->data, 700, &name), 0);
	countdown = 3; /* fdatasync, fsync of the mark, mkdir */
	assert_int_equal(chunks_flush(&f->chunks), -ENOSPC);
	assert_int_equal(chunks_flush(&f->chunks), -ENOSPC);
	assert_int_equal(chunks_collect(&f->chunks, NULL, NULL, false, &count, &bytes), 0);
	put(f, &name);
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizeof(f->data)), 0);
}

/* What others write is waited for only where there is very much of our own. */
static void test_few_are_synced_alone(void **state)
{
	struct fixture *f = *state;
	struct chunk_name name;
	int i;

	whole = 0;
	for (i = 0; i < CHUNKS_BATCH; i++) {
		memset(f->data, 1 + i, 3000);
		assert_int_equal(chunks_put(&f->chunks, f->data, 3000, &name), 0);
	}
	assert_int_equal(chunks_flush(&f->chunks), 0);
	assert_int_equal(chunks_flush(&f->chunks), 0);
	assert_int_equal(whole, 0);
}

/* A name that a dead process gave: its directory is synced before another manifest has it. */
static void test_names_of_the_dead_are_synced(void **state)
{
	struct fixture *f = *state;
	struct chunk_name name;
	int fd;

	put(f, &name);
	chunks_close(&f->chunks);
	assert_int_equal(faccessat(f->dir.fd, CHUNKS_DIR "/.naming", F_OK, 0), -1);
	fd = openat(f->dir.fd, CHUNKS_DIR "/.naming", O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(chunks_open(&f->chunks, f->dir.fd, true), 0);
	assert_int_equal(chunks_put(&f->chunks, f->data, sizeof(f->data), &name), 0);
	assert_int_equal(f->chunks.reused, 1);
	failed = 0;
	countdown = lasts = true; /* of all, and then of its directory and of chunks/ */
	assert_int_equal(chunks_flush(&f->chunks), -EIO);
	assert_int_equal(failed, 3);
	countdown = lasts = false;
	assert_int_equal(chunks_flush(&f->chunks), 0);
	assert_int_equal(faccessat(f->dir.fd, CHUNKS_DIR "/.naming", F_OK, 0), -1);
}

/* What bars the way of a temporary file. */
static void test_fifo_in_the_way(void **state)
{
	struct fixture *f = *state;
	struct chunk_name name;
	char path[96];

	snprintf(path, sizeof(path), CHUNKS_DIR "/.%d-0.tmp", (int)getpid());
	assert_int_equal(mkfifoat(f->dir.fd, path, 0600), 0);
	put(f, &name);
	assert_int_equal(chunks_get(&f->chunks, &name, f->back, sizeof(f->data)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(round_trip),
	    TEST(known_name),
	    TEST(zeros_need_no_file),
	    TEST(same_content_once),
	    TEST(many),
	    TEST(missing),
	    TEST(every_flipped_byte),
	    TEST(every_cut),
	    TEST(set_aside),
	    TEST(collect),
	    TEST(collect_in_between),
	    TEST(full_disk),
	    TEST(each_call_fails_once),
	    TEST(what_was_put_stays_lost),
	    TEST(few_are_synced_alone),
	    TEST(names_of_the_dead_are_synced),
	    TEST(fifo_in_the_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
