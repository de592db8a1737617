/* SPDX-License-Identifier: MIT
 *
 * A store in a temporary directory with a writer, for the op log's tests.
 */
#ifndef TESTS_UNIT_OPLOG_FIXTURE_H
#define TESTS_UNIT_OPLOG_FIXTURE_H

#include <ftw.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/oplog/file.h"
#include "core/oplog/oplog.h"
#include "core/oplog/read.h"

struct fixture {
	char dir[64]; /* the store */
	int storefd, oplogfd;
	struct oplog_writer *w;
};

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int set_up(void **state);
int tear_down(void **state);
int open_writer(struct fixture *f, uint64_t limit);
uint32_t put_name(struct fixture *f, uint32_t number, const char *name);
void put_write(struct fixture *f, int64_t offset, uint32_t tid);
struct oplog_reader *open_reader(struct fixture *f);
/* Name of the one segment there is. */
void only_segment(struct fixture *f, char name[256]);
/* Of one operation; they have to come in order of time. */
uint64_t count_records(struct fixture *f, unsigned op);
/* For nftw(). */
int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw);

#endif
