/* SPDX-License-Identifier: MIT
 *
 * long_log DIRECTORY RECORDS: an op log of so many records in DIRECTORY/.chromashim, as a backend
 * with 20 collections makes it: transactions of 24 calls, a persist for each 200 of them.
 */
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/oplog/oplog.h"

#define COLLECTIONS 20u
#define PAGE 4096

static struct oplog_writer writer;
static int storefd;
static uint64_t made, wanted, at, seq;
static char names[4 + 6 * COLLECTIONS][80];
static uint32_t told[4 + 6 * COLLECTIONS];

/* The names that a record needs stand before it, once in each segment. */
static void put(unsigned op, uint32_t file, uint8_t kind, struct oplog_record r, const void *text,
		size_t size)
{
	struct oplog_name name = {.number = file,
				  .length = file ? (uint32_t)strlen(names[file]) : 0,
				  .kind = kind,
				  .text = names[file],
				  .told = (_Atomic uint32_t *)&told[file]};

	r.op = (uint16_t)op;
	r.file = file;
	r.tid = 7;
	r.time = at;
	oplog_put(&writer, &r, text, size, &name, file ? 1 : 0);
	at += r.duration + 3000;
	made++;
}

static void put_write(uint32_t file, int64_t offset, int64_t size)
{
	put(OP_PWRITE, file, OPLOG_NAME_FILE,
	    (struct oplog_record){.offset = offset,
				  .length = (uint64_t)size,
				  .result = size,
				  .duration = 900 + (uint64_t)rand() % 4000},
	    NULL, 0);
}

static void put_sync(uint32_t file)
{
	put(OP_FDATASYNC, file, OPLOG_NAME_FILE,
	    (struct oplog_record){.offset = -1, .duration = 100000 + (uint64_t)rand() % 800000},
	    NULL, 0);
}

static void put_transaction(uint64_t number, unsigned collection)
{
	struct oplog_records n = {.added = 10};
	uint64_t began = at;
	unsigned i;

	put(OP_TXN_BEGIN, 1, OPLOG_NAME_FILE, (struct oplog_record){.offset = -1, .arg = number},
	    NULL, 0);
	for (i = 0; i < 10; i++)
		put_write(2, i * (PAGE + 8), PAGE);
	put_sync(2);
	for (i = 0; i < 10; i++)
		put_write(1, (int64_t)(rand() % 20000 + (int64_t)number) * PAGE, PAGE);
	put_sync(1);
	put(OP_TXN_COMMIT, 1, OPLOG_NAME_FILE,
	    (struct oplog_record){
		.offset = 10, .length = 10 * PAGE, .arg = number, .duration = at - began},
	    NULL, 0);
	seq += 10;
	put(OP_RECORDS, 4 + 6 * collection, OPLOG_NAME_COLLECTION,
	    (struct oplog_record){
		.offset = (int64_t)seq - 9, .length = seq, .result = 10, .arg = number},
	    &n, sizeof(n));
}

static void put_persist(uint64_t number, unsigned collection)
{
	uint32_t directory = 5 + 6 * collection;
	uint64_t began = at;
	unsigned i;

	put(OP_PERSIST_BEGIN, directory, OPLOG_NAME_FILE,
	    (struct oplog_record){.offset = -1, .arg = number}, NULL, 0);
	for (i = 0; i < 400; i++)
		put_write(directory + 1 + i % 4, i * 1000, 1000);
	put_sync(directory + 1);
	put(OP_PERSIST_COMMIT, directory, OPLOG_NAME_FILE,
	    (struct oplog_record){.offset = -1, .arg = number, .duration = at - began}, NULL, 0);
}

static void make_names(void)
{
	static const char *const files[] = {"", "/data_level0.bin", "/length.bin",
					    "/link_lists.bin", "/index_metadata.pickle"};
	unsigned c, i;

	strcpy(names[1], "chroma.sqlite3");
	strcpy(names[2], "chroma.sqlite3-journal");
	for (c = 0; c < COLLECTIONS; c++) {
		snprintf(names[4 + 6 * c], 80, "00000000-0000-4000-8000-%012u", c);
		for (i = 0; i < 5; i++)
			snprintf(names[5 + 6 * c + i], 80, "11111111-0000-4000-8000-%012u%s", c,
				 files[i]);
	}
}

int main(int argc, char **argv)
{
	struct oplog_header identity = {.features = OPLOG_HAS_WRITER};
	uint64_t number = 0;
	char path[4096];

	if (argc != 3)
		errx(2, "usage: long_log DIRECTORY RECORDS");
	wanted = strtoull(argv[2], NULL, 10);
	snprintf(path, sizeof(path), "%s/.chromashim", argv[1]);
	if (mkdir(path, 0700) < 0)
		err(1, "%s", path);
	storefd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (storefd < 0 || mkdirat(storefd, OPLOG_DIR, 0700) < 0)
		err(1, "%s", path);
	make_names();
	strcpy(identity.program, "/usr/bin/python3");
	if (oplog_writer_open(&writer, &storefd, UINT64_C(1) << 40, &identity) < 0)
		errx(1, "cannot make a log in %s", path);
	/* The segments are made now: what they hold is of before, as it is to be read. */
	at = oplog_now() / 2;
	put(OP_START, 0, 0, (struct oplog_record){.offset = -1}, "chroma run", 10);
	while (made < wanted) {
		number++;
		put_transaction(number, (unsigned)(number * number % COLLECTIONS));
		if (number % 200 == 0)
			put_persist(number, (unsigned)(number / 200 % COLLECTIONS));
	}
	oplog_writer_finish(&writer);
	printf("%" PRIu64 " records\n", made);
	return 0;
}
