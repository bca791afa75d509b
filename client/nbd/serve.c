/*
 * serve.c: the transmission phase of one connection, on its thread.
 *
 *      receive ──> digest ──> small: done here, answered into `staging` ─────────────┐
 *                    │                                                               ├─> flush
 *                    ├──> large: left to the crew ──────> ended ──> collect ──> iov ─┘
 *                    └──> has to wait: waiting room ────> ended ─────^
 *
 * One round digests all that was read, then everything is answered with one call. Only when there is
 * nothing to read does the thread help the crew, and only when there is nothing to help does it
 * sleep (after a moment, if that mostly pays); with no request out, it sleeps in the read itself. So a
 * single small request costs one read and one write of the socket.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>

#include "client/nbd/answer.h"
#include "client/nbd/receive.h"
#include "common/clock.h"

/* Of T: when a read has waited so long, its connection is given up. */
#define GIVE_UP(timeout) ((timeout) / 10 * 7)
/* See cheap_here. */
#define CHEAP_NS (60 * FSW_NS_PER_S / 1000000)
#define LEARN_EVERY 16
/* See learn_store. */
#define SHUN_MOST 63
/* How soon a request that found no place in the waiting room tries again. */
#define PARKED_MS 5

/* ---- requests that go out ---- */

/* The kernel's connection stays within what was touched, but for a request larger than that. */
static int has_room(const struct fsw_conn *conn, uint64_t length)
{
    return !conn->prepared || conn->arena.used == 0 ||
           conn->arena.used + 2 * length <= FSW_CONN_TOUCHED;
}

/* A request with `bytes` of its own in the arena. NULL: there is no room now. */
static struct fsw_request *take_request(struct fsw_conn *conn, const struct fsw_io *io,
                                        uint64_t cookie, int with_bytes)
{
    struct fsw_request *request = conn->idle;
    char *block = NULL;

    if (request == NULL)
        return NULL;
    if (with_bytes &&
        (!has_room(conn, io->length) || (block = fsw_arena_take(&conn->arena, io->length)) == NULL))
        return NULL;
    conn->idle = request->next;
    conn->out++;
    request->block = block;
    request->cookie = cookie;
    request->since = fsw_now_ns();
    request->io.verb = io->verb;
    request->io.flags = io->flags;
    request->io.offset = io->offset;
    request->io.length = io->length;
    request->io.started = io->started;
    request->io.deadline = io->deadline;
    request->io.peer = io->peer;
    request->io.bytes = block;
    request->wait = NULL;
    request->in_room = 0;
    return request;
}

/* The other side has a timeout: it sends again what is not answered by then. */
static int has_timeout(const struct fsw_conn *conn)
{
    return conn->kind == FSW_CONN_HANDED || conn->nbd->timeout_given;
}

/* It has to wait: a mutation until half of T at most, or, where there is no T, as long for each page
 * as the engine thinks right. */
static void wait_in_room(struct fsw_conn *conn, struct fsw_request *request)
{
    uint64_t most = conn->nbd->timeout / 2, wait = fsw_device_write_wait(conn->nbd->device);

    request->in_room = 1;
    if (request->io.verb == FSW_READ)
        conn->waiting++;
    else if (has_timeout(conn))
        request->io.deadline = request->since + (most < wait ? most : wait);
    fsw_list_add(&conn->to_room, request);
}

/* A request of ours has ended: it is answered, or has to wait, or nobody wants to know. */
static void settle(struct fsw_conn *conn, struct fsw_request *request)
{
    int r = request->io.result;

    if (r == -ECANCELED)
        fsw_conn_break_off(conn);
    if (conn->broken)
        fsw_conn_release(conn, request);
    else if (r == -EAGAIN)
        wait_in_room(conn, request);
    else
        fsw_conn_answer(conn, request);
}

/* ---- large requests ---- */

/* What large requests cost on this thread decides who does them. Waking an idle thread and moving
 * 128 KiB into its cache costs some 20 us, which pages that compress in 1 us each are not worth, and
 * pages of 6 us are. 0: not known yet. */
static int cheap_here(struct fsw_conn *conn, const struct fsw_io *io)
{
    uint64_t cost = conn->cost[io->verb == FSW_WRITE];

    return conn->large++ % LEARN_EVERY == 0 || cost * io->length >> 20 < CHEAP_NS;
}

/* A thread that lost its CPU measures too much: no sample counts for more than twice what we know. */
static void learn(struct fsw_conn *conn, const struct fsw_io *io, uint64_t ns)
{
    uint64_t *cost = &conn->cost[io->verb == FSW_WRITE], sample = (ns << 20) / io->length;

    if (*cost == 0)
        *cost = sample;
    if (sample > 2 * *cost)
        sample = 2 * *cost;
    *cost = *cost - *cost / 8 + sample / 8;
}

static void do_large_here(struct fsw_conn *conn, struct fsw_request *request)
{
    uint64_t start = fsw_now_ns();

    request->io.flags |= FSW_IO_ALONE;
    fsw_device_do(conn->nbd->device, &request->io);
    learn(conn, &request->io, fsw_now_ns() - start);
    settle(conn, request);
}

static void do_large(struct fsw_conn *conn, struct fsw_request *request)
{
    int counts = request->io.verb == FSW_READ || request->io.verb == FSW_WRITE;

    if (counts && cheap_here(conn, &request->io)) {
        do_large_here(conn, request);
        return;
    }
    fsw_list_add(&conn->begun, request);
    fsw_device_begin(conn->nbd->device, &request->io);
}

/* ---- requests ---- */

static const enum fsw_verb verbs[] = {
    [FSW_WIRE_READ] = FSW_READ,    [FSW_WIRE_WRITE] = FSW_WRITE,       [FSW_WIRE_FLUSH] = FSW_FLUSH,
    [FSW_WIRE_TRIM] = FSW_DISCARD, [FSW_WIRE_WRITE_ZEROES] = FSW_ZERO,
};

/* One that was tried here and has to wait: 0, or -EBUSY if there is no room for it. */
static int put_off(struct fsw_conn *conn, const struct fsw_io *io, uint64_t cookie)
{
    int with_bytes = io->verb == FSW_READ || io->verb == FSW_WRITE;
    struct fsw_request *request = take_request(conn, io, cookie, with_bytes);

    if (request == NULL)
        return -EBUSY;
    if (io->verb == FSW_WRITE)
        memcpy(request->block, io->bytes, io->length);
    wait_in_room(conn, request);
    return 0;
}

/* A read of a page in the store that has nothing beside it waits for a moment on this thread: a store
 * on a fast network answers sooner than two threads are woken. */
static int may_wait_here(const struct fsw_conn *conn, const struct fsw_wire_request *asked)
{
    return asked->type == FSW_WIRE_READ && asked->length <= FSW_PAGE_SIZE && conn->out == 0 &&
           conn->staged == 0 && conn->in_end - conn->in_at == FSW_WIRE_REQUEST_BYTES &&
           conn->shun == 0;
}

/* Where that was in vain, the next does not, nor twice as many after each time that follows. */
static void learn_store(struct fsw_conn *conn, const struct fsw_io *io)
{
    if (!(io->flags & FSW_IO_WAITED)) {
        conn->shun -= conn->shun > 0 && io->result == -EAGAIN && io->verb == FSW_READ;
        return;
    }
    conn->shunned = io->result != -EAGAIN ? 0 : conn->shunned * 2 + 1;
    if (conn->shunned > SHUN_MOST)
        conn->shunned = SHUN_MOST;
    conn->shun = conn->shunned;
}

static int do_here(struct fsw_conn *conn, struct fsw_io *io, uint64_t cookie)
{
    char *reply =
        fsw_conn_stage(conn, FSW_WIRE_REPLY_BYTES + (io->verb == FSW_READ ? io->length : 0));

    if (io->verb == FSW_READ)
        io->bytes = reply + FSW_WIRE_REPLY_BYTES;
    fsw_device_do(conn->nbd->device, io);
    learn_store(conn, io);
    if (io->result == -EAGAIN)
        return put_off(conn, io, cookie);
    if (io->result == -ECANCELED) {
        fsw_conn_break_off(conn);
        return 0;
    }
    fsw_wire_reply(reply, cookie, fsw_wire_error_of(io->result));
    conn->staged +=
        FSW_WIRE_REPLY_BYTES + (io->verb == FSW_READ && io->result == 0 ? io->length : 0);
    return 0;
}

/* Whole, with its payload if it is a small write. -EBUSY: not now. */
static int handle(struct fsw_conn *conn, const struct fsw_wire_request *asked)
{
    if (asked->type == FSW_WIRE_DISCONNECT) {
        conn->leaving = 1;
        return 0;
    }
    if (asked->error != 0)
        fsw_device_count_invalid(conn->nbd->device);
    if (asked->error != 0 || asked->type == FSW_WIRE_CACHE) {
        fsw_conn_answer_small(conn, asked->cookie, asked->error);
        return 0;
    }
    struct fsw_io io = {
        .verb = verbs[asked->type],
        .flags = FSW_IO_NOWAIT | (may_wait_here(conn, asked) ? FSW_IO_BRIEFLY : 0),
        .bytes = (char *)(uintptr_t)asked->payload,
        .offset = asked->offset,
        .length = asked->length,
        .started = conn->came_at,
        .peer = &conn->peer,
    };
    if (!fsw_device_is_large(&io) && (io.verb != FSW_READ || io.length <= FSW_WIRE_SMALL_MAX))
        return do_here(conn, &io, asked->cookie);
    struct fsw_request *request = take_request(conn, &io, asked->cookie, io.verb == FSW_READ);
    if (request == NULL)
        return -EBUSY;
    do_large(conn, request);
    return 0;
}

/* A write whose payload is on its way: what is there of it already, with *ret_used bytes. */
static int fill(struct fsw_conn *conn, const struct fsw_wire_request *asked, const char *bytes,
                size_t length, size_t *ret_used)
{
    struct fsw_io io = {
        .verb = FSW_WRITE,
        .flags = FSW_IO_NOWAIT,
        .offset = asked->offset,
        .length = asked->length,
        .peer = &conn->peer,
    };
    struct fsw_request *request = take_request(conn, &io, asked->cookie, 1);

    if (request == NULL)
        return -EBUSY;
    *ret_used = length < asked->length ? length : asked->length;
    memcpy(request->block, bytes, *ret_used);
    conn->window = FSW_CONN_WINDOW;
    conn->filling = request;
    conn->filled = *ret_used;
    return 0;
}

/* A read or write that was read as well, which begins these bytes. */
static int peek(const char *bytes, size_t length, struct fsw_io *ret_io, size_t *ret_bytes)
{
    struct fsw_wire_request request;

    if (!fsw_wire_peek(bytes, length, &request) || request.type > FSW_WIRE_WRITE)
        return 0;
    *ret_io = (struct fsw_io){.verb = verbs[request.type], .offset = request.offset};
    *ret_bytes = FSW_WIRE_REQUEST_BYTES + (request.type == FSW_WIRE_WRITE ? request.length : 0);
    return 1;
}

/* The two requests after the one that is done now. */
static void expect_next(struct fsw_conn *conn, const char *bytes, size_t length)
{
    struct fsw_io io;
    size_t used;

    if (!peek(bytes, length, &io, &used))
        return;
    fsw_device_expect(conn->nbd->device, &io);
    if (used < length && peek(bytes + used, length - used, &io, &used))
        fsw_device_expect_later(conn->nbd->device, &io);
}

/* Takes requests from what was read. 1: more bytes are needed; 0: one has to wait until others have
 * ended; -EPROTO. */
static int take_all(struct fsw_conn *conn)
{
    struct fsw_wire_request asked;
    size_t used, more;

    conn->round = 0;
    while (!conn->leaving && conn->filling == NULL) {
        const char *bytes = conn->in + conn->in_at;
        size_t length = conn->in_end - conn->in_at;
        int r, found = fsw_wire_next(&conn->wire, bytes, length, &used, &asked);
        if (found < 0)
            return found;
        if (found == FSW_WIRE_MORE) {
            conn->in_at += used;
            return 1;
        }
        more = 0;
        expect_next(conn, bytes + used, length - used);
        r = found == FSW_WIRE_LARGE ? fill(conn, &asked, bytes + used, length - used, &more)
                                    : handle(conn, &asked);
        if (r == -EBUSY) /* it is found again later */
            return 0;
        conn->in_at += used + more;
        conn->round += found == FSW_WIRE_REQUEST;
    }
    return 1;
}

/* As take_all; but a write whose payload is whole comes last. The next one's is read before, as far as
 * it is there: a Unix socket holds little more than 128 KiB, and its writer is woken when most of that
 * was read, so it sends on while we compress. */
static int digest(struct fsw_conn *conn)
{
    struct fsw_request *whole = fsw_conn_is_whole(conn) ? conn->filling : NULL;

    if (whole != NULL)
        conn->filling = NULL;
    int r = take_all(conn);
    if (whole == NULL)
        return r;
    if (conn->filling != NULL && !fsw_conn_is_whole(conn))
        fsw_conn_receive(conn, MSG_DONTWAIT); /* its end, or an error, is met again */
    do_large(conn, whole);
    return r;
}

/* ---- what has ended ---- */

static void remove_begun(struct fsw_conn *conn, struct fsw_request *request)
{
    struct fsw_request **link = &conn->begun.first;

    while (*link != request)
        link = &(*link)->next;
    *link = request->next;
    if (conn->begun.last == &request->next)
        conn->begun.last = link;
}

static void collect_one(struct fsw_conn *conn, struct fsw_request *request)
{
    if (!request->in_room)
        remove_begun(conn, request);
    else if (request->io.verb == FSW_READ) {
        conn->waiting--;
        fsw_device_count(conn->nbd->device, &request->io);
    }
    settle(conn, request);
}

/* Takes what has ended. */
static void collect(struct fsw_conn *conn)
{
    struct fsw_request *ended = atomic_exchange(&conn->ended, NULL), *next;

    for (; ended != NULL; ended = next) {
        next = ended->ended_next;
        collect_one(conn, ended);
    }
}

/* ---- waiting ---- */

/* Those that find no place in the room are tried again. */
static void enter_room(struct fsw_conn *conn)
{
    if (conn->to_room.first == NULL)
        return;
    conn->to_room.first = fsw_room_enter(&conn->nbd->room, conn->to_room.first);
    if (conn->to_room.first == NULL)
        fsw_list_init(&conn->to_room);
}

/* When the read that has waited longest was asked for. */
static uint64_t oldest_read(const struct fsw_conn *conn)
{
    uint64_t oldest = UINT64_MAX;

    for (unsigned i = 0; i < FSW_CONN_REQUESTS; i++) {
        const struct fsw_request *request = &conn->requests[i];
        if (request->in_room && request->io.verb == FSW_READ && request->since < oldest)
            oldest = request->since;
    }
    return oldest;
}

/* How long to sleep, in ms; gives the connection up when that is due: the other side will ask again,
 * and find the fetch that it waited for still running (room.h). A client without a timeout waits. */
static int patience(struct fsw_conn *conn)
{
    const struct fsw_nbd *nbd = conn->nbd;
    uint64_t now = fsw_now_ns(), due;

    if (conn->to_room.first != NULL)
        return PARKED_MS;
    if (conn->waiting == 0 || conn->giving_up || !has_timeout(conn))
        return -1;
    due = oldest_read(conn) + GIVE_UP(nbd->timeout);
    if (due > now)
        return (int)((due - now) / FSW_NS_PER_MS) + 1;
    conn->giving_up = 1;
    shutdown(conn->fd, SHUT_RD);
    return 0;
}

/* Until something has ended, or may be read, or the peer is gone. */
static void doze(struct fsw_conn *conn, int hungry)
{
    struct pollfd waits[2] = {
        {.fd = conn->wake, .events = POLLIN},
        {.fd = conn->broken ? -1 : conn->fd, .events = hungry && !conn->leaving ? POLLIN : 0},
    };
    int ms = patience(conn);
    eventfd_t count;

    if (conn->to_room.first != NULL)
        waits[1].events = 0;
    atomic_store(&conn->asleep, 1);
    if (atomic_load(&conn->ended) == NULL)
        poll(waits, 2, ms);
    atomic_store(&conn->asleep, 0);
    if (waits[0].revents)
        eventfd_read(conn->wake, &count);
    if (waits[1].revents & (POLLHUP | POLLERR) && !(waits[1].revents & POLLIN))
        fsw_conn_break_off(conn);
}

/* Begun requests have parts that nobody has taken. */
static int help(struct fsw_conn *conn)
{
    for (struct fsw_request *request = conn->begun.first; request != NULL; request = request->next)
        if (fsw_device_help(conn->nbd->device, &request->io))
            return 1;
    return 0;
}

/* ---- the whole ---- */

static int is_over(const struct fsw_conn *conn)
{
    unsigned filling = conn->filling != NULL ? 1 : 0;

    return conn->leaving &&
           conn->out == filling + (conn->giving_up || conn->broken ? conn->waiting : 0);
}

/* The next bytes of the stream, or its end. 1: go on at once. */
static int read_on(struct fsw_conn *conn)
{
    unsigned filling = conn->filling != NULL ? 1 : 0;
    ssize_t n = fsw_conn_receive(conn, MSG_DONTWAIT);

    if (n == -EAGAIN && conn->out == filling && (n = fsw_conn_receive_soon(conn)) == -EAGAIN)
        n = fsw_conn_receive(conn, 0);
    if (n == -EAGAIN || n == -EINTR)
        return 0;
    if (n == 0 && conn->giving_up)
        conn->leaving = 1; /* we have closed that half */
    else if (n <= 0)
        fsw_conn_break_off(conn);
    return 1;
}

/* A payload that will never be whole, reads that nobody waits for. */
static void drop_requests(struct fsw_conn *conn)
{
    if (conn->filling != NULL)
        fsw_conn_release(conn, conn->filling);
    conn->filling = NULL;
    conn->broken = 1;
    for (struct fsw_request *request; (request = conn->to_room.first) != NULL;) {
        conn->to_room.first = request->next;
        conn->waiting -= request->io.verb == FSW_READ;
        fsw_conn_release(conn, request);
    }
    for (unsigned i = 0; i < FSW_CONN_REQUESTS; i++) {
        struct fsw_request *request = &conn->requests[i];
        if (request->in_room && request->io.verb == FSW_READ &&
            fsw_room_leave(&conn->nbd->room, request)) {
            conn->waiting--;
            fsw_conn_release(conn, request);
        }
    }
    collect(conn);
}

void fsw_conn_serve(struct fsw_conn *conn)
{
    atomic_fetch_add(&conn->nbd->serving, 1);
    while (!is_over(conn)) {
        int hungry = digest(conn);
        if (hungry < 0)
            fsw_conn_break_off(conn);
        unsigned out = conn->out;
        collect(conn);
        enter_room(conn);
        fsw_conn_pace(conn);
        fsw_conn_flush(conn);
        if (is_over(conn))
            break;
        if (fsw_conn_is_whole(conn) || (!hungry && conn->out < out)) /* there is room again */
            continue;
        if (hungry && !conn->leaving && conn->to_room.first == NULL && read_on(conn))
            continue;
        if (!help(conn) && atomic_load(&conn->ended) == NULL)
            doze(conn, hungry);
    }
    drop_requests(conn);
    atomic_fetch_sub(&conn->nbd->serving, 1);
}
