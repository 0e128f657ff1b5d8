/* URLs of Redis servers. What is taken fits its fields, and the text for people means the same server. */
#include <stdlib.h>

#include "proto/redisurl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void
must(bool claim)
{
    if (!claim)
        abort();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct redisurl u, again;
    const char *why = NULL;
    char text[REDISURL_TEXT];
    if (!redisurl_parse(view_of(data, n), &u, &why)) {
        must(why != NULL);
        return 0;
    }
    must(memchr(u.host, 0, sizeof u.host) != NULL && memchr(u.path, 0, sizeof u.path) != NULL);
    must(memchr(u.user, 0, sizeof u.user) != NULL && memchr(u.password, 0, sizeof u.password) != NULL);
    must(u.is_unix ? u.path[0] == '/' : u.host[0] != '\0' && u.port != 0);
    redisurl_text(&u, text);
    if (!u.is_unix) /* a path's text has its bytes as they are, not encoded */
        must(redisurl_parse(view_str(text), &again, &why) && redisurl_same(&u, &again));
    return 0;
}
