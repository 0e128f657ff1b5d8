/* Digests, base64 and random bytes: proto's only door to OpenSSL. */
#ifndef PROTO_CRYPT_H
#define PROTO_CRYPT_H

#include "common/base.h"
#include "common/view.h"

#define CRYPT_SHA1_BYTES 20

/* False when the library refuses SHA-1 (a FIPS policy without it); out is zeros then. */
bool crypt_sha1(struct view in, uint8_t out[CRYPT_SHA1_BYTES]) MUST_CHECK;

/* Bytes that crypt_base64 writes for n, its terminator included. */
#define CRYPT_BASE64_ROOM(n) (((n) + 2) / 3 * 4 + 1)
/* Base64 with padding (RFC 4648 section 4) and a terminator; returns the length without it. */
size_t crypt_base64(char *out, struct view in);

/* n bytes nobody can guess (session ids, masking keys). False when the system has none to give. */
bool crypt_random(void *out, size_t n) MUST_CHECK;

#endif
