/* SPDX-License-Identifier: MIT
 *
 * `chromashim replica`: which of its verbs is meant.
 */
#include "command/replica/replica.h"

#include <string.h>

const char replica_usage[] =
    "Usage: chromashim replica VERB [OPTION]... [DIR]\n"
    "\n"
    "Copies of snapshots that outlive this machine, in the places that CHROMASHIM_REPLICA names:\n"
    "a directory on another disk, sftp://[USER@]HOST[:PORT]/PATH, or rclone:REMOTE:PATH. The\n"
    "guardian sends each snapshot; only what is new of it, sealed to a public key, so that this\n"
    "machine can write there and not read. `chromashim restore --from REPLICA --to latest -o DIR\n"
    "--key FILE` brings one back, on a machine that has nothing else. DIR is CHROMASHIM_DIR or\n"
    "./chroma_data if not given.\n"
    "\n"
    "  keygen [DIR]          make a pair of keys: the public one goes into the store of DIR\n"
    "      -o, --output=FILE     the secret one goes into FILE, which is to be kept away from "
    "here\n"
    "          --use=FILE        take the public one of a pair that there is instead\n"
    "      -f, --force           also if the store has a key\n"
    "  send [DIR]            send now what is not there yet\n"
    "  list [DIR]            the snapshots there; with the key also what is in them, and whether\n"
    "                        all that they need is there\n"
    "  check [DIR]           look whether all is there, and read and open all of it\n"
    "      --read-data-subset=SHARE  only such a share of the chunks (5%), others each time\n"
    "  prune [DIR]           remove snapshots that no rule keeps, and what only they need; for an\n"
    "                        account that may, which is best not this machine's\n"
    "      --keep=RULES          as CHROMASHIM_KEEP: 'last=3 daily=7 within=30d'\n"
    "  rebuild [DIR]         send all that is not there, whatever is remembered of what was sent\n"
    "                        (or put the list of snapshots back from what is there, with --from)\n"
    "  takeover [DIR]        send from this store from now on, although another one did: it is\n"
    "                        told so, and sends no more\n"
    "\n"
    "      --from=REPLICA  list, check, prune, rebuild: this one, instead of those of DIR\n"
    "      --key=FILE     the secret key, without which a sealed replica cannot be read\n"
    "      --json         list: one JSON value instead of text\n"
    "      --utc          list, prune: times in UTC\n"
    "  -n, --dry-run      prune, rebuild: only say what would be done\n"
    "  -y, --yes          prune: do not ask\n"
    "  -q, --quiet        no progress, no summary\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 usage, 3 done with warnings, 10 no store, 11 busy, 12 not\n"
    "found, 13 no space.\n";

int command_replica(int argc, char **argv)
{
	static const struct sub_verb verbs[] = {
	    {"check", replica_command_check},	     {"keygen", replica_command_keygen},
	    {"list", replica_command_list},	     {"prune", replica_command_prune},
	    {"rebuild", replica_command_rebuild},    {"send", replica_command_send},
	    {"takeover", replica_command_take_over},
	};

	return run_sub_verb("replica", verbs, sizeof(verbs) / sizeof(verbs[0]), argc, argv);
}
