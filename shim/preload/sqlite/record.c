/* SPDX-License-Identifier: MIT
 *
 * Records of SQLite's calls, and the texts of statements in them.
 */
#include "preload/sqlite/record.h"

#include <string.h>

#include "core/base/checksum.h"

#define TEXT_MAX 4096u
#define TEXTS_MAX 4096u /* different ones that get a name, a process */
#define TEXT_PLACES (2 * TEXTS_MAX)

__thread unsigned sqlite_depth __attribute__((tls_model("initial-exec")));

void sqlite_remember(const void *key, const struct sqlite_handle *value)
{
	if (!sqlite_handle_add(key, value) && value->protected)
		atomic_fetch_add(&protections[value->protection].log.lost, 1);
}

/* Names are for ever, so a host that puts values into its texts must not use them all up. */
static bool may_have_name(unsigned protection, const char *sql, size_t size)
{
	static _Atomic uint64_t texts[TEXT_PLACES];
	static _Atomic unsigned used;
	uint64_t sum = checksum64(sql, size, protection) | 1;
	size_t at = sum / 2 % TEXT_PLACES;

	for (;; at = (at + 1) % TEXT_PLACES) {
		uint64_t known = atomic_load_explicit(&texts[at], memory_order_relaxed);

		if (known == sum)
			return true;
		if (known)
			continue;
		if (atomic_fetch_add(&used, 1) >= TEXTS_MAX) {
			atomic_store(&used, TEXTS_MAX);
			return false;
		}
		if (atomic_compare_exchange_strong(&texts[at], &known, sum) || known == sum)
			return true;
	}
}

/* At most TEXT_MAX bytes, and no character torn. */
static size_t cut_text(const char *sql, size_t size)
{
	if (size <= TEXT_MAX)
		return size;
	size = TEXT_MAX;
	while (size > TEXT_MAX - 4 && ((unsigned char)sql[size] & 0xc0) == 0x80)
		size--;
	return size;
}

uint32_t sqlite_text_name(unsigned protection, const char *sql, size_t size, bool *cut_out)
{
	size_t n = sql ? cut_text(sql, size) : 0;

	*cut_out = n < size;
	if (!n || !settings.log_sql || !may_have_name(protection, sql, n))
		return 0;
	return name_intern_kind(protection, sql, n, OPLOG_NAME_SQL);
}

void sqlite_put_text(const struct sqlite_handle *h, struct oplog_record *r, const char *sql,
		     size_t size)
{
	bool cut = h->cut;
	uint32_t name = h->sql ? h->sql : sqlite_text_name(h->protection, sql, size, &cut);

	r->file = name ? name : h->database;
	if (!settings.log_sql)
		sql = NULL;
	if (sql && cut)
		r->flags |= OPLOG_F_CUT;
	if (name || !sql)
		record_put(h->protection, r, NULL, 0);
	else
		record_put(h->protection, r, sql, cut_text(sql, size));
}

void sqlite_put(const struct sqlite_handle *h, struct oplog_record *r)
{
	r->file = h->database;
	record_put(h->protection, r, NULL, 0);
}
