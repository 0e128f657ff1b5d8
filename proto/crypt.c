/* OpenSSL behind three plain calls. Called by http.c for the accept key and by whoever needs ids.
 */
#include "proto/crypt.h"

#include <limits.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

bool
crypt_sha1(struct view in, uint8_t out[CRYPT_SHA1_BYTES])
{
    unsigned n = 0;
    if (EVP_Digest(in.p, in.n, out, &n, EVP_sha1(), NULL) == 1 && n == CRYPT_SHA1_BYTES)
        return true;
    memset(out, 0, CRYPT_SHA1_BYTES);
    return false;
}

size_t
crypt_base64(char *out, struct view in)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    for (size_t i = 0; i < in.n; i += 3) {
        size_t left = in.n - i;
        uint32_t v = (uint32_t)in.p[i] << 16;
        if (left > 1)
            v |= (uint32_t)in.p[i + 1] << 8;
        if (left > 2)
            v |= in.p[i + 2];
        out[n++] = digits[v >> 18];
        out[n++] = digits[v >> 12 & 63];
        out[n++] = left > 1 ? digits[v >> 6 & 63] : '=';
        out[n++] = left > 2 ? digits[v & 63] : '=';
    }
    out[n] = 0;
    return n;
}

bool
crypt_random(void *out, size_t n)
{
    uint8_t *p = out;
    while (n > 0) {
        int take = (int)MIN(n, (size_t)INT_MAX);
        if (RAND_bytes(p, take) != 1)
            return false;
        p += take;
        n -= (size_t)take;
    }
    return true;
}
