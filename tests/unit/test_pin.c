/* SPDX-License-Identifier: MIT
 *
 * Pins: the shared state, epochs, pre-images, and letting go.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <sys/wait.h>

#include "core/base/checksum.h"
#include "core/pin/pin.h"
#include "scratch.h"

#define SIZE (10 * PIN_BLOCK + 100)

static struct scratch home;
static unsigned char content[SIZE];

static const struct pin_request request = {.reason = "manual", .description = "a test"};

static int set_up(void **state)
{
	size_t i;

	(void)state;
	scratch_make(&home);
	for (i = 0; i < SIZE; i++)
		content[i] = (unsigned char)(i * 31 + i / PIN_BLOCK);
	scratch_put(home.fd, "chroma.sqlite3", content, SIZE);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	scratch_remove(&home);
	return 0;
}

static struct pin_slot *pinned(struct pins *p)
{
	struct pin_slot *s;

	assert_int_equal(pin_begin(p, &request, &s), 0);
	pin_hold(s);
	return s;
}

static int live(void)
{
	int fd = openat(home.fd, "chroma.sqlite3", O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void test_state(void **state)
{
	struct pins one, two;
	struct pin_slot *s, *t;

	(void)state;
	assert_int_equal(pins_open(&one, home.fd, false), -ENOENT);
	assert_int_equal(pins_open(&one, home.fd, true), 0);
	assert_int_equal(pins_open(&two, home.fd, false), 0);
	assert_true(pins_epoch(&one) == 0);
	s = pinned(&one);
	assert_true(s->id == 1 && pins_epoch(&two) == 1);
	assert_string_equal(two.slots[s - one.slots].reason, "manual");
	assert_int_equal(two.slots[s - one.slots].pid, getpid());
	t = pinned(&two);
	assert_true(t->id == 2 && pins_epoch(&one) == 2);
	pin_drop(&two, t);
	assert_true(pins_epoch(&one) == 2); /* the first one still needs it */
	pin_drop(&one, s);
	assert_true(pins_epoch(&one) == 0 && !pins_any(&one));
	s = pinned(&one);
	assert_true(s->id == 3); /* never again */
	pin_break(&one, NULL, ENOSPC, "no room");
	assert_int_equal(s->state, PIN_BROKEN);
	assert_string_equal(s->detail, "no room");
	assert_true(pins_epoch(&one) == 0);
	pins_close(&one);
	pins_close(&two);
}

static void test_numbers_of_snapshots_count(void **state)
{
	struct pins p;

	(void)state;
	assert_int_equal(mkdirat(home.fd, "snapshots", 0700), 0);
	scratch_put(home.fd, "snapshots/next", "41\n", 3);
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	assert_true(pinned(&p)->id == 41);
	scratch_put(home.fd, "snapshots/next", "50\n", 3);
	assert_true(pinned(&p)->id == 50);
	assert_true(pinned(&p)->id == 51);
	pins_close(&p);
}

static void test_slots_end(void **state)
{
	struct pins p;
	struct pin_slot *s;
	unsigned i;

	(void)state;
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	for (i = 0; i < PIN_SLOTS; i++)
		pinned(&p);
	assert_int_equal(pin_begin(&p, &request, &s), -ENOSPC);
	pin_drop(&p, &p.slots[5]);
	assert_int_equal(pin_begin(&p, &request, &s), 0);
	assert_ptr_equal(s, &p.slots[5]);
	pins_close(&p);
}

static void test_each_block_once(void **state)
{
	unsigned char block[PIN_BLOCK], expected[PIN_BLOCK] = {0};
	struct pin_file f, r;
	struct pins p;
	uint64_t id;
	int fd = live();

	(void)state;
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	id = pinned(&p)->id;
	assert_int_equal(pin_file_read_open(&r, &p, id, "chroma.sqlite3"), -ENOENT);
	assert_int_equal(pin_file_open(&f, &p, id, home.fd, "chroma.sqlite3"), 0);
	assert_true(f.header->size == SIZE);
	assert_int_equal(pin_file_save(&f, &p, fd, PIN_BLOCK + 5, PIN_BLOCK), 0);
	assert_int_equal(pwrite(fd, "XXXX", 4, PIN_BLOCK + 5), 4);
	assert_int_equal(pin_file_save(&f, &p, fd, PIN_BLOCK + 5, 4), 0);
	/* It grows within its last block, which is overwritten then. */
	assert_int_equal(pwrite(fd, "tail", 4, SIZE), 4);
	assert_int_equal(pin_file_save(&f, &p, fd, SIZE - 10, 1000), 0);
	assert_int_equal(pin_file_save(&f, &p, fd, SIZE, 1000), 0);

	assert_int_equal(pin_file_read_open(&r, &p, id, "chroma.sqlite3"), 0);
	assert_int_equal(pin_file_read(&r, 0, block), 0);
	assert_int_equal(pin_file_read(&r, 1, block), 1);
	assert_memory_equal(block, content + PIN_BLOCK, PIN_BLOCK);
	assert_int_equal(pin_file_read(&r, 2, block), 1);
	assert_int_equal(pin_file_read(&r, 3, block), 0);
	assert_int_equal(pin_file_read(&r, 10, block), 1);
	memcpy(expected, content + 10 * PIN_BLOCK, 100);
	assert_memory_equal(block, expected, PIN_BLOCK);
	assert_int_equal(pin_file_read(&r, 11, block), 0);
	/* A wrong byte of the image is never given out. */
	assert_int_equal(pwrite(f.fd, "Z", 1, (off_t)(f.header->image + PIN_BLOCK + 7)), 1);
	assert_int_equal(pin_file_read(&r, 1, block), -EBADMSG);
	pin_file_close(&f);
	pin_file_close(&r);
	close(fd);
	pins_close(&p);
}

static void test_busy_of_the_dead(void **state)
{
	unsigned char block[PIN_BLOCK];
	struct pin_file f;
	struct pins p;
	uint64_t id;
	int fd = live();

	(void)state;
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	id = pinned(&p)->id;
	assert_int_equal(pin_file_open(&f, &p, id, home.fd, "chroma.sqlite3"), 0);
	f.sums[3] = PIN_SUM_BUSY;
	assert_int_equal(pin_file_read(&f, 3, block), 0);
	assert_int_equal(pin_file_save(&f, &p, fd, 3 * PIN_BLOCK, 1), 0);
	assert_int_equal(pin_file_read(&f, 3, block), 1);
	pin_file_close(&f);
	close(fd);
	pins_close(&p);
}

static void test_files_come_and_go(void **state)
{
	unsigned char block[PIN_BLOCK];
	struct pin_file f, other;
	struct stat st;
	struct pins p;
	uint64_t id;
	int fd = live();

	(void)state;
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	id = pinned(&p)->id;
	assert_int_equal(pin_file_open(&other, &p, id, home.fd, "a/new"), 0);
	assert_true(other.header->size == -1);
	assert_int_equal(pin_file_save(&other, &p, fd, 0, 100), 0);
	assert_int_equal(pin_file_open(&f, &p, id, home.fd, "chroma.sqlite3"), 0);
	assert_int_equal(pin_file_keep(&p, id, home.fd, "chroma.sqlite3"), 0);
	assert_int_equal(unlinkat(home.fd, "chroma.sqlite3", 0), 0);
	assert_int_equal(fstatat(p.dirfd, "00000001-chroma.sqlite3.whole", &st, 0), 0);
	assert_true(st.st_size == SIZE);
	/* What comes under its name now is another file: nothing of it is a pre-image. */
	scratch_put(home.fd, "chroma.sqlite3", "new", 3);
	close(fd);
	fd = live();
	assert_int_equal(pin_file_save(&f, &p, fd, 0, 3), 0);
	assert_int_equal(pin_file_read(&f, 0, block), 0);
	assert_int_equal(pin_file_keep(&p, id, home.fd, "chroma.sqlite3"), 0);
	assert_int_equal(fstatat(p.dirfd, "00000001-chroma.sqlite3.whole", &st, 0), 0);
	assert_true(st.st_size == SIZE);
	pin_file_close(&f);
	pin_file_close(&other);
	close(fd);
	pins_close(&p);
}

static void test_sweep(void **state)
{
	struct pin_slot *first, *second;
	struct pin_file f;
	struct pins p;
	struct stat st;
	int fd = live();

	(void)state;
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	first = pinned(&p);
	assert_int_equal(pin_file_open(&f, &p, 1, home.fd, "chroma.sqlite3"), 0);
	assert_int_equal(pin_file_save(&f, &p, fd, 0, SIZE), 0);
	assert_true(p.state->saved >= SIZE);
	pin_file_close(&f);
	second = pinned(&p);
	assert_int_equal(pin_file_open(&f, &p, 2, home.fd, "chroma.sqlite3"), 0);
	pin_file_close(&f);
	assert_int_equal(pins_sweep(&p), 0);
	pin_drop(&p, second);
	assert_int_equal(pins_sweep(&p), 0); /* the first needs the later one's */
	pin_drop(&p, first);
	assert_int_equal(pins_sweep(&p), 2);
	assert_true(p.state->saved == 0);
	assert_int_equal(fstatat(p.dirfd, "00000001-chroma.sqlite3.pre", &st, 0), -1);
	close(fd);
	pins_close(&p);
}

static void test_taker_dies(void **state)
{
	struct pins p;
	struct pin_slot *s;
	pid_t child;

	(void)state;
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	child = fork();
	if (!child) {
		pin_begin(&p, &request, &s);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	assert_int_equal(p.slots[0].state, PIN_TAKING);
	assert_true(pins_epoch(&p) == 1);
	assert_int_equal(pins_sweep(&p), 0);
	assert_int_equal(p.slots[0].state, PIN_FREE);
	assert_true(pins_epoch(&p) == 0);
	pins_close(&p);
}

static void test_another_boot(void **state)
{
	struct pin_header h;
	struct pins p;
	int fd;

	(void)state;
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	pinned(&p);
	assert_int_equal(pins_sweep(&p), 0);
	p.state->boot_id[3] ^= 1;
	pins_close(&p);
	assert_int_equal(pins_open(&p, home.fd, false), -EBADMSG); /* its check covers it */
	pins_close(&p);
	fd = openat(home.fd, PINS_DIR "/state", O_RDWR | O_CLOEXEC);
	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	h.check = checksum64(&h, offsetof(struct pin_header, check), 0);
	assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	close(fd);
	assert_int_equal(pins_open(&p, home.fd, false), 0);
	assert_int_equal(p.slots[0].state, PIN_BROKEN);
	assert_true(p.slots[0].id == 1 && p.slots[0].detail[0]);
	assert_true(pins_epoch(&p) == 0);
	assert_true(pinned(&p)->id == 2);
	pins_close(&p);
}

/* The name was on the disk when the power went, and of the content a part or nothing. */
static void test_power_cut_at_its_birth(void **state)
{
	static const char zeros[PIN_BLOCK];
	struct pins p;
	off_t size;
	int fd;

	(void)state;
	for (size = 0; size <= 1; size++) {
		assert_int_equal(pins_open(&p, home.fd, true), 0);
		pinned(&p);
		pins_close(&p);
		fd = openat(home.fd, PINS_DIR "/state", O_RDWR | O_CLOEXEC);
		if (size == 0)
			assert_int_equal(ftruncate(fd, 0), 0);
		else
			assert_int_equal(pwrite(fd, zeros, PIN_BLOCK, 0), PIN_BLOCK);
		close(fd);
		assert_int_equal(pins_open(&p, home.fd, false), 0);
		assert_true(!pins_any(&p) && pins_epoch(&p) == 0);
		assert_true(pinned(&p)->id == 1);
		pins_close(&p);
	}
	fd = openat(home.fd, PINS_DIR "/state", O_RDWR | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "?", 1, 0), 1);
	close(fd);
	assert_int_equal(pins_open(&p, home.fd, true), -EBADMSG);
}

static void test_groups(void **state)
{
	struct pin_slot *s;
	struct stat st;
	struct pins p;
	int undofd;

	(void)state;
	assert_int_equal(mkdirat(home.fd, "undo", 0700), 0);
	undofd = openat(home.fd, "undo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scratch_put(undofd, "seg-1-1.undo", "u", 1);
	scratch_put(undofd, "seg-1-1.4.moved", "m", 1);
	scratch_put(undofd, "1-2.alive", "", 0);
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	assert_int_equal(pin_begin(&p, &request, &s), 0);
	assert_int_equal(pin_add_groups(&p, s, undofd, home.fd), 0);
	pin_hold(s);
	assert_int_equal(fstatat(p.dirfd, "00000001-seg-1-1.undo", &st, 0), 0);
	assert_int_equal(fstatat(p.dirfd, "00000001-seg-1-1.4.moved", &st, 0), 0);
	assert_int_equal(fstatat(p.dirfd, "00000001-1-2.alive", &st, 0), -1);
	/* One that has ended while it was linked. */
	assert_int_equal(unlinkat(undofd, "seg-1-1.undo", 0), 0);
	assert_int_equal(pin_add_groups(&p, s, undofd, home.fd), -EAGAIN);
	close(undofd);
	pins_close(&p);
}

/* What is linked for a pin has its own name still: that it got another one is no change from
 * outside. */
static void test_what_is_linked_is_told(void **state)
{
	static const char segment[] = "0a1b2c3d-0000-4000-8000-00000000abcd";
	char path[80], moved[80];
	struct pin_identity is;
	struct pin_file f;
	struct pin_slot *s;
	struct pins p;
	int undofd, tries;

	(void)state;
	snprintf(path, sizeof(path), "%s/index_metadata.pickle", segment);
	snprintf(moved, sizeof(moved), "%s-7-1.4.moved", segment);
	assert_int_equal(mkdirat(home.fd, segment, 0700), 0);
	assert_int_equal(mkdirat(home.fd, "undo", 0700), 0);
	undofd = openat(home.fd, "undo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	scratch_put(home.fd, path, "old", 3);
	assert_int_equal(linkat(home.fd, path, undofd, moved, 0), 0);
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	assert_int_equal(pin_begin(&p, &request, &s), 0);
	assert_int_equal(pin_file_open(&f, &p, s->id, home.fd, path), 0);
	pin_hold(s);
	assert_int_equal(pin_begin(&p, &request, &s), 0);
	for (tries = 0; tries < 200; tries++) { /* the kernel's clock has ticks */
		snprintf(moved, sizeof(moved), "%s-7-%d.4.moved", segment, tries + 2);
		assert_int_equal(linkat(home.fd, path, undofd, moved, 0), 0);
		assert_int_equal(pin_identify(home.fd, path, &is), 0);
		if (is.changed != f.life->seen)
			break;
		usleep(1000);
	}
	assert_true(is.changed != f.life->seen);
	snprintf(moved, sizeof(moved), "%s-7-%d.undo", segment, tries + 2);
	scratch_put(undofd, moved, "u", 1);
	pin_add_groups(&p, s, undofd, home.fd);
	assert_int_equal(pin_identify(home.fd, path, &is), 0);
	assert_int_equal(is.changed, f.life->seen);
	assert_int_equal(f.life->busy, 0);
	pin_file_close(&f);
	close(undofd);
	pins_close(&p);
}

/* It may have begun before the epoch, and ended before its undo file could be linked. */
static void test_group_that_is_gone(void **state)
{
	static const char segment[] = "0a1b2c3d-0000-4000-8000-00000000abcd";
	char path[80], undo[80];
	struct pin_file f;
	struct pin_slot *s;
	struct pins p;
	int undofd;

	(void)state;
	snprintf(path, sizeof(path), "%s/header.bin", segment);
	snprintf(undo, sizeof(undo), "%s-7-1.undo", segment);
	assert_int_equal(mkdirat(home.fd, "undo", 0700), 0);
	undofd = openat(home.fd, "undo", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	assert_int_equal(pin_begin(&p, &request, &s), 0);
	assert_int_equal(pin_file_open(&f, &p, s->id, home.fd, "chroma.sqlite3"), 0);
	pin_file_close(&f);
	assert_int_equal(pin_add_groups(&p, s, undofd, home.fd), 0);
	assert_int_equal(pin_file_open(&f, &p, s->id, home.fd, path), 0);
	pin_file_close(&f);
	assert_int_equal(pin_add_groups(&p, s, undofd, home.fd), -EAGAIN);
	scratch_put(undofd, undo, "u", 1);
	assert_int_equal(pin_add_groups(&p, s, undofd, home.fd), 0);
	close(undofd);
	pins_close(&p);
}

/* ---- threads ---- */

#define THREADS 4
#define ROUNDS 200

struct saver {
	struct pins *pins;
	struct pin_file *file;
	int fd;
};

/* Saves a block, then overwrites it, as all the others do. */
static void *save_and_overwrite(void *argument)
{
	struct saver *k = argument;
	uint64_t i;

	for (i = 0; i < 10; i++) {
		static const unsigned char junk[PIN_BLOCK] = {1, 2, 3};

		if (pin_file_save(k->file, k->pins, k->fd, i * PIN_BLOCK, PIN_BLOCK) < 0 ||
		    pwrite(k->fd, junk, PIN_BLOCK, (off_t)(i * PIN_BLOCK)) != PIN_BLOCK)
			abort();
	}
	return NULL;
}

static void test_threads(void **state)
{
	pthread_t threads[THREADS];
	unsigned char block[PIN_BLOCK];
	struct pin_slot *s;
	struct pin_file f;
	struct pins p;
	int round, i, fd = live();

	(void)state;
	assert_int_equal(pins_open(&p, home.fd, true), 0);
	for (round = 0; round < ROUNDS; round++) {
		struct saver k = {.pins = &p, .file = &f, .fd = fd};

		assert_int_equal(pwrite(fd, content, SIZE, 0), SIZE);
		s = pinned(&p);
		assert_int_equal(pin_file_open(&f, &p, s->id, home.fd, "chroma.sqlite3"), 0);
		for (i = 0; i < THREADS; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, save_and_overwrite, &k),
					 0);
		for (i = 0; i < THREADS; i++)
			pthread_join(threads[i], NULL);
		for (i = 0; i < 10; i++) {
			assert_int_equal(pin_file_read(&f, (uint64_t)i, block), 1);
			assert_memory_equal(block, content + (size_t)i * PIN_BLOCK, PIN_BLOCK);
		}
		pin_file_close(&f);
		pin_drop(&p, s);
		assert_true(pins_sweep(&p) > 0);
	}
	close(fd);
	pins_close(&p);
}

/* ---- who writes ---- */

static void test_writers(void **state)
{
	struct pins first, second;
	struct pin_writer *w, *other;
	pid_t child;
	int status;

	(void)state;
	assert_int_equal(pins_open(&first, home.fd, true), 0);
	assert_int_equal(pins_open(&second, home.fd, false), 0);
	w = pins_be_writer(&first, 0);
	assert_non_null(w);
	assert_false(pins_is_written(&second));
	w->writes = 1;
	assert_true(pins_is_written(&second));
	w->writes = 0;
	w->unprotected = 1;
	assert_true(pins_is_unprotected(&second));
	w->unprotected = 0;

	/* One that dies in the middle counts no more, and its place serves again. */
	child = fork();
	if (child == 0) {
		other = pins_be_writer(&second, 0);
		if (!other || other == w)
			_exit(1);
		other->writes = other->unprotected = 1;
		_exit(0);
	}
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_false(pins_is_written(&first));
	assert_false(pins_is_unprotected(&first));
	do
		other = pins_be_writer(&first, 0);
	while (other && other->who && other != &first.writers[1]);
	assert_ptr_equal(other, &first.writers[1]);
	assert_int_equal(other->writes, 0);
	pins_close(&second);
	pins_close(&first);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
	    TEST(test_state),
	    TEST(test_numbers_of_snapshots_count),
	    TEST(test_slots_end),
	    TEST(test_each_block_once),
	    TEST(test_busy_of_the_dead),
	    TEST(test_files_come_and_go),
	    TEST(test_sweep),
	    TEST(test_taker_dies),
	    TEST(test_another_boot),
	    TEST(test_power_cut_at_its_birth),
	    TEST(test_groups),
	    TEST(test_group_that_is_gone),
	    TEST(test_what_is_linked_is_told),
	    TEST(test_threads),
	    TEST(test_writers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
