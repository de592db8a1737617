/* SPDX-License-Identifier: MIT
 *
 * Undo logs and roll-backs: a segment is put back byte for byte, whatever is torn, however often
 * the one who does it dies.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/oplog.h"
#include "core/rollback.h"

#define SEGMENT "0a1b2c3d-0000-4000-8000-00000000abcd"
#define MAX_SIZE 200000

struct content {
	long size; /* -1: no such file */
	unsigned char bytes[MAX_SIZE];
};

struct fixture {
	char root[64];
	int rootfd, undofd, segmentfd;
	struct undo_header header;
	struct undo_writer w;
	unsigned char buffer[UNDO_BUFFER];
	struct content before[UNDO_FILES];
	/* what was reported */
	unsigned reports;
	struct rollback_outcome last;
	unsigned steps, die_at; /* 0: never */
};

/* ---- a directory with a segment ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static void put(struct fixture *f, unsigned file, const void *bytes, size_t n)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), n);
	close(fd);
}

static void get(struct fixture *f, unsigned file, struct content *c)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_RDONLY);

	c->size = -1;
	if (fd < 0)
		return;
	c->size = read(fd, c->bytes, MAX_SIZE);
	close(fd);
}

static int setup(void **state)
{
	static const size_t sizes[UNDO_FILES] = {100, 150001, 4000, 9000, 5000};
	struct fixture *f = calloc(1, sizeof(*f));
	unsigned i;

	strcpy(f->root, "/tmp/chromashim-undo-XXXXXX");
	if (!f || !mkdtemp(f->root))
		return -1;
	f->rootfd = open(f->root, O_RDONLY | O_DIRECTORY);
	mkdirat(f->rootfd, "undo", 0700);
	mkdirat(f->rootfd, SEGMENT, 0755);
	f->undofd = openat(f->rootfd, "undo", O_RDONLY | O_DIRECTORY);
	f->segmentfd = openat(f->rootfd, SEGMENT, O_RDONLY | O_DIRECTORY);
	for (i = 0; i < UNDO_FILES; i++) {
		unsigned char *p = malloc(sizes[i]);
		size_t k;

		for (k = 0; k < sizes[i]; k++)
			p[k] = (unsigned char)(i * 31 + k * 7 + k / 4096);
		put(f, i, p, sizes[i]);
		get(f, i, &f->before[i]);
		free(p);
	}
	f->w.fd = -1;
	f->w.buffer = f->buffer;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->w.fd >= 0)
		close(f->w.fd);
	close(f->segmentfd);
	close(f->undofd);
	close(f->rootfd);
	nftw(f->root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A group of a process that is dead. */
static void begin(struct fixture *f)
{
	struct undo_header *h = &f->header;
	unsigned i;

	memset(h, 0, sizeof(*h));
	h->pid = 999999;
	h->start_ticks = 12345;
	oplog_boot_id(h->boot_id);
	h->number = 1;
	h->touched = now();
	strcpy(h->segment, SEGMENT);
	for (i = 0; i < UNDO_FILES; i++)
		h->files[i].size = f->before[i].size;
	assert_int_equal(undo_create(&f->w, f->undofd, h), 0);
}

static void save(struct fixture *f, unsigned file, uint64_t offset, uint32_t length)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_RDONLY);

	assert_int_equal(undo_save(&f->w, file, fd, offset, length), 0);
	close(fd);
}

static void scribble(struct fixture *f, unsigned file, uint64_t offset, size_t n)
{
	int fd = openat(f->segmentfd, undo_file_names[file], O_WRONLY);
	char *p = malloc(n);

	memset(p, 'x', n);
	assert_int_equal(pwrite(fd, p, n, (off_t)offset), n);
	free(p);
	close(fd);
}

/* What a persist does: overwrites, grows, replaces the pickle. */
static void persist(struct fixture *f)
{
	char moved[UNDO_NAME_MAX];

	begin(f);
	save(f, 0, 0, 100);
	scribble(f, 0, 0, 100);
	save(f, 1, 4096, 8192);
	scribble(f, 1, 5000, 6000);
	save(f, 1, 147456, 2545); /* the last block, which is a part of one */
	scribble(f, 1, 150000, 40000);
	save(f, 2, 0, 4000);
	scribble(f, 2, 0, 4400);
	save(f, 3, 8192, 808);
	scribble(f, 3, 8900, 100);
	assert_int_equal(undo_put(&f->w, UNDO_MOVED, UNDO_PICKLE, 0), 0);
	assert_int_equal(undo_flush(&f->w), 0);
	undo_moved_name(moved, &f->header, UNDO_PICKLE);
	assert_int_equal(linkat(f->segmentfd, undo_file_names[UNDO_PICKLE], f->undofd, moved, 0),
			 0);
	assert_int_equal(unlinkat(f->segmentfd, undo_file_names[UNDO_PICKLE], 0), 0);
	put(f, UNDO_PICKLE, "half a pick", 11);
}

static void is_as_before(struct fixture *f)
{
	static struct content c;
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++) {
		get(f, i, &c);
		assert_int_equal(c.size, f->before[i].size);
		if (c.size > 0)
			assert_memory_equal(c.bytes, f->before[i].bytes, (size_t)c.size);
	}
}

/* ---- rolling back ---- */

static void report(void *context, const struct rollback_outcome *o)
{
	struct fixture *f = context;

	f->reports++;
	f->last = *o;
}

static void step(void *context)
{
	struct fixture *f = context;

	if (f->die_at && ++f->steps == f->die_at)
		_exit(7);
}

static struct rollback rollback_of(struct fixture *f)
{
	return (struct rollback){
	    .rootfd = f->rootfd, .undofd = f->undofd, .report = report, .step = step, .context = f};
}

static void roll_back(struct fixture *f)
{
	struct rollback rb = rollback_of(f);

	f->reports = 0;
	memset(&f->last, 0, sizeof(f->last));
	assert_int_equal(rollback_directory(&rb), 0);
}

static bool in_undo(struct fixture *f, const char *suffix)
{
	char name[UNDO_NAME_MAX];

	undo_name(name, &f->header, suffix);
	return faccessat(f->undofd, name, F_OK, 0) == 0;
}

static void test_whole(void **state)
{
	struct fixture *f = *state;

	persist(f);
	roll_back(f);
	assert_int_equal(f->reports, 1);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	assert_int_equal(f->last.bytes, 100 + 8192 + 2545 + 4000 + 808);
	assert_int_equal(f->last.skipped, 0);
	is_as_before(f);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_false(in_undo(f, ".4.moved"));
	roll_back(f);
	assert_int_equal(f->reports, 0);
}

static void test_dry(void **state)
{
	struct fixture *f = *state;
	struct rollback rb = rollback_of(f);
	static struct content c;

	persist(f);
	rb.dry = true;
	assert_int_equal(rollback_directory(&rb), 0);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	assert_true(in_undo(f, UNDO_SUFFIX));
	get(f, UNDO_PICKLE, &c);
	assert_int_equal(c.size, 11);
}

/* Death at each step of the roll-back; whoever comes next finishes it. */
static void test_second_death(void **state)
{
	struct fixture *f = *state;
	unsigned at;
	int status = 1;

	for (at = 1; status; at++) {
		pid_t child;

		persist(f);
		child = fork();
		if (!child) {
			f->die_at = at;
			roll_back(f);
			_exit(0);
		}
		waitpid(child, &status, 0);
		roll_back(f);
		is_as_before(f);
		assert_false(in_undo(f, UNDO_SUFFIX));
		assert_false(in_undo(f, ".4.moved"));
		close(f->w.fd);
	}
	f->w.fd = -1;
	assert_true(at > 8);
}

static void test_creation(void **state)
{
	struct fixture *f = *state;
	static struct content c;
	unsigned i;

	for (i = 0; i < UNDO_FILES; i++)
		f->before[i].size = -1;
	begin(f);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_CREATION);
	for (i = 0; i < UNDO_FILES; i++) {
		get(f, i, &c);
		assert_int_equal(c.size, -1);
	}
}

static void test_directory_gone(void **state)
{
	struct fixture *f = *state;
	unsigned i;

	persist(f);
	for (i = 0; i < UNDO_FILES; i++)
		unlinkat(f->segmentfd, undo_file_names[i], 0);
	assert_int_equal(unlinkat(f->rootfd, SEGMENT, AT_REMOVEDIR), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_GONE);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_false(in_undo(f, ".4.moved"));
}

/* A deletion that was cut short: nothing to put the blocks into. */
static void test_file_gone(void **state)
{
	struct fixture *f = *state;

	persist(f);
	unlinkat(f->segmentfd, undo_file_names[1], 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_GONE);
	assert_false(in_undo(f, UNDO_SUFFIX));
}

/* ---- whose process lives ---- */

static void test_live(void **state)
{
	struct fixture *f = *state;
	struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	char name[UNDO_NAME_MAX];
	int fd;

	persist(f);
	undo_alive_name(name, &f->header);
	fd = openat(f->undofd, name, O_RDWR | O_CREAT, 0600);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &whole), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_LIVE);
	assert_true(in_undo(f, UNDO_SUFFIX));
	close(fd);
	f->header.touched = now();
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
	assert_int_equal(faccessat(f->undofd, name, F_OK, 0), -1);
}

/* Without a lock to ask, the pid, its start and the boot decide. */
static void test_live_by_pid(void **state)
{
	struct fixture *f = *state;
	pid_t child = fork();
	char path[64];

	if (!child) {
		pause();
		_exit(0);
	}
	snprintf(path, sizeof(path), "/proc/%d/stat", child);
	begin(f);
	unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	close(f->w.fd);
	f->header.pid = (uint32_t)child;
	f->header.start_ticks = oplog_start_ticks(path);
	assert_int_equal(undo_create(&f->w, f->undofd, &f->header), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_LIVE);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
}

/* ---- stale ---- */

static void set_touched(struct fixture *f, uint64_t touched)
{
	assert_int_equal(
	    pwrite(f->w.fd, &touched, sizeof(touched), offsetof(struct undo_header, touched)),
	    sizeof(touched));
}

static void test_stale(void **state)
{
	struct fixture *f = *state;
	static struct content c;

	persist(f);
	set_touched(f, now() - UINT64_C(10000000000));
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_STALE);
	assert_true(in_undo(f, UNDO_SUFFIX ".stale"));
	get(f, UNDO_PICKLE, &c);
	assert_int_equal(c.size, 11); /* nothing was changed */
	roll_back(f);
	assert_int_equal(f->reports, 0);
}

/* A copy of the directory, or another boot: the kernel may have kept some seconds in memory. */
static void test_stale_after_power_cut(void **state)
{
	struct fixture *f = *state;
	unsigned char block[UNDO_HEADER_SIZE];
	uint64_t other = 1;

	persist(f);
	set_touched(f, now() - UINT64_C(10000000000));
	/* As if the file had another inode number: it is a copy. */
	assert_int_equal(pread(f->w.fd, block, sizeof(block), 0), sizeof(block));
	memcpy(block + offsetof(struct undo_header, ino), &other, sizeof(other));
	f->header.ino = other;
	close(f->w.fd);
	unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	assert_int_equal(undo_create(&f->w, f->undofd, &f->header), 0);
	set_touched(f, now() - UINT64_C(90000000000));
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_STALE);
}

/* ---- tentative ---- */

static void put_database(struct fixture *f, uint32_t counter, bool hot)
{
	unsigned char page[100] = {0};
	static const unsigned char magic[] = {0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7};
	int fd = openat(f->rootfd, "chroma.sqlite3", O_WRONLY | O_CREAT, 0644);

	page[26] = (unsigned char)(counter >> 8);
	page[27] = (unsigned char)counter;
	assert_int_equal(write(fd, page, sizeof(page)), sizeof(page));
	close(fd);
	unlinkat(f->rootfd, "chroma.sqlite3-journal", 0);
	if (!hot)
		return;
	fd = openat(f->rootfd, "chroma.sqlite3-journal", O_WRONLY | O_CREAT, 0644);
	assert_int_equal(write(fd, magic, sizeof(magic)), sizeof(magic));
	close(fd);
}

static void tentative(struct fixture *f, uint32_t counter)
{
	persist(f);
	assert_int_equal(undo_put(&f->w, UNDO_TENTATIVE, 0, counter), 0);
	assert_int_equal(undo_flush(&f->w), 0);
}

static void test_tentative(void **state)
{
	struct fixture *f = *state;
	static struct content c;

	tentative(f, 600);
	put_database(f, 600, false); /* never committed */
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
	close(f->w.fd);

	tentative(f, 600);
	put_database(f, 601, true); /* about to be rolled back by SQLite */
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	is_as_before(f);
	close(f->w.fd);

	tentative(f, 600);
	put_database(f, 601, false);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_COMMITTED);
	get(f, UNDO_PICKLE, &c);
	assert_int_equal(c.size, 11);
	assert_false(in_undo(f, UNDO_SUFFIX));
	assert_false(in_undo(f, ".4.moved"));
}

/* ---- damage ---- */

/* Cut anywhere: what was recorded whole is put back, what follows was never touched. */
static void test_torn(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	off_t size;

	begin(f);
	save(f, 1, 0, 8192);
	assert_int_equal(undo_flush(&f->w), 0);
	assert_int_equal(fstat(f->w.fd, &st), 0);
	close(f->w.fd);
	unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	for (size = 0; size < st.st_size; size += size < 300 ? 1 : 501) {
		begin(f);
		save(f, 1, 0, 8192);
		assert_int_equal(undo_flush(&f->w), 0);
		if (size < st.st_size)
			assert_int_equal(ftruncate(f->w.fd, size), 0);
		roll_back(f);
		assert_int_equal(f->reports, 1);
		assert_true(f->last.result == ROLLBACK_DONE ||
			    (size < (off_t)UNDO_HEADER_SIZE && f->last.result == ROLLBACK_GONE));
		assert_int_equal(f->last.bytes, 0);
		is_as_before(f);
		close(f->w.fd);
		/* begin() takes the next number where one was put aside */
	}
	f->w.fd = -1;
}

/* Any bit flipped: never a crash, never another byte than one of before. */
static void test_flipped(void **state)
{
	struct fixture *f = *state;
	struct stat st;
	off_t at;

	begin(f);
	save(f, 1, 0, 4096);
	save(f, 2, 0, 4000);
	assert_int_equal(undo_flush(&f->w), 0);
	assert_int_equal(fstat(f->w.fd, &st), 0);
	close(f->w.fd);
	unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	for (at = 0; at < st.st_size; at += at < 320 ? 1 : 97) {
		unsigned char c;

		begin(f);
		save(f, 1, 0, 4096);
		save(f, 2, 0, 4000);
		assert_int_equal(undo_flush(&f->w), 0);
		assert_int_equal(pread(f->w.fd, &c, 1, at), 1);
		c ^= (unsigned char)(1 << at % 8);
		assert_int_equal(pwrite(f->w.fd, &c, 1, at), 1);
		if (at >= (off_t)offsetof(struct undo_header, touched) &&
		    at < (off_t)sizeof(struct undo_header)) {
			close(f->w.fd);
			unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
			continue; /* not covered: it may only look stale */
		}
		roll_back(f);
		assert_int_equal(f->reports, 1);
		if (at < (off_t)offsetof(struct undo_header, touched))
			assert_true(f->last.result == ROLLBACK_DAMAGED ||
				    f->last.result == ROLLBACK_NEWER);
		else
			assert_int_equal(f->last.result, ROLLBACK_DONE);
		is_as_before(f);
		close(f->w.fd);
		unlinkat(f->undofd, SEGMENT "-999999-1.undo", 0);
	}
	f->w.fd = -1;
}

static void test_skipped(void **state)
{
	struct fixture *f = *state;
	static struct content c;

	begin(f);
	save(f, 1, 0, 4096);
	save(f, 2, 0, 4000);
	assert_int_equal(undo_flush(&f->w), 0);
	scribble(f, 2, 0, 4000);
	assert_int_equal(pwrite(f->w.fd, "!", 1, UNDO_HEADER_SIZE + 1000), 1);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DONE);
	assert_int_equal(f->last.skipped, 1);
	get(f, 2, &c);
	assert_memory_equal(c.bytes, f->before[2].bytes, 4000);
}

static void test_newer(void **state)
{
	struct fixture *f = *state;
	uint32_t version = UNDO_VERSION + 1;

	begin(f);
	assert_int_equal(
	    pwrite(f->w.fd, &version, sizeof(version), offsetof(struct undo_header, version)),
	    sizeof(version));
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_NEWER);
	assert_int_equal(f->last.error, -EPROTONOSUPPORT);
	assert_true(in_undo(f, UNDO_SUFFIX));
}

/* A file under another's name, a directory, a name that leads elsewhere. */
static void test_impostors(void **state)
{
	struct fixture *f = *state;

	begin(f);
	assert_int_equal(renameat(f->undofd, SEGMENT "-999999-1.undo", f->undofd, "a.undo"), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_DAMAGED);
	assert_int_equal(mkdirat(f->undofd, "b.undo", 0700), 0);
	roll_back(f);
	assert_int_equal(f->last.result, ROLLBACK_FAILED);
	assert_int_equal(f->last.error, -EISDIR);
	unlinkat(f->undofd, "b.undo", AT_REMOVEDIR);
	close(f->w.fd);
	memset(&f->header, 0, sizeof(f->header));
	strcpy(f->header.segment, "../elsewhere");
	undo_create(&f->w, f->undofd, &f->header);
	roll_back(f);
	assert_true(f->reports == 0 || f->last.result == ROLLBACK_DAMAGED);
	is_as_before(f);
}

/* ---- the writer ---- */

static void test_many_records(void **state)
{
	struct fixture *f = *state;
	struct undo_record record;
	struct undo_reader r;
	static unsigned char data[UNDO_LENGTH_MAX];
	uint64_t offset = 0;
	unsigned n = 0;

	begin(f);
	for (offset = 0; offset < 150001; offset += 512)
		save(f, 1, offset, 512); /* the last is cut by the end of the file */
	assert_int_equal(undo_flush(&f->w), 0);
	assert_int_equal(f->w.bytes, 150001);
	assert_int_equal(undo_open(&r, f->w.fd), 0);
	while (undo_next(&r, &record, data) == 0) {
		assert_int_equal(record.offset, n * 512);
		assert_memory_equal(data, f->before[1].bytes + record.offset, record.length);
		n++;
	}
	assert_int_equal(n, (150001 + 511) / 512);
	save(f, 1, 150001, 512); /* behind the end: nothing */
	assert_int_equal(f->w.used, 0);
}

static void test_names(void **state)
{
	struct fixture *f = *state;
	struct undo_header second;
	struct undo_writer w = {.buffer = f->buffer};

	begin(f);
	second = f->header;
	assert_int_equal(undo_create(&w, f->undofd, &second), 0);
	assert_int_equal(second.number, 2);
	close(w.fd);
	roll_back(f);
	assert_int_equal(f->reports, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_whole, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_dry, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_second_death, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_creation, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_directory_gone, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_file_gone, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_live, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_live_by_pid, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_stale, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_stale_after_power_cut, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_tentative, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_torn, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_flipped, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_skipped, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_newer, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_impostors, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_many_records, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_names, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
