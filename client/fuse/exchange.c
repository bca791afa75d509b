/*
 * exchange.c: reading requests, writing answers.
 */
#include "client/fuse/exchange.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define BUFFER_BYTES (FSW_PAGE_SIZE + FSW_FUSE_DATA_MAX)

int fsw_exchange_init(struct fsw_exchange *exchange, struct fsw_device *device,
                      struct fsw_seats *seats)
{
    char *buffer =
        mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (buffer == MAP_FAILED)
        return -ENOMEM;
    /* Every page is there before the first request, or a server that is killed while the kernel
     * copies a request to it costs that request: with SIGKILL pending the kernel faults nothing in,
     * and answers EIO. (MAP_POPULATE does nothing under MCL_ONFAULT.) */
    madvise(buffer, BUFFER_BYTES, MADV_NOHUGEPAGE);
    memset(buffer, 0, BUFFER_BYTES);
    *exchange = (struct fsw_exchange){.device = device, .seats = seats, .fd = -1};
    exchange->data = buffer + FSW_PAGE_SIZE;
    exchange->request = exchange->data - FSW_FUSE_WRITE_HEAD;
    return 0;
}

void fsw_exchange_deinit(struct fsw_exchange *exchange)
{
    munmap(exchange->data - FSW_PAGE_SIZE, BUFFER_BYTES);
}

/* Errors of read() that concern the request that was about to be read, not the mount. */
static int is_passing(int error)
{
    return error == EINTR || error == ENOENT || error == EAGAIN;
}

int fsw_exchange_read(struct fsw_exchange *exchange)
{
    for (;;) {
        if (!exchange->seated) {
            exchange->fd = fsw_seat_take(exchange->seats);
            if (exchange->fd < 0)
                return -ENODEV;
            exchange->seated = 1;
        }
        ssize_t n = read(exchange->fd, exchange->request, FSW_FUSE_REQUEST_MAX);
        if (n >= (ssize_t)sizeof exchange->in) {
            memcpy(&exchange->in, exchange->request, sizeof exchange->in);
            exchange->argument = exchange->request + sizeof exchange->in;
            exchange->argument_bytes = (size_t)n - sizeof exchange->in;
            return 0;
        }
        if (n == 0 || (n < 0 && !is_passing(errno)))
            return -ENODEV;
    }
}

void fsw_exchange_argument(const struct fsw_exchange *exchange, void *into, size_t bytes)
{
    size_t given = exchange->argument_bytes < bytes ? exchange->argument_bytes : bytes;

    memcpy(into, exchange->argument, given);
    memset((char *)into + given, 0, bytes - given);
}

void fsw_exchange_may_wait(struct fsw_exchange *exchange)
{
    if (!exchange->seated)
        return;
    exchange->seated = 0;
    fsw_seat_leave(exchange->seats, exchange->fd);
}

static void send_answer(struct fsw_exchange *exchange, const struct iovec *parts, int count)
{
    while (writev(exchange->fd, parts, count) < 0 && errno == EINTR)
        ;
}

void fsw_answer(struct fsw_exchange *exchange, int error)
{
    struct fuse_out_header out = {.len = sizeof out, .error = error, .unique = exchange->in.unique};

    send_answer(exchange, &(struct iovec){&out, sizeof out}, 1);
}

void fsw_answer_with(struct fsw_exchange *exchange, const void *bytes, size_t length)
{
    struct fuse_out_header out = {.len = (uint32_t)(sizeof out + length),
                                  .unique = exchange->in.unique};
    struct iovec parts[2] = {{&out, sizeof out}, {(void *)(uintptr_t)bytes, length}};

    send_answer(exchange, parts, 2);
}

void fsw_answer_data(struct fsw_exchange *exchange, size_t length)
{
    struct fuse_out_header *out = (struct fuse_out_header *)(void *)exchange->data - 1;

    *out = (struct fuse_out_header){.len = (uint32_t)(sizeof *out + length),
                                    .unique = exchange->in.unique};
    send_answer(exchange, &(struct iovec){out, sizeof *out + length}, 1);
}
