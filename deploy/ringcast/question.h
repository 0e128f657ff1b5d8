/* A question to a broker on the socket that rings attach to, and its answer in lines (broker/ask.h). Blocks, for as
 * long as a broker may take and no longer. */
#ifndef DEPLOY_RINGCAST_QUESTION_H
#define DEPLOY_RINGCAST_QUESTION_H

#include "common/buf.h"
#include "common/conf.h"

/* Appends the lines of the answer, without its last. False with a sentence in err: nobody listens, or what came
 * is not whole. */
bool question_ask(const char *run_dir, unsigned broker, struct view question, struct buf *answer, struct conf_error *err);
/* How many brokers the pages of run.dir speak of: one more than the highest number. */
unsigned question_brokers(const char *run_dir);

/* The next line of an answer, without its end; false when there is none. */
bool question_line(struct view *answer, struct view *line);
/* "word key=value ...": whether a line begins with the word. */
bool question_is(struct view line, const char *word);
/* The value of a key; empty when it is not there. */
struct view question_text(struct view line, const char *key);
uint64_t question_number(struct view line, const char *key);

#endif
