/*
 * room.c: entries, their queue, and the threads.
 */
#include "client/nbd/room.h"

#include <signal.h>
#include <string.h>

#include "client/nbd/conn.h"
#include "common/cleanup.h"

/* ---- entries; under the lock ---- */

static struct fsw_wait **bucket_of(struct fsw_room *room, uint64_t offset)
{
    return &room->buckets[offset / FSW_PAGE_SIZE % FSW_ROOM_BUCKETS];
}

static void enqueue(struct fsw_room *room, struct fsw_wait *wait)
{
    wait->next = NULL;
    *room->queue_last = wait;
    room->queue_last = &wait->next;
    pthread_cond_signal(&room->reads);
}

static void dequeue(struct fsw_room *room, struct fsw_wait *wait)
{
    struct fsw_wait **link = &room->queue;

    while (*link != wait)
        link = &(*link)->next;
    *link = wait->next;
    if (room->queue_last == &wait->next)
        room->queue_last = link;
}

/* R2. Not in the queue any more. */
static void forget(struct fsw_room *room, struct fsw_wait *wait)
{
    struct fsw_wait **link = bucket_of(room, wait->offset);

    while (*link != wait)
        link = &(*link)->same;
    *link = wait->same;
    wait->next = room->free;
    room->free = wait;
}

/* An entry that a read of this range can join: nothing of it was answered. */
static struct fsw_wait *find(struct fsw_room *room, uint64_t offset, uint64_t length)
{
    for (struct fsw_wait *wait = *bucket_of(room, offset); wait != NULL; wait = wait->same)
        if (wait->offset == offset && wait->length == length && wait->at == 0)
            return wait;
    return NULL;
}

static struct fsw_wait *make(struct fsw_room *room, uint64_t offset, uint64_t length)
{
    struct fsw_wait *wait = room->free, **bucket = bucket_of(room, offset);

    if (wait == NULL)
        return NULL;
    room->free = wait->next;
    *wait = (struct fsw_wait){.offset = offset, .length = length, .same = *bucket};
    *bucket = wait;
    enqueue(room, wait);
    return wait;
}

static int enter_read(struct fsw_room *room, struct fsw_request *request)
{
    uint64_t first = request->io.offset / FSW_PAGE_SIZE * FSW_PAGE_SIZE;
    uint64_t end = (request->io.offset + request->io.length + FSW_PAGE_SIZE - 1) / FSW_PAGE_SIZE *
                   FSW_PAGE_SIZE;
    struct fsw_wait *wait = find(room, first, end - first);

    if (wait == NULL)
        wait = make(room, first, end - first);
    if (wait == NULL)
        return 0;
    request->late = wait->running;
    request->wait = wait;
    request->wait_next = wait->wanted;
    wait->wanted = request;
    return 1;
}

static int enter(struct fsw_room *room, struct fsw_request *request)
{
    if (request->io.verb == FSW_READ)
        return enter_read(room, request);
    request->next = NULL;
    *room->mutation_last = request;
    room->mutation_last = &request->next;
    pthread_cond_signal(&room->mutations);
    return 1;
}

struct fsw_request *fsw_room_enter(struct fsw_room *room, struct fsw_request *requests)
{
    FSW_LOCK_SCOPE(&room->lock);

    while (requests != NULL) {
        struct fsw_request *request = requests, *rest = request->next;
        if (!enter(room, request))
            break;
        requests = rest;
    }
    return requests;
}

int fsw_room_leave(struct fsw_room *room, struct fsw_request *request)
{
    FSW_LOCK_SCOPE(&room->lock);
    struct fsw_wait *wait = request->wait;

    if (wait == NULL)
        return 0;
    struct fsw_request **link = &wait->wanted;
    while (*link != request)
        link = &(*link)->wait_next;
    *link = request->wait_next;
    request->wait = NULL;
    if (wait->wanted == NULL && !wait->running) {
        dequeue(room, wait);
        forget(room, wait);
    }
    return 1;
}

/* ---- answering ---- */

/* What a request wants of the bytes that were read at `offset`. */
static void copy(struct fsw_request *request, const char *bytes, uint64_t offset, uint64_t length)
{
    uint64_t from = request->io.offset > offset ? request->io.offset : offset;
    uint64_t end = offset + length, wanted = request->io.offset + request->io.length;
    uint64_t to = wanted < end ? wanted : end;

    if (from < to)
        memcpy((char *)request->io.bytes + (from - request->io.offset), bytes + (from - offset),
               to - from);
}

static void end_all(struct fsw_wait *wait, int result)
{
    struct fsw_request *request = wait->wanted, *next;

    for (; request != NULL; request = next) {
        next = request->wait_next;
        request->wait = NULL;
        request->io.result = result;
        fsw_request_ended(request);
    }
    wait->wanted = NULL;
}

/* Hands out what was read. 1: somebody came late and must be served anew (R1). */
static int give(struct fsw_wait *wait, const struct fsw_io *io)
{
    int again = 0;

    for (struct fsw_request *request = wait->wanted; request != NULL;
         request = request->wait_next) {
        again |= request->late && !(io->flags & FSW_IO_FRESH);
        request->late = 0;
        if (io->result == 0)
            copy(request, io->bytes, io->offset, io->length);
    }
    return again;
}

/* A piece has been read: on to the next, to the end, or (R1) from the beginning, for all. */
static void settle(struct fsw_room *room, struct fsw_wait *wait, const struct fsw_io *io)
{
    int again = give(wait, io);

    wait->running = 0;
    wait->at = again ? 0 : wait->at + io->length;
    if (!again && (io->result < 0 || wait->at == wait->length))
        end_all(wait, io->result);
    if (wait->wanted == NULL)
        forget(room, wait);
    else
        enqueue(room, wait);
}

/* ---- threads ---- */

/* Pieces of the first entries in the queue. Waits for one. */
static unsigned take_pieces(struct fsw_room *room, struct fsw_wait **ret_waits, struct fsw_io *ios,
                            char *bytes)
{
    FSW_LOCK_SCOPE(&room->lock);
    uint64_t room_left = FSW_FETCH_BATCH * FSW_PAGE_SIZE;
    unsigned count = 0;

    while (room->queue == NULL)
        pthread_cond_wait(&room->reads, &room->lock);
    while (room->queue != NULL && room_left > 0) {
        struct fsw_wait *wait = room->queue;
        uint64_t rest = wait->length - wait->at, length = rest < room_left ? rest : room_left;
        dequeue(room, wait);
        wait->running = 1;
        ret_waits[count] = wait;
        ios[count++] = (struct fsw_io){
            .verb = FSW_READ, .bytes = bytes, .offset = wait->offset + wait->at, .length = length};
        bytes += length;
        room_left -= length;
    }
    return count;
}

static void *reader(void *opaque)
{
    struct fsw_room *room = opaque;
    struct fsw_wait *waits[FSW_FETCH_BATCH];
    struct fsw_io ios[FSW_FETCH_BATCH];
    static _Thread_local char bytes[FSW_FETCH_BATCH * FSW_PAGE_SIZE];

    memset(bytes, 1, sizeof bytes); /* touched before it is needed */
    for (;;) {
        unsigned count = take_pieces(room, waits, ios, bytes);
        fsw_device_read_pages(room->device, ios, count);
        FSW_LOCK_SCOPE(&room->lock);
        for (unsigned i = 0; i < count; i++)
            settle(room, waits[i], &ios[i]);
    }
    return NULL;
}

static struct fsw_request *take_mutation(struct fsw_room *room)
{
    FSW_LOCK_SCOPE(&room->lock);

    while (room->mutation == NULL)
        pthread_cond_wait(&room->mutations, &room->lock);
    struct fsw_request *request = room->mutation;
    room->mutation = request->next;
    if (room->mutation == NULL)
        room->mutation_last = &room->mutation;
    return request;
}

static void *writer(void *opaque)
{
    struct fsw_room *room = opaque;

    for (;;) {
        struct fsw_request *request = take_mutation(room);
        request->io.flags &= ~FSW_IO_NOWAIT;
        fsw_device_do(room->device, &request->io);
        fsw_request_ended(request);
    }
    return NULL;
}

/* Signals are the main thread's, whether it has asked for them already or not. */
static int start_threads(struct fsw_room *room, unsigned count, void *(*run)(void *))
{
    sigset_t all, before;
    pthread_t thread;
    int r = 0;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 0; r == 0 && i < count; i++) {
        r = pthread_create(&thread, NULL, run, room);
        if (r == 0) {
            pthread_setname_np(thread, "fsw-wait");
            pthread_detach(thread);
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return -r;
}

int fsw_room_start(struct fsw_room *room, struct fsw_device *device)
{
    memset(room, 0, sizeof *room);
    room->device = device;
    room->queue_last = &room->queue;
    room->mutation_last = &room->mutation;
    pthread_mutex_init(&room->lock, NULL);
    pthread_cond_init(&room->reads, NULL);
    pthread_cond_init(&room->mutations, NULL);
    for (unsigned i = 0; i < FSW_ROOM_WAITS; i++) {
        room->waits[i].next = room->free;
        room->free = &room->waits[i];
    }
    int r = start_threads(room, FSW_ROOM_READERS, reader);
    return r == 0 ? start_threads(room, FSW_ROOM_WRITERS, writer) : r;
}
