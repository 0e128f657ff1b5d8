#include "common/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int
map_fd(int fd, size_t bytes, void **map)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (p == MAP_FAILED)
        return -errno;
    *map = p;
    return 0;
}

int
shm_new(const char *name, size_t bytes, void **map)
{
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING), rc = 0;
    if (fd < 0)
        return -errno;
    /* The memory is taken now: a page that is missing later would be a SIGBUS. */
    rc = -posix_fallocate(fd, 0, (off_t)bytes);
    if (rc == 0 && fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        rc = -errno;
    if (rc == 0)
        rc = map_fd(fd, bytes, map);
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

int
shm_attach(int fd, size_t bytes, void **map)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SEALS) != SEALS || (size_t)st.st_size != bytes)
        return -EINVAL;
    return map_fd(fd, bytes, map);
}

void
shm_unmap(void *map, size_t bytes)
{
    if (map != NULL)
        munmap(map, bytes);
}
