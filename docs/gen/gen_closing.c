/* docs/reference/closing.md */
#include "docs/gen/gen.h"

struct row {
    const char *name, *kind, *retry, *sentence;
    int code;
};

static const struct row rows[] = {
#define CLOSE(name_, code_, kind_, retry_, sentence_) {#name_, #kind_, #retry_, sentence_, code_},
#include "proto/tbl/close.def"
#undef CLOSE
};

static const char *
in_words(const char *word)
{
    static const char *const words[][2] = {
        {"NORMAL", "ordinary"},
        {"PEER", "the client's doing"},
        {"LIMIT", "a bound"},
        {"SERVER", "the server's doing"},
        {"AT_ONCE", "at once"},
        {"BACKOFF", "with back-off"},
        {"NEVER", "never"},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i][0], word) == 0)
            return words[i][1];
    return word;
}

int
main(void)
{
    gen_head("Why connections end", "proto/tbl/close.def");
    printf("Each reason has a counter `close_NAME` (`ringcast status`), and a code in the Close "
           "frame unless it\n"
           "says none (TCP just ends, or an HTTP answer says it). The last column is what an "
           "unmodified\n"
           "SocketCluster client does then: connect again at once, with back-off, or never.\n\n"
           "| Reason | Code | Kind | | Retry |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct row *r = &rows[i];
        printf("| `");
        gen_lower(r->name);
        if (r->code != 0)
            printf("` | %d | ", r->code);
        else
            printf("` | none | ");
        printf("%s | ", in_words(r->kind));
        gen_cell(r->sentence);
        printf(" | %s |\n", in_words(r->retry));
    }
    return 0;
}
