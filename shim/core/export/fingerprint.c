/* SPDX-License-Identifier: MIT
 *
 * A record's fingerprint.
 */
#include "core/export/fingerprint.h"

#include <math.h>
#include <string.h>

#include "core/base/checksum.h"

/* Of one value, or element number `at` of an array. */
static uint64_t fingerprint_sum(const struct export_value *v, uint64_t at)
{
	uint64_t seed = checksum64(v->key, strlen(v->key), (at << 8) + (uint64_t)v->type);

	if (v->type == EXPORT_STRING)
		return checksum64(v->text, v->size, seed);
	if (v->type == EXPORT_FLOAT)
		return checksum64(&v->real, sizeof(v->real), seed);
	return checksum64(&v->number, sizeof(v->number), seed);
}

/* The projection is equal for equal vectors only. */
static void fingerprint_measure(const float *vector, uint64_t dimension, struct fingerprint *out)
{
	uint64_t i, random = 1;
	double squares = 0, sum = 0;

	for (i = 0; i < dimension; i++) {
		double x = (double)vector[i];

		random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
		squares += x * x;
		sum += x * ((double)(random >> 33) / (double)(UINT64_C(1) << 30) - 1);
	}
	out->norm = sqrt(squares);
	out->projection = sum;
}

/* Their sum: the keys may be in another order. */
static uint64_t fingerprint_values(const struct export_value *values, size_t count)
{
	uint64_t sum = 0, at = 0;
	size_t i;

	for (i = 0; i < count; i++) {
		bool goes_on = i && values[i].is_element && values[i - 1].is_element &&
			       strcmp(values[i].key, values[i - 1].key) == 0;

		at = goes_on ? at + 1 : 0;
		sum += fingerprint_sum(&values[i], at);
	}
	return sum;
}

void fingerprint_take(const struct export_record *record, struct fingerprint *out)
{
	*out = (struct fingerprint){.has_vector = record->vector != NULL};
	out->metadata = fingerprint_values(record->values, record->value_count);
	if (record->uri)
		out->metadata += fingerprint_sum(record->uri, 0);
	if (record->document)
		out->document = fingerprint_sum(record->document, 0);
	if (!record->vector)
		return;
	out->vector = checksum64(record->vector, (size_t)record->dimension * sizeof(float), 0);
	fingerprint_measure(record->vector, record->dimension, out);
}
