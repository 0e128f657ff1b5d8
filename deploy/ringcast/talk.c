#include "deploy/ringcast/talk.h"
#include "common/bug.h"

int
talk_publish(const struct conf *c, int argc, char **argv)
{
    (void)c, (void)argc, (void)argv;
    die("not there yet");
}

int
talk_subscribe(const struct conf *c, int argc, char **argv)
{
    (void)c, (void)argc, (void)argv;
    die("not there yet");
}
