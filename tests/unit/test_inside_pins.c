/* SPDX-License-Identifier: MIT
 *
 * A snapshot pinned inside the library: what is overwritten afterwards is read as it was, or the
 * pin says that it is broken; whatever fails, and whenever the backend dies.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/pin/view.h"
#include "core/sqlite/page.h"
#include "inside.h"
#include "preload/pin/pins.h"

#define PAGES 6
#define PAGE 4096
#define SIZE (PAGES * PAGE)

static unsigned char before[SIZE];

static void fill(unsigned char *page, unsigned number, unsigned generation)
{
	memset(page, (int)(number * 16 + generation), PAGE);
}

static void make(struct inside *f)
{
	unsigned i;

	inside_make(f);
	for (i = 0; i < PAGES; i++)
		fill(before + i * PAGE, i, 1);
	scratch_put(f->root.fd, CHROMA_DATABASE, before, SIZE);
}

static int set_lock(int fd, short type, off_t start, off_t length)
{
	struct flock lock = {
	    .l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};

	return do_fcntl(fd, F_SETLK, (unsigned long)&lock);
}

/* As SQLite with a rollback journal: three pages are overwritten, one is added. */
static int write_pages(struct inside *f, int fd)
{
	unsigned char page[PAGE];
	unsigned i;
	int journal;

	if (set_lock(fd, F_RDLCK, SQLITE_SHARED_FIRST, SQLITE_SHARED_SIZE) < 0 ||
	    set_lock(fd, F_WRLCK, SQLITE_RESERVED_BYTE, 1) < 0)
		return 20;
	journal = do_open(CALLER, inside_path(f, CHROMA_DATABASE "-journal"),
			  O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (journal < 0 || do_pwrite(journal, "journal", 7, 0) != 7 ||
	    set_lock(fd, F_WRLCK, SQLITE_PENDING_BYTE, 1) < 0 ||
	    set_lock(fd, F_WRLCK, SQLITE_SHARED_FIRST, SQLITE_SHARED_SIZE) < 0)
		return 21;
	for (i = 1; i <= PAGES; i += i < 3 ? 1 : 3) {
		fill(page, i, 2);
		if (do_pwrite(fd, page, PAGE, (off_t)i * PAGE) != PAGE)
			return 22;
	}
	do_close(journal);
	if (do_unlink(CALLER, inside_path(f, CHROMA_DATABASE "-journal")) < 0)
		return 23;
	return set_lock(fd, F_UNLCK, 0, 0) < 0 ? 24 : 0;
}

/* 0: it was pinned, and the pages are overwritten. 30: it could not be pinned, which was said. */
static int pin_and_write(struct inside *f)
{
	int fd = inside_open_database(f);
	int64_t pinned;
	int r;

	if (fd < 0 || set_lock(fd, F_RDLCK, SQLITE_SHARED_FIRST, SQLITE_SHARED_SIZE) < 0)
		return 10;
	pinned = pin_take(0, "manual", "a test");
	r = write_pages(f, fd);
	return r ? r : pinned > 0 ? 0 : 30;
}

/* Of each pin that is held: what it says was there. Returns how many there are. */
static unsigned look(struct inside *f)
{
	int store = openat(f->root.fd, ".chromashim", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	static unsigned char now[SIZE];
	unsigned i, held = 0;
	struct pins pins;

	if (store < 0 || pins_open(&pins, store, false) < 0) {
		close(store);
		return 0;
	}
	for (i = 0; i < PIN_SLOTS; i++) {
		struct pin_slot *slot = &pins.slots[i];
		struct snapshot_trouble trouble;
		struct pin_reader reader;
		struct pin_view view;

		if (slot->state != PIN_HELD)
			continue;
		if (pin_view_open(&view, &pins, slot, f->root.fd, &trouble) < 0)
			continue;
		if (pin_reader_open(&reader, &view, CHROMA_DATABASE) == 0) {
			if (file_source_read(&reader.source, now, SIZE, 0) == 0 &&
			    pin_reader_judge(&reader) == 0 && pin_view_check(&view) == 0) {
				assert_memory_equal(now, before, SIZE);
				held++;
			}
			pin_reader_close(&reader);
		}
		pin_view_close(&view);
	}
	pins_close(&pins);
	close(store);
	return held;
}

static void test_what_was_there(void **state)
{
	struct inside f;
	struct stat st;

	(void)state;
	make(&f);
	assert_int_equal(inside_run(&f, NULL, pin_and_write), 0);
	assert_int_equal(fstatat(f.root.fd, CHROMA_DATABASE, &st, 0), 0);
	assert_int_equal(st.st_size, SIZE + PAGE);
	assert_int_equal(look(&f), 1);
	inside_remove(&f);
}

static void test_killed_at_every_point(void **state)
{
	int status = 128 + SIGKILL;
	unsigned at, held = 0;
	char fault[32];

	(void)state;
	for (at = 1; status == 128 + SIGKILL; at++) {
		struct inside f;

		make(&f);
		snprintf(fault, sizeof(fault), "kill:%u", at);
		status = inside_run(&f, fault, pin_and_write);
		assert_true(status == 128 + SIGKILL || status == 0);
		held += look(&f);
		inside_remove(&f);
	}
	assert_in_range(at, 8, 200);
	assert_true(held > 3);
}

/* The backend's writes succeed, whatever becomes of the pin. */
static void test_the_shims_calls_fail(void **state)
{
	unsigned at, held = 0;
	char fault[48];

	(void)state;
	for (at = 1; at <= 40; at++) {
		struct inside f;
		int status;

		make(&f);
		snprintf(fault, sizeof(fault), "once:%u:28:own", at);
		status = inside_run(&f, fault, pin_and_write);
		assert_true(status == 0 || status == 30);
		held += look(&f);
		inside_remove(&f);
	}
	print_message("%u of 40 pins held\n", held);
	assert_true(held > 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_what_was_there),
	    cmocka_unit_test(test_killed_at_every_point),
	    cmocka_unit_test(test_the_shims_calls_fail),
	};

	inside_start();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
