/*
 * serve.c: which request is whose.
 *
 * What is answered with ENOSYS the kernel does not ask again, where there is a rule without us:
 * interrupts, extended attributes, seeks, polls.
 */
#include "client/fuse/serve.h"

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "client/fuse/disk.h"
#include "client/fuse/knobs.h"
#include "client/fuse/tree.h"
#include "common/touch.h"

#define STACK_BYTES (8 * FSW_TOUCH_STACK) /* what is not touched costs nothing */

static void read_file(struct fsw_exchange *exchange)
{
    uint64_t node = exchange->in.nodeid;

    if (node == FSW_NODE_DISK)
        fsw_disk_read(exchange);
    else if (node >= FSW_NODE_KNOBS && node - FSW_NODE_KNOBS < fsw_knob_count)
        fsw_knob_read(exchange, (unsigned)(node - FSW_NODE_KNOBS));
    else
        fsw_answer(exchange, -ESTALE);
}

static void write_file(struct fsw_exchange *exchange)
{
    uint64_t node = exchange->in.nodeid;

    if (exchange->argument_bytes < sizeof(struct fuse_write_in))
        fsw_answer(exchange, -EINVAL);
    else if (node == FSW_NODE_DISK)
        fsw_disk_write(exchange);
    else if (node >= FSW_NODE_KNOBS && node - FSW_NODE_KNOBS < fsw_knob_count)
        fsw_knob_write(exchange, (unsigned)(node - FSW_NODE_KNOBS));
    else
        fsw_answer(exchange, -ESTALE);
}

static void fallocate_file(struct fsw_exchange *exchange)
{
    if (exchange->in.nodeid == FSW_NODE_DISK)
        fsw_disk_fallocate(exchange);
    else
        fsw_answer(exchange, -EOPNOTSUPP);
}

static void nothing_to_do(struct fsw_exchange *exchange)
{
    fsw_answer(exchange, 0);
}

/* Wants no answer. */
static void forget(struct fsw_exchange *exchange) {}

static void (*const handlers[])(struct fsw_exchange *) = {
    [FUSE_READ] = read_file,
    [FUSE_WRITE] = write_file,
    [FUSE_FALLOCATE] = fallocate_file,
    [FUSE_FSYNC] = nothing_to_do, /* a write is answered when its page is in the image */
    [FUSE_LOOKUP] = fsw_tree_lookup,
    [FUSE_FORGET] = forget,
    [FUSE_BATCH_FORGET] = forget,
    [FUSE_GETATTR] = fsw_tree_getattr,
    [FUSE_SETATTR] = fsw_tree_setattr,
    [FUSE_OPEN] = fsw_tree_open,
    [FUSE_OPENDIR] = fsw_tree_open,
    [FUSE_READDIR] = fsw_tree_readdir,
    [FUSE_STATFS] = fsw_tree_statfs,
    [FUSE_RELEASE] = nothing_to_do,
    [FUSE_RELEASEDIR] = nothing_to_do,
    [FUSE_DESTROY] = nothing_to_do,
};
#define HANDLERS (sizeof handlers / sizeof handlers[0])

static void answer(struct fsw_exchange *exchange)
{
    uint32_t opcode = exchange->in.opcode;

    if (opcode < HANDLERS && handlers[opcode] != NULL)
        handlers[opcode](exchange);
    else
        fsw_answer(exchange, -ENOSYS);
}

/* A process that faults waits for three threads in turn: the kernel's for the loop device, one of
 * ours, and itself. On a host whose CPUs are wanted each may stand in line; ours goes first (swap
 * of a program that faults all the time, ten others busy: 1.3 times zram's time instead of 1.6).
 * Without CAP_SYS_NICE it stands in line. */
static void go_first(void)
{
    setpriority(PRIO_PROCESS, 0, -20); /* this thread only */
}

static void *serve(void *opaque)
{
    struct fsw_exchange *exchange = opaque;

    go_first();

    fsw_touch_stack();
    while (fsw_exchange_read(exchange) == 0)
        answer(exchange);
    fsw_seats_end(exchange->seats);
    return NULL;
}

int fsw_server_prepare(struct fsw_server *server, const struct fsw_mount *mount)
{
    unsigned count = mount->count + FSW_FUSE_WAITING;
    int r = 0;

    memset(server, 0, sizeof *server);
    fsw_seats_init(&server->seats, mount->fds, mount->count);
    for (; r == 0 && server->prepared < count; server->prepared++)
        r = fsw_exchange_init(&server->exchanges[server->prepared], NULL, &server->seats);
    return r;
}

int fsw_server_start(struct fsw_server *server, struct fsw_device *device, struct fsw_error *err)
{
    pthread_attr_t attributes;
    int r = 0;

    server->device = device;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    for (; r == 0 && server->started < server->prepared; server->started++) {
        struct fsw_exchange *exchange = &server->exchanges[server->started];
        exchange->device = device;
        r = pthread_create(&server->threads[server->started], &attributes, serve, exchange);
        if (r == 0)
            pthread_setname_np(server->threads[server->started], "fsw-fuse");
        else
            break;
    }
    pthread_attr_destroy(&attributes);
    return r == 0 ? 0 : fsw_error(err, -r, "starting threads: %s", strerror(r));
}

void fsw_server_wait(struct fsw_server *server)
{
    for (unsigned i = 0; i < server->started; i++)
        pthread_join(server->threads[i], NULL);
    for (unsigned i = 0; i < server->prepared; i++)
        fsw_exchange_deinit(&server->exchanges[i]);
}
