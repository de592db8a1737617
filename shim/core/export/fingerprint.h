/* SPDX-License-Identifier: MIT
 *
 * What a record is, in a few numbers: enough to tell whether it is the same in two places, without
 * keeping it.
 */
#ifndef CORE_FINGERPRINT_H
#define CORE_FINGERPRINT_H

#include "core/export/export.h"

struct fingerprint {
	bool has_vector;
	uint64_t vector;	 /* checksum of its bytes */
	double norm, projection; /* its length, and where it lies on a line of random direction */
	uint64_t document, metadata; /* checksums; the uri counts as metadata; 0: none */
};

/* Allocates nothing. */
void fingerprint_take(const struct export_record *record, struct fingerprint *out);

/*
 * An expression of SQL: whether the vectors of two rows differ that have a fingerprint's vector,
 * norm and projection. Of cosine collections Chroma keeps direction and length: put together again,
 * the last bit of a number may be another.
 */
#define FINGERPRINT_VECTORS_DIFFER(a, b)                                              \
	"(" a ".vector <> " b ".vector AND (abs(" a ".norm - " b ".norm) > 1e-5 * " b \
	".norm OR abs(" a ".projection - " b ".projection) > 1e-5 * " b ".norm))"

#endif
