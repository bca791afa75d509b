/*
 * nbd_conn.c: one connection to an NBD server: its making and its end, the export's header, and which rows
 * may be written now.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/store/nbd.h"
#include "client/store/nbd_lib.h"
#include "common/clock.h"

#define PATIENCE_NS (3 * FSW_NS_PER_S) /* from connect to the header */
#define PAUSE_FIRST_NS (50 * FSW_NS_PER_MS)
#define PAUSE_MOST_NS (2 * FSW_NS_PER_S)
#define SILENCE_NS (10 * FSW_NS_PER_S)
#define QUARANTINE_NS (2 * FSW_NS_PER_S)

/* ---- rows that may not be written now ---- */

static int is_held(const struct nbd_store *store, uint32_t row, uint64_t now)
{
    for (unsigned i = 0; i < NBD_FLIGHTS; i++)
        if (store->flights[i].busy && store->flights[i].writes && store->flights[i].task.row == row)
            return 1;
    for (unsigned i = 0; i < NBD_HELD; i++)
        if (store->held[i].row == row && (store->held[i].until == 0 || now < store->held[i].until))
            return 1;
    return now < store->hold_all;
}

/* The first that is over makes room; without, every row is held. */
static void hold(struct nbd_store *store, uint32_t row)
{
    uint64_t now = fsw_now_ns();

    for (unsigned i = 0; i < NBD_HELD; i++) {
        struct nbd_held *held = &store->held[i];
        if (held->row == 0 || (held->until != 0 && held->until <= now)) {
            *held = (struct nbd_held){.row = row};
            return;
        }
    }
    store->hold_all = UINT64_MAX;
}

static void begin_quarantine(struct nbd_store *store)
{
    uint64_t until = fsw_now_ns() + QUARANTINE_NS;

    for (unsigned i = 0; i < NBD_HELD; i++)
        if (store->held[i].row != 0 && store->held[i].until == 0)
            store->held[i].until = until;
    if (store->hold_all == UINT64_MAX)
        store->hold_all = until;
}

void nbd_conn_pump(struct nbd_store *store)
{
    uint64_t now = fsw_now_ns();
    struct fsw_store_request *request;
    struct nbd_flight *flight;

    if (store->state != NBD_UP)
        return;
    while (fsw_requests_first(&store->gets) != NULL && (flight = nbd_flight_idle(store, 0)) != NULL)
        nbd_flight_start(store, flight, fsw_requests_pop(&store->gets));
    FSW_FOR_EACH_REQUEST(put, &store->puts)
    {
        request = put;
        if (is_held(store, request->row, now))
            continue;
        if ((flight = nbd_flight_idle(store, 1)) == NULL)
            break;
        fsw_requests_remove(request);
        nbd_flight_start(store, flight, request);
    }
}

/* ---- the header ---- */

int nbd_conn_plant(struct nbd_store *store)
{
    struct nbd_flight *flight = nbd_flight_idle(store, 1);

    if (flight == NULL)
        return -EAGAIN;
    flight->busy = 1;
    flight->task = (struct fsw_store_request){.row = 0};
    slot_header_write(flight->buffer, &store->identity.device, store->sentinel);
    nbd_flight_begin(flight, NBD_PLANTING);
    nbd_flight_write(flight, SLOTS_BLOCK);
    return 0;
}

void nbd_conn_wait_for_header(struct nbd_store *store)
{
    store->state = NBD_GREETING;
    store->patience_ends = fsw_now_ns() + PATIENCE_NS;
}

void nbd_conn_become_up(struct nbd_store *store)
{
    begin_quarantine(store);
    store->state = NBD_UP;
    store->report.reconnects += store->ever;
    store->ever = 1;
    store->pause = PAUSE_FIRST_NS;
    report_connected(&store->report, 1);
}

/* What the export shows, and what it has to show. */
void nbd_conn_on_header(struct nbd_flight *flight)
{
    struct nbd_store *store = flight->store;
    struct fsw_error err = {""};
    uint64_t shown;
    int r = nbd_header_check(store, flight->buffer, &shown, &err);

    nbd_flight_release(flight);
    if (r < 0) {
        nbd_conn_down(store, err.text);
        return;
    }
    int emptied = shown != store->identity.sentinel[0] && store->identity.planted;
    report_emptied(&store->report, store->export.address.text, emptied);
    store->sentinel = emptied ? 0 : store->identity.sentinel[0];
    store->shown = shown == store->identity.sentinel[0];
    if (store->shown || (emptied && shown != 0))
        nbd_conn_become_up(store);
    else if (nbd_conn_plant(store) < 0)
        nbd_conn_down(store, "no flight for its header");
}

/* 1 if the export can hold slots. */
static int look_at_export(struct nbd_store *store)
{
    int64_t size = libnbd.get_size(store->handle);
    int64_t least = libnbd.get_block_size(store->handle, LIBNBD_SIZE_MINIMUM);

    store->size = size > 0 ? (uint64_t)size : 0;
    store->can_trim = libnbd.can_trim(store->handle) == 1;
    store->can_zero = libnbd.can_zero(store->handle) == 1;
    return libnbd.is_read_only(store->handle) == 0 && least <= SLOTS_BLOCK &&
           store->size >= 2 * SLOTS_BYTES;
}

static void on_ready(struct nbd_store *store)
{
    struct nbd_flight *flight = nbd_flight_idle(store, 0);

    if (flight == NULL || !look_at_export(store)) {
        nbd_conn_down(store, "the export is read-only, too small, or wants larger blocks");
        return;
    }
    store->state = NBD_GREETING;
    flight->busy = 1;
    flight->task = (struct fsw_store_request){.row = 0};
    nbd_flight_begin(flight, NBD_HEADER);
    nbd_flight_read(flight, 0, SLOTS_BLOCK);
}

/* ---- the connection ---- */

static int aim(struct nbd_store *store)
{
    const struct fsw_address *address = &store->way;
    const union fsw_sockaddr *place = &address->places[store->place % address->count];
    socklen_t size = place->any.sa_family == AF_UNIX   ? sizeof place->path
                     : place->any.sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                                       : sizeof(struct sockaddr_in6);

    if (libnbd.set_export_name(store->handle, store->export.name) < 0)
        return -1;
    if (place->any.sa_family == AF_UNIX)
        return libnbd.aio_connect_unix(store->handle, place->path.sun_path);
    return libnbd.aio_connect(store->handle, &place->any, size);
}

/* 1: the export's name has places. */
static int find_places(struct nbd_store *store)
{
    struct fsw_error err = {"no memory, or no thread, to find its host"};
    int r;

    if (store->way.count > 0)
        return 1;
    r = resolver_begin(&store->resolver, &store->way);
    if (r == 0)
        r = resolver_look(&store->resolver, &store->way, &err);
    if (r < 0 && r != -EINPROGRESS)
        nbd_conn_down(store, err.text);
    return r == 0;
}

void nbd_conn_try(struct nbd_store *store)
{
    if (!find_places(store))
        return;
    store->handle = libnbd.create();
    store->state = NBD_CONNECTING;
    store->patience_ends = fsw_now_ns() + PATIENCE_NS;
    if (store->handle == NULL || aim(store) < 0)
        nbd_conn_down(store, libnbd.get_error());
}

/* Nothing that is still under way is delivered after a close. */
static void set_linger(struct nbd_store *store)
{
    int fd = libnbd.aio_get_fd(store->handle), ms = SILENCE_NS / FSW_NS_PER_MS;
    struct linger none = {.l_onoff = 1};

    if (fd < 0)
        return;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof ms);
}

/* All that was under way, in any order: the engine asks for none before another. */
static void take_back(struct nbd_store *store)
{
    for (unsigned i = 0; i < NBD_FLIGHTS; i++) {
        struct nbd_flight *flight = &store->flights[i];
        struct fsw_store_request *request = flight->request;

        if (flight->busy && flight->writes && flight->task.row != 0)
            hold(store, flight->task.row);
        nbd_flight_release(flight);
        flight->ended = 0;
        if (request == NULL)
            continue;
        store->report.retries++;
        fsw_requests_push_front(request->verb == FSW_STORE_GET ? &store->gets : &store->puts,
                                request);
    }
}

void nbd_conn_down(struct nbd_store *store, const char *why)
{
    report_say(&store->report, store->export.address.text, why);
    report_connected(&store->report, 0);
    if (store->handle != NULL) {
        set_linger(store);
        libnbd.close(store->handle); /* callbacks of what is under way come here, or never */
    }
    store->handle = NULL;
    store->state = NBD_RESTING;
    store->heard = 0;
    store->shown = 0;
    store->place++;
    known_clear_all(&store->known);
    take_back(store);
    store->pause = store->pause == 0 ? PAUSE_FIRST_NS : store->pause * 2;
    if (store->pause > PAUSE_MOST_NS)
        store->pause = PAUSE_MOST_NS;
    store->next_try = fsw_now_ns() + store->pause;
}

static void wait(struct nbd_store *store, int ms)
{
    unsigned direction = store->handle == NULL ? 0 : libnbd.aio_get_direction(store->handle);
    struct pollfd fds[2] = {{.fd = store->wake, .events = POLLIN}, {.fd = -1}};
    uint64_t count;

    if (store->handle != NULL)
        fds[1] = (struct pollfd){.fd = libnbd.aio_get_fd(store->handle),
                                 .events = (direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                                           (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0)};
    poll(fds, 2, ms);
    if (fds[0].revents && read(store->wake, &count, sizeof count) < 0)
        return;
    if (store->handle == NULL)
        return;
    if (fds[1].revents & (POLLIN | POLLHUP | POLLERR) && direction & LIBNBD_AIO_DIRECTION_READ)
        libnbd.aio_notify_read(store->handle);
    else if (fds[1].revents & (POLLOUT | POLLHUP | POLLERR) &&
             direction & LIBNBD_AIO_DIRECTION_WRITE)
        libnbd.aio_notify_write(store->handle);
}

static int has_flights(const struct nbd_store *store)
{
    for (unsigned i = 0; i < NBD_FLIGHTS; i++)
        if (store->flights[i].busy)
            return 1;
    return 0;
}

void nbd_conn_turn(struct nbd_store *store, int ms)
{
    uint64_t now;

    wait(store, ms);
    now = fsw_now_ns();
    if (store->handle == NULL)
        return;
    if (libnbd.aio_is_dead(store->handle) || libnbd.aio_is_closed(store->handle)) {
        nbd_conn_down(store, "the connection is lost");
        return;
    }
    if (store->state == NBD_CONNECTING && libnbd.aio_is_ready(store->handle))
        on_ready(store);
    for (unsigned i = 0; i < NBD_FLIGHTS && store->handle != NULL; i++)
        if (store->flights[i].busy && store->flights[i].ended)
            nbd_flight_ended(&store->flights[i]);
    if (!has_flights(store))
        store->heard = 0;
    if (store->handle != NULL && store->state != NBD_UP && now > store->patience_ends)
        nbd_conn_down(store, "no answer within 3 s");
    else if (store->heard != 0 && now > store->heard + SILENCE_NS)
        nbd_conn_down(store, "no answer for too long");
}
