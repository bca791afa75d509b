/*
 * claim.c: the file that names an image, and its lock.
 */
#include "server/claim.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/checksum.h"
#include "common/clock.h"

#define RETRY_MS 20

static const char *run_dir(void)
{
    const char *dir = secure_getenv("FARSWAP_RUNDIR");

    return dir != NULL && *dir != '\0' ? dir : "/run/farswap";
}

static void claim_path(const char *name, char path[PATH_MAX])
{
    snprintf(path, PATH_MAX, "%s/%s.donor", run_dir(), name);
}

static int cannot(const char *path, struct fsw_error *err)
{
    return fsw_error(err, -errno, "%s: %s%s", path, strerror(errno),
                     errno == EACCES || errno == EPERM
                         ? " (run as root, or set FARSWAP_RUNDIR; or give no --name)"
                         : "");
}

static int lock_until(int fd, uint64_t deadline)
{
    const struct timespec pause = {.tv_nsec = RETRY_MS * 1000 * 1000};

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || fsw_now_ns() >= deadline)
            return -errno;
        nanosleep(&pause, NULL);
    }
    return 0;
}

/* The file that bears the name now is the one that we locked: its last owner may have removed it
 * while we waited. */
static int is_current(int fd, const char *path)
{
    struct stat by_fd, by_name;

    return fstat(fd, &by_fd) == 0 && stat(path, &by_name) == 0 && by_fd.st_ino == by_name.st_ino;
}

int fsw_claim_lock(const char *name, unsigned seconds, int *ret_fd, struct fsw_error *err)
{
    uint64_t deadline = fsw_now_ns() + seconds * FSW_NS_PER_S;
    char path[PATH_MAX];

    if (mkdir(run_dir(), 0700) < 0 && errno != EEXIST)
        return cannot(run_dir(), err);
    claim_path(name, path);
    for (;;) {
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
            return cannot(path, err);
        int r = lock_until(fd, deadline);
        if (r == 0 && is_current(fd, path)) {
            *ret_fd = fd;
            return 0;
        }
        close(fd);
        if (r == -EWOULDBLOCK)
            return fsw_error(err, -EBUSY,
                             "donor %s is being served: %s is locked by another process", name,
                             path);
        if (r < 0)
            return fsw_error(err, r, "%s: %s", path, strerror(-r));
    }
}

int fsw_claim_home(uint32_t *ret_home, struct fsw_error *err)
{
    char *path = realpath(run_dir(), NULL);

    if (path == NULL)
        return cannot(run_dir(), err);
    uint32_t home = fsw_checksum(path, strlen(path), 0);
    *ret_home = home != 0 ? home : 1;
    free(path);
    return 0;
}

struct fsw_claim fsw_claim_read(int fd)
{
    struct fsw_claim claim = {-1, 0};
    char text[64] = "";
    int64_t shmid;

    if (pread(fd, text, sizeof text - 1, 0) > 0 &&
        sscanf(text, "shmid=%10" SCNd64 " home=%8" SCNx32, &shmid, &claim.home) >= 1 &&
        shmid >= 0 && shmid <= INT_MAX)
        claim.shmid = (int)shmid;
    return claim;
}

int fsw_claim_write(const char *name, int fd, const struct fsw_claim *claim, struct fsw_error *err)
{
    char path[PATH_MAX], text[64];
    int length =
        snprintf(text, sizeof text, "shmid=%d\nhome=%08" PRIx32 "\n", claim->shmid, claim->home);

    if (pwrite(fd, text, (size_t)length, 0) == length && ftruncate(fd, length) == 0)
        return 0;
    claim_path(name, path);
    return fsw_error(err, -errno, "%s: %s", path, strerror(errno));
}

void fsw_claim_remove(const char *name)
{
    char path[PATH_MAX];

    claim_path(name, path);
    unlink(path);
}
