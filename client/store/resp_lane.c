/*
 * resp_lane.c: requests over one connection.
 *
 * Invariants
 *  1. A request is in exactly one place: a list, or one flight of the ring. While it rests,
 *     scratch[0] is when it wakes.
 *  2. A PUT that was sent may land until its connection's end is known to the server, also when it
 *     was given up. So the DROP of its id, which can only come later, goes either behind it on the
 *     same connection, or on a new one after the old one was closed with a reset. (What the server
 *     has received by then it may still read late; a segment that comes back so is an unknown id,
 *     which sweeping finds.)
 *  3. No PUT is sent before the sentinel was acknowledged once, and it is never set again, not by a
 *     later process either: a store that shows it has lost nothing. (After lost() it is another one.)
 */
#include "client/store/resp_lane.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/store/resp.h"
#include "common/clock.h"

/* Commands in flight, and bytes of commands that wait while as many are written. 64 puts are 4 MiB,
 * what 10 Gbit/s hold in 3 ms; more would only make a lost connection send more again. */
#define PUT_WINDOW 64
#define PUT_ROOM (512u << 10)
#define GET_WINDOW 1024
#define GET_ROOM (128u << 10)
/* One request comes with the connection; room is for the greeting. */
#define QUICK_WINDOW 4
#define QUICK_ROOM (2u << 10)

#define REST_NS (100 * FSW_NS_PER_MS)
#define SILENCE_NS (10 * FSW_NS_PER_S)

#define WORD(text) ((struct resp_word){(text), sizeof(text) - 1})

static const struct {
    unsigned window, room;
} bounds[] = {
    [RESP_LANE_GETS] = {GET_WINDOW, GET_ROOM},
    [RESP_LANE_PUTS] = {PUT_WINDOW, PUT_ROOM},
    [RESP_LANE_QUICK] = {QUICK_WINDOW, QUICK_ROOM},
};

int resp_lane_init(struct resp_lane *lane, struct resp_store *store, enum resp_lane_kind kind)
{
    memset(lane, 0, sizeof *lane);
    lane->store = store;
    lane->kind = kind;
    lane->silence_ns = SILENCE_NS;
    lane->window = bounds[kind].window;
    fsw_requests_init(&lane->waiting);
    fsw_requests_init(&lane->asking);
    fsw_requests_init(&lane->resting);
    lane->ring = calloc(lane->window, sizeof *lane->ring);
    if (lane->ring == NULL || resp_conn_init(&lane->conn, bounds[kind].room) < 0) {
        resp_lane_deinit(lane);
        return -ENOMEM;
    }
    return 0;
}

void resp_lane_deinit(struct resp_lane *lane)
{
    resp_conn_deinit(&lane->conn);
    free(lane->ring);
    lane->ring = NULL;
}

/* ---- the ring of flights ---- */

static struct resp_flight *flight_at(struct resp_lane *lane, unsigned nth)
{
    return &lane->ring[(lane->head + nth) % lane->window];
}

static void flight_push(struct resp_lane *lane, enum resp_flight_kind kind,
                        struct fsw_store_request *request)
{
    struct resp_flight *flight = flight_at(lane, lane->count);

    assert(lane->count < lane->window);
    if (lane->count++ == 0)
        lane->quiet_since_ns = fsw_now_ns();
    *flight =
        (struct resp_flight){.kind = kind, .left = lane->store->sentinel_left, .request = request};
}

static struct resp_flight flight_pop(struct resp_lane *lane)
{
    struct resp_flight flight = *flight_at(lane, 0);

    lane->head = (lane->head + 1) % lane->window;
    lane->count--;
    return flight;
}

/* ---- going out ---- */

/* The words of a GET, and what they point to. */
struct get_words {
    struct resp_word words[4];
    char key[FSW_KEY_TEXT], from[RESP_NUMBER_TEXT], to[RESP_NUMBER_TEXT];
};

static struct resp_word number_word(char text[RESP_NUMBER_TEXT], uint32_t number)
{
    return (struct resp_word){text, (size_t)(resp_number_write(text, number) - text)};
}

static void get_spell(struct get_words *get, const struct fsw_device_id *device,
                      const struct fsw_store_request *request)
{
    uint32_t last = request->offset + request->length - 1;
    struct resp_word *words = get->words;

    words[0] = WORD("GETRANGE");
    words[1] = (struct resp_word){get->key, fsw_key_segment(get->key, device, request->id)};
    words[2] = number_word(get->from, request->offset);
    words[3] = number_word(get->to, last);
}

size_t resp_get_write(char to[RESP_GET_TEXT], const struct fsw_device_id *device,
                      const struct fsw_store_request *request)
{
    struct get_words get;

    get_spell(&get, device, request);
    assert(resp_command_size(get.words, 4) <= RESP_GET_TEXT);
    return resp_command_write(to, get.words, 4);
}

static int send_get(struct resp_lane *lane, const struct fsw_store_request *request)
{
    struct get_words get;

    get_spell(&get, &lane->store->device, request);
    return resp_conn_command(&lane->conn, get.words, 4);
}

static int send_request(struct resp_lane *lane, const struct fsw_store_request *request)
{
    char text[FSW_KEY_TEXT];
    struct resp_word key = {text, fsw_key_segment(text, &lane->store->device, request->id)};

    switch (request->verb) {
    case FSW_STORE_PUT:
        return resp_conn_command(
            &lane->conn, (struct resp_word[]){WORD("SET"), key, {request->bytes, request->length}},
            3);
    case FSW_STORE_DROP:
        return resp_conn_command(&lane->conn, (struct resp_word[]){WORD("UNLINK"), key}, 2);
    case FSW_STORE_GET:
        return send_get(lane, request);
    }
    return -EINVAL;
}

/* SET of the sentinel, or GET. */
static int send_sentinel(struct resp_lane *lane, int leave)
{
    struct resp_store *store = lane->store;
    char text[FSW_KEY_TEXT];
    struct resp_word key = {text, fsw_key_sentinel(text, &store->device)};
    struct resp_word words[3] = {WORD("GET"), key, {store->sentinel, strlen(store->sentinel)}};

    if (leave)
        words[0] = WORD("SET");
    return resp_conn_command(&lane->conn, words, leave ? 3 : 2);
}

static int send_password(struct resp_lane *lane)
{
    const char *password = lane->store->password;

    return resp_conn_command(&lane->conn,
                             (struct resp_word[]){WORD("AUTH"), {password, strlen(password)}}, 2);
}

/* 1 if there was one to send and it went. */
static int pump_one(struct resp_lane *lane)
{
    struct fsw_store_request *request = fsw_requests_first(&lane->asking);
    int check = request != NULL;

    if (!check)
        request = fsw_requests_first(&lane->waiting);
    if (request == NULL || lane->count == lane->window)
        return 0;
    if ((check ? send_sentinel(lane, 0) : send_request(lane, request)) < 0)
        return 0;
    fsw_requests_remove(request);
    flight_push(lane, check ? RESP_FLIGHT_CHECK : RESP_FLIGHT_REQUEST, request);
    return 1;
}

void resp_lane_pump(struct resp_lane *lane)
{
    if (!lane->ready)
        return;
    while (pump_one(lane))
        ;
    resp_conn_flush(&lane->conn);
}

void resp_lane_add(struct resp_lane *lane, struct fsw_store_request *request)
{
    fsw_requests_push_back(&lane->waiting, request);
}

void resp_lane_adopt(struct resp_lane *lane, struct fsw_store_request *request)
{
    flight_push(lane, RESP_FLIGHT_REQUEST, request);
}

int resp_lane_is_idle(const struct resp_lane *lane)
{
    return lane->ready && lane->count == 0 && fsw_requests_are_none(&lane->waiting) &&
           fsw_requests_are_none(&lane->asking) && fsw_requests_are_none(&lane->resting);
}

static void rest(struct resp_lane *lane, struct fsw_store_request *request)
{
    lane->store->report.retries++;
    request->scratch[0] = fsw_now_ns() + REST_NS;
    fsw_requests_push_back(&lane->resting, request);
}

/* ---- the greeting ---- */

static void on_up(struct resp_conn *conn)
{
    struct resp_lane *lane = conn->owner;
    struct resp_store *store = lane->store;
    int leave = lane->kind == RESP_LANE_PUTS && !store->sentinel_left;

    lane->emptied = 0;
    if (store->password != NULL && send_password(lane) == 0)
        flight_push(lane, RESP_FLIGHT_AUTH, NULL);
    if (send_sentinel(lane, leave) == 0)
        flight_push(lane, leave ? RESP_FLIGHT_LEAVE : RESP_FLIGHT_SEEN, NULL);
}

static void become_ready(struct resp_lane *lane)
{
    lane->ready = 1;
    if (lane->ever && lane->kind != RESP_LANE_QUICK)
        lane->store->report.reconnects++;
    lane->ever = 1;
    resp_conn_content(&lane->conn);
    resp_store_lane_changed(lane->store);
    resp_store_is_back(lane->store, lane);
    resp_lane_pump(lane);
}

/* The server does not want us: puts that wait are told so, everything else waits on. */
static void refused(struct resp_lane *lane, const redisReply *reply)
{
    enum fsw_store_result result = FSW_STORE_REFUSED;
    char why[128];

    snprintf(why, sizeof why, "it answers: %s", reply->str);
    if (resp_judge_refusal(reply, &result) == RESP_DONE) {
        FSW_FOR_EACH_REQUEST(request, &lane->waiting)
        {
            if (request->verb != FSW_STORE_PUT)
                continue;
            fsw_requests_remove(request);
            resp_store_finish(lane->store, request, result);
        }
    }
    resp_conn_reset(&lane->conn, why);
}

/* Compares what the store shows with what was left there before it was asked. */
static int shows_sentinel(struct resp_lane *lane, struct resp_flight flight,
                          const redisReply *reply)
{
    struct resp_store *store = lane->store;
    int same = flight.left && resp_is_string(reply, store->sentinel, strlen(store->sentinel));

    if (flight.left)
        report_emptied(&store->report, store->address.text, !same);
    lane->emptied = flight.left && !same;
    return same;
}

static void on_greeting(struct resp_lane *lane, struct resp_flight flight, const redisReply *reply)
{
    if (reply->type == REDIS_REPLY_ERROR) {
        refused(lane, reply);
        return;
    }
    if (flight.kind == RESP_FLIGHT_AUTH)
        return;
    if (flight.kind == RESP_FLIGHT_LEAVE)
        lane->store->sentinel_left = 1;
    if (flight.kind == RESP_FLIGHT_SEEN)
        shows_sentinel(lane, flight, reply);
    become_ready(lane);
}

/* ---- coming in ---- */

static void on_check(struct resp_lane *lane, struct resp_flight flight, const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ERROR && shows_sentinel(lane, flight, reply))
        resp_store_finish(lane->store, flight.request, FSW_STORE_GONE);
    else
        rest(lane, flight.request);
}

static void on_answer(struct resp_lane *lane, struct fsw_store_request *request,
                      const redisReply *reply)
{
    enum fsw_store_result result = FSW_STORE_OK;
    enum resp_verdict verdict = resp_judge(request, reply, &result);

    if (reply->type == REDIS_REPLY_ERROR)
        report_say(&lane->store->report, "it answers", reply->str);
    switch (verdict) {
    case RESP_DONE:
        if (request->verb == FSW_STORE_GET && result == FSW_STORE_OK)
            memcpy(request->bytes, reply->str, request->length);
        request->emptied = lane->emptied;
        resp_store_finish(lane->store, request, result);
        break;
    case RESP_EMPTY:
        fsw_requests_push_back(&lane->asking, request);
        break;
    case RESP_LATER:
        rest(lane, request);
        break;
    case RESP_ABSURD:
        resp_conn_reset(&lane->conn, "its answers don't fit what was asked");
        fsw_requests_push_front(&lane->waiting, request);
        break;
    }
}

static void on_reply(struct resp_conn *conn, const redisReply *reply)
{
    struct resp_lane *lane = conn->owner;
    struct resp_flight flight;

    if (lane->count == 0) {
        resp_conn_reset(conn, reply->type == REDIS_REPLY_ERROR ? reply->str
                                                               : "it answers what nobody asked");
        return;
    }
    flight = flight_pop(lane);
    if (flight.kind >= RESP_FLIGHT_AUTH)
        on_greeting(lane, flight, reply);
    else if (flight.request != NULL && flight.kind == RESP_FLIGHT_CHECK)
        on_check(lane, flight, reply);
    else if (flight.request != NULL)
        on_answer(lane, flight.request, reply);
}

static void on_turn(struct resp_conn *conn)
{
    struct resp_lane *lane = conn->owner;

    resp_lane_pump(lane);
    if (lane->kind == RESP_LANE_QUICK)
        resp_quick_offer(&lane->store->quick);
}

/* Everything without an answer goes out again, before all else and in its old order. */
static void take_back_flights(struct resp_lane *lane)
{
    struct fsw_requests back;

    fsw_requests_init(&back);
    while (lane->count > 0) {
        struct resp_flight flight = flight_pop(lane);

        if (flight.request == NULL)
            continue;
        lane->store->report.retries++;
        fsw_requests_push_back(&back, flight.request);
    }
    fsw_requests_splice(&back, &lane->asking);
    fsw_requests_splice(&back, &lane->waiting);
    fsw_requests_splice(&lane->waiting, &back);
}

static void on_down(struct resp_conn *conn, const char *why)
{
    struct resp_lane *lane = conn->owner;

    lane->ready = 0;
    take_back_flights(lane);
    report_say(&lane->store->report, lane->store->address.text, why);
    resp_store_lane_changed(lane->store);
}

void resp_lane_open(struct resp_lane *lane)
{
    static const struct resp_conn_hooks hooks = {on_up, on_reply, on_turn, on_down};

    resp_conn_open(&lane->conn, &lane->store->loop, &lane->store->place, &hooks, lane);
}

/* ---- time ---- */

#define ALL UINT64_MAX /* for `now`: later than every deadline, and none */

static int is_late(const struct fsw_store_request *request, uint64_t now)
{
    return now == ALL || (request->deadline != 0 && request->deadline <= now);
}

static size_t give_up_list(struct resp_lane *lane, struct fsw_requests *list, uint64_t now)
{
    size_t kept = 0;

    FSW_FOR_EACH_REQUEST(request, list)
    {
        if (!is_late(request, now)) {
            kept++;
            continue;
        }
        fsw_requests_remove(request);
        resp_store_finish(lane->store, request, FSW_STORE_UNREACHABLE);
    }
    return kept;
}

static size_t give_up_flights(struct resp_lane *lane, uint64_t now)
{
    for (unsigned i = 0; i < lane->count; i++) {
        struct resp_flight *flight = flight_at(lane, i);
        struct fsw_store_request *request = flight->request;

        if (request == NULL || !is_late(request, now))
            continue;
        flight->request = NULL;
        resp_store_finish(lane->store, request, FSW_STORE_UNREACHABLE);
    }
    return lane->count;
}

static void wake_rested(struct resp_lane *lane, uint64_t now)
{
    FSW_FOR_EACH_REQUEST(request, &lane->resting)
    {
        if (request->scratch[0] > now)
            break; /* they came in the order of time */
        fsw_requests_remove(request);
        fsw_requests_push_back(&lane->waiting, request);
    }
}

static int is_silent(const struct resp_lane *lane, uint64_t now)
{
    uint64_t last =
        lane->conn.heard_ns > lane->quiet_since_ns ? lane->conn.heard_ns : lane->quiet_since_ns;

    return lane->count > 0 && now > last + lane->silence_ns;
}

size_t resp_lane_sweep(struct resp_lane *lane, uint64_t now)
{
    size_t kept;

    wake_rested(lane, now);
    kept = give_up_list(lane, &lane->waiting, now) + give_up_list(lane, &lane->asking, now) +
           give_up_list(lane, &lane->resting, now) + give_up_flights(lane, now);
    if (is_silent(lane, now))
        resp_conn_reset(&lane->conn, "no answer for too long");
    resp_lane_pump(lane);
    return kept;
}

void resp_lane_give_up(struct resp_lane *lane)
{
    give_up_list(lane, &lane->waiting, ALL);
    give_up_list(lane, &lane->asking, ALL);
    give_up_list(lane, &lane->resting, ALL);
    give_up_flights(lane, ALL);
}

void resp_lane_end(struct resp_lane *lane)
{
    struct fsw_store_request *request;

    resp_conn_end(&lane->conn);
    lane->ready = 0;
    take_back_flights(lane);
    fsw_requests_splice(&lane->waiting, &lane->resting);
    while ((request = fsw_requests_pop(&lane->waiting)) != NULL)
        resp_store_finish(lane->store, request, FSW_STORE_UNREACHABLE);
}
