/* permessage-deflate (RFC 7692) as the load generator needs it: an offer like a browser's, what the
 * server's answer means, messages packed and unpacked. zlib is reached here and not through
 * proto/deflate.h: what measures a thing must not be built from it.
 *
 * A server that compresses a message once sends the same bytes to every subscriber. Those are
 * remembered with their text, so each distinct message is inflated once, each further copy of it is
 * compared byte by byte, and all are checked in full. */
#ifndef BENCH_PMD_H
#define BENCH_PMD_H

#include "common/base.h"

#define PMD_OFFER "permessage-deflate; client_max_window_bits"
#define PMD_TEXT_MAX (128 * 1024) /* longest message that is unpacked */

/* What the server's answer bound both sides to. */
struct pmd_terms {
    bool agreed;
    bool server_forgets; /* server_no_context_takeover: each message stands alone */
    uint8_t client_bits; /* window we may pack with, 9..15 */
};

/* Reads a response head. False when it holds an answer that no server may give to PMD_OFFER. */
bool pmd_terms_read(struct pmd_terms *t, const char *head, size_t n) MUST_CHECK;

struct pmd;        /* streams and memory that all connections share */
struct pmd_stream; /* of one connection whose server keeps its window */

struct pmd *pmd_new(void) MUST_CHECK;
void pmd_free(struct pmd *z);
struct pmd_stream *pmd_stream_new(void) MUST_CHECK;
void pmd_stream_free(struct pmd_stream *s);

/* Packs text as a message that stands alone, which is allowed whatever was agreed (RFC 7692 section
 * 7.2.1). Returns its length, 0 if it would exceed cap. */
size_t pmd_pack(struct pmd *z, uint8_t bits, const uint8_t *text, size_t n, uint8_t *to, size_t cap);
/* The text of a message; valid until the next call. NULL if it is broken or above PMD_TEXT_MAX.
 * s: the connection's stream, NULL if each message stands alone. */
const uint8_t *pmd_unpack(struct pmd *z, struct pmd_stream *s, const uint8_t *p, size_t n, size_t *text_n);
/* Messages that were really inflated. */
uint64_t pmd_inflated(const struct pmd *z);

#endif
