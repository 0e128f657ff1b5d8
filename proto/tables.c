/* What proto/dialect.h promises about the rows of tbl/close.def, errors.def and verbs.def: codes,
 * names and sentences by enum. Called by everybody who logs, counts or closes. */
#include "proto/dialect.h"

#define NAME_ROOM 24 /* bytes of the longest row name, terminator included; asserted below */

static const uint16_t close_codes[CLOSE_COUNT] = {
#define CLOSE(name, code, kind, retry, sentence) code,
#include "proto/tbl/close.def"
#undef CLOSE
};

static const char *const close_sentences[CLOSE_COUNT] = {
#define CLOSE(name, code, kind, retry, sentence) sentence,
#include "proto/tbl/close.def"
#undef CLOSE
};

static const char *const error_names[ERR_COUNT] = {
    "",
#define ERROR(id, name, message, when) name,
#include "proto/tbl/errors.def"
#undef ERROR
};

static const char *const error_messages[ERR_COUNT] = {
    "",
#define ERROR(id, name, message, when) message,
#include "proto/tbl/errors.def"
#undef ERROR
};

static const unsigned verb_state_sets[VERB_COUNT] = {
#define VERB(name, states, sentence) states,
#include "proto/tbl/verbs.def"
#undef VERB
};

/* Rows are named in capitals as enums are; people read them in lower case. The preprocessor cannot
 * fold case, so the tables are folded in place before main, when there is one thread. */
static char close_names[CLOSE_COUNT][NAME_ROOM] = {
#define CLOSE(name, code, kind, retry, sentence) #name,
#include "proto/tbl/close.def"
#undef CLOSE
};

static char verb_names[VERB_COUNT][NAME_ROOM] = {
#define VERB(name, states, sentence) #name,
#include "proto/tbl/verbs.def"
#undef VERB
};

static char error_rows[ERR_COUNT][NAME_ROOM] = {
    "none",
#define ERROR(id, name, message, when) #id,
#include "proto/tbl/errors.def"
#undef ERROR
};

#define CLOSE(name, code, kind, retry, sentence) static_assert(sizeof #name <= NAME_ROOM, "");
#include "proto/tbl/close.def"
#undef CLOSE
#define ERROR(id, name, message, when) static_assert(sizeof #id <= NAME_ROOM, "");
#include "proto/tbl/errors.def"
#undef ERROR
#define VERB(name, states, sentence) static_assert(sizeof #name <= NAME_ROOM, "");
#include "proto/tbl/verbs.def"
#undef VERB

static void
fold(char *s)
{
    for (; *s; s++)
        if (*s >= 'A' && *s <= 'Z')
            *s = (char)(*s | 0x20);
}

__attribute__((constructor)) static void
tables_fold(void)
{
    for (int i = 0; i < CLOSE_COUNT; i++)
        fold(close_names[i]);
    for (int i = 0; i < VERB_COUNT; i++)
        fold(verb_names[i]);
    for (int i = 0; i < ERR_COUNT; i++)
        fold(error_rows[i]);
}

const char *
error_str(enum error_id e)
{
    return (unsigned)e < ERR_COUNT ? error_rows[e] : "unknown";
}

uint16_t
close_code(enum close_reason r)
{
    return (unsigned)r < CLOSE_COUNT ? close_codes[r] : 0;
}

const char *
close_str(enum close_reason r)
{
    return (unsigned)r < CLOSE_COUNT ? close_names[r] : "unknown";
}

const char *
close_sentence(enum close_reason r)
{
    return (unsigned)r < CLOSE_COUNT ? close_sentences[r] : "no such reason";
}

const char *
error_name(enum error_id e)
{
    return (unsigned)e < ERR_COUNT ? error_names[e] : "";
}

const char *
error_message(enum error_id e)
{
    return (unsigned)e < ERR_COUNT ? error_messages[e] : "";
}

const char *
verb_str(enum verb_kind v)
{
    return (unsigned)v < VERB_COUNT ? verb_names[v] : "unknown";
}

unsigned
verb_states(enum verb_kind v)
{
    return (unsigned)v < VERB_COUNT ? verb_state_sets[v] : 0;
}
