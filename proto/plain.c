#include "proto/plain.h"

#include "proto/json.h"
#include "proto/ws.h"

#define ID_MAX 64 /* that of an instance of SocketCluster is a UUID */

/* Behind "<id>/o:" or "<id>/s:", with *kind one of the two; 0 when it does not begin so. */
static struct view
adapter_form(struct view v, char *kind)
{
    size_t i = 0;
    *kind = 0;
    while (i < v.n && i <= ID_MAX && v.p[i] != '/') {
        uint8_t c = v.p[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_'))
            return v;
        i++;
    }
    if (i + 2 >= v.n || v.p[i] != '/' || (v.p[i + 1] != 'o' && v.p[i + 1] != 's') || v.p[i + 2] != ':')
        return v;
    *kind = (char)v.p[i + 1];
    return view_from(v, i + 3);
}

bool
plain_decode(struct view bytes, uint32_t max_depth, struct buf *out)
{
    char kind;
    bool deep = false;
    struct view value = adapter_form(bytes, &kind);
    if (!utf8_valid(bytes))
        return false;
    bool json = kind != 's' && json_valid(value, max_depth, &deep);
    if (!json && (kind == 'o' || deep))
        return false;
    if (json)
        buf_put_view(out, value);
    else
        json_put_string(out, value);
    return !out->failed;
}
