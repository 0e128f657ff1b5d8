/* Shared segments without a name: a sealed memfd that is passed over a UNIX socket, so that a crash
 * leaves nothing behind. Sealed against shrinking and growing, so that a mapping cannot fault later. */
#ifndef COMMON_SHM_H
#define COMMON_SHM_H

#include "common/base.h"

/* A sealed, populated segment of `bytes`; *map is where it is. Returns its descriptor or a negative
 * errno. The caller owns both. */
int shm_new(const char *name, size_t bytes, void **map) MUST_CHECK;
/* Maps a segment that somebody else made. Refuses (-EINVAL) one that is not of exactly this size or not
 * sealed: its maker could otherwise take the memory away. Returns 0 or a negative errno. */
int shm_attach(int fd, size_t bytes, void **map) MUST_CHECK;
void shm_unmap(void *map, size_t bytes);

#endif
