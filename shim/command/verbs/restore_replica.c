/* SPDX-License-Identifier: MIT
 *
 * `chromashim restore --from REPLICA --to ID -o OUT`: a new directory, from nothing but a replica.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "command/base/out_directory.h"
#include "command/base/terminal.h"
#include "command/replica/replica.h"
#include "command/verbs/restore.h"

static void tell(const struct restoring *x, const struct manifest *m)
{
	char size[24], time[40];

	printf("restored: snapshot %" PRIu64 " of %s, %" PRIu64 " records, %s, from %s to %s\n",
	       m->header.id, format_time(time, sizeof(time), m->header.time, x->flags.utc),
	       manifest_records(m), format_bytes(size, sizeof(size), manifest_total_size(m)),
	       x->from, x->out);
}

int restore_replica(struct restoring *x, const char *to)
{
	struct replica_wanted wanted = {
	    .from = x->from, .to = to, .key = x->key, .quiet = x->flags.quiet};
	struct out_directory out;
	struct manifest m;
	int status = out_directory_open(&out, x->out, -1), found, closed;

	if (status)
		return status;
	wanted.key = wanted.key ? wanted.key : getenv("CHROMASHIM_REPLICA_KEY");
	status = replica_restore(&wanted, out.fd, &m);
	found = status == 0 ? restore_look_at(x, out.fd) : status;
	closed = out_directory_close(&out, found == 0 || found == EXIT_WARNINGS);
	if (!closed && (found == 0 || found == EXIT_WARNINGS) && !x->flags.quiet)
		tell(x, &m);
	manifest_free(&m);
	return closed ? closed : found;
}
