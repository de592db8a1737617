/* SPDX-License-Identifier: MIT
 *
 * The migrations of every Chroma release, and what a release does with a database that has others.
 * Without SQLite: also for inside the backend.
 */
#include <stdlib.h>
#include <string.h>

#include "core/chroma/migrations.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const char *const migration_dir_names[MIGRATION_DIRS] = {
    [MIGRATION_QUEUE] = "embeddings_queue",
    [MIGRATION_METADB] = "metadb",
    [MIGRATION_SYSDB] = "sysdb",
};

/* clang-format off */
static const struct migration all[] = {
	{MIGRATION_QUEUE, 1, "00001-embeddings.sqlite.sql",
	 "d3755dfd232be8e8301f4d7fcfb3a486", "0.4.0"},
	{MIGRATION_QUEUE, 2, "00002-embeddings-queue-config.sqlite.sql",
	 "8fbfe4ffb3e57f1d8bfdc58510a82e85", "0.5.6"},
	{MIGRATION_METADB, 1, "00001-embedding-metadata.sqlite.sql",
	 "2b4cf52c4bb2676e21d6860a4409f856", "0.4.0"},
	{MIGRATION_METADB, 2, "00002-embedding-metadata.sqlite.sql",
	 "12a570f7121b3a8ce750a2a7c36da20f", "0.4.4"},
	{MIGRATION_METADB, 3, "00003-full-text-tokenize.sqlite.sql",
	 "f97ad6334aeaa8f419f01110b648b97a", "0.4.6"},
	{MIGRATION_METADB, 4, "00004-metadata-indices.sqlite.sql",
	 "fb36603a45ee2cd0254cef3ef86585e8", "0.5.6"},
	{MIGRATION_METADB, 5, "00005-max-seq-id-int.sqlite.sql",
	 "0e9de46758761b373ce682925edcc326", "1.0.0"},
	{MIGRATION_METADB, 6, "00006-metadata-array-support.sqlite.sql",
	 "e026f01ea92c1baa1493f4ad5ca7cfe7", "1.5.0"},
	{MIGRATION_SYSDB, 1, "00001-collections.sqlite.sql",
	 "38352d725ad1c16074fac420b22b4633", "0.4.0"},
	{MIGRATION_SYSDB, 2, "00002-segments.sqlite.sql",
	 "2913cb6a503055a95f625448037e8912", "0.4.0"},
	{MIGRATION_SYSDB, 3, "00003-collection-dimension.sqlite.sql",
	 "42d22d0574d31d419c2a0e7f625c93aa", "0.4.0"},
	{MIGRATION_SYSDB, 4, "00004-tenants-databases.sqlite.sql",
	 "048867ce8fcdefe4023c7110e4433591", "0.4.15"},
	{MIGRATION_SYSDB, 5, "00005-remove-topic.sqlite.sql",
	 "b1367c826b8fba5f96f27befdc1d42d2", "0.5.0"},
	{MIGRATION_SYSDB, 6, "00006-collection-segment-metadata.sqlite.sql",
	 "4eea7468935bf25d4604a0fed2366116", "0.5.1"},
	{MIGRATION_SYSDB, 7, "00007-collection-config.sqlite.sql",
	 "1c7e63bba346a42a18b6ab7f1c989bed", "0.5.4"},
	{MIGRATION_SYSDB, 8, "00008-maintenance-log.sqlite.sql",
	 "0a0e7e93111a01789addf64961c6127c", "0.5.6"},
	{MIGRATION_SYSDB, 9, "00009-segment-collection-not-null.sqlite.sql",
	 "054355aef9e63702bf54ea29e61563f1", "0.5.6"},
	{MIGRATION_SYSDB, 10, "00010-collection-schema.sqlite.sql",
	 "5c3a5ac4b79df76799b4721827ed5e1d", "1.3.0"},
};

static const struct migration_era eras[] = {
	/* first, last, queue, metadb, sysdb */
	{"0.4.0", "0.4.3", {1, 1, 3}},
	{"0.4.4", "0.4.5", {1, 2, 3}},
	{"0.4.6", "0.4.14", {1, 3, 3}},
	{"0.4.15", "0.4.24", {1, 3, 4}},
	{"0.5.0", "0.5.0", {1, 3, 5}},
	{"0.5.1", "0.5.3", {1, 3, 6}},
	{"0.5.4", "0.5.5", {1, 3, 7}},
	{"0.5.6", "0.6.3", {2, 4, 9}},
	{"1.0.0", "1.2.2", {2, 5, 9}},
	{"1.3.0", "1.4.1", {2, 5, 10}},
	{"1.5.0", "1.5.9", {2, 6, 10}},
};
/* clang-format on */

const struct migration *migrations_all(unsigned *count_out)
{
	*count_out = COUNT(all);
	return all;
}

const struct migration_era *migrations_eras(unsigned *count_out)
{
	*count_out = COUNT(eras);
	return eras;
}

bool migrations_is_beginning(const struct migration_state *m)
{
	return m->has_table && !m->missing && !m->unknown &&
	       (m->counts[MIGRATION_QUEUE] == 0 || m->counts[MIGRATION_METADB] == 0 ||
		m->counts[MIGRATION_SYSDB] < 3);
}

const struct migration_era *migrations_find_era(const unsigned counts[MIGRATION_DIRS])
{
	unsigned i;

	for (i = 0; i < COUNT(eras); i++)
		if (memcmp(eras[i].counts, counts, sizeof(eras[i].counts)) == 0)
			return &eras[i];
	return NULL;
}

int migrations_compare_releases(const char *a, const char *b)
{
	int part;

	for (part = 0; part < 3; part++) {
		char *a_end, *b_end;
		unsigned long x = strtoul(a, &a_end, 10), y = strtoul(b, &b_end, 10);

		if (x != y)
			return x < y ? -1 : 1;
		a = *a_end == '.' ? a_end + 1 : "";
		b = *b_end == '.' ? b_end + 1 : "";
	}
	return 0;
}

enum migration_verdict migrations_judge_carried(const unsigned counts[MIGRATION_DIRS],
						const unsigned carried[MIGRATION_DIRS],
						const char *release)
{
	bool newer = false, older = false;
	unsigned i;

	/* Without a name it counts as the first that could carry them. */
	if (!*release) {
		release = eras[0].first;
		for (i = 0; i < COUNT(eras); i++)
			if (carried[MIGRATION_METADB] >= eras[i].counts[MIGRATION_METADB] &&
			    carried[MIGRATION_SYSDB] >= eras[i].counts[MIGRATION_SYSDB])
				release = eras[i].first;
	}
	for (i = 0; i < MIGRATION_DIRS; i++) {
		newer |= counts[i] > carried[i];
		older |= counts[i] < carried[i];
	}
	if (newer && migrations_compare_releases(release, "1.0.0") < 0)
		return MIGRATION_FAILS;
	if (newer && migrations_compare_releases(release, "1.2.2") < 0)
		return MIGRATION_PANICS;
	if (newer)
		return MIGRATION_RUNS_ON;
	return older ? MIGRATION_MIGRATES : MIGRATION_OPENS;
}

enum migration_verdict migrations_judge(const unsigned counts[MIGRATION_DIRS], const char *release)
{
	const struct migration_era *era = NULL;
	unsigned i;

	/* A release later than the table knows at least what the last era knows. */
	for (i = 0; i < COUNT(eras); i++)
		if (migrations_compare_releases(eras[i].first, release) <= 0)
			era = &eras[i];
	return era ? migrations_judge_carried(counts, era->counts, release) : MIGRATION_UNKNOWN;
}
