/* SPDX-License-Identifier: MIT
 *
 * How large the database and the index of each collection are.
 */
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command/guard/metrics.h"
#include "core/chroma/chroma.h"
#include "core/chroma/collection_names.h"

#define LARGEST 100 /* collections; of more there is a sum */

struct size {
	char segment[40];
	uint64_t bytes;
};

struct sizes {
	struct size *list;
	size_t count;
};

void metrics_put_value(FILE *out, const char *text)
{
	for (; *text; text++)
		if (*text == '\n')
			fputs("\\n", out);
		else if (*text == '"' || *text == '\\')
			fprintf(out, "\\%c", *text);
		else
			fputc(*text, out);
}

/* On the disk: an index is made at its full length. */
static uint64_t size_of_segment(int rootfd, const char *name)
{
	int fd = file_follow_directory_at(rootfd, name);
	const struct dirent *entry;
	uint64_t bytes = 0;
	DIR *dir = NULL;
	struct stat st;

	if (fd < 0 || file_names_of(fd, &dir) < 0)
		return 0;
	while ((entry = readdir(dir)))
		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode))
			bytes += (uint64_t)st.st_blocks * 512;
	closedir(dir);
	return bytes;
}

static int compare_sizes(const void *a, const void *b)
{
	const struct size *x = a, *y = b;

	return x->bytes > y->bytes ? -1 : x->bytes < y->bytes;
}

static void find_sizes(int dirfd, struct sizes *out)
{
	const struct dirent *entry;
	struct size *more;
	DIR *dir;

	file_names_at(dirfd, NULL, &dir);
	while (dir && (entry = readdir(dir))) {
		if (!chroma_is_segment(dirfd, entry->d_name))
			continue;
		more = reallocarray(out->list, out->count + 1, sizeof(*more));
		if (!more)
			break;
		out->list = more;
		snprintf(more[out->count].segment, sizeof(more->segment), "%.36s", entry->d_name);
		more[out->count++].bytes = size_of_segment(dirfd, entry->d_name);
	}
	if (dir)
		closedir(dir);
	if (out->count)
		qsort(out->list, out->count, sizeof(*out->list), compare_sizes);
}

static void put_collection(FILE *out, const char *label, struct collection_names *names,
			   const struct size *s)
{
	const char *name = collection_names_find(names, s->segment);

	fprintf(out, "chromashim_collection_index_bytes{%s,segment=\"%s\",collection=\"", label,
		s->segment);
	metrics_put_value(out, name ? name : "");
	fprintf(out, "\"} %" PRIu64 "\n", s->bytes);
}

void metrics_write_sizes(FILE *out, const struct guardian *g, const char *label)
{
	const struct data_directory *t = &g->s.data;
	struct collection_names *names;
	struct sizes all = {0};
	struct stat st;
	size_t i;

	if (fstatat(t->dirfd, CHROMA_DATABASE, &st, 0) < 0)
		return;
	fprintf(out,
		"# HELP chromashim_database_bytes Bytes of chroma.sqlite3.\n"
		"# TYPE chromashim_database_bytes gauge\n"
		"chromashim_database_bytes{%s} %" PRIu64 "\n",
		label, (uint64_t)st.st_size);
	find_sizes(t->dirfd, &all);
	names = all.count ? collection_names_open(t->storefd, t->dir, t->dirfd) : NULL;
	if (names)
		fputs("# HELP chromashim_collection_index_bytes Bytes that a collection's index "
		      "takes on the disk; of the largest hundred.\n"
		      "# TYPE chromashim_collection_index_bytes gauge\n",
		      out);
	for (i = 0; names && i < all.count && i < LARGEST; i++)
		put_collection(out, label, names, &all.list[i]);
	if (names)
		collection_names_close(names);
	free(all.list);
}
