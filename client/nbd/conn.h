/*
 * conn.h: one connection, its requests, and what threads share of it.
 *
 * A connection has one thread, which alone reads and writes its socket, and does small requests
 * itself, between reading them and answering them together. It leaves large requests to the
 * device's crew and requests that have to wait to the waiting room; whoever ends one pushes it on
 * `ended`, and the thread answers it.
 *
 *   C1  Only the thread touches what is not marked as shared.
 *   C2  A request that is out (crew, waiting room) is theirs until it is on `ended`; then it is the
 *       thread's again. A connection ends only when no request is out.
 *   C3  Connections live in slots that are never freed: who has just pushed a request may still wake
 *       a connection that has ended since.
 *   C4  Once peer.gone is set, no mutation of this connection takes effect (farswap/device.h).
 */
#ifndef FSW_NBD_CONN_H
#define FSW_NBD_CONN_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "client/nbd/arena.h"
#include "client/nbd/pace.h"
#include "client/nbd/room.h"
#include "client/nbd/wire.h"
#include "farswap/device.h"

/* Twice what the kernel sends at once, so that waiting reads leave room for local ones. */
#define FSW_CONN_REQUESTS 256u
/* What one read of the socket takes: 32 page writes are 129 KiB. */
#define FSW_CONN_IN_BYTES (256u << 10)
/* Answers of small requests, until they go out together. */
#define FSW_CONN_OUT_BYTES (256u << 10)
/* What the kernel's connections have of their arena, touched: three of its largest requests (1280 KiB),
 * or all it can have in flight when they are small. The rest waits in its socket. */
#define FSW_CONN_TOUCHED (4u << 20)
/* At the end of a large payload: what may be read with it that belongs to the next request, and has
 * to be copied if that is large as well. */
#define FSW_CONN_WINDOW 4096u
/* Connections at once; those above it are closed as they come. */
#define FSW_CONNS 64u
/* Of these, those that have a handshake before them, from one address. */
#define FSW_CONN_SHAKING_MAX 8u
#define FSW_CONN_SHAKE_NS (10ull * 1000000000ull)

enum fsw_conn_kind { FSW_CONN_HANDED, FSW_CONN_UNIX, FSW_CONN_TCP };
enum fsw_conn_state { FSW_CONN_FREE, FSW_CONN_SHAKING, FSW_CONN_SERVING };

struct fsw_request {
    struct fsw_io io;
    struct fsw_conn *conn;
    struct fsw_request *next;       /* of its list: idle, begun, to_room, answered */
    struct fsw_request *ended_next; /* of `ended` */
    int in_room;                    /* it waits, or has waited */
    char *block;                    /* its bytes in the arena, NULL: none */
    uint64_t cookie, since;
    struct fsw_wait *wait;         /* the waiting room's */
    struct fsw_request *wait_next; /* the same */
    int late;                      /* the same: it came while the fetch ran */
    char reply[FSW_WIRE_REPLY_BYTES];
};

struct fsw_list {
    struct fsw_request *first, **last;
};

struct fsw_conn {
    struct fsw_peer peer; /* shared */
    struct fsw_nbd *nbd;
    int prepared; /* all of its memory was touched: for the kernel */
    pthread_t thread;
    sem_t start;

    /* shared, under `lock` */
    pthread_mutex_t lock;
    int fd; /* -1: none */
    enum fsw_conn_kind kind;
    enum fsw_conn_state state;
    struct sockaddr_storage address;

    /* shared */
    _Atomic int says_goodbye; /* the client's last bytes are DISC: half closed is no hint then */
    _Atomic(struct fsw_request *) ended;
    _Atomic int asleep;
    int wake; /* eventfd */

    /* receiving */
    struct fsw_wire wire;
    char *in;
    size_t in_at, in_end, window;
    uint64_t came_at;            /* the bytes that were received last, CLOCK_MONOTONIC ns */
    unsigned luck, sleeps;       /* how often bytes came soon; see receive_soon */
    unsigned round;              /* small requests in the last round */
    struct fsw_pace pace;        /* of rounds */
    unsigned shun, shunned;      /* reads that shall not wait for the store here; see learn_store */
    struct fsw_request *filling; /* a large write whose payload is on its way, or there */
    size_t filled;

    /* requests */
    struct fsw_request *idle;
    struct fsw_list begun;   /* left to the crew, not seen to have ended */
    struct fsw_list to_room; /* have to wait; handed over together */
    unsigned out, waiting;   /* requests not idle; of these, reads in the room */
    int leaving;             /* nothing more is read: the client said so, or we give up */
    int giving_up;           /* a read has waited too long: all else is answered, then we close */
    int broken;              /* nobody listens any more */
    unsigned large;          /* large requests so far */
    uint64_t cost[2];        /* of large reads and writes on this thread: ns a MiB, about */

    /* answering */
    char *staging;
    size_t staged;
    struct iovec iov[1 + 2 * FSW_CONN_REQUESTS];
    unsigned iovs;
    size_t pending;               /* bytes in iov */
    struct fsw_request *answered; /* their bytes are in iov */

    struct fsw_arena arena;
    struct fsw_request requests[FSW_CONN_REQUESTS];
};

/* What all connections of a server share. */
struct fsw_nbd {
    struct fsw_device *device;
    const char *name, *description;
    uint64_t size;
    uint64_t timeout;  /* ns; T of the kernel at the other end of a handed socket */
    int timeout_given; /* 1: it holds for connections with a handshake as well */
    struct fsw_room room;
    unsigned cpus;            /* that we could run on when we began */
    _Atomic unsigned serving; /* connections in the transmission phase */
    pthread_mutex_t lock;     /* slots: who has which */
    struct fsw_conn *conns[FSW_CONNS];
    _Atomic(struct fsw_conn *) handed; /* the kernel's; NULL: none, or it has ended */
    int notice;                        /* eventfd: a handed connection has ended */
};

/* Makes `prepared` connections with their threads. -ENOMEM. */
int fsw_conns_init(struct fsw_nbd *nbd, unsigned prepared);

/* Touches what these will need, so that they can begin without memory. */
void fsw_conns_touch(struct fsw_nbd *nbd);

/* Begins to serve a socket, which is the connection's from now on, also on failure. A handed one is
 * in the transmission phase; the one before it is fenced. -EMFILE: too many. */
int fsw_conn_start(struct fsw_nbd *nbd, int fd, enum fsw_conn_kind kind,
                   const struct sockaddr_storage *address);

/* C4, and its socket is shut down. From any thread. */
void fsw_conn_fence(struct fsw_conn *conn);

/* Fences those of the same client (TCP), but not this one. */
void fsw_conns_fence_others(struct fsw_conn *conn);

/* serve.c: the transmission phase, to its end. On the connection's thread. */
void fsw_conn_serve(struct fsw_conn *conn);

/* A request that was out has ended. From any thread; neither blocks nor allocates. */
void fsw_request_ended(struct fsw_request *request);

static inline void fsw_list_init(struct fsw_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static inline void fsw_list_add(struct fsw_list *list, struct fsw_request *request)
{
    request->next = NULL;
    *list->last = request;
    list->last = &request->next;
}

#endif
