/* SPDX-License-Identifier: MIT
 *
 * Persists of a segment, one after the other.
 *
 *	hnsw_persist DIRECTORY persist FIRST LAST	generations FIRST to LAST, one persist each
 *	hnsw_persist DIRECTORY check			prints the generation, or what is torn
 *
 * After a persist the generation is written to DIRECTORY/mark and synced, as Chroma commits
 * max_seq_id: a generation below the mark is a lost one.
 */
#include "hnsw_segment.h"

static void set_mark(int generation)
{
	char path[4200];
	int fd;

	snprintf(path, sizeof(path), "%s/mark", directory);
	fd = open(path, O_WRONLY | O_CREAT, 0644);
	if (pwrite(fd, &generation, sizeof(generation), 0) != sizeof(generation) || fsync(fd))
		abort();
	close(fd);
}

static void persist_all(int first, int last)
{
	int generation;

	if (!segment_open())
		abort();
	for (generation = first; generation <= last; generation++) {
		int r = segment_persist(generation);

		if (r < 0) {
			printf("failed %d %d\n", generation, -r);
			continue;
		}
		set_mark(generation);
		printf("done %d\n", generation);
	}
}

static int check(void)
{
	int generation = segment_check();

	if (generation > 0)
		printf("generation %d\n", generation);
	else if (generation == 0)
		printf("none\n");
	return generation < 0;
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	snprintf(directory, sizeof(directory), "%s", argv[1]);
	if (strcmp(argv[2], "check") == 0)
		return check();
	persist_all(atoi(argv[3]), atoi(argv[4]));
	return 0;
}
