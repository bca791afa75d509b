/*
 * conn.c: slots, threads, and the time before the transmission phase.
 */
#include "client/nbd/conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/nbd/shake.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/nudge.h"

/* TCP's patience with data that nobody acknowledges, as a part of T. */
#define TCP_PATIENCE(timeout) ((timeout) / 4 * 3)

/* ---- requests ---- */

void fsw_request_ended(struct fsw_request *request)
{
    struct fsw_conn *conn = request->conn;

    request->ended_next = atomic_load(&conn->ended);
    while (!atomic_compare_exchange_weak(&conn->ended, &request->ended_next, request))
        ;
    if (atomic_exchange(&conn->asleep, 0))
        eventfd_write(conn->wake, 1);
}

static void on_done(struct fsw_io *io)
{
    fsw_request_ended((struct fsw_request *)io);
}

/* ---- the peer ---- */

/* By poll: a Unix socket is hung up when the other end has closed, or shut down both ways; half
 * closed is still there. TCP can't tell the two apart, so a half is taken for the whole, unless the
 * client has said that it goes. */
static int is_gone(struct fsw_peer *peer)
{
    struct fsw_conn *conn = (struct fsw_conn *)peer;
    struct pollfd look = {.fd = conn->fd, .events = POLLRDHUP};

    if (poll(&look, 1, 0) <= 0)
        return 0;
    if (look.revents & (POLLHUP | POLLERR | POLLNVAL))
        return 1;
    return conn->kind == FSW_CONN_TCP && !conn->says_goodbye && (look.revents & POLLRDHUP);
}

void fsw_conn_fence(struct fsw_conn *conn)
{
    FSW_LOCK_SCOPE(&conn->lock);

    atomic_store(&conn->peer.gone, 1);
    if (conn->fd >= 0)
        shutdown(conn->fd, SHUT_RDWR);
}

static int same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family)
        return 0;
    if (a->ss_family == AF_INET6)
        return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr,
                      &((const struct sockaddr_in6 *)b)->sin6_addr, 16) == 0;
    return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
           ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

void fsw_conns_fence_others(struct fsw_conn *conn)
{
    struct fsw_nbd *nbd = conn->nbd;
    FSW_LOCK_SCOPE(&nbd->lock);

    for (unsigned i = 0; conn->kind == FSW_CONN_TCP && i < FSW_CONNS; i++) {
        struct fsw_conn *other = nbd->conns[i];
        if (other != NULL && other != conn && other->state == FSW_CONN_SERVING &&
            other->kind == FSW_CONN_TCP && same_host(&other->address, &conn->address))
            fsw_conn_fence(other);
    }
    conn->state = FSW_CONN_SERVING;
}

/* ---- the handshake ---- */

/* Waits for bytes until the deadline; how many came, 0 at the end, -errno. */
static ssize_t read_some(struct fsw_conn *conn, uint64_t deadline)
{
    struct pollfd wait = {.fd = conn->fd, .events = POLLIN};
    uint64_t now = fsw_now_ns();

    if (now >= deadline)
        return -ETIMEDOUT;
    poll(&wait, 1, (int)((deadline - now) / FSW_NS_PER_MS) + 1);
    ssize_t n =
        recv(conn->fd, conn->in + conn->in_end, FSW_CONN_IN_BYTES - conn->in_end, MSG_DONTWAIT);
    return n < 0 ? (errno == EAGAIN ? -ETIMEDOUT : -errno) : n;
}

static int send_all(struct fsw_conn *conn, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = send(conn->fd, bytes, length, MSG_NOSIGNAL);
        if (n < 0)
            return -errno;
        bytes += n;
        length -= (size_t)n;
    }
    return 0;
}

/* What was read beyond the handshake stays in conn->in. 0: transmission begins. */
static int shake_hands(struct fsw_conn *conn)
{
    struct fsw_nbd *nbd = conn->nbd;
    struct fsw_shake shake = {
        .name = nbd->name,
        .size = nbd->size,
        .multi_conn = conn->kind == FSW_CONN_UNIX,
        .description = conn->nbd->description,
    };
    uint64_t deadline = fsw_now_ns() + FSW_CONN_SHAKE_NS;
    char out[FSW_SHAKE_OUT];
    size_t used, length;

    fsw_shake_greet(out);
    int r = send_all(conn, out, FSW_SHAKE_GREETING_BYTES);
    while (r == 0) {
        int found = fsw_shake_next(&shake, conn->in + conn->in_at, conn->in_end - conn->in_at,
                                   &used, out, &length);
        conn->in_at += used;
        if (found < 0)
            return found;
        if (found == FSW_SHAKE_GO && is_gone(&conn->peer))
            return -EPIPE; /* and the connection that it may have now stays */
        if (found == FSW_SHAKE_GO)
            fsw_conns_fence_others(conn);
        r = send_all(conn, out, length);
        if (found == FSW_SHAKE_GO || found == FSW_SHAKE_END)
            return r == 0 && found == FSW_SHAKE_END ? -ESHUTDOWN : r;
        if (found == FSW_SHAKE_NEXT)
            continue;
        memmove(conn->in, conn->in + conn->in_at, conn->in_end - conn->in_at);
        conn->in_end -= conn->in_at;
        conn->in_at = 0;
        ssize_t n = read_some(conn, deadline);
        if (n <= 0)
            return n < 0 ? (int)n : -EPIPE;
        conn->in_end += (size_t)n;
    }
    return r;
}

/* ---- the thread ---- */

static void set_tcp_options(const struct fsw_conn *conn)
{
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};
    unsigned patience = (unsigned)(TCP_PATIENCE(conn->nbd->timeout) / FSW_NS_PER_MS);
    int one = 1;

    setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(conn->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    setsockopt(conn->fd, IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof one);
    setsockopt(conn->fd, IPPROTO_TCP, TCP_KEEPINTVL, &one, sizeof one);
    setsockopt(conn->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
    setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* Replies to a batch should not wait for the client to read. */
static void set_buffers(const struct fsw_conn *conn)
{
    int bytes = 1 << 20;

    if (setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
        setsockopt(conn->fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static void reset(struct fsw_conn *conn)
{
    conn->wire = (struct fsw_wire){.size = conn->nbd->size};
    conn->in_at = conn->in_end = conn->staged = 0;
    conn->window = FSW_CONN_IN_BYTES;
    conn->luck = conn->sleeps = conn->round = conn->shun = conn->shunned = 0;
    fsw_pace_init(&conn->pace);
    conn->filling = conn->answered = NULL;
    conn->out = conn->waiting = 0;
    conn->iovs = 1; /* the first is for what is staged */
    conn->pending = 0;
    conn->leaving = conn->giving_up = conn->broken = 0;
    atomic_store(&conn->says_goodbye, 0);
    fsw_list_init(&conn->begun);
    fsw_list_init(&conn->to_room);
}

/* Only who is not there any more is reset: a client that has said goodbye reads on to our end. */
static void close_softly(const struct fsw_conn *conn)
{
    const struct linger none = {.l_onoff = 0};

    if (!atomic_load(&conn->peer.gone))
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
}

static void leave_slot(struct fsw_conn *conn)
{
    struct fsw_nbd *nbd = conn->nbd;
    struct fsw_conn *mine = conn;
    int told;

    if (!conn->prepared)
        fsw_arena_reset(&conn->arena);
    close_softly(conn);
    pthread_mutex_lock(&conn->lock);
    close(conn->fd);
    conn->fd = -1;
    pthread_mutex_unlock(&conn->lock);
    pthread_mutex_lock(&nbd->lock);
    told = atomic_compare_exchange_strong(&nbd->handed, &mine, NULL);
    conn->state = FSW_CONN_FREE;
    if (told) /* under the lock: not after the next one is served */
        eventfd_write(nbd->notice, 1);
    pthread_mutex_unlock(&nbd->lock);
}

static void *conn_loop(void *opaque)
{
    struct fsw_conn *conn = opaque;
    char stack[64 << 10];

    memset(stack, 1, sizeof stack); /* touched before it is needed */
    __asm__ volatile("" ::"r"(stack) : "memory");
    fsw_nudge_prepare();
    for (;;) {
        while (sem_wait(&conn->start) < 0) /* EINTR */
            ;
        reset(conn);
        set_buffers(conn);
        if (conn->kind == FSW_CONN_TCP)
            set_tcp_options(conn);
        if (conn->kind == FSW_CONN_HANDED || shake_hands(conn) == 0)
            fsw_conn_serve(conn);
        leave_slot(conn);
    }
    return NULL;
}

/* ---- slots ---- */

static void deinit_conn(struct fsw_conn *conn)
{
    if (conn->in != NULL)
        munmap(conn->in, FSW_CONN_IN_BYTES + FSW_CONN_OUT_BYTES);
    if (conn->arena.base != NULL)
        fsw_arena_deinit(&conn->arena);
    if (conn->wake >= 0)
        close(conn->wake);
    free(conn);
}

static int start_thread(struct fsw_conn *conn)
{
    int r = pthread_create(&conn->thread, NULL, conn_loop, conn);

    if (r == 0)
        pthread_setname_np(conn->thread, "fsw-conn");
    return -r;
}

static int init_conn(struct fsw_conn *conn, struct fsw_nbd *nbd)
{
    void *buffers = mmap(NULL, FSW_CONN_IN_BYTES + FSW_CONN_OUT_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    conn->nbd = nbd;
    conn->fd = -1;
    conn->peer.is_gone = is_gone;
    conn->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&conn->lock, NULL);
    sem_init(&conn->start, 0, 0);
    for (unsigned i = 0; i < FSW_CONN_REQUESTS; i++) {
        conn->requests[i].conn = conn;
        conn->requests[i].io.done = on_done;
        conn->requests[i].next = conn->idle;
        conn->idle = &conn->requests[i];
    }
    if (buffers == MAP_FAILED || conn->wake < 0 || fsw_arena_init(&conn->arena) < 0)
        return -ENOMEM;
    conn->in = buffers;
    conn->staging = conn->in + FSW_CONN_IN_BYTES;
    return start_thread(conn);
}

static struct fsw_conn *new_conn(struct fsw_nbd *nbd)
{
    struct fsw_conn *conn = calloc(1, sizeof *conn);

    if (conn != NULL && init_conn(conn, nbd) < 0) {
        deinit_conn(conn);
        conn = NULL;
    }
    return conn;
}

void fsw_conns_touch(struct fsw_nbd *nbd)
{
    for (unsigned i = 0; i < FSW_CONNS; i++)
        if (nbd->conns[i] != NULL && nbd->conns[i]->prepared) {
            memset(nbd->conns[i]->in, 1, FSW_CONN_IN_BYTES + FSW_CONN_OUT_BYTES);
            memset(nbd->conns[i]->arena.base, 1, FSW_CONN_TOUCHED);
        }
}

/* A container, or a unit's CPUAffinity=, may give us fewer than are online. */
static unsigned usable_cpus(void)
{
    cpu_set_t set;

    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return (unsigned)CPU_COUNT(&set);
    return (unsigned)sysconf(_SC_NPROCESSORS_ONLN); /* more than a set holds */
}

int fsw_conns_init(struct fsw_nbd *nbd, unsigned prepared)
{
    pthread_mutex_init(&nbd->lock, NULL);
    nbd->cpus = usable_cpus();
    nbd->notice = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (nbd->notice < 0)
        return -errno;
    for (unsigned i = 0; i < prepared; i++) {
        nbd->conns[i] = new_conn(nbd);
        if (nbd->conns[i] == NULL)
            return -ENOMEM;
        nbd->conns[i]->prepared = 1;
    }
    return 0;
}

static int too_many_shaking(struct fsw_nbd *nbd, const struct sockaddr_storage *address)
{
    unsigned count = 0;

    for (unsigned i = 0; i < FSW_CONNS; i++) {
        const struct fsw_conn *conn = nbd->conns[i];
        count += conn != NULL && conn->state == FSW_CONN_SHAKING && conn->kind == FSW_CONN_TCP &&
                 same_host(&conn->address, address);
    }
    return count >= FSW_CONN_SHAKING_MAX;
}

/* A slot that is free; prepared ones are the kernel's. Under nbd->lock. */
static struct fsw_conn *find_slot(struct fsw_nbd *nbd, int prepared)
{
    for (unsigned i = 0; i < FSW_CONNS; i++) {
        if (nbd->conns[i] == NULL)
            nbd->conns[i] = new_conn(nbd);
        if (nbd->conns[i] == NULL)
            return NULL;
        if (nbd->conns[i]->state == FSW_CONN_FREE && nbd->conns[i]->prepared == prepared)
            return nbd->conns[i];
    }
    return NULL;
}

static int start_locked(struct fsw_nbd *nbd, struct fsw_conn *conn, int fd, enum fsw_conn_kind kind,
                        const struct sockaddr_storage *address)
{
    conn->kind = kind;
    conn->state = kind == FSW_CONN_HANDED ? FSW_CONN_SERVING : FSW_CONN_SHAKING;
    if (address != NULL)
        conn->address = *address;
    pthread_mutex_lock(&conn->lock);
    conn->fd = fd;
    atomic_store(&conn->peer.gone, 0);
    atomic_store(&conn->peer.looked_at, 0);
    pthread_mutex_unlock(&conn->lock);
    if (kind == FSW_CONN_HANDED)
        atomic_store(&nbd->handed, conn);
    sem_post(&conn->start);
    return 0;
}

int fsw_conn_start(struct fsw_nbd *nbd, int fd, enum fsw_conn_kind kind,
                   const struct sockaddr_storage *address)
{
    FSW_LOCK_SCOPE(&nbd->lock);
    struct fsw_conn *before = kind == FSW_CONN_HANDED ? atomic_exchange(&nbd->handed, NULL) : NULL;
    eventfd_t count;

    if (before != NULL)
        fsw_conn_fence(before);
    if (kind == FSW_CONN_HANDED)
        eventfd_read(nbd->notice, &count); /* of the one before; nobody wants to know now */
    struct fsw_conn *conn = find_slot(nbd, kind == FSW_CONN_HANDED);
    if (conn == NULL && kind == FSW_CONN_HANDED)
        conn = find_slot(nbd, 0);
    if (conn == NULL || (kind == FSW_CONN_TCP && too_many_shaking(nbd, address))) {
        close(fd);
        return -EMFILE;
    }
    return start_locked(nbd, conn, fd, kind, address);
}
