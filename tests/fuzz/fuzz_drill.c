/* SPDX-License-Identifier: MIT
 *
 * Property: any bytes are read as a note whose texts end, or refused and then empty.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/checksum.h"
#include "core/store/drill.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct drill_note n, sealed;
	int r = drill_note_parse(&n, data, size);

	if (r == 0 &&
	    (strlen(n.chroma) >= sizeof(n.chroma) || strlen(n.trouble) >= sizeof(n.trouble)))
		abort();
	if (r < 0 && (n.time || n.chroma[0] || n.trouble[0]))
		abort();
	/* As if its sum were right. */
	if (size != sizeof(n))
		return 0;
	memcpy(&sealed, data, size);
	sealed.magic = DRILL_MAGIC;
	sealed.check = checksum64(
	    &sealed.version, sizeof(sealed) - offsetof(struct drill_note, version), DRILL_MAGIC);
	if (drill_note_parse(&n, &sealed, sizeof(sealed)) == 0 &&
	    strlen(n.trouble) >= sizeof(n.trouble))
		abort();
	return 0;
}
