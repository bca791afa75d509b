/*
 * claim.c: a lock file that is there only while somebody has it. Who locked a file that was removed
 * meanwhile holds nothing, and tries again. Programs that we run to their end (mkswap, losetup)
 * inherit it: after a kill -9 of ours they may still be at work.
 */
#include "client/cli/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/cli/host.h"
#include "common/clock.h"

#define PATIENCE_S 5
#define LOOK_US 10000

static int is_there(const char *path, int fd)
{
    struct stat mine, theirs;

    return fstat(fd, &mine) == 0 && stat(path, &theirs) == 0 && mine.st_ino == theirs.st_ino &&
           mine.st_dev == theirs.st_dev;
}

static void make_folder(const char *path)
{
    char folder[PATH_MAX];

    memcpy(folder, path, strlen(path) + 1);
    *strrchr(folder, '/') = '\0';
    mkdir(folder, 0700); /* as everybody does: what is in it is for its owner alone */
}

int claim_take(const char *name, struct fsw_error *err)
{
    char path[PATH_MAX];

    host_run_path(name, "steer", path);
    make_folder(path);
    uint64_t deadline = fsw_now_ns() + PATIENCE_S * FSW_NS_PER_S;
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT, 0600);
        if (fd < 0)
            return fsw_error(err, -errno, "%s: %s", path, strerror(errno));
        int busy = flock(fd, LOCK_EX | LOCK_NB) < 0;
        if (!busy && is_there(path, fd))
            return fd;
        close(fd);
        if (busy && fsw_now_ns() > deadline)
            return fsw_error(err, -EBUSY,
                             "another `farswap up` or `farswap down` of it is at work: wait for "
                             "its end");
        if (busy)
            usleep(LOOK_US);
    }
}

void claim_drop(const char *name, int claim)
{
    char path[PATH_MAX];

    host_run_path(name, "steer", path);
    unlink(path);
    close(claim);
}
