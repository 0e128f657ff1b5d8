/* What the files of across share, and nobody else includes: across.c is asked for channels, publishes and turns; what is ours
 * is said by across_say.c, what others say is heard by across_hear.c. */
#ifndef BROKER_ACROSS_STATE_H
#define BROKER_ACROSS_STATE_H

#include "broker/across.h"
#include "broker/origins.h"
#include "broker/pends.h"
#include "broker/sources.h"

/* How long after our ask came back an origin that has not been heard of may still answer it. */
#define ACROSS_GRACE_MS 1000
/* One mark serves all who asked within this time. */
#define ACROSS_MARK_MS 50
/* Marks in one turn, and looks at channels of each line. */
#define ACROSS_A_TURN 1024

/* The last message heard of an origin on a channel. */
struct heard {
    uint32_t origin, gen; /* in a->origins */
    uint32_t losses;      /* of the channel, when it was heard */
    uint64_t stretch, last;
};

/* A channel stands in one of these at most, about in the order of `until`. */
enum across_line {
    LINE_NONE,
    LINE_ASKS,   /* to be asked for */
    LINE_OPEN,   /* asked, and the ask has not come back */
    LINE_JUDGES, /* it came back after a lost link: somebody may be missing for good */
    LINES
};

struct across_chan {
    struct chan *ch;
    struct across_chan *line_prev, *line_next;
    enum across_line line;
    struct mono until;    /* of across.lived: it stays in its line */
    struct mono judge_by; /* the same: the latest time for that, however often it is asked anew meanwhile */
    bool confirmed;       /* the bus has it, and its link holds */
    bool begun;           /* it was confirmed once, and what was said then is not void */
    bool unsure;          /* a subscribe was answered before it was confirmed: a gap is to be told then */
    bool lost;            /* its link was lost since it began */
    uint32_t losses;
    struct mono settled;  /* of across.lived: from then on an origin not heard of begins with 1; 0: not known yet */
    struct mono joined;   /* when it was confirmed, the time before it settled */
    uint32_t source, source_gen;
    uint32_t heard_count, heard_cap, heard_hint;
    struct heard *heard;
    uint64_t echo_first, echo_last; /* in a->pubs: messages of ours that are to come back */
    uint64_t wait_first, wait_last; /* in a->subs: subscribes that wait for `confirmed` */
};

struct across {
    struct broker *b;
    struct bus *bus;
    struct envelope_origin self;
    struct origins origins;
    struct sources sources;
    struct pends pubs, subs;
    struct across_chan lines[LINES]; /* heads */
    uint64_t waiting;          /* messages whose fate is not known */
    uint64_t heard_count;
    uint32_t epoch;            /* of our hearing asks: another one each time that some may have been missed */
    struct mono lived;         /* a clock that stands still when this process does */
    enum bus_state state;      /* as it was told last */
    bool control_was_joined;   /* once */
    bool hears_all;            /* asks by whichever server they come */
    bool back_wanted;          /* others are to be told that we hear asks again */
    bool ask_again;            /* an ask was lost on its way */
    bool order_bus;
    struct mono ask_again_at, seen, since; /* since: the bus is in its state */
    struct mono asked;
    void (*on_heartbeat)(struct broker *, const struct envelope *);
    void (*on_back)(struct broker *);
    uint8_t ask_body[ENVELOPE_ASK_MAX];
};

/* What a token of a publish means. */
enum token_kind {
    TOKEN_CONTROL,
    TOKEN_MARK,  /* the rest: slot of a source */
    TOKEN_PLAIN, /* the same */
    TOKEN_PEND,  /* the rest: a record of a->pubs */
};
#define TOKEN(kind, rest) ((uint64_t)(kind) << 62 | (rest))
#define TOKEN_REST(t) ((t) & ((1ull << 62) - 1))

extern const struct bus_topic across_control;

/* The bus has confirmed the channel, or it ends: subscribes that waited are answered. */
void across_waits_end(struct across *a, struct across_chan *ac);

#endif
