/* The tests of proto/json once more, on the code for machines without SSE2. The functions defined here
 * stand in for those of the library. */
#define JSON_PORTABLE
#include "proto/json.c"

#include "tests/unit/test_json.c"
