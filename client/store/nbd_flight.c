/*
 * nbd_flight.c: a flight of an NBD store: the commands that a request takes, one step after the other, and
 * what their end means.
 *
 * libnbd calls back within nbd_aio_notify_*(), on our thread, and once for each command, also when the
 * connection dies. A callback only counts; what a flight's end means is looked at afterwards, when
 * libnbd is not on the stack.
 */
#include <errno.h>
#include <string.h>

#include "client/store/nbd.h"
#include "client/store/nbd_lib.h"
#include "common/clock.h"

#define GET_TRIES 10 /* of a read that the server can't do, as a file's */

/* ---- commands ---- */

static int on_answer(void *opaque, int *error)
{
    struct nbd_flight *flight = opaque;

    if (*error != 0)
        flight->error = *error;
    flight->store->heard = fsw_now_ns();
    flight->ended = --flight->parts == 0;
    return 1; /* libnbd forgets it */
}

void nbd_flight_begin(struct nbd_flight *flight, enum nbd_step step)
{
    flight->step = step;
    flight->parts = 0;
    flight->error = 0;
    flight->ended = 0;
    if (flight->store->heard == 0)
        flight->store->heard = fsw_now_ns();
}

/* A command was issued, or libnbd would not. */
static void issued(struct nbd_flight *flight, int64_t cookie)
{
    if (cookie >= 0)
        return;
    flight->error = libnbd.get_errno() ? libnbd.get_errno() : EIO;
    flight->ended = --flight->parts == 0;
}

#define CALLBACK(flight)                                                                           \
    (nbd_completion_callback)                                                                      \
    {                                                                                              \
        .callback = on_answer, .user_data = (flight)                                               \
    }

void nbd_flight_read(struct nbd_flight *flight, uint32_t from, uint32_t to)
{
    flight->parts++;
    issued(flight, libnbd.aio_pread(flight->store->handle, flight->buffer + from, to - from,
                                    slot_at(flight->task.row) + from, CALLBACK(flight), 0));
}

void nbd_flight_write(struct nbd_flight *flight, uint32_t length)
{
    flight->parts++;
    issued(flight, libnbd.aio_pwrite(flight->store->handle, flight->buffer, length,
                                     slot_at(flight->task.row), CALLBACK(flight), 0));
}

/* ---- flights ---- */

struct nbd_flight *nbd_flight_idle(struct nbd_store *store, unsigned writes)
{
    for (unsigned i = 0; i < NBD_FLIGHTS; i++)
        if (!store->flights[i].busy && store->flights[i].writes == writes)
            return &store->flights[i];
    return NULL;
}

void nbd_flight_release(struct nbd_flight *flight)
{
    flight->busy = 0;
    flight->request = NULL;
}

static void finish(struct nbd_flight *flight, enum fsw_store_result result)
{
    struct fsw_store_request *request = flight->request;

    nbd_flight_release(flight);
    if (request != NULL)
        nbd_store_finish(flight->store, request, result);
}

static void rest(struct nbd_flight *flight)
{
    struct fsw_store_request *request = flight->request;

    nbd_flight_release(flight);
    if (request != NULL)
        nbd_store_rest(flight->store, request);
}

static int fits(const struct nbd_store *store, uint32_t row)
{
    return slot_at(row) + SLOTS_BYTES <= store->size;
}

static void start_get(struct nbd_flight *flight)
{
    uint32_t begin_at = SLOTS_HEAD + flight->task.offset;
    uint32_t from = begin_at / SLOTS_BLOCK * SLOTS_BLOCK;
    uint32_t to = slot_round_up(begin_at + flight->task.length);

    flight->known = known_length(&flight->store->known, flight->task.row, flight->task.id);
    if (flight->known == 0 && from <= SLOTS_BLOCK)
        from = 0;
    nbd_flight_begin(flight, NBD_READING);
    flight->parts++; /* ours, so that it does not end between two */
    if (flight->known == 0 && from > 0)
        nbd_flight_read(flight, 0, SLOTS_BLOCK);
    nbd_flight_read(flight, from, to);
    flight->ended = --flight->parts == 0;
}

static void start_put(struct nbd_flight *flight)
{
    const struct fsw_store_request *task = &flight->task;
    uint32_t used = SLOTS_HEAD + task->length, all = slot_round_up(used);

    known_clear(&flight->store->known, task->row);
    memcpy(flight->buffer + SLOTS_HEAD, task->bytes, task->length);
    slot_head_write(flight->buffer, &flight->store->identity.device, task->row, task->id,
                    task->length);
    memset(flight->buffer + used, 0, all - used);
    nbd_flight_begin(flight, NBD_WRITING);
    nbd_flight_write(flight, all);
}

/* Zeroes over the head, for a trim need not leave zeroes. A server that can't trim gets the whole slot. */
static void empty_slot(struct nbd_flight *flight)
{
    struct nbd_store *store = flight->store;

    known_clear(&store->known, flight->task.row);
    nbd_flight_begin(flight, NBD_WRITING);
    if (!store->can_trim && store->can_zero) {
        flight->parts++;
        issued(flight, libnbd.aio_zero(store->handle, SLOTS_BYTES, slot_at(flight->task.row),
                                       CALLBACK(flight), 0));
        return;
    }
    memset(flight->buffer, 0, SLOTS_BLOCK);
    nbd_flight_write(flight, SLOTS_BLOCK);
}

static void trim_slot(struct nbd_flight *flight)
{
    nbd_flight_begin(flight, NBD_TRIMMING);
    flight->parts++;
    issued(flight, libnbd.aio_trim(flight->store->handle, SLOTS_BYTES, slot_at(flight->task.row),
                                   CALLBACK(flight), 0));
}

static void start_drop(struct nbd_flight *flight)
{
    if (known_length(&flight->store->known, flight->task.row, flight->task.id) != 0) {
        empty_slot(flight);
        return;
    }
    nbd_flight_begin(flight, NBD_READING);
    nbd_flight_read(flight, 0, SLOTS_BLOCK);
}

void nbd_flight_start(struct nbd_store *store, struct nbd_flight *flight,
                      struct fsw_store_request *request)
{
    static void (*const starts[])(struct nbd_flight *) = {
        [FSW_STORE_PUT] = start_put, [FSW_STORE_GET] = start_get, [FSW_STORE_DROP] = start_drop};

    flight->request = request;
    flight->task = *request;
    flight->busy = 1;
    if (request->row == 0 || (request->verb == FSW_STORE_DROP && !fits(store, request->row)))
        finish(flight, FSW_STORE_OK);
    else if (!fits(store, request->row))
        finish(flight, request->verb == FSW_STORE_PUT ? FSW_STORE_FULL : FSW_STORE_GONE);
    else
        starts[request->verb](flight);
}

/* ---- ends of flights ---- */

static enum fsw_store_result put_failure(int error)
{
    return error == ENOSPC || error == EFBIG || error == EDQUOT ? FSW_STORE_FULL
                                                                : FSW_STORE_REFUSED;
}

static void get_missed(struct nbd_flight *flight)
{
    struct nbd_store *store = flight->store;

    known_clear(&store->known, flight->task.row);
    if (store->sentinel == 0) {
        rest(flight);
        return;
    }
    flight->task.row = 0;
    nbd_flight_begin(flight, NBD_CHECKING);
    nbd_flight_read(flight, 0, SLOTS_BLOCK);
}

static void get_checked(struct nbd_flight *flight)
{
    struct nbd_store *store = flight->store;
    uint64_t shown;

    if (nbd_header_check(store, flight->buffer, &shown, NULL) == 0 && shown == store->sentinel) {
        finish(flight, FSW_STORE_GONE);
        return;
    }
    report_emptied(&store->report, store->export.address.text, 1);
    store->sentinel = 0;
    store->shown = 0;
    rest(flight);
}

static void get_ended(struct nbd_flight *flight)
{
    struct nbd_store *store = flight->store;
    struct fsw_store_request *task = &flight->task;
    int64_t length = flight->known;

    if (length == 0)
        length = slot_head_check(flight->buffer, &store->identity.device, task->row, task->id);
    if (length == -ENOENT) {
        get_missed(flight);
        return;
    }
    if (length < task->offset + task->length) { /* damaged, too */
        finish(flight, FSW_STORE_CORRUPT);
        return;
    }
    known_set(&store->known, task->row, task->id, (uint32_t)length);
    store->report.bytes_in += task->length;
    if (flight->request != NULL)
        memcpy(task->bytes, flight->buffer + SLOTS_HEAD + task->offset, task->length);
    finish(flight, FSW_STORE_OK);
}

static void put_ended(struct nbd_flight *flight)
{
    struct nbd_store *store = flight->store;

    known_set(&store->known, flight->task.row, flight->task.id, flight->task.length);
    store->identity.planted |= store->shown;
    store->report.bytes_out += SLOTS_HEAD + flight->task.length;
    finish(flight, FSW_STORE_OK);
}

static void drop_read(struct nbd_flight *flight)
{
    uint64_t there;

    if (slot_head_read(flight->buffer, &flight->store->identity.device, flight->task.row, &there) >
            0 &&
        there != flight->task.id)
        finish(flight, FSW_STORE_OK); /* another's: ours is not there */
    else
        empty_slot(flight);
}

static void failed(struct nbd_flight *flight)
{
    struct nbd_store *store = flight->store;

    report_say(&store->report, store->export.address.text, strerror(flight->error));
    if (flight->step == NBD_HEADER || flight->step == NBD_PLANTING) {
        nbd_flight_release(flight);
        nbd_conn_down(store, strerror(flight->error));
    } else if (flight->step == NBD_TRIMMING) {
        finish(flight, FSW_STORE_OK); /* its head is gone: that is what matters */
    } else if (flight->task.verb == FSW_STORE_PUT) {
        finish(flight, put_failure(flight->error));
    } else if (flight->task.verb == FSW_STORE_GET && flight->request != NULL &&
               ++flight->request->scratch[1] >= GET_TRIES) {
        finish(flight, FSW_STORE_CORRUPT);
    } else {
        rest(flight);
    }
}

void nbd_flight_ended(struct nbd_flight *flight)
{
    enum fsw_store_verb verb = flight->task.verb;

    flight->ended = 0;
    if (flight->error != 0) {
        failed(flight);
        return;
    }
    switch (flight->step) {
    case NBD_READING:
        (verb == FSW_STORE_GET ? get_ended : drop_read)(flight);
        break;
    case NBD_CHECKING:
        get_checked(flight);
        break;
    case NBD_WRITING:
        if (verb == FSW_STORE_PUT)
            put_ended(flight);
        else if (flight->store->can_trim)
            trim_slot(flight);
        else
            finish(flight, FSW_STORE_OK);
        break;
    case NBD_TRIMMING:
        finish(flight, FSW_STORE_OK);
        break;
    case NBD_HEADER:
        nbd_conn_on_header(flight);
        break;
    case NBD_PLANTING:
        nbd_flight_release(flight);
        flight->store->shown = flight->store->sentinel != 0;
        if (flight->store->state != NBD_UP)
            nbd_conn_become_up(flight->store);
        break;
    }
}
