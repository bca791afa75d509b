/*
 * link.c: the kernel's socket, and how it gets another one.
 *
 *     DOWN ──ask──→ ASKED ──server answers──→ OFFERED ──kernel takes it──→ UP
 *       ↑             │                          │                         │
 *       └─────────────┴───── the socket dies ────┴─────────────────────────┘
 *
 * We keep a descriptor of the kernel's end. The kernel shuts a socket down when it gives it up (a
 * request was not answered in time), and a server that dies closes its end: both show there at
 * once, and go on showing, so they can't be missed.
 *
 * The kernel takes a new socket only when it has noticed that the old one is dead, which may be a
 * little after us: then it is offered again.
 */
#include <errno.h>
#include <linux/nbd.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/attach/say.h"
#include "client/attach/supervisor.h"
#include "client/attach/watch.h"

/* Not in every linux/nbd.h. */
#define SEND_WRITE_ZEROES (1 << 6)
#define LOCAL_FLAGS                                                                                \
    (NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_SEND_TRIM |           \
     SEND_WRITE_ZEROES)

#define RETRY_LEAST (10 * FSW_NS_PER_MS)
#define RETRY_MOST FSW_NS_PER_S
/* Up for that long: the next loss is a first one. Less than what a read that waits for a donor leaves a
 * connection (0.7 of the least timeout): while a donor is away for long, the server gives one up after
 * the other, and each pause would be one of all local pages, too. */
#define STEADY (RETRY_MOST / 2)
#define OFFERS 12                  /* 1 ms, doubled each time: 4 s */
#define UNSEEN_RETRY (5 * FSW_NS_PER_S)

static void enter(struct fsw_link *link, enum fsw_link_state state)
{
    link->state = state;
    link->since = fsw_now_ns();
}

static uint64_t timeout_ns(const struct fsw_supervisor *supervisor)
{
    return supervisor->options->timeout * FSW_NS_PER_S;
}

static int is_dead(int fd)
{
    struct pollfd end = {.fd = fd, .events = POLLRDHUP};

    return poll(&end, 1, 0) > 0; /* not at a nudge */
}

void fsw_link_drop(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;
    uint64_t now = fsw_now_ns();

    if (link->state >= FSW_LINK_UP)
        link->down_since = now;
    if (link->state >= FSW_LINK_UP && now - link->since > STEADY)
        link->retry = (struct fsw_backoff){0};
    else if (link->state != FSW_LINK_DOWN)
        fsw_backoff_failed(&link->retry, RETRY_LEAST, RETRY_MOST);
    fsw_watch_remove(link->kernel_end); /* the kernel's device may have it open, too */
    if (link->kernel_end >= 0 && supervisor->options->connect != NULL)
        fsw_dial_abort(&supervisor->dial, link->kernel_end); /* its descriptor now */
    else if (link->kernel_end >= 0)
        close(link->kernel_end);
    link->kernel_end = -1;
    enter(link, FSW_LINK_DOWN);
}

/* ---- the server's end ---- */

/* One end of a new socket, the other is the server's; or negative errno. */
static int hand_socket(struct fsw_server *server)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return -errno;
    int r = fsw_server_serve(server, ends[1]);
    close(ends[1]);
    if (r < 0) {
        close(ends[0]);
        return r;
    }
    fsw_watch_add(ends[0], FSW_WATCH_END);
    return ends[0];
}

void fsw_link_prepare(struct fsw_supervisor *supervisor, struct fsw_server *server)
{
    int fd = server->kernel_end >= 0 ? -EALREADY : hand_socket(server);

    if (fd >= 0)
        server->kernel_end = fd;
}

static void asked_for(struct fsw_supervisor *supervisor, int kernel_end)
{
    struct fsw_link *link = &supervisor->link;

    link->kernel_end = kernel_end;
    enter(link, FSW_LINK_ASKED);
    link->deadline = link->since + timeout_ns(supervisor);
}

void fsw_link_adopt(struct fsw_supervisor *supervisor)
{
    struct fsw_server *server = supervisor->active;

    fsw_link_drop(supervisor);
    supervisor->link.retry.next = 0;
    if (server->kernel_end >= 0)
        asked_for(supervisor, server->kernel_end);
    server->kernel_end = -1;
}

static void ask_server(struct fsw_supervisor *supervisor)
{
    int fd = hand_socket(supervisor->active);

    if (fd >= 0) {
        asked_for(supervisor, fd);
        return;
    }
    if (fd != -EPIPE) /* then it has just died, which is noticed in a moment */
        fsw_problem(supervisor, "the server takes no socket: %s", strerror(-fd));
    fsw_backoff_failed(&supervisor->link.retry, RETRY_LEAST, RETRY_MOST);
}

static void dial(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;

    if (fsw_worker_give(&supervisor->dialer, fsw_dial_job, &supervisor->dial) < 0)
        return;
    enter(link, FSW_LINK_ASKED);
    link->deadline = UINT64_MAX; /* the job has its own */
}

static void offer_soon(struct fsw_supervisor *supervisor)
{
    supervisor->link.offers = 0;
    supervisor->link.offer_next = 0;
    enter(&supervisor->link, FSW_LINK_OFFERED);
}

/* The first connection tells what the device is; every later one must lead to the same. */
void fsw_link_dialed(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;
    struct fsw_dial *dial = &supervisor->dial;
    char backend[FSW_BACKEND_MAX];

    if (dial->fd < 0) {
        fsw_problem(supervisor, "%s", dial->text);
        fsw_link_drop(supervisor);
        return;
    }
    link->kernel_end = dial->fd;
    dial->fd = -1;
    fsw_watch_add(link->kernel_end, FSW_WATCH_END);
    fsw_dial_backend(dial, supervisor->options->name, backend);
    if (supervisor->index < 0) {
        memcpy(supervisor->config.backend, backend, sizeof backend);
        supervisor->config.size = dial->size;
        supervisor->config.flags = dial->flags;
    } else if (supervisor->config.size != dial->size ||
               strcmp(supervisor->config.backend, backend) != 0) {
        fsw_problem(
            supervisor,
            "%s serves another device now (%s, %llu bytes; it was %s, %llu bytes): what was "
            "swapped out is not there",
            supervisor->options->connect, backend, (unsigned long long)dial->size,
            supervisor->config.backend, (unsigned long long)supervisor->config.size);
        fsw_link_drop(supervisor);
        return;
    }
    offer_soon(supervisor);
}

/* It may be stopped, or stuck: another one serves the same image as well. Where none waits, it gets
 * more time. */
static void server_is_silent(struct fsw_supervisor *supervisor)
{
    const struct fsw_server *spare = supervisor->spare;

    if ((spare == NULL || !fsw_server_is(spare, FSW_SERVER_WAITING)) &&
        fsw_now_ns() - supervisor->link.since < 4 * timeout_ns(supervisor)) {
        supervisor->link.deadline = fsw_now_ns() + timeout_ns(supervisor);
        return;
    }
    fsw_problem(supervisor, "server %d does not take its socket: it is killed",
                supervisor->active->pid);
    fsw_server_kill(supervisor->active);
    supervisor->link.deadline = fsw_now_ns() + timeout_ns(supervisor);
}

/* ---- the kernel's end ---- */

static void is_up(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;
    uint64_t now = fsw_now_ns();

    enter(link, FSW_LINK_UP);
    supervisor->reconnects += link->down_since != 0;
    if (link->down_since != 0) {
        supervisor->last_gap_ns = now - link->down_since;
        fsw_say("/dev/nbd%d has a server again, after %llu ms", supervisor->index,
                (unsigned long long)(supervisor->last_gap_ns / FSW_NS_PER_MS));
    }
    link->down_since = 0;
    supervisor->problem[0] = '\0';
}

/* With another host, after a takeover: the kernel's own connection is alive, and we don't have it. */
static void not_taken(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;

    if (++link->offers < OFFERS) {
        link->offer_next = fsw_now_ns() + (FSW_NS_PER_MS << link->offers) / 2;
        return;
    }
    fsw_link_drop(supervisor);
    if (supervisor->options->connect == NULL)
        return;
    link->down_since = 0;
    enter(link, FSW_LINK_UNSEEN);
    link->deadline = link->since + UNSEEN_RETRY;
}

static void connect_kernel(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;
    int index = supervisor->options->index;

    if (supervisor->options->connect == NULL)
        supervisor->config.flags = LOCAL_FLAGS;
    int r = fsw_kernel_connect(&supervisor->kernel, index, &supervisor->config, link->kernel_end,
                               &supervisor->index);

    if (r == 0)
        is_up(supervisor);
    else if (r == -EBUSY && index >= 0)
        fsw_fatal(supervisor, "/dev/nbd%d is in use", index);
    else
        fsw_fatal(supervisor, "the kernel does not take the device: %s%s", strerror(-r),
                  r == -EPERM ? " (CAP_SYS_ADMIN)" : "");
}

static void offer(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;

    if (supervisor->index < 0) {
        connect_kernel(supervisor);
        return;
    }
    int r = fsw_kernel_reconfigure(&supervisor->kernel, supervisor->index, &supervisor->config,
                                   link->kernel_end);
    if (r == 1) {
        is_up(supervisor);
    } else if (r == 0) {
        not_taken(supervisor);
    } else {
        fsw_problem(supervisor, "the kernel does not take the socket: %s", strerror(-r));
        supervisor->look_next = 0; /* is the device still there? */
        fsw_link_drop(supervisor);
    }
}

/* ---- step ---- */

static void start(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;

    if (fsw_now_ns() < link->retry.next)
        fsw_wake_at(supervisor, link->retry.next);
    else if (supervisor->options->connect != NULL)
        dial(supervisor);
    else if (supervisor->active != NULL && fsw_server_holds(supervisor->active))
        ask_server(supervisor);
}

static void asked(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;

    if (supervisor->active != NULL && fsw_server_is(supervisor->active, FSW_SERVER_SERVING))
        offer_soon(supervisor);
    else if (supervisor->active != NULL && fsw_now_ns() > link->deadline)
        server_is_silent(supervisor);
    fsw_wake_at(supervisor, link->deadline);
}

void fsw_link_step(struct fsw_supervisor *supervisor)
{
    struct fsw_link *link = &supervisor->link;
    int event = fsw_kernel_link_died(&supervisor->kernel, supervisor->index);

    if (link->kernel_end >= 0 && is_dead(link->kernel_end))
        fsw_link_drop(supervisor);
    if (link->state == FSW_LINK_UNSEEN && (event || fsw_now_ns() > link->deadline))
        fsw_link_drop(supervisor);
    if (link->state == FSW_LINK_DOWN)
        start(supervisor);
    if (link->state == FSW_LINK_ASKED)
        asked(supervisor);
    if (link->state == FSW_LINK_OFFERED && fsw_now_ns() >= link->offer_next)
        offer(supervisor);
    if (link->state == FSW_LINK_OFFERED)
        fsw_wake_at(supervisor, link->offer_next);
    if (link->state == FSW_LINK_UNSEEN)
        fsw_wake_at(supervisor, link->deadline);
}
