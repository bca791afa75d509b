/*
 * resp_quick.c: lending a connection, borrowing it, giving it back.
 */
#include "client/store/resp_quick.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "client/store/resp.h"
#include "common/clock.h"

/* A peer that has just answered within this is waited for in recv(), which is cheaper and can't be as
 * exact: once it fails in that, a few ms are lost, and then it is poll() until it is as quick again. */
#define BRISK_NS 100000u

int resp_quick_init(struct resp_quick *quick, struct resp_store *store)
{
    return resp_lane_init(&quick->lane, store, RESP_LANE_QUICK);
}

void resp_quick_deinit(struct resp_quick *quick)
{
    resp_lane_deinit(&quick->lane);
}

static int move(struct resp_quick *quick, unsigned from, unsigned to)
{
    return atomic_compare_exchange_strong(&quick->state, &from, to);
}

/* ---- the borrower ---- */

/* One loan. */
struct loan {
    struct resp_quick *quick;
    struct fsw_store_request *request;
    unsigned losses; /* of the store, before it was sent */
    uint64_t started, until;
};

static uint64_t sooner(uint64_t a, uint64_t b)
{
    return b != 0 && b < a ? b : a;
}

static void wait_readable(int fd, uint64_t ns)
{
    struct pollfd look = {.fd = fd, .events = POLLIN};
    struct timespec most = {.tv_nsec = (long)ns};

    ppoll(&look, 1, &most, NULL); /* whatever it says: who reads finds out */
}

/* 1 and the answer; 0: it did not come in time; or -errno of a connection that is of no more use. */
static int ask(const struct loan *loan, redisReply **ret_reply)
{
    struct resp_conn *conn = &loan->quick->lane.conn;
    char command[RESP_GET_TEXT];
    size_t length = resp_get_write(command, &loan->quick->lane.store->device, loan->request);
    int r = resp_conn_say(conn, command, length);

    int asleep = loan->quick->brisk;

    for (uint64_t now = loan->started; r == 0 && now < loan->until; now = fsw_now_ns()) {
        if (!asleep)
            wait_readable(conn->lent, loan->until - now);
        r = resp_conn_hear(conn, asleep, ret_reply);
        asleep = 0;
    }
    loan->quick->brisk = r == 1 && fsw_now_ns() - loan->started < BRISK_NS;
    return r;
}

/* To the loop, with what it has to go on with. */
static void give_back(const struct loan *loan, struct resp_quick_left left)
{
    struct resp_store *store = loan->quick->lane.store;

    pthread_mutex_lock(&store->inbox_lock);
    left.losses = loan->losses;
    loan->quick->left = left;
    atomic_store(&loan->quick->state, RESP_QUICK_RETURNED);
    uv_async_send(&store->wake);
    pthread_mutex_unlock(&store->inbox_lock);
}

static void give_back_idle(const struct loan *loan)
{
    if (!move(loan->quick, RESP_QUICK_LENT, RESP_QUICK_OFFERED))
        give_back(loan, (struct resp_quick_left){NULL});
}

/* The request's end, if the answer is that. */
static int judge(const struct loan *loan, const redisReply *reply,
                 enum fsw_store_result *ret_result)
{
    struct fsw_store_request *request = loan->request;

    if (resp_judge(request, reply, ret_result) != RESP_DONE)
        return 0;
    if (*ret_result == FSW_STORE_OK)
        memcpy(request->bytes, reply->str, request->length);
    return 1;
}

int resp_quick_get(struct resp_quick *quick, struct fsw_store_request *request, uint64_t until)
{
    struct resp_store *store = quick->lane.store;
    struct loan loan = {.quick = quick, .request = request};
    enum fsw_store_result result = FSW_STORE_OK;
    redisReply *reply = NULL;

    if (!move(quick, RESP_QUICK_OFFERED, RESP_QUICK_LENT)) {
        atomic_store(&quick->wanted, 1);
        return 0;
    }
    loan.losses = atomic_load(&store->losses);
    loan.started = fsw_now_ns();
    loan.until = sooner(sooner(loan.started + RESP_LOAN_NS, until), request->deadline);
    int r = ask(&loan, &reply);
    if (r == 0) {
        give_back(&loan, (struct resp_quick_left){.request = request});
        return 1;
    }
    int ends = r == 1 && judge(&loan, reply, &result);
    if (r == 1)
        give_back_idle(&loan);
    else
        give_back(&loan, (struct resp_quick_left){.broken = resp_conn_why(r)});
    if (reply != NULL)
        freeReplyObject(reply);
    if (ends)
        resp_store_finish(store, request, result);
    else
        resp_store_ask_again(store, request, loan.losses);
    return 1;
}

/* ---- the loop ---- */

int resp_quick_is_returned(struct resp_quick *quick, struct resp_quick_left *ret_left)
{
    *ret_left = quick->left;
    ret_left->interrupted = ret_left->losses != atomic_load(&quick->lane.store->losses);
    return move(quick, RESP_QUICK_RETURNED, RESP_QUICK_HELD);
}

/* The flight first: taking the connection back may be its end. */
void resp_quick_collect(struct resp_quick *quick, const struct resp_quick_left *left)
{
    struct fsw_store_request *request = left->request;

    if (request != NULL)
        resp_lane_adopt(&quick->lane, left->interrupted ? NULL : request);
    if (request != NULL && left->interrupted)
        resp_store_finish(quick->lane.store, request, FSW_STORE_UNREACHABLE);
    resp_conn_take_back(&quick->lane.conn);
    if (left->broken != NULL)
        resp_conn_reset(&quick->lane.conn, left->broken);
}

void resp_quick_open(struct resp_quick *quick)
{
    if (quick->opened || !atomic_load(&quick->wanted))
        return;
    quick->opened = 1;
    resp_lane_open(&quick->lane);
}

int resp_quick_recall(struct resp_quick *quick)
{
    if (move(quick, RESP_QUICK_OFFERED, RESP_QUICK_HELD))
        resp_conn_take_back(&quick->lane.conn);
    else
        move(quick, RESP_QUICK_LENT, RESP_QUICK_RECALLED);
    return atomic_load(&quick->state) == RESP_QUICK_HELD;
}

void resp_quick_offer(struct resp_quick *quick)
{
    if (atomic_load(&quick->state) != RESP_QUICK_HELD || !resp_lane_is_idle(&quick->lane) ||
        !resp_conn_is_quiet(&quick->lane.conn))
        return;
    resp_conn_lend(&quick->lane.conn);
    atomic_store(&quick->state, RESP_QUICK_OFFERED);
}

static int is_held(const struct resp_quick *quick)
{
    return quick->opened && atomic_load(&quick->state) == RESP_QUICK_HELD;
}

size_t resp_quick_sweep(struct resp_quick *quick, uint64_t now)
{
    return is_held(quick) ? resp_lane_sweep(&quick->lane, now) : 0;
}

void resp_quick_give_up(struct resp_quick *quick)
{
    if (is_held(quick))
        resp_lane_give_up(&quick->lane);
}

void resp_quick_end(struct resp_quick *quick)
{
    int held = resp_quick_recall(quick);

    assert(held); /* all get() have returned */
    (void)held;
    if (quick->opened)
        resp_lane_end(&quick->lane);
}
