/*
 * mount.c: mount(2), INIT, clones of the descriptor.
 */
#include "client/fuse/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <unistd.h>

#define INIT_MS 10000

static int open_fuse(struct fsw_error *err)
{
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    if (fd >= 0)
        return fd;
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        return fsw_error(err, -errno, "this kernel has no FUSE (/dev/fuse): try modprobe fuse");
    return fsw_error(err, -errno, "/dev/fuse: %s", strerror(errno));
}

/* Every descriptor but the first. */
static int add_clones(struct fsw_mount *mount, unsigned count, struct fsw_error *err)
{
    uint32_t first = (uint32_t)mount->fds[0];

    for (; mount->count < count; mount->count++) {
        int fd = open_fuse(err);
        if (fd < 0)
            return fd;
        mount->fds[mount->count] = fd;
        if (ioctl(fd, FUSE_DEV_IOC_CLONE, &first) < 0) {
            close(fd);
            return fsw_error(err, -errno, "a second descriptor of the mount: %s", strerror(errno));
        }
    }
    return 0;
}

static int mount_at(const char *path, const char *name, int fd, struct fsw_error *err)
{
    char options[160], source[128];

    snprintf(
        options, sizeof options,
        "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read=%u", fd,
        FSW_FUSE_DATA_MAX);
    snprintf(source, sizeof source, "farswap:%s", name);
    if (mount(source, path, "fuse.farswap", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME,
              options) == 0)
        return 0;
    if (errno == EPERM)
        return fsw_error(err, -EPERM, "mounting on %s needs root (CAP_SYS_ADMIN)", path);
    return fsw_error(err, -errno, "mounting on %s: %s", path, strerror(errno));
}

/* What we can do, of what the kernel offers. */
static struct fuse_init_out agree(const struct fuse_init_in *offer)
{
    const uint32_t wanted =
        FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO | FUSE_MAX_PAGES | FUSE_PARALLEL_DIROPS;

    return (struct fuse_init_out){
        .major = FUSE_KERNEL_VERSION,
        .minor = offer->minor < FSW_FUSE_MINOR_MOST ? offer->minor : FSW_FUSE_MINOR_MOST,
        .max_readahead = offer->max_readahead,
        .flags = offer->flags & wanted,
        .max_background = FSW_FUSE_BACKGROUND,
        .congestion_threshold = FSW_FUSE_CONGESTION,
        .max_write = FSW_FUSE_DATA_MAX,
        /* One more than that is, for memory that begins inside a page: requests are then cut
         * where the device's pages end, and a page is never in two. */
        .max_pages = FSW_FUSE_DATA_MAX / 4096 + 1,
        .time_gran = 1,
    };
}

/* INIT is the first request of a mount, and comes by itself. */
static int greet(struct fsw_mount *mount, struct fsw_error *err)
{
    static char request[FSW_FUSE_REQUEST_MAX];
    struct pollfd ready = {.fd = mount->fds[0], .events = POLLIN};
    struct fuse_in_header in;
    struct fuse_init_in offer = {0};

    if (poll(&ready, 1, INIT_MS) != 1)
        return fsw_error(err, -ETIMEDOUT, "the kernel sends no INIT");
    ssize_t n = read(mount->fds[0], request, sizeof request);
    if (n < (ssize_t)sizeof in)
        return fsw_error(err, -EIO, "reading /dev/fuse: %s", n < 0 ? strerror(errno) : "too short");
    memcpy(&in, request, sizeof in);
    size_t given = (size_t)n - sizeof in;
    memcpy(&offer, request + sizeof in, given < sizeof offer ? given : sizeof offer);
    if (in.opcode != FUSE_INIT || offer.major != FUSE_KERNEL_VERSION ||
        offer.minor < FSW_FUSE_MINOR_LEAST)
        return fsw_error(err, -EPROTO, "this kernel speaks FUSE %u.%u; 7.%u (Linux 5.4) is needed",
                         offer.major, offer.minor, FSW_FUSE_MINOR_LEAST);
    uint64_t flags = offer.flags | (uint64_t)offer.flags2 << 32;
    mount->can_resend = (flags & FUSE_INIT_EXT) != 0 && (flags & FSW_FUSE_HAS_RESEND) != 0;
    struct {
        struct fuse_out_header out;
        struct fuse_init_out init;
    } answer = {{.len = sizeof answer, .unique = in.unique}, agree(&offer)};
    if (write(mount->fds[0], &answer, sizeof answer) < 0)
        return fsw_error(err, -errno, "answering INIT: %s", strerror(errno));
    return 0;
}

static void close_all(struct fsw_mount *mount)
{
    while (mount->count > 0)
        close(mount->fds[--mount->count]);
}

int fsw_mount_open(struct fsw_mount *mount, const char *path, const char *name, unsigned count,
                   struct fsw_error *err)
{
    *mount = (struct fsw_mount){.count = 0};
    if (realpath(path, mount->path) == NULL)
        return fsw_error(err, -errno, "%s: %s", path, strerror(errno));
    int fd = open_fuse(err);
    if (fd < 0)
        return fd;
    mount->fds[mount->count++] = fd;
    int r = mount_at(mount->path, name, fd, err);
    if (r < 0) {
        close_all(mount);
        return r;
    }
    r = greet(mount, err);
    if (r == 0)
        r = add_clones(mount, count < FSW_FUSE_FDS_MAX ? count : FSW_FUSE_FDS_MAX, err);
    if (r < 0) {
        umount2(mount->path, MNT_DETACH);
        close_all(mount);
    }
    return r;
}

int fsw_mount_resend(const struct fsw_mount *mount)
{
    struct fuse_out_header notice = {.len = sizeof notice, .error = FSW_FUSE_NOTIFY_RESEND};

    return write(mount->fds[0], &notice, sizeof notice) < 0 ? -errno : 0;
}

int fsw_mount_close(struct fsw_mount *mount)
{
    return umount2(mount->path, UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}
