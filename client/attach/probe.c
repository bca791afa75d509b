/*
 * probe.c: the first read, and the claim.
 */
#include "client/attach/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/attach/say.h"
#include "common/cleanup.h"
#include "farswap/params.h"

static int try_it(const char *path, uint64_t size)
{
    static char page[FSW_PAGE_SIZE] __attribute__((aligned(FSW_PAGE_SIZE)));
    FSW_CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    uint64_t bytes = 0;

    if (fd < 0 || ioctl(fd, BLKGETSIZE64, &bytes) < 0)
        return -errno;
    if (bytes != size)
        return -ENXIO;
    ssize_t n = pread(fd, page, sizeof page, 0);
    return n < 0 ? -errno : n == sizeof page ? 0 : -EIO;
}

/* Requests to memory gain nothing from being sorted. And with mq-deadline (tried, Linux 6.1) those
 * that came after one which is sent again on a new connection stay where they are, until it ends:
 * reads of local pages stood still for three request timeouts while another waited for a donor. */
static void take_off_scheduler(int index)
{
    char path[64];

    snprintf(path, sizeof path, "/sys/block/nbd%d/queue/scheduler", index);
    FSW_CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "none", 4) < 0)
        fsw_say("warning: %s: %s", path, strerror(errno));
}

void fsw_probe_first_read(void *opaque)
{
    struct fsw_probe *probe = opaque;
    char path[32];

    snprintf(path, sizeof path, "/dev/nbd%d", probe->index);
    probe->result = try_it(path, probe->size);
    if (probe->result == 0)
        take_off_scheduler(probe->index);
    else
        snprintf(probe->text, sizeof probe->text, "%s: the first read: %s", path,
                 strerror(-probe->result));
}

void fsw_probe_claim(void *opaque)
{
    struct fsw_probe *probe = opaque;

    probe->result = fsw_sight_claim(probe->index, probe->text);
}
