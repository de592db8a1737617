/* SPDX-License-Identifier: MIT
 *
 * What a digest is made of: a data directory, its logs, its snapshots, the names of its
 * collections.
 */
#ifndef COMMAND_DIGEST_INPUT_H
#define COMMAND_DIGEST_INPUT_H

#include "command/base/snapshots.h"
#include "command/digest/digest.h"
#include "core/chroma/collection_names.h"

struct digest_input {
	struct data_directory data;
	struct snapshots snapshots; /* none where there are none */
	bool has_snapshots;
	struct collection_names *names;
	struct log_tables *tables; /* of the database; opened when a page is asked for */
	bool with_tables;
	struct digest *digest;
	uint64_t lost, damaged, unreadable; /* records, slots, segments of the log */
	uint64_t calls_from;		    /* the first record of oplog/; 0: there is none */
	bool older_gone;		    /* the log has reached its bound */
};

struct digest_options {
	uint64_t since, until;
	bool tables; /* reads the whole database for which page is of which table */
};

/*
 * Opens all of it and reads the log to its end. 0, or the exit status after saying why not; closing
 * is right in any case. No log at all is an error.
 */
int digest_input_open(struct digest_input *in, const char *dir, const struct digest_options *o);
/* The same without reading the log. */
int digest_input_start(struct digest_input *in, const char *dir, const struct digest_options *o);
/* Says why the log cannot be read on, an -errno. Returns the exit status. */
int digest_input_fail(const struct digest_input *in, int error);
/* Says why nothing was read. Returns the exit status. */
int digest_input_nothing(const struct digest_input *in);
void digest_input_close(struct digest_input *in);

/*
 * What people call a file, a segment's directory, or a collection's id: "conversations", or
 * "conversations: data_level0.bin". Returns out.
 */
const char *digest_name(struct digest_input *in, const char *name, char *out, size_t room);

/* Chroma 0.x makes an index's files long before it first persists: without a pickle nothing depends
 * on them, and what is open is no persist. */
bool digest_is_first_making(const struct digest_input *in, const struct digest_open *o);

#endif
