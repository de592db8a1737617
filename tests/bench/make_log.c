/* SPDX-License-Identifier: MIT
 *
 * Makes logs for tests and measurements, with the library's own writer.
 *
 *	make_log STORE calls N    N records of calls, as a server under load has them, in
 *STORE/oplog make_log STORE acts       one act a line from stdin, in STORE/acts: OP TID OFFSET
 *LENGTH RESULT ARG DURATION KIND NAME TEXT (numbers; NAME and TEXT in hexadecimal or "-")
 *
 * The process that writes them is this one, and is dead afterwards; log.exit is for the script.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/oplog/oplog.h"

static struct oplog_writer writer;

static int open_writer(int *storefd, uint64_t limit)
{
	struct oplog_header identity = {.uid = (uint32_t)getuid()};

	strcpy(identity.program, "/usr/bin/python3.11");
	strcpy(identity.data_dir, "/srv/chroma_data");
	return oplog_writer_open(&writer, storefd, limit, &identity);
}

/* Eight of a write, then a sync, a lock, and so on: what a log is full of. */
static void put_call(uint64_t n)
{
	static _Atomic uint32_t told[3];
	static const char *const files[] = {"chroma.sqlite3", "chroma.sqlite3-journal",
					    "0a1b2c3d-1111-2222-3333-444455556666/data_level0.bin"};
	static const uint16_t ops[] = {OP_PWRITE, OP_PWRITE,	OP_PWRITE,     OP_PWRITE,
				       OP_PWRITE, OP_LOCK,	OP_LOCK,       OP_FDATASYNC,
				       OP_CLOSE,  OP_OPEN,	OP_FSYNC,      OP_UNLINK,
				       OP_WRITE,  OP_TXN_BEGIN, OP_TXN_COMMIT, OP_FTRUNCATE};
	unsigned file = (unsigned)(n / 16 % 3);
	struct oplog_record r = {.op = ops[n % 16],
				 .file = file + 1,
				 .tid = (uint32_t)(1000 + n / 64 % 4),
				 .offset = (int64_t)(n * 4096 % (1 << 28)),
				 .length = 4096,
				 .result = ops[n % 16] == OP_PWRITE ? 4096 : 0,
				 .arg = n / 16,
				 .duration = n * 7919 % 100000};
	const struct oplog_name name = {.number = file + 1,
					.kind = OPLOG_NAME_FILE,
					.text = files[file],
					.length = (uint32_t)strlen(files[file]),
					.told = &told[file]};

	oplog_put(&writer, &r, NULL, 0, &name, 1);
}

static size_t from_hex(const char *hex, char *out, size_t room)
{
	size_t n = 0;
	unsigned byte;

	if (!strcmp(hex, "-"))
		return 0;
	for (; hex[2 * n] && n < room && sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
		out[n] = (char)byte;
	return n;
}

static void put_acts(FILE *in)
{
	static char name_hex[8192], text_hex[32768], name[4096], text[16384];
	struct oplog_record r = {.op = 0};
	unsigned kind, number = 0;

	while (fscanf(in,
		      "%" SCNu16 " %" SCNu32 " %" SCNd64 " %" SCNu64 " %" SCNd64 " %" SCNu64
		      " %" SCNu64 " %u %8191s %32767s",
		      &r.op, &r.tid, &r.offset, &r.length, &r.result, &r.arg, &r.duration, &kind,
		      name_hex, text_hex) == 10) {
		const struct oplog_name n = {.number = kind ? ++number : 0,
					     .kind = (uint8_t)kind,
					     .text = name,
					     .length =
						 (uint32_t)from_hex(name_hex, name, sizeof(name))};

		r.file = n.number;
		r.time = 0;
		oplog_put(&writer, &r, text, from_hex(text_hex, text, sizeof(text)), &n, 1);
	}
}

int main(int argc, char **argv)
{
	bool acts = argc == 3 && !strcmp(argv[2], "acts");
	uint64_t n = argc == 4 && !strcmp(argv[2], "calls") ? strtoull(argv[3], NULL, 10) : 0, i;
	int storefd = argc > 2 ? open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	bool swapped = acts && renameat(storefd, OPLOG_DIR, storefd, "oplog.aside") == 0;

	if (storefd < 0 || (!acts && !n))
		return 2;
	if (acts) /* the writer writes oplog/ */
		renameat(storefd, OPLOG_ACTS_DIR, storefd, OPLOG_DIR);
	mkdirat(storefd, OPLOG_DIR, 0700);
	if (open_writer(&storefd, UINT64_C(1) << 40) < 0)
		return 1;
	for (i = 0; i < n; i++)
		put_call(i);
	if (acts)
		put_acts(stdin);
	oplog_writer_finish(&writer);
	if (acts)
		renameat(storefd, OPLOG_DIR, storefd, OPLOG_ACTS_DIR);
	if (swapped)
		renameat(storefd, "oplog.aside", storefd, OPLOG_DIR);
	return 0;
}
