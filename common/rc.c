#include "common/rc.h"

#include <stdlib.h>

static const uint32_t class_bytes[RC_CLASSES] = {1024, 4096, 16384, 32768, 65536};
/* At most 1 MiB is kept idle per class: what a busy turn needs again, not what a flood left. */
#define RC_KEEP_BYTES (1u << 20)

struct rc *
rc_new(struct rc_pool *p, size_t cap)
{
    size_t need = cap + sizeof(struct rc);
    unsigned k = 0;
    while (k < RC_CLASSES && class_bytes[k] < need)
        k++;
    size_t bytes = k < RC_CLASSES ? class_bytes[k] : need;
    if (bytes > UINT32_MAX)
        return NULL;
    struct rc *b = k < RC_CLASSES ? p->free_list[k] : NULL;
    if (b != NULL) {
        memcpy(&p->free_list[k], b->data, sizeof b);
        p->free_count[k]--;
    } else if ((b = malloc(bytes)) == NULL) {
        return NULL;
    }
    *b = (struct rc){.refs = 1, .cap = (uint32_t)(bytes - sizeof(struct rc)), .size_class = (uint8_t)k};
    p->bytes += bytes;
    return b;
}

void
rc_free(struct rc_pool *p, struct rc *b)
{
    unsigned k = b->size_class;
    p->bytes -= b->cap + sizeof(struct rc);
    if (k < RC_CLASSES && p->free_count[k] < RC_KEEP_BYTES / class_bytes[k]) {
        memcpy(b->data, &p->free_list[k], sizeof b);
        p->free_list[k] = b;
        p->free_count[k]++;
        return;
    }
    free(b);
}

void
rc_pool_fini(struct rc_pool *p)
{
    for (unsigned k = 0; k < RC_CLASSES; k++)
        for (struct rc *b = p->free_list[k], *next; b != NULL; b = next) {
            memcpy(&next, b->data, sizeof next);
            free(b);
        }
    memset(p, 0, sizeof *p);
}
