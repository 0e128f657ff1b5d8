/* Lanes as both sides must see them: the segment a ring makes for each broker, the attach, and the
 * records (tbl/ipc.def). Used by worker/link and broker/peer, and by nobody else. */
#ifndef PROTO_IPC_H
#define PROTO_IPC_H

#include "common/base.h"
#include "common/view.h"

enum ipc_type {
#define IPC(name, number, direction, payload, sentence) IPC_##name = number,
#include "proto/tbl/ipc.def"
#undef IPC
};

/* The rows counted, in the order of the table: for counters. */
enum ipc_row {
#define IPC(name, number, direction, payload, sentence) IPC_ROW_##name,
#include "proto/tbl/ipc.def"
#undef IPC
    IPC_ROW_COUNT
};

/* Row of a type that was handled; the table has it. */
static inline enum ipc_row
ipc_row_of(uint8_t type)
{
    switch (type) {
#define IPC(name, number, direction, payload, sentence)                                            \
    case number: return IPC_ROW_##name;
#include "proto/tbl/ipc.def"
#undef IPC
    default: return IPC_ROW_COUNT;
    }
}

/* Name of a row in lower case ("subscribe") and its sentence. */
const char *ipc_row_str(enum ipc_row row);
const char *ipc_row_sentence(enum ipc_row row);

enum ipc_flag {
    IPC_ANSWER = 1,   /* the sender waits for DONE or FAILED */
    IPC_HAS_DATA = 2, /* data was there, be it empty */
};

/* Hash of the message table; equal on both sides or no attach. */
uint64_t ipc_table_hash(void);

#define IPC_MAGIC 0x31454e414c534352ull /* "RCSLANE1" */
#define IPC_VERSION 1
/* Channel numbers of a ring are below this. */
#define IPC_CHANS_MAX (1u << 22)
/* Longest channel name in a record. */
#define IPC_NAME_MAX 4096

/* First in the segment; the lane to the broker follows, then the lane back. */
struct ipc_segment {
    uint64_t magic, table_hash;
    uint32_t version, lane_bytes;
    _Atomic uint64_t worker_beat_ns __attribute__((aligned(128))); /* w: ring; monotonic */
    _Atomic uint32_t connections; /* w: ring, with its heartbeat: for operators */
    _Atomic uint64_t broker_beat_ns __attribute__((aligned(128))); /* w: broker */
    _Atomic uint32_t given_up; /* w: broker, when it drops a ring though both live: messages were missed */
    uint8_t lanes[] __attribute__((aligned(128)));
};

/* Bytes of a whole segment with lanes of this size. */
size_t ipc_segment_size(uint32_t lane_bytes);
void *ipc_lane_out(struct ipc_segment *s);
void *ipc_lane_back(struct ipc_segment *s, uint32_t lane_bytes);

/* The attach, one SEQPACKET message each way: HELLO brings the segment's descriptor, WELCOME says yes or
 * why not. From then on the socket is both sides' doorbell (a message of one byte; only sent to who
 * said that it sleeps), and its end is how a death is noticed. Not an eventfd: the other side could
 * make that block, by filling it and taking O_NONBLOCK off the shared description. */
#define IPC_BELL "!"
struct ipc_hello {
    uint64_t magic, table_hash;
    uint32_t version, lane_bytes;
    uint32_t worker, ring;
    int32_t pid;
    uint32_t pad;
};
struct ipc_welcome {
    uint64_t magic;
    uint32_t ok;
    char sentence[116];
};

/* Instead of HELLO, an operator's question (`ringcast hosts`): these eight bytes and a text. The answer is text in
 * messages of at most IPC_ANSWER_MAX bytes, whose last line is "end"; then the broker hangs up. */
#define IPC_ASK_MAGIC 0x31204b5341534352ull /* "RCSASK 1" */
#define IPC_ASK_MAX (64 + IPC_NAME_MAX)
#define IPC_ANSWER_MAX 16384

/* Owner of a channel among `count` brokers: rendezvous hashing, so that another count moves few
 * channels. The same in every process: no seed (Thaler and Ravishankar, 1998). */
unsigned ipc_owner(struct view channel, unsigned count);

#endif
