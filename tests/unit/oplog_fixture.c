/* SPDX-License-Identifier: MIT
 *
 * A store in a temporary directory with a writer, for the op log's tests.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "oplog_fixture.h"

int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/test_oplog.XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->storefd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(mkdirat(f->storefd, OPLOG_DIR, 0700), 0);
	f->oplogfd = openat(f->storefd, OPLOG_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(f->oplogfd >= 0);
	*state = f;
	return 0;
}

int tear_down(void **state)
{
	struct fixture *f = *state;

	nftw(f->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	close(f->oplogfd);
	close(f->storefd);
	free(f->w);
	free(f);
	return 0;
}

int open_writer(struct fixture *f, uint64_t limit)
{
	struct oplog_header identity = {.uid = 7, .protected_since = 11};

	strcpy(identity.program, "/usr/bin/program");
	strcpy(identity.data_dir, "/data");
	if (!f->w)
		f->w = calloc(1, sizeof(*f->w));
	return oplog_writer_open(f->w, &f->storefd, limit, &identity);
}

uint32_t put_name(struct fixture *f, uint32_t number, const char *name)
{
	struct oplog_record r = {
	    .op = OP_NAME, .file = number, .arg = OPLOG_NAME_FILE, .offset = -1};

	return oplog_put(f->w, &r, name, strlen(name), NULL, 0);
}

void put_write(struct fixture *f, int64_t offset, uint32_t tid)
{
	struct oplog_record r = {
	    .op = OP_PWRITE, .file = 1, .tid = tid, .offset = offset, .length = 10};

	oplog_end(oplog_begin(f->w, &r, NULL, 0), 10);
}

struct oplog_reader *open_reader(struct fixture *f)
{
	struct oplog_reader *reader = NULL;

	assert_int_equal(oplog_reader_open(f->storefd, &reader), 0);
	return reader;
}

/* The one segment there is. */
void only_segment(struct fixture *f, char name[256])
{
	struct oplog_reader *reader = open_reader(f);

	assert_int_equal(oplog_reader_segments(reader), 1);
	strcpy(name, oplog_reader_segment(reader, 0)->name);
	oplog_reader_close(reader);
}

uint64_t count_records(struct fixture *f, unsigned op)
{
	struct oplog_reader *reader = open_reader(f);
	struct oplog_entry e;
	uint64_t n = 0, last = 0;
	int r;

	while ((r = oplog_reader_next(reader, &e)) > 0) {
		assert_true(e.time >= last);
		last = e.time;
		n += e.op == op;
	}
	assert_int_equal(r, 0);
	oplog_reader_close(reader);
	return n;
}
