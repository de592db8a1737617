/* SPDX-License-Identifier: MIT
 *
 * All of a replica, for those who judge it: its manifests one after the other, and which objects
 * are there.
 */
#ifndef COMMAND_REPLICA_SURVEY_H
#define COMMAND_REPLICA_SURVEY_H

#include "command/replica/remote.h"

/* Called for each snapshot, the oldest first; m is empty after an error of its own. < 0: stop. */
typedef int survey_manifest_fn(void *context, const struct replica_name *name, int error,
			       const struct manifest *m,
			       const unsigned char names[REPLICA_KEY_SIZE]);
int survey_manifests(struct remote *r, survey_manifest_fn *fn, void *context);

/* All names of a folder, in memory: 100 bytes each; *out is the caller's to free. */
int survey_names(struct remote *r, enum replica_folder folder, struct replica_name **out,
		 size_t *count_out);

/* Called for each chunk that m needs, in the replica's names, and for its second copy. */
typedef int survey_chunk_fn(void *context, const struct replica_chunk_name *name);
int survey_chunks(const struct replica_name *name, const struct manifest *m,
		  const unsigned char names[REPLICA_KEY_SIZE], survey_chunk_fn *fn, void *context);

/* ---- the options that verbs on a replica share ---- */

struct survey_options {
	const char *from, *key, *keep;
	bool json, utc, dry, yes, quiet;
	unsigned percent; /* of the chunks that are read */
};

/* The arguments of a verb; `wanted` has the letters of those it knows. 0, or the exit status. */
int survey_arguments(struct survey_options *o, const char *verb, const char *wanted, int argc,
		     char **argv);

/* Calls it with the replica that --from names, else with each of the data directory's. The worst of
 * its exit statuses. */
typedef int survey_verb_fn(struct remote *r, const struct survey_options *o);
int survey_each(const struct survey_options *o, const char *dir, survey_verb_fn *fn);

#endif
