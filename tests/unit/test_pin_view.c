/* SPDX-License-Identifier: MIT
 *
 * A pin read back: whatever is written, cut off, removed or made anew afterwards, it gives the
 * files as they were, byte for byte; and what is damaged is told, never given.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <sys/wait.h>

#include "core/base/checksum.h"
#include "core/undo/undo.h"
#include "pin_fixture.h"

static void cut(struct fixture *f, const char *path, uint64_t size)
{
	int fd = openat(f->root.fd, path, O_RDWR);
	uint64_t epoch;

	if (fd < 0)
		return;
	epoch = save(f, path, size, UINT64_MAX);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
	leave(f, epoch, path);
}

static void remove_it(struct fixture *f, const char *path)
{
	uint64_t epoch;

	if (faccessat(f->root.fd, path, F_OK, 0) < 0)
		return;
	epoch = save(f, path, 0, 0);
	if (epoch)
		assert_int_equal(pin_file_keep(&f->pins, epoch, f->root.fd, path), 0);
	assert_int_equal(unlinkat(f->root.fd, path, 0), 0);
	leave(f, epoch, path);
}

static void change_something(struct fixture *f)
{
	unsigned char data[9000];
	unsigned which = roll(f, FILES), i;
	size_t n = 1 + roll(f, sizeof(data));

	for (i = 0; i < n; i++)
		data[i] = (unsigned char)roll(f, 256);
	switch (roll(f, 8)) {
	case 0:
		cut(f, paths[which], roll(f, SIZE_LIMIT / 2));
		break;
	case 1:
		if (which) /* a database stays */
			remove_it(f, paths[which]);
		break;
	default:
		write_at(f, paths[which], roll(f, SIZE_LIMIT - sizeof(data)), data, n);
		break;
	}
}

/* ---- pins ---- */

static void remember(struct fixture *f, struct content *c, const char *path)
{
	size_t size = 0;
	char *data = scratch_get(f->root.fd, path, &size);

	c->there = data != NULL;
	c->size = size;
	assert_true(size <= SIZE_LIMIT);
	if (data)
		memcpy(c->bytes, data, size);
	free(data);
}

static const struct pin_view_file *find(const struct pin_view *v, const char *path)
{
	size_t i;

	for (i = 0; i < v->count; i++)
		if (!strcmp(v->files[i].path, path))
			return &v->files[i];
	return NULL;
}

static void compare_file(struct pin_view *v, const struct content *c, const char *path)
{
	unsigned char *data = malloc(SIZE_LIMIT);
	struct pin_reader r;
	size_t at, piece;
	int judged;

	assert_int_equal(find(v, path) != NULL, c->there);
	assert_int_equal(pin_reader_open(&r, v, path), c->there ? 0 : -ENOENT);
	if (c->there) {
		assert_int_equal(r.source.size, c->size);
		for (at = 0; at < c->size; at += piece) { /* at odd places */
			piece = c->size - at < 5000 ? c->size - at : 5000;
			assert_int_equal(file_source_read(&r.source, data + at, piece, at), 0);
		}
		assert_memory_equal(data, c->bytes, c->size);
		do
			judged = pin_reader_judge(&r);
		while (judged == -EBUSY); /* the writer is held up on a busy machine */
		assert_int_equal(judged, 0);
	}
	pin_reader_close(&r);
	free(data);
}

static void compare(struct fixture *f, const struct kept *k)
{
	struct snapshot_trouble t;
	struct pin_view v;
	unsigned i;

	assert_int_equal(pin_view_open(&v, &f->pins, k->slot, f->root.fd, &t), 0);
	for (i = 0; i < FILES; i++)
		compare_file(&v, &k->files[i], paths[i]);
	assert_int_equal(pin_view_check(&v), 0);
	pin_view_close(&v);
}

static void any_history(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	unsigned round, step, i, j;

	(void)state;
	for (round = 1; round <= 60; round++) {
		make(f);
		f->seed = round;
		write_at(f, CHROMA_DATABASE, 0, "a database", 10);
		for (step = 0; step < KEPT * 20; step++) {
			if (step % 20 == 10) {
				struct kept *k = &f->kept[step / 20];

				k->slot = pin(f);
				for (i = 0; i < FILES; i++)
					remember(f, &k->files[i], paths[i]);
			}
			change_something(f);
			if (step % 7 == 0)
				for (j = 0; j < KEPT; j++)
					if (f->kept[j].slot)
						compare(f, &f->kept[j]);
		}
		/* One in the middle is let go of; the others do not need it, or its files stay. */
		pin_drop(&f->pins, f->kept[round % KEPT].slot);
		assert_true(pins_sweep(&f->pins) >= 0);
		for (j = 0; j < KEPT; j++)
			if (j != round % KEPT)
				compare(f, &f->kept[j]);
		release(f);
	}
	free(f);
}

/* The reader between the writer's saving and writing, and before its first pre-image file. */
static void while_it_is_written(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	unsigned round, i, changes;
	struct kept k;
	int status = 0;
	pid_t child;

	(void)state;
	for (round = 1; round <= 15; round++) {
		make(f);
		f->seed = round;
		write_at(f, CHROMA_DATABASE, 0, "a database", 10);
		for (i = 0; i < 30; i++)
			change_something(f);
		k.slot = pin(f);
		for (i = 0; i < FILES; i++)
			remember(f, &k.files[i], paths[i]);
		child = fork();
		assert_true(child >= 0);
		if (child == 0)
			f->writer = pins_be_writer(&f->pins, 0);
		for (changes = 0; child == 0 && changes < 300; changes++)
			change_something(f);
		if (child == 0)
			_exit(0);
		do
			compare(f, &k);
		while (waitpid(child, &status, WNOHANG) == 0);
		assert_int_equal(status, 0);
		compare(f, &k);
		release(f);
	}
	free(f);
}

/* ---- a persist under way ---- */

static void put_group(struct fixture *f, struct undo_writer *w, unsigned char *buffer, bool created)
{
	struct undo_header h = {.pid = (uint32_t)getpid(), .number = 1, .time = 1};
	int undofd = tree_make_directory(f->storefd, UNDO_DIR), fd;
	struct stat st;
	unsigned i;

	strcpy(h.segment, SEGMENT);
	for (i = 0; i < UNDO_FILES; i++) {
		char path[PIN_PATH];

		snprintf(path, sizeof(path), SEGMENT "/%s", undo_file_names[i]);
		h.files[i].size =
		    created || fstatat(f->root.fd, path, &st, 0) < 0 ? -1 : st.st_size;
		h.files[i].mode = 0644;
	}
	memset(w, 0, sizeof(*w));
	w->buffer = buffer;
	assert_int_equal(undo_create(w, undofd, &h, false), 0);
	fd = openat(f->root.fd, SEGMENT_FILE, O_RDONLY);
	if (!created) {
		assert_int_equal(undo_save(w, 1, fd, 0, UNDO_GRAIN), 0);
		assert_int_equal(undo_flush(w), 0);
	}
	close(fd);
	close(undofd);
}

static void segment_as_at_the_groups_start(void **state)
{
	static unsigned char buffer[UNDO_BUFFER];
	static const char fresh[] = "half a persist";
	struct fixture *f = malloc(sizeof(*f));
	struct undo_writer w;
	struct kept k;
	int created, undofd, fd;
	char moved[UNDO_NAME_MAX];
	struct undo_header h = {.pid = (uint32_t)getpid(), .number = 1};
	unsigned i;

	(void)state;
	for (created = 0; created < 2; created++) {
		make(f);
		write_at(f, CHROMA_DATABASE, 0, "a database", 10);
		for (i = 0; i < 3; i++)
			write_at(f, SEGMENT_FILE, i * 4096, "what was there before", 21);
		write_at(f, PICKLE, 0, "the old pickle", 14);
		for (i = 0; i < FILES; i++)
			remember(f, &k.files[i], paths[i]);
		put_group(f, &w, buffer, created);
		/* Seen by the group alone: there is no epoch yet. */
		fd = openat(f->root.fd, SEGMENT_FILE, O_RDWR);
		assert_int_equal(pwrite(fd, fresh, sizeof(fresh), 0), sizeof(fresh));
		strcpy(h.segment, SEGMENT);
		undo_moved_name(moved, &h, UNDO_PICKLE);
		undofd = openat(f->storefd, UNDO_DIR, O_RDONLY | O_DIRECTORY);
		assert_int_equal(linkat(f->root.fd, PICKLE, undofd, moved, 0), 0);
		assert_int_equal(unlinkat(f->root.fd, PICKLE, 0), 0);
		scratch_put(f->root.fd, PICKLE, "new", 3);
		k.slot = pin(f);
		assert_int_equal(pin_add_groups(&f->pins, k.slot, undofd, f->root.fd), 0);
		/* And by both, after it. */
		if (!created)
			assert_int_equal(undo_save(&w, 1, fd, 4096, UNDO_GRAIN), 0);
		assert_int_equal(undo_flush(&w), 0);
		write_at(f, SEGMENT_FILE, 4096, fresh, sizeof(fresh));
		/* By the epoch alone: the group has ended. */
		write_at(f, SEGMENT_FILE, 8192, fresh, sizeof(fresh));
		/* The rest of blocks of which the group has saved a grain. */
		write_at(f, SEGMENT_FILE, 100, fresh, sizeof(fresh));
		write_at(f, SEGMENT_FILE, 4096 + 2000, fresh, sizeof(fresh));
		for (i = 1; i < FILES && created; i++)
			k.files[i].there = false;
		compare(f, &k);
		close(fd);
		close(undofd);
		close(w.fd);
		release(f);
	}
	free(f);
}

/* ---- damage ---- */

static int read_all_of(struct fixture *f, struct pin_slot *slot, struct snapshot_trouble *t)
{
	unsigned char *data = malloc(SIZE_LIMIT);
	struct pin_view v;
	struct pin_reader r;
	size_t i;
	int e = pin_view_open(&v, &f->pins, slot, f->root.fd, t), opened = e;

	for (i = 0; e == 0 && i < v.count; i++) {
		e = pin_reader_open(&r, &v, v.files[i].path);
		if (e == 0)
			e = file_source_read(&r.source, data, (size_t)r.source.size, 0);
		if (e == 0)
			e = pin_reader_judge(&r);
		pin_reader_close(&r);
	}
	if (e == 0)
		e = pin_view_check(&v);
	if (opened == 0)
		pin_view_close(&v);
	free(data);
	return e;
}

static void what_is_damaged_is_told(void **state)
{
	static const struct {
		const char *part;
		off_t at;
		int cut_to;
	} cases[] = {
	    {"data_level0.bin.pre", 20, -1},	   /* its header */
	    {"data_level0.bin.pre", 4096, -1},	   /* a sum */
	    {"data_level0.bin.pre", 8192 + 3, -1}, /* an image */
	    {"data_level0.bin.pre", 0, 100},	   {"data_level0.bin.pre", 0, 8192},
	};
	struct fixture *f = malloc(sizeof(*f));
	struct snapshot_trouble t;
	struct pin_slot *slot;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		make(f);
		write_at(f, CHROMA_DATABASE, 0, "a database", 10);
		write_at(f, SEGMENT_FILE, 0, "before", 6);
		slot = pin(f);
		write_at(f, SEGMENT_FILE, 0, "after.", 6);
		assert_int_equal(read_all_of(f, slot, &t), 0);
		damage(f, cases[i].part, cases[i].at, cases[i].cut_to);
		assert_int_equal(read_all_of(f, slot, &t), -EBADMSG);
		assert_non_null(strstr(t.file, "data_level0.bin"));
		release(f);
	}
	free(f);
}

/* ---- what others do ---- */

/* In place, and with the times it had. */
static void overwrite(struct fixture *f)
{
	struct timespec times[2];
	struct stat st;
	int fd = openat(f->root.fd, SEGMENT_FILE, O_RDWR);

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(pwrite(fd, "FOREIGN", 7, 9000), 7);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	assert_int_equal(futimens(fd, times), 0);
	close(fd);
}

/* As tar and rsync do it: the same name, size and times. */
static void replace(struct fixture *f)
{
	struct timespec times[2];
	struct stat st;
	size_t size;
	char *data = scratch_get(f->root.fd, SEGMENT_FILE, &size);

	assert_int_equal(fstatat(f->root.fd, SEGMENT_FILE, &st, 0), 0);
	data[9000] ^= 1;
	assert_int_equal(unlinkat(f->root.fd, SEGMENT_FILE, 0), 0);
	scratch_put(f->root.fd, SEGMENT_FILE, data, size);
	times[0] = st.st_atim;
	times[1] = st.st_mtim;
	assert_int_equal(utimensat(f->root.fd, SEGMENT_FILE, times, 0), 0);
	free(data);
}

static void take_away(struct fixture *f)
{
	assert_int_equal(unlinkat(f->root.fd, SEGMENT_FILE, 0), 0);
}

static void (*const foreign[])(struct fixture *f) = {overwrite, replace, take_away};

static void begin(struct fixture *f)
{
	unsigned char zeros[20000] = {1};

	make(f);
	write_at(f, CHROMA_DATABASE, 0, "a database", 10);
	write_at(f, SEGMENT_FILE, 0, zeros, sizeof(zeros));
}

/* Whoever has changed a file and has not told it yet, since it is held up, is no stranger. */
static void who_is_held_up_is_waited_for(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	struct snapshot_trouble t;
	struct pin_writer *writer;
	struct pin_slot *slot;

	(void)state;
	begin(f);
	slot = pin(f);
	writer = pins_be_writer(&f->pins, 0);
	assert_non_null(writer);
	__atomic_add_fetch(&writer->writes, 1, __ATOMIC_SEQ_CST);
	overwrite(f);
	assert_int_equal(read_all_of(f, slot, &t), -EBUSY);
	assert_string_equal(t.file, SEGMENT_FILE);
	__atomic_sub_fetch(&writer->writes, 1, __ATOMIC_SEQ_CST);
	assert_int_equal(read_all_of(f, slot, &t), -ESTALE);
	release(f);
	free(f);
}

static void check_stale(struct fixture *f, struct pin_slot *slot)
{
	struct snapshot_trouble t;

	assert_int_equal(read_all_of(f, slot, &t), -ESTALE);
	assert_string_equal(t.file, SEGMENT_FILE);
	assert_non_null(strstr(t.detail, "without the shim"));
}

static void what_others_change_is_told(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	struct pin_slot *one, *two;
	struct snapshot_trouble t;
	unsigned how, when;

	(void)state;
	for (how = 0; how < 3; how++) {
		for (when = 0; when < 4; when++) {
			begin(f);
			one = pin(f);
			if (when == 1 || when == 3)
				write_at(f, SEGMENT_FILE, 100, "ours", 4);
			assert_int_equal(read_all_of(f, one, &t), 0);
			foreign[how](f);
			if (when >= 2) { /* what we write afterwards does not make it ours */
				two = pin(f);
				write_at(f, SEGMENT_FILE, 5000, "ours", 4);
				if (how != 2)
					assert_int_equal(read_all_of(f, two, &t), 0);
			}
			check_stale(f, one);
			release(f);
		}
	}
	free(f);
}

/* Where nothing has to be read from what is there, nobody asks whose it is. */
static void what_is_all_saved_stands_by_itself(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	unsigned char other[20000] = {2};
	struct kept k;
	unsigned how, removed;
	size_t i;

	(void)state;
	for (how = 0; how < 3; how++) {
		for (removed = 0; removed < 2; removed++) {
			begin(f);
			k.slot = pin(f);
			for (i = 0; i < FILES; i++)
				remember(f, &k.files[i], paths[i]);
			if (removed)
				remove_it(f, SEGMENT_FILE);
			write_at(f, SEGMENT_FILE, 0, other, sizeof(other));
			foreign[how](f);
			compare(f, &k);
			release(f);
		}
	}
	free(f);
}

/* Who died in the midst of a change, and what is undone afterwards. */
static void who_died_is_no_stranger(void **state)
{
	struct fixture *f = malloc(sizeof(*f));
	struct snapshot_trouble t;
	struct pin_slot *slot;
	int status;

	(void)state;
	begin(f);
	slot = pin(f);
	if (fork() == 0) {
		f->writer = pins_be_writer(&f->pins, 0);
		save(f, SEGMENT_FILE, 0, 100);
		overwrite(f);
		_exit(0);
	}
	wait(&status);
	assert_int_equal(read_all_of(f, slot, &t), 0);
	overwrite(f); /* but who comes then */
	check_stale(f, slot);
	release(f);

	begin(f);
	slot = pin(f);
	write_at(f, SEGMENT_FILE, 100, "ours", 4);
	overwrite(f);
	pins_segment_undone(f->storefd, f->root.fd, SEGMENT);
	assert_int_equal(read_all_of(f, slot, &t), 0);
	release(f);
	free(f);
}

/* Nothing that bars the way is waited for, or followed. */
static void odd_files_are_told(void **state)
{
	static const char *const names[] = {"-" SEGMENT ".data_level0.bin.pre", "-files",
					    "-" SEGMENT ".data_level0.bin.whole"};
	struct fixture *f = malloc(sizeof(*f));
	struct snapshot_trouble t;
	struct pin_slot *slot;
	unsigned i, kind;
	char name[128];

	(void)state;
	for (i = 0; i < 3; i++) {
		for (kind = 0; kind < 3; kind++) {
			begin(f);
			slot = pin(f);
			snprintf(name, sizeof(name), "%08u%s", (unsigned)slot->id, names[i]);
			unlinkat(f->pins.dirfd, name, 0);
			assert_int_equal(kind == 0   ? mkfifoat(f->pins.dirfd, name, 0600)
					 : kind == 1 ? mkdirat(f->pins.dirfd, name, 0700)
						     : symlinkat("/dev/zero", f->pins.dirfd, name),
					 0);
			assert_true(read_all_of(f, slot, &t) < 0);
			release(f);
		}
	}
	free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(any_history),
	    cmocka_unit_test(while_it_is_written),
	    cmocka_unit_test(segment_as_at_the_groups_start),
	    cmocka_unit_test(what_is_damaged_is_told),
	    cmocka_unit_test(what_others_change_is_told),
	    cmocka_unit_test(who_is_held_up_is_waited_for),
	    cmocka_unit_test(what_is_all_saved_stands_by_itself),
	    cmocka_unit_test(who_died_is_no_stranger),
	    cmocka_unit_test(odd_files_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
