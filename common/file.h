/* Files of the settings, read by a process that may have given up the right to read them: then its
 * parent, `ringcast run`, which still may, is asked to open them and lends the descriptor. Both ends of
 * that conversation are here. Only files that the settings name are lent, and only for reading. */
#ifndef COMMON_FILE_H
#define COMMON_FILE_H

#include "common/base.h"

/* Where a child finds its end: a socket of SOCK_SEQPACKET. */
#define FILE_FD_VARIABLE "RINGCAST_FILES_FD"

/* Opens for reading; -1 with errno. If our user may not and there is a parent, the parent is asked, and waited
 * for for at most two seconds. Blocks: for start-up and for reloading. One thread at a time. */
int file_open(const char *path) MUST_CHECK;

/* The parent's side: answers one request that came on fd. `may` says whether the path is one to lend. False
 * when the other end is gone or talks nonsense: close fd. */
bool file_lend(int fd, bool (*may)(const char *path, const void *arg), const void *arg) MUST_CHECK;

#endif
