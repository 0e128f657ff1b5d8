/* The page to type in (http.playground=on), as it is served: worker/playground.html byte for byte, put
 * into an array by playground.cmake. */
#ifndef WORKER_PLAYGROUND_H
#define WORKER_PLAYGROUND_H

#include <stddef.h>
#include <stdint.h>

extern const uint8_t playground_html[];
extern const size_t playground_html_n;

#endif
