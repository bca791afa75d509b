/*
 * target.c: libnbd for a URI, pread and pwrite with O_DIRECT for a block device.
 */
#include "bench/target.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct target {
    struct nbd_handle *nbd; /* NULL: a block device */
    int fd;
    const char *where;
};

void die(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    fputs("pages: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

static void check(struct target *target, int failed, const char *verb)
{
    if (failed)
        die("%s: %s: %s", target->where, verb,
            target->nbd != NULL ? nbd_get_error() : strerror(errno));
}

struct target *target_open(const char *where)
{
    struct target *target = calloc(1, sizeof *target);

    if (target == NULL)
        die("no memory");
    target->where = where;
    if (strstr(where, "://") == NULL) {
        target->fd = open(where, O_RDWR | O_DIRECT | O_CLOEXEC);
        check(target, target->fd < 0, "open");
        return target;
    }
    target->nbd = nbd_create();
    if (target->nbd == NULL)
        die("%s", nbd_get_error());
    check(target, nbd_connect_uri(target->nbd, where) < 0, "connect");
    return target;
}

void target_close(struct target *target)
{
    if (target->nbd != NULL) {
        check(target, nbd_shutdown(target->nbd, 0) < 0, "shutdown");
        nbd_close(target->nbd);
    } else {
        check(target, close(target->fd) < 0, "close");
    }
    free(target);
}

uint64_t target_size(struct target *target)
{
    uint64_t size = 0;

    if (target->nbd != NULL) {
        int64_t r = nbd_get_size(target->nbd);
        check(target, r < 0, "size");
        return (uint64_t)r;
    }
    check(target, ioctl(target->fd, BLKGETSIZE64, &size) < 0, "size");
    return size;
}

void target_write(struct target *target, const void *bytes, uint64_t offset, size_t length)
{
    int failed = target->nbd != NULL
                     ? nbd_pwrite(target->nbd, bytes, length, offset, 0) < 0
                     : pwrite(target->fd, bytes, length, (off_t)offset) != (ssize_t)length;
    check(target, failed, "write");
}

void target_read(struct target *target, void *bytes, uint64_t offset, size_t length)
{
    int failed = target->nbd != NULL
                     ? nbd_pread(target->nbd, bytes, length, offset, 0) < 0
                     : pread(target->fd, bytes, length, (off_t)offset) != (ssize_t)length;
    check(target, failed, "read");
}

void target_discard(struct target *target, uint64_t offset, uint64_t length)
{
    uint64_t range[2] = {offset, length};
    int failed = target->nbd != NULL ? nbd_trim(target->nbd, length, offset, 0) < 0
                                     : ioctl(target->fd, BLKDISCARD, range) < 0;
    check(target, failed, "discard");
}
