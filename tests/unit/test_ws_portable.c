/* proto/ws as it is on machines without SSE2: the whole of test_ws against the plain C paths. */
#define WS_PORTABLE 1
#include "../../proto/ws.c"

#include "test_ws.c"
