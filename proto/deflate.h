/* permessage-deflate (RFC 7692): which offer is taken and what is answered, messages into DEFLATE (RFC 1951)
 * and out of it. The only door to zlib. Pure: bytes in, bytes out; no socket, no clock, no setting.
 *
 * A stream serves any number of connections as long as nobody keeps context from one message to the
 * next (no_context_takeover); what it takes in memory is counted where its maker says. */
#ifndef PROTO_DEFLATE_H
#define PROTO_DEFLATE_H

#include "common/base.h"
#include "common/buf.h"
#include "common/view.h"

/* Windows are 2^bits bytes. Section 7.1.2 knows 8 to 15; zlib cannot compress bare DEFLATE with 8. */
#define DEFLATE_BITS_MIN 9
#define DEFLATE_BITS_MAX 15

/* What the server is ready to agree to. */
struct deflate_policy {
    uint8_t server_bits;  /* its own largest window, DEFLATE_BITS_MIN to DEFLATE_BITS_MAX */
    uint8_t client_bits;  /* what clients that offer it are held to, the same range */
    bool server_takeover; /* may keep context of what it sends, unless the client forbids it */
    bool client_takeover; /* the client may keep context of what it sends */
};

/* What was agreed; all zero: nothing. */
struct deflate_terms {
    uint8_t server_bits; /* 9 to 15 */
    uint8_t client_bits; /* 8 to 15: windows of the client are no larger */
    bool server_asked;   /* the offer had server_max_window_bits, so the answer must, whatever the value */
    bool server_takeover, client_takeover;
};

/* Judges one Sec-WebSocket-Extensions value and takes the first offer in it that can be served to the letter;
 * false if there is none. An offer with a parameter that is unknown, repeated or malformed is none, and neither
 * is one for windows that zlib cannot do. A request may have several such fields: ask for each in turn. */
bool deflate_agree(struct view offers, const struct deflate_policy *p, struct deflate_terms *out) MUST_CHECK;
/* Room for any answer. */
#define DEFLATE_ANSWER_MAX 160
/* The value of Sec-WebSocket-Extensions in the answer. */
void deflate_put_answer(struct buf *out, const struct deflate_terms *t);

enum deflate_rc {
    DEFLATE_OK,
    DEFLATE_BROKEN,    /* not DEFLATE, refers to data that is not there any more, or ends in the middle */
    DEFLATE_TOO_BIG,   /* more than the bound would come out */
    DEFLATE_NO_MEMORY,
};

/* Inflates the messages of one connection, or of many that keep no context. */
struct deflate_reader;
/* *bytes is raised by what the stream takes, now and later, and lowered again by deflate_reader_free; it outlives
 * the reader. NULL when memory is out. */
struct deflate_reader *deflate_reader_new(unsigned bits, uint64_t *bytes) MUST_CHECK;
void deflate_reader_free(struct deflate_reader *r);
/* Begins a message. With `keep` it may refer to the messages before. */
void deflate_reader_begin(struct deflate_reader *r, bool keep);
/* Inflates the next piece of the message and appends what comes out, never beyond out->n == max. Works in
 * steps: neither memory nor time depends on what would have come behind the bound. A sender that refers to data
 * before its window, but within what came out of the same step, is not found out. */
enum deflate_rc deflate_reader_put(
    struct deflate_reader *r, struct view piece, uint64_t max, struct buf *out) MUST_CHECK;
/* The message is over. */
enum deflate_rc deflate_reader_end(struct deflate_reader *r, uint64_t max, struct buf *out) MUST_CHECK;

/* Longest compressed form of a message of n bytes that is taken: a sender that stores it in the smallest blocks
 * zlib ever makes stays below. */
static inline uint64_t
deflate_packed_max(uint64_t n)
{
    return n + n / 8 + n / 64 + 64;
}

/* Compresses messages of one connection, or of all that share the window size and keep no context. */
struct deflate_writer;
struct deflate_writer *deflate_writer_new(unsigned bits, int level, int mem_level, uint64_t *bytes) MUST_CHECK;
void deflate_writer_free(struct deflate_writer *w);
/* Compresses a message, behind those before it if `keep`. Writes at most message.n bytes to `out` and returns
 * how many; 0 if that would not make it smaller (then the next message begins without context, too).
 * out has room for message.n + DEFLATE_TAIL bytes. */
#define DEFLATE_TAIL 5
size_t deflate_writer_put(struct deflate_writer *w, struct view message, bool keep, uint8_t *out) MUST_CHECK;
/* What follows refers to nothing before it: for a stream whose client was sent something else meanwhile. */
void deflate_writer_forget(struct deflate_writer *w);

/* Bounds on what one stream takes, for budgets. */
uint64_t deflate_reader_bytes(unsigned bits);
uint64_t deflate_writer_bytes(unsigned bits, int mem_level);

#endif
