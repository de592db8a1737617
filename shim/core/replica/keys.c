/* SPDX-License-Identifier: MIT
 *
 * Keys of replicas, as files.
 */
#include "core/replica/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "core/base/fileio.h"
#include "core/base/text.h"
#include "core/base/tree.h"
#include "core/replica/state.h"

#define FILE_MAX 4096u

_Static_assert(REPLICA_KEY_SIZE == crypto_box_PUBLICKEYBYTES &&
		   REPLICA_KEY_SIZE == crypto_box_SECRETKEYBYTES,
	       "the format says so");

int replica_keys_start(void)
{
	return sodium_init() < 0 ? -EIO : 0;
}

void replica_keys_draw_names(struct replica_keys *out)
{
	randombytes_buf(out->names, sizeof(out->names));
	out->has_names = true;
}

void replica_keys_draw(struct replica_keys *out)
{
	*out = (struct replica_keys){.has_public = true, .has_secret = true};
	crypto_box_keypair(out->public_key, out->secret_key);
	replica_keys_draw_names(out);
}

void replica_keys_forget(struct replica_keys *keys)
{
	sodium_memzero(keys, sizeof(*keys));
}

static bool take_key(const char *line, size_t n, const char *word, unsigned char *out, bool *has)
{
	size_t length = strlen(word), got;

	if (n != length + 2 * REPLICA_KEY_SIZE || memcmp(line, word, length) != 0 || *has)
		return false;
	*has = sodium_hex2bin(out, REPLICA_KEY_SIZE, line + length, n - length, NULL, &got, NULL) ==
		   0 &&
	       got == REPLICA_KEY_SIZE;
	return *has;
}

static bool secret_fits(const struct replica_keys *keys)
{
	unsigned char public_key[REPLICA_KEY_SIZE];

	return crypto_scalarmult_base(public_key, keys->secret_key) == 0 &&
	       memcmp(public_key, keys->public_key, sizeof(public_key)) == 0;
}

int replica_keys_parse(struct replica_keys *out, const char *text, size_t size)
{
	const char *end = text + size;
	bool good = true;

	*out = (struct replica_keys){.has_public = false};
	while (text < end && good) {
		const char *eol = memchr(text, '\n', (size_t)(end - text));
		size_t n = (size_t)((eol ? eol : end) - text);

		while (n && strchr(" \t\r", text[n - 1]))
			n--;
		good = n == 0 || text[0] == '#' ||
		       take_key(text, n, "public ", out->public_key, &out->has_public) ||
		       take_key(text, n, "secret ", out->secret_key, &out->has_secret) ||
		       take_key(text, n, "names ", out->names, &out->has_names);
		text = eol ? eol + 1 : end;
	}
	if (good && out->has_public && (!out->has_secret || secret_fits(out)))
		return 0;
	replica_keys_forget(out);
	return -EINVAL;
}

int replica_keys_format(const struct replica_keys *keys, bool secret, char *out, size_t room)
{
	char hex[2 * REPLICA_KEY_SIZE + 1];
	int n;

	sodium_bin2hex(hex, sizeof(hex), keys->public_key, REPLICA_KEY_SIZE);
	n = snprintf(out, room, "public %s\n", hex);
	if (secret) {
		sodium_bin2hex(hex, sizeof(hex), keys->secret_key, REPLICA_KEY_SIZE);
		n += snprintf(out + n, room - (size_t)n, "secret %s\n", hex);
	} else if (keys->has_names) {
		sodium_bin2hex(hex, sizeof(hex), keys->names, REPLICA_KEY_SIZE);
		n += snprintf(out + n, room - (size_t)n, "names %s\n", hex);
	}
	sodium_memzero(hex, sizeof(hex));
	return n;
}

static int read_keys(struct replica_keys *out, int fd)
{
	size_t size;
	char *text;
	int r = file_read_all(fd, FILE_MAX, &text, &size);

	close(fd);
	if (r < 0)
		return r == -EFBIG ? -EINVAL : r;
	r = replica_keys_parse(out, text, size);
	sodium_memzero(text, size);
	free(text);
	return r;
}

int replica_keys_read(struct replica_keys *out, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	*out = (struct replica_keys){.has_public = false};
	return fd < 0 ? -errno : read_keys(out, fd);
}

int replica_keys_read_store(struct replica_keys *out, int storefd)
{
	int dirfd = file_open_directory_at(storefd, REPLICA_DIR), fd, r;

	*out = (struct replica_keys){.has_public = false};
	if (dirfd < 0)
		return dirfd;
	fd = file_open_at(dirfd, REPLICA_KEY_FILE);
	close(dirfd);
	if (fd < 0)
		return fd;
	r = read_keys(out, fd);
	return r == 0 && !out->has_names ? -EINVAL : r;
}

int replica_keys_write_store(const struct replica_keys *keys, int storefd)
{
	int dirfd = tree_make_directory(storefd, REPLICA_DIR), n, r;
	struct file_publish file;
	char text[512];

	if (dirfd < 0)
		return dirfd;
	n = replica_keys_format(keys, false, text, sizeof(text));
	r = file_publish_begin(&file, dirfd, REPLICA_KEY_FILE, 0600);
	if (r == 0) {
		r = file_write_all(file.fd, text, (size_t)n);
		if (r == 0)
			r = file_publish_commit(&file);
		else
			file_publish_abort(&file);
	}
	close(dirfd);
	return r;
}

void replica_chunk_name_of(const unsigned char names[REPLICA_KEY_SIZE], const void *name,
			   size_t size, struct replica_chunk_name *out)
{
	bool keyed = !bytes_are_zero(names, REPLICA_KEY_SIZE);

	crypto_generichash(out->bytes, sizeof(out->bytes), name, size, keyed ? names : NULL,
			   keyed ? REPLICA_KEY_SIZE : 0);
}
