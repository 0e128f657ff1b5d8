/* Runs a fuzz target without libFuzzer: every file of the folders and files named on the command
 * line, and for each of them a number of mutations that is the same in every run. The corpus is
 * thus a unit test for any compiler, and a small fuzzer under its sanitizers.
 *
 *     fuzz_http [--mutations=N] tests/fuzz/corpus/http */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "common/base.h"

#define INPUT_MAX (1u << 20) /* bytes of a file that are used */
#define MUTATIONS 200        /* of each file, unless told */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
/* Defined by targets that want a say before the first input; see libFuzzer. */
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static unsigned long inputs;

/* xorshift64: enough to vary inputs, and the same everywhere. */
static uint64_t
next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Runs a copy of exactly n bytes, so that a sanitizer sees a read past the end. */
static void
run(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n + !n);
    if (copy == NULL)
        abort();
    memcpy(copy, data, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
    inputs++;
}

/* One small change: a bit, a byte, a cut, a piece repeated or removed. */
static size_t
mutate(uint8_t *p, size_t n, uint64_t *seed)
{
    size_t at = n ? next(seed) % n : 0;
    size_t piece = n - at ? next(seed) % MIN(n - at, (size_t)64) : 0;
    switch (next(seed) % 6) {
    case 0:
        if (n)
            p[at] ^= (uint8_t)(1u << next(seed) % 8);
        return n;
    case 1:
        if (n)
            p[at] = (uint8_t)next(seed);
        return n;
    case 2: return at;
    case 3: memmove(p + at, p + at + piece, n - at - piece); return n - piece;
    case 4:
        if (n + piece > INPUT_MAX)
            return n;
        memmove(p + at + piece, p + at, n - at);
        return n + piece;
    default:
        if (n)
            p[at] = (uint8_t) "\0\r\n \xFF\x7F\x80\"{["[next(seed) % 10];
        return n;
    }
}

static void
run_mutations(const uint8_t *data, size_t n, unsigned long count)
{
    static uint8_t work[INPUT_MAX];
    uint64_t seed = 0x9E3779B97F4A7C15ull + n;
    for (unsigned long i = 0; i < count; i++) {
        memcpy(work, data, n);
        size_t changed = n;
        for (uint64_t steps = 1 + next(&seed) % 4; steps > 0; steps--)
            changed = mutate(work, changed, &seed);
        run(work, changed);
    }
}

static void
run_file(const char *path, unsigned long mutations)
{
    static uint8_t data[INPUT_MAX];
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        perror(path);
        exit(1);
    }
    size_t n = fread(data, 1, sizeof data, f);
    fclose(f);
    run(data, n);
    run_mutations(data, n, mutations);
}

static void
run_folder(const char *path, unsigned long mutations)
{
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        char file[4096];
        if (names[i]->d_name[0] != '.') {
            snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
            run_file(file, mutations);
        }
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}

int
main(int argc, char **argv)
{
    unsigned long mutations = MUTATIONS;
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    run((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (strncmp(argv[i], "--mutations=", 12) == 0)
            mutations = strtoul(argv[i] + 12, NULL, 10);
        else if (stat(argv[i], &st) == 0 && S_ISREG(st.st_mode))
            run_file(argv[i], mutations);
        else
            run_folder(argv[i], mutations);
    }
    printf("%lu inputs\n", inputs);
    return 0;
}
