/* permessage-deflate. The first byte chooses: offers of extensions, whose answer must say no more than the offer
 * allows; a compressed message, whose outcome may not depend on the chunks nor pass its bound; or a message that is
 * compressed and must come back. */
#include <stdlib.h>

#include "proto/deflate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

/* An answer is built like an offer: one that is read again as an offer, by somebody who is ready for
 * everything, must come to the same terms. */
static void
offers(uint8_t how, struct view text)
{
    struct deflate_policy p = {(uint8_t)(9 + how % 7), (uint8_t)(9 + how / 8 % 7), how & 64, how & 128};
    struct deflate_terms t, again;
    if (!deflate_agree(text, &p, &t))
        return;
    uint8_t memory[DEFLATE_ANSWER_MAX];
    struct buf out = buf_fixed(memory, sizeof memory);
    deflate_put_answer(&out, &t);
    must(!out.failed);
    must(t.server_bits >= DEFLATE_BITS_MIN && t.server_bits <= p.server_bits);
    must(t.client_bits >= 8 && t.client_bits <= DEFLATE_BITS_MAX);
    must(t.server_takeover <= p.server_takeover && t.client_takeover <= p.client_takeover);
    struct deflate_policy ready = {DEFLATE_BITS_MAX, DEFLATE_BITS_MAX, true, true};
    must(deflate_agree(buf_view(&out), &ready, &again));
    again.server_asked = t.server_asked; /* an answer may say what no offer asked for */
    must(memcmp(&t, &again, sizeof t) == 0);
}

static enum deflate_rc
inflate_in(struct deflate_reader *r, struct view packed, size_t chunk, bool keep, uint64_t max, struct buf *out)
{
    enum deflate_rc rc = DEFLATE_OK;
    deflate_reader_begin(r, keep);
    for (size_t at = 0; at < packed.n && rc == DEFLATE_OK; at += chunk) {
        size_t k = MIN(chunk, packed.n - at);
        uint8_t *block = malloc(k); /* of its size, so that a read behind it is seen */
        must(block != NULL);
        memcpy(block, packed.p + at, k);
        rc = deflate_reader_put(r, view_of(block, k), max, out);
        free(block);
    }
    if (rc == DEFLATE_OK)
        rc = deflate_reader_end(r, max, out);
    must(out->n <= max && rc != DEFLATE_NO_MEMORY);
    return rc;
}

/* Two ways through one message. Where no distance can lead out of the window (of 2^15 bytes) the pieces make no
 * difference at all; with a smaller one a sender that breaks its promise is found out by some pieces only. */
static void
must_agree(unsigned bits, enum deflate_rc a, struct view out_a, enum deflate_rc b, struct view out_b)
{
    if (bits < DEFLATE_BITS_MAX && (a == DEFLATE_BROKEN || b == DEFLATE_BROKEN)) {
        size_t n = MIN(out_a.n, out_b.n);
        must(view_eq(view_head(out_a, n), view_head(out_b, n)));
        return;
    }
    must(a == b && view_eq(out_a, out_b));
}

static void
message(uint8_t how, size_t chunk, struct view packed)
{
    uint64_t bytes = 0, max = how & 1 ? 100 : 1 << 18;
    unsigned bits = 9 + how / 2 % 7;
    struct deflate_reader *a = deflate_reader_new(bits, &bytes), *b = deflate_reader_new(bits, &bytes);
    struct buf whole = buf_make(1 << 20), split = buf_make(1 << 20);
    must(a != NULL && b != NULL);
    for (int i = 0; i < 3; i++) {
        bool keep = i > 0 && how & 16;
        buf_reset(&whole);
        buf_reset(&split);
        enum deflate_rc rc = inflate_in(a, packed, packed.n + 1, keep, max, &whole);
        enum deflate_rc in_pieces = inflate_in(b, packed, chunk, keep, max, &split);
        must_agree(bits, rc, buf_view(&whole), in_pieces, buf_view(&split));
        must(whole.cap <= MAX(2 * max, (uint64_t)16384));
        if ((rc != DEFLATE_OK || in_pieces != DEFLATE_OK) && how & 16)
            break; /* the connection would be gone */
    }
    must(bytes <= 2 * deflate_reader_bytes(bits));
    buf_free(&whole);
    buf_free(&split);
    deflate_reader_free(a);
    deflate_reader_free(b);
    must(bytes == 0);
}

static void
there_and_back(uint8_t how, size_t chunk, struct view plain)
{
    uint64_t bytes = 0;
    unsigned bits = 9 + how % 7;
    bool keep = how & 8;
    struct deflate_writer *w = deflate_writer_new(bits, 1 + how / 16 % 9, 1 + how / 32, &bytes);
    struct deflate_reader *r = deflate_reader_new(bits, &bytes);
    uint8_t *packed = malloc(plain.n + DEFLATE_TAIL);
    must(w != NULL && r != NULL && packed != NULL);
    for (int i = 0; i < 3; i++) {
        struct buf out = buf_make(plain.n);
        size_t n = deflate_writer_put(w, plain, keep, packed);
        if (n > 0) {
            must(n < plain.n);
            must(inflate_in(r, view_of(packed, n), chunk, keep, plain.n, &out) == DEFLATE_OK);
            must(view_eq(buf_view(&out), plain));
        }
        buf_free(&out);
    }
    free(packed);
    deflate_writer_free(w);
    deflate_reader_free(r);
    must(bytes == 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 3 || n > 1 << 16)
        return 0;
    struct view rest = view_of(data + 3, n - 3);
    switch (data[0] % 3) {
    case 0: offers(data[1], rest); break;
    case 1: message(data[1], 1u + data[2], rest); break;
    default: there_and_back(data[1], 1u + data[2], rest); break;
    }
    return 0;
}
