/* Prints the size of what exists once per client, channel or waiting message, and fails when one is
 * above its bound in budgets.txt: memory per idle connection is decided here, not in a profiler.
 *
 *   ringcast-sizes [bench/budgets.txt] */
#include "bench/sizes.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/rc.h"
#include "worker/conn.h"
#include "worker/subs.h"

static const struct size_row worker_rows[] = {
    {"worker.conn", sizeof(struct conn), "each connection"},
    {"worker.sub", sizeof(struct sub), "each subscription past those inside the connection"},
    {"worker.chan", sizeof(struct chan), "each channel on each ring, its name beside it"},
    {"worker.conn_in", sizeof(struct conn_in), "each message under way from a client"},
    {"worker.segq", sizeof(struct segq_more), "each client that is behind"},
    {"worker.oseg", sizeof(struct oseg), "each stretch such a client has waiting"},
    {"common.rc", sizeof(struct rc), "each encoded batch of messages, for all clients together"},
};

/* The bound on `name`; 0 if the file has none. */
static size_t
budget_of(FILE *f, const char *name)
{
    char line[256], key[64];
    size_t bytes;
    rewind(f);
    while (fgets(line, sizeof line, f) != NULL)
        if (sscanf(line, "%63s %zu", key, &bytes) == 2 && strcmp(key, name) == 0)
            return bytes;
    return 0;
}

static bool
show(FILE *budgets, const struct size_row *rows, size_t n)
{
    bool good = true;
    for (size_t i = 0; i < n; i++) {
        printf("%-16s %5zu bytes  %s", rows[i].name, rows[i].bytes, rows[i].when);
        size_t most = budgets != NULL ? budget_of(budgets, rows[i].name) : SIZE_MAX;
        if (most == 0)
            printf("  <- has no row in the budgets");
        else if (rows[i].bytes > most)
            printf("  <- above its budget of %zu", most);
        good = good && most != 0 && rows[i].bytes <= most;
        putchar('\n');
    }
    return good;
}

int
main(int argc, char **argv)
{
    FILE *budgets = NULL;
    size_t n;
    if (argc > 1 && (budgets = fopen(argv[1], "re")) == NULL) {
        perror(argv[1]);
        return 1;
    }
    bool good = show(budgets, worker_rows, ARRAY_LEN(worker_rows));
    const struct size_row *rows = sizes_broker(&n);
    good = show(budgets, rows, n) && good;
    if (budgets != NULL)
        fclose(budgets);
    return good ? 0 : 1;
}
