/*
 * receive.c: what comes in from a client: requests into `in`, as many as are there; the payload of a
 * large write to where it stays, with a little of what comes behind it into `in`.
 */
#include "client/nbd/receive.h"

#include <errno.h>

#include "common/clock.h"

/* How long to look, and when. */
#define SOON_NS (15 * FSW_NS_PER_S / 1000000)
#define LUCK_MOST 8
#define LUCK_LOST 4
#define TRY_LUCK_EVERY 64

/* DISC is the last a client sends: it may close its half then and still wait for answers. */
static void note_goodbye(struct fsw_conn *conn)
{
    struct fsw_wire wire = {.size = conn->wire.size};
    struct fsw_wire_request last;
    size_t used;

    if (conn->in_end - conn->in_at < FSW_WIRE_REQUEST_BYTES)
        return;
    const char *tail = conn->in + conn->in_end - FSW_WIRE_REQUEST_BYTES;
    if (fsw_wire_next(&wire, tail, FSW_WIRE_REQUEST_BYTES, &used, &last) == FSW_WIRE_REQUEST &&
        last.type == FSW_WIRE_DISCONNECT)
        atomic_store(&conn->says_goodbye, 1);
}

ssize_t fsw_conn_receive(struct fsw_conn *conn, int flags)
{
    struct iovec iov[2];
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = 0};
    size_t rest = conn->filling != NULL ? conn->filling->io.length - conn->filled : 0;

    if (conn->in_at > 0) {
        memmove(conn->in, conn->in + conn->in_at, conn->in_end - conn->in_at);
        conn->in_end -= conn->in_at;
        conn->in_at = 0;
    }
    size_t room = FSW_CONN_IN_BYTES - conn->in_end;
    size_t window = rest > 0 && conn->window < room ? conn->window : room;
    if (rest > 0)
        iov[message.msg_iovlen++] =
            (struct iovec){.iov_base = conn->filling->block + conn->filled, .iov_len = rest};
    iov[message.msg_iovlen++] =
        (struct iovec){.iov_base = conn->in + conn->in_end, .iov_len = window};
    ssize_t n = recvmsg(conn->fd, &message, flags);
    if (n <= 0)
        return n < 0 ? -errno : 0;
    conn->came_at = fsw_now_ns();
    /* What this brought may have been on its way for long: the next mutation looks at the peer. */
    atomic_store_explicit(&conn->peer.looked_at, 0, memory_order_release);
    size_t direct = (size_t)n < rest ? (size_t)n : rest;
    conn->filled += direct;
    conn->in_end += (size_t)n - direct;
    if (conn->kind == FSW_CONN_TCP)
        note_goodbye(conn);
    return n;
}

/* Leaves this core to its other thread, if it has one. */
static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Each connection and its client have a CPU of their own: who waits for nothing takes none from others. */
static int has_cpus(const struct fsw_nbd *nbd)
{
    return 2 * atomic_load_explicit(&nbd->serving, memory_order_relaxed) <= nbd->cpus;
}

void fsw_conn_pace(struct fsw_conn *conn)
{
    if (!has_cpus(conn->nbd)) /* a trial in which nobody waits would say nothing */
        return;
    fsw_pace_note(&conn->pace, conn->round, conn->came_at);
    if (conn->out > 0 || conn->leaving || !fsw_pace_wait(&conn->pace))
        return;
    uint64_t until = fsw_now_ns() + FSW_PACE_NS;
    while (fsw_now_ns() < until)
        relax();
}

ssize_t fsw_conn_receive_soon(struct fsw_conn *conn)
{
    if (conn->round > 1) /* the longer we sleep, the more are done together */
        return -EAGAIN;
    if (conn->luck == 0 && ++conn->sleeps % TRY_LUCK_EVERY != 0)
        return -EAGAIN;
    uint64_t until = fsw_now_ns() + SOON_NS;
    do {
        ssize_t n = fsw_conn_receive(conn, MSG_DONTWAIT);
        if (n != -EAGAIN) {
            conn->luck += conn->luck < LUCK_MOST;
            return n;
        }
    } while (fsw_now_ns() < until);
    conn->luck = conn->luck > LUCK_LOST ? conn->luck - LUCK_LOST : 0;
    return -EAGAIN;
}
