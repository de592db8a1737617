/* SPDX-License-Identifier: MIT
 *
 * Sealing and unsealing the objects of a replica.
 */
#include "core/replica/seal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "core/base/checksum.h"

#define STREAM_KEY crypto_secretstream_xchacha20poly1305_KEYBYTES
#define STREAM_HEADER crypto_secretstream_xchacha20poly1305_HEADERBYTES
#define STREAM_MORE crypto_secretstream_xchacha20poly1305_ABYTES
#define STREAM_FINAL crypto_secretstream_xchacha20poly1305_TAG_FINAL
#define BOX (crypto_box_SEALBYTES + STREAM_KEY)
#define SUM 32u
#define START (sizeof(struct replica_object) + BOX + STREAM_HEADER)

_Static_assert(BOX == 80 && STREAM_HEADER == 24 && STREAM_MORE == 17, "the format says so");

/* What is bound to an object beside its body. */
struct bound {
	unsigned char bytes[sizeof(struct replica_object) + REPLICA_NAME_SIZE];
	size_t size;
};

static void bind(struct bound *b, const struct replica_object *o, const char *name)
{
	size_t n = strnlen(name, REPLICA_NAME_SIZE);

	memcpy(b->bytes, o, sizeof(*o));
	memcpy(b->bytes + sizeof(*o), name, n);
	b->size = sizeof(*o) + n;
}

/* ---- writing ---- */

struct sealing {
	struct bound bound;
	crypto_secretstream_xchacha20poly1305_state stream;
	crypto_generichash_state sum;
	int fd;
	uint64_t written;
	size_t have;
	unsigned char plain[REPLICA_PIECE];
	unsigned char sealed[REPLICA_PIECE + STREAM_MORE];
};

static int put(struct sealing *s, const void *data, size_t size)
{
	s->written += size;
	return file_write_all(s->fd, data, size);
}

static int put_piece(struct sealing *s, bool last)
{
	unsigned char tag = last ? STREAM_FINAL : 0;

	crypto_secretstream_xchacha20poly1305_push(&s->stream, s->sealed, NULL, s->plain, s->have,
						   s->bound.bytes, s->bound.size, tag);
	size_t n = s->have + STREAM_MORE;
	s->have = 0;
	return put(s, s->sealed, n);
}

static int start_sealed(struct sealing *s, const struct replica_keys *keys,
			const struct replica_object *o)
{
	unsigned char start[START], key[STREAM_KEY];
	int r;

	memcpy(start, o, sizeof(*o));
	crypto_secretstream_xchacha20poly1305_keygen(key);
	r = crypto_box_seal(start + sizeof(*o), key, sizeof(key), keys->public_key);
	crypto_secretstream_xchacha20poly1305_init_push(&s->stream, start + sizeof(*o) + BOX, key);
	sodium_memzero(key, sizeof(key));
	return r ? -EINVAL : put(s, start, sizeof(start));
}

static int seal_body(struct sealing *s, const struct iovec *body, int count)
{
	int i, r = 0;

	for (i = 0; i < count && r == 0; i++) {
		const unsigned char *at = body[i].iov_base;
		size_t left = body[i].iov_len;

		while (left && r == 0) {
			size_t n = sizeof(s->plain) - s->have;

			/* What is full is written when there is more: the last one is known then.
			 */
			if (n == 0) {
				r = put_piece(s, false);
				continue;
			}
			n = n < left ? n : left;
			memcpy(s->plain + s->have, at, n);
			s->have += n;
			at += n;
			left -= n;
		}
	}
	return r == 0 ? put_piece(s, true) : r;
}

static int write_plain(struct sealing *s, const struct replica_object *o, const struct iovec *body,
		       int count)
{
	unsigned char sum[SUM];
	int i, r;

	crypto_generichash_init(&s->sum, NULL, 0, SUM);
	crypto_generichash_update(&s->sum, s->bound.bytes, s->bound.size);
	r = put(s, o, sizeof(*o));
	for (i = 0; i < count && r == 0; i++) {
		crypto_generichash_update(&s->sum, body[i].iov_base, body[i].iov_len);
		r = put(s, body[i].iov_base, body[i].iov_len);
	}
	crypto_generichash_final(&s->sum, sum, sizeof(sum));
	return r == 0 ? put(s, sum, sizeof(sum)) : r;
}

int replica_seal(const struct replica_keys *keys, const char *name, const struct iovec *body,
		 int count, int fd, uint64_t *size_out)
{
	struct replica_object o = {.magic = REPLICA_MAGIC,
				   .version = REPLICA_VERSION,
				   .form = keys ? REPLICA_SEALED : REPLICA_PLAIN};
	struct sealing *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->fd = fd;
	bind(&s->bound, &o, name);
	if (keys) {
		r = start_sealed(s, keys, &o);
		r = r == 0 ? seal_body(s, body, count) : r;
	} else {
		r = write_plain(s, &o, body, count);
	}
	if (size_out)
		*size_out = s->written;
	sodium_memzero(s, sizeof(*s));
	free(s);
	return r;
}

uint64_t replica_seal_size(const struct replica_keys *keys, uint64_t body)
{
	uint64_t pieces = body / REPLICA_PIECE + (body % REPLICA_PIECE || !body);

	return keys ? START + body + pieces * STREAM_MORE
		    : sizeof(struct replica_object) + body + SUM;
}

/* ---- reading ---- */

struct unsealing {
	struct bound bound;
	const struct file_source *source;
	uint64_t at;
	replica_take_fn *take;
	void *context;
	crypto_secretstream_xchacha20poly1305_state stream;
	crypto_generichash_state sum;
	unsigned char plain[REPLICA_PIECE];
	unsigned char sealed[REPLICA_PIECE + STREAM_MORE];
};

static int get(struct unsealing *u, void *out, size_t n)
{
	int r;

	if (u->at > u->source->size || n > u->source->size - u->at)
		return -ENODATA;
	r = file_source_read(u->source, out, n, u->at);
	u->at += n;
	return r;
}

static int open_key(struct unsealing *u, const struct replica_keys *keys)
{
	unsigned char start[BOX + STREAM_HEADER], key[STREAM_KEY];
	int r = get(u, start, sizeof(start));

	if (r < 0)
		return r;
	if (!keys || !keys->has_secret ||
	    crypto_box_seal_open(key, start, BOX, keys->public_key, keys->secret_key) != 0)
		return -ENOKEY;
	r = crypto_secretstream_xchacha20poly1305_init_pull(&u->stream, start + BOX, key);
	sodium_memzero(key, sizeof(key));
	return r ? -EBADMSG : 0;
}

/* 1: that was the last one. */
static int take_piece(struct unsealing *u)
{
	uint64_t left = u->source->size - u->at;
	size_t n = left < sizeof(u->sealed) ? (size_t)left : sizeof(u->sealed);
	unsigned long long plain;
	unsigned char tag;
	int r;

	if (n < STREAM_MORE)
		return -ENODATA;
	r = get(u, u->sealed, n);
	if (r < 0)
		return r;
	if (crypto_secretstream_xchacha20poly1305_pull(&u->stream, u->plain, &plain, &tag,
						       u->sealed, n, u->bound.bytes,
						       u->bound.size) != 0)
		return -EBADMSG;
	r = plain ? u->take(u->context, u->plain, (size_t)plain) : 0;
	if (r < 0 || tag == 0)
		return r;
	return tag == STREAM_FINAL && u->at == u->source->size ? 1 : -EBADMSG;
}

static int unseal_sealed(struct unsealing *u, const struct replica_keys *keys)
{
	int r = open_key(u, keys);

	while (r == 0)
		r = take_piece(u);
	return r > 0 ? 0 : r;
}

static int unseal_plain(struct unsealing *u)
{
	unsigned char sum[SUM], found[SUM];
	int r = 0;

	if (u->source->size < u->at + SUM)
		return -ENODATA;
	crypto_generichash_init(&u->sum, NULL, 0, SUM);
	crypto_generichash_update(&u->sum, u->bound.bytes, u->bound.size);
	while (r == 0 && u->source->size - u->at > SUM) {
		uint64_t left = u->source->size - u->at - SUM;
		size_t n = left < sizeof(u->plain) ? (size_t)left : sizeof(u->plain);

		r = get(u, u->plain, n);
		if (r == 0)
			crypto_generichash_update(&u->sum, u->plain, n);
		if (r == 0)
			r = u->take(u->context, u->plain, n);
	}
	crypto_generichash_final(&u->sum, sum, sizeof(sum));
	if (r == 0)
		r = get(u, found, sizeof(found));
	return r == 0 && memcmp(sum, found, sizeof(sum)) != 0 ? -EBADMSG : r;
}

static int unseal(struct unsealing *u, const struct replica_keys *keys, const char *name)
{
	struct replica_object o;
	int r = get(u, &o, sizeof(o));

	if (r < 0)
		return r;
	if (o.magic != REPLICA_MAGIC)
		return -EBADMSG;
	if (o.version > REPLICA_VERSION)
		return -EPROTONOSUPPORT;
	bind(&u->bound, &o, name);
	if (o.version && o.form == REPLICA_SEALED)
		return unseal_sealed(u, keys);
	/* Who has keys wants what is sealed to them: anybody could have written the rest. */
	if (o.version && o.form == REPLICA_PLAIN)
		return keys && keys->has_secret ? -EBADMSG : unseal_plain(u);
	return -EBADMSG;
}

int replica_unseal(const struct replica_keys *keys, const char *name,
		   const struct file_source *source, replica_take_fn *take, void *context)
{
	struct unsealing *u = calloc(1, sizeof(*u));
	int r;

	if (!u)
		return -ENOMEM;
	u->source = source;
	u->take = take;
	u->context = context;
	r = unseal(u, keys, name);
	sodium_memzero(u, sizeof(*u));
	free(u);
	return r;
}

struct gathered {
	unsigned char *data;
	size_t size, room, limit;
};

static int gather(void *context, const void *data, size_t size)
{
	struct gathered *g = context;
	unsigned char *more;

	if (size > g->limit - g->size)
		return -EFBIG;
	if (g->size + size > g->room) {
		g->room = 2 * (g->size + size);
		more = realloc(g->data, g->room);
		if (!more)
			return -ENOMEM;
		g->data = more;
	}
	memcpy(g->data + g->size, data, size);
	g->size += size;
	return 0;
}

int replica_unseal_all(const struct replica_keys *keys, const char *name,
		       const struct file_source *source, size_t limit, unsigned char **data_out,
		       size_t *size_out)
{
	struct gathered g = {.limit = limit};
	int r = replica_unseal(keys, name, source, gather, &g);

	if (r < 0) {
		free(g.data);
		g = (struct gathered){.data = NULL};
	}
	*data_out = g.data;
	*size_out = g.size;
	return r;
}

/* ---- control ---- */

static uint64_t check_of(const struct replica_control *c, const char *name)
{
	uint64_t sum = checksum64(c, offsetof(struct replica_control, check), c->magic);

	return checksum64(name, strlen(name), sum);
}

void replica_control_finish(struct replica_control *c, const char *name)
{
	c->magic = REPLICA_CONTROL_MAGIC;
	c->version = REPLICA_VERSION;
	c->check = check_of(c, name);
}

int replica_control_parse(struct replica_control *out, const char *name, const void *data,
			  size_t size)
{
	*out = (struct replica_control){0};
	if (size < sizeof(*out))
		return -ENODATA;
	memcpy(out, data, sizeof(*out));
	if (out->magic != REPLICA_CONTROL_MAGIC)
		return -EBADMSG;
	if (out->version > REPLICA_VERSION)
		return -EPROTONOSUPPORT;
	return size == sizeof(*out) && out->version && out->check == check_of(out, name) &&
		       memchr(out->host, '\0', sizeof(out->host))
		   ? 0
		   : -EBADMSG;
}
