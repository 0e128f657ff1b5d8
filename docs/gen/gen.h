/* What the generators share. Each is a small program that includes a table and prints one page to
 * stdout; the pages are committed, and a test fails when they are stale. To refresh them all:
 * cmake --build --preset dev --target reference */
#ifndef DOCS_GEN_GEN_H
#define DOCS_GEN_GEN_H

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* First lines of a Markdown page. */
static inline void
gen_head(const char *title, const char *table)
{
    printf("# %s\n\n<!-- Generated from %s by docs/gen; do not edit. -->\n\n", title, table);
}

/* Text in a cell of a table: the bar would end it. */
static inline void
gen_cell(const char *s)
{
    for (; *s != '\0'; s++) {
        if (*s == '|')
            putchar('\\');
        putchar(*s);
    }
}

static inline void
gen_lower(const char *s)
{
    for (; *s != '\0'; s++)
        putchar(tolower((unsigned char)*s));
}

static inline void
gen_upper(const char *s)
{
    for (; *s != '\0'; s++)
        putchar(toupper((unsigned char)*s));
}

/* Words in lines of at most 96 columns, each beginning with `lead`. */
static inline void
gen_wrapped(const char *lead, const char *s)
{
    size_t column = 0;
    while (*s != '\0') {
        size_t n = strcspn(s, " ");
        if (column != 0 && column + 1 + n > 96) {
            putchar('\n');
            column = 0;
        }
        printf("%s%.*s", column == 0 ? lead : " ", (int)n, s);
        column += (column == 0 ? strlen(lead) : 1) + n;
        s += n;
        s += strspn(s, " ");
    }
    putchar('\n');
}

#endif
