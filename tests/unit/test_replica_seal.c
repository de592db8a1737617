/* SPDX-License-Identifier: MIT
 *
 * Objects of a replica: what is sealed comes back, and nothing else does; keys, names, lists, and
 * what is remembered of what was sent.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "core/replica/seal.h"
#include "core/replica/sent.h"
#include "scratch.h"

#define NAME "chunks/ab/abcd"

static struct replica_keys keys;

/* An object with a body of that size in two parts; the caller's to free. */
static char *make_object(const struct replica_keys *with, const unsigned char *body, size_t size,
			 size_t *size_out)
{
	int fd = memfd_create("object", MFD_CLOEXEC);
	struct iovec parts[2] = {{(void *)(uintptr_t)body, size / 3},
				 {(void *)(uintptr_t)(body + size / 3), size - size / 3}};
	uint64_t written;
	char *data;

	assert_int_equal(replica_seal(with, NAME, parts, 2, fd, &written), 0);
	assert_int_equal(file_read_all(fd, 64u << 20, &data, size_out), 0);
	assert_int_equal(written, *size_out);
	close(fd);
	return data;
}

static int open_object(const struct replica_keys *with, const char *name, const void *data,
		       size_t size, unsigned char **out, size_t *out_size)
{
	struct file_source source;

	file_source_memory(&source, data, size);
	return replica_unseal_all(with, name, &source, 64u << 20, out, out_size);
}

static void fill(unsigned char *body, size_t size)
{
	size_t i;

	for (i = 0; i < size; i++)
		body[i] = (unsigned char)(i * 7 + i / 251);
}

static void test_round(void **state)
{
	static const size_t sizes[] = {
	    0,	   1, 1000, REPLICA_PIECE - 1, REPLICA_PIECE, REPLICA_PIECE + 1, 3 * REPLICA_PIECE,
	    200001};
	unsigned char *body = malloc(200001 + 1), *out;
	size_t i, form, size, n;
	char *data;

	(void)state;
	fill(body, 200001);
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (form = 0; form < 2; form++) {
			data = make_object(form ? &keys : NULL, body, sizes[i], &size);
			assert_int_equal(
			    open_object(form ? &keys : NULL, NAME, data, size, &out, &n), 0);
			assert_int_equal(n, sizes[i]);
			if (n)
				assert_memory_equal(out, body, n);
			free(out);
			free(data);
		}
	free(body);
}

/* No byte can be another one, none be missing, none more. */
static void test_damage(void **state)
{
	unsigned char body[700], *out;
	size_t form, size, n, i;
	char *data, *longer;

	(void)state;
	fill(body, sizeof(body));
	for (form = 0; form < 2; form++) {
		const struct replica_keys *with = form ? &keys : NULL;

		data = make_object(with, body, sizeof(body), &size);
		for (i = 0; i < size; i++) {
			data[i] ^= 0x20;
			assert_true(open_object(with, NAME, data, size, &out, &n) < 0);
			assert_null(out);
			data[i] ^= 0x20;
			assert_true(open_object(with, NAME, data, i, &out, &n) < 0);
		}
		longer = calloc(1, size + 1);
		memcpy(longer, data, size);
		assert_true(open_object(with, NAME, longer, size + 1, &out, &n) < 0);
		assert_int_equal(open_object(with, "chunks/ab/abce", data, size, &out, &n),
				 -EBADMSG);
		free(longer);
		free(data);
	}
}

/* A piece that ends where one ends: the end of the object is known all the same. */
static void test_cut_at_a_piece(void **state)
{
	size_t size, n, plain = 2 * REPLICA_PIECE + 5;
	unsigned char *body = malloc(plain), *out;
	char *data;

	(void)state;
	fill(body, plain);
	data = make_object(&keys, body, plain, &size);
	assert_int_equal(open_object(&keys, NAME, data, size - 5 - 17, &out, &n), -ENODATA);
	free(data);
	free(body);
}

static void test_who_can_read(void **state)
{
	unsigned char body[10] = "0123456789", *out;
	struct replica_keys other, machine = keys;
	size_t size, n;
	char *data = make_object(&keys, body, sizeof(body), &size);

	(void)state;
	replica_keys_draw(&other);
	memset(machine.secret_key, 0, sizeof(machine.secret_key));
	machine.has_secret = false;
	assert_int_equal(open_object(&other, NAME, data, size, &out, &n), -ENOKEY);
	assert_int_equal(open_object(&machine, NAME, data, size, &out, &n), -ENOKEY);
	assert_int_equal(open_object(NULL, NAME, data, size, &out, &n), -ENOKEY);
	free(data);
	/* What anybody could have put there does not pass for what was sealed. */
	data = make_object(NULL, body, sizeof(body), &size);
	assert_int_equal(open_object(&keys, NAME, data, size, &out, &n), -EBADMSG);
	free(data);
}

static void test_keys(void **state)
{
	struct replica_keys again;
	char text[512];
	struct scratch s;
	int n = replica_keys_format(&keys, true, text, sizeof(text));

	(void)state;
	assert_null(strstr(text, "names"));
	assert_int_equal(replica_keys_parse(&again, text, (size_t)n), 0);
	assert_memory_equal(again.secret_key, keys.secret_key, REPLICA_KEY_SIZE);
	text[8] = text[8] == '0' ? '1' : '0';
	assert_int_equal(replica_keys_parse(&again, text, (size_t)n), -EINVAL);
	assert_int_equal(replica_keys_parse(&again, "", 0), -EINVAL);
	scratch_make(&s);
	assert_int_equal(replica_keys_read_store(&again, s.fd), -ENOENT);
	assert_int_equal(replica_keys_write_store(&keys, s.fd), 0);
	assert_int_equal(replica_keys_read_store(&again, s.fd), 0);
	assert_false(again.has_secret);
	assert_memory_equal(again.names, keys.names, REPLICA_KEY_SIZE);
	scratch_remove(&s);
}

static void test_names(void **state)
{
	static const char *const bad[] = {
	    "",
	    "chunks/ab/cd",
	    "snapshots/1-1-1-1",
	    "control/000001-0000abcd.other",
	    "control/000001-0000ABCD.owner",
	    "chunks/00/0100000000000000000000000000000000000000000000000000000000000000",
	    "snapshots/000001-0000abcd-000000000012-00000000000000000034x",
	    "snapshots/000001-0000abcd-000000000012-99999999999999999999",
	    "control/000001-0000abcd-000000000012-00000000000000000034.owner",
	    "control/000001-0000abcd-000000000012-00000000000000000034.held-7",
	    "control/000001-0000abcd-000000000012-00000000000000000034.held-0000007",
	    "control/000001-0000abcd.verified",
	    "control/000001-0000abcd.prunedx",
	    "other/000001-0000abcd.owner"};
	struct replica_name name = {.folder = REPLICA_SNAPSHOTS,
				    .epoch = 1,
				    .line = 0xabcd,
				    .id = 12,
				    .time = 34},
			    again;
	char text[REPLICA_NAME_SIZE];
	size_t i;

	(void)state;
	replica_name_format(text, &name);
	assert_string_equal(text, "snapshots/000001-0000abcd-000000000012-00000000000000000034");
	assert_true(replica_name_parse(&again, text));
	assert_int_equal(replica_name_compare(&name, &again), 0);
	assert_int_equal(again.time, 34);
	name.folder = REPLICA_CONTROL;
	for (name.mark = REPLICA_VERIFIED; name.mark <= REPLICA_RELEASED; name.mark++) {
		name.number = name.mark == REPLICA_VERIFIED ? 0 : 7;
		replica_name_format(text, &name);
		assert_true(replica_name_parse(&again, text));
		assert_int_equal(again.mark, name.mark);
		assert_int_equal(again.number, name.number);
		assert_int_equal(again.id, 12);
		assert_int_equal(replica_name_compare(&name, &again), 0);
	}
	assert_string_equal(
	    text, "control/000001-0000abcd-000000000012-00000000000000000034.released-000007");
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (replica_name_parse(&again, bad[i]))
			fail_msg("'%s' was taken", bad[i]);
}

static void test_lists(void **state)
{
	struct replica_name name;
	uint64_t size;

	(void)state;
	assert_true(replica_listing_parse("-rw-------    1 0        0             112 Nov 30 01:20 "
					  "control/000002-0000abcd.prune\n",
					  REPLICA_CONTROL, true, &name, &size));
	assert_int_equal(size, 112);
	assert_int_equal(name.epoch, 2);
	assert_int_equal(name.mark, REPLICA_PRUNE);
	assert_true(replica_listing_parse("112 000002-0000abcd.pruned\n", REPLICA_CONTROL, false,
					  &name, &size));
	assert_false(replica_listing_parse("sftp> ls -ln \"control\"\n", REPLICA_CONTROL, true,
					   &name, &size));
	assert_false(replica_listing_parse("drwx------    2 0 0 4096 Nov 30 01:20 ab\n",
					   REPLICA_CHUNKS, true, &name, &size));
	assert_false(replica_listing_parse("-1 000002-0000abcd.prune\n", REPLICA_CONTROL, false,
					   &name, &size));
}

static void test_control(void **state)
{
	struct replica_control c = {.time = 5}, again;
	unsigned char bytes[sizeof(c)];
	size_t i;

	(void)state;
	memcpy(c.host, "here", 5);
	replica_control_finish(&c, "control/a");
	assert_int_equal(replica_control_parse(&again, "control/a", &c, sizeof(c)), 0);
	assert_int_equal(replica_control_parse(&again, "control/b", &c, sizeof(c)), -EBADMSG);
	for (i = 0; i < sizeof(c); i++) {
		memcpy(bytes, &c, sizeof(c));
		bytes[i] ^= 4;
		assert_true(replica_control_parse(&again, "control/a", bytes, sizeof(c)) < 0);
		assert_int_equal(replica_control_parse(&again, "control/a", &c, i), -ENODATA);
	}
}

static void test_sent(void **state)
{
	struct replica_chunk_name name = {{0}};
	struct replica_sent s;
	struct scratch dir;
	unsigned i;

	(void)state;
	scratch_make(&dir);
	assert_int_equal(replica_sent_open(&s, dir.fd, false), 1);
	for (i = 1; i < 5000; i++) {
		memcpy(name.bytes + 8, &i, sizeof(i));
		assert_false(replica_sent_has(&s, &name));
		assert_int_equal(replica_sent_add(&s, &name, 1), 0);
	}
	assert_true(replica_sent_has(&s, &name));
	/* One that a death has cut. */
	assert_int_equal(pwrite(s.fd, "xyz", 3, 8 + 4999 * 32), 3);
	replica_sent_close(&s);
	assert_int_equal(replica_sent_open(&s, dir.fd, false), 0);
	assert_int_equal(s.count, 4999);
	i = 5001;
	memcpy(name.bytes + 8, &i, sizeof(i));
	assert_int_equal(replica_sent_add(&s, &name, 1), 0);
	replica_sent_close(&s);
	assert_int_equal(replica_sent_open(&s, dir.fd, false), 0);
	assert_true(replica_sent_has(&s, &name));
	replica_sent_close(&s);
	assert_int_equal(replica_sent_open(&s, dir.fd, true), 1);
	assert_false(replica_sent_has(&s, &name));
	replica_sent_close(&s);
	scratch_put(dir.fd, "sent", "damaged!x", 9);
	assert_int_equal(replica_sent_open(&s, dir.fd, false), 1);
	replica_sent_close(&s);
	scratch_remove(&dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_round),	   cmocka_unit_test(test_damage),
	    cmocka_unit_test(test_cut_at_a_piece), cmocka_unit_test(test_who_can_read),
	    cmocka_unit_test(test_keys),	   cmocka_unit_test(test_names),
	    cmocka_unit_test(test_lists),	   cmocka_unit_test(test_control),
	    cmocka_unit_test(test_sent),
	};

	if (replica_keys_start() < 0)
		return 1;
	replica_keys_draw(&keys);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
