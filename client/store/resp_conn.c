/*
 * resp_conn.c: sockets by libuv, parsing by hiredis.
 *
 * hiredis's own asynchronous context is not used: it asserts, and so ends the process, when a peer
 * sends an answer too many, moves all that is unsent at every partial write, and allocates a copy
 * of every command. A swap device can't afford any of these.
 *
 * Invariants
 *  1. socket.handle is a live libuv handle in CONNECTING, UP and CLOSING, and in no other state.
 *  2. `flight` belongs to libuv while `writing`; a write's callback comes before its handle's close
 *     callback, so both buffers are free when the next attempt starts.
 *  3. down() is called exactly once for each up(), and also for an attempt that failed.
 */
#include "client/store/resp_conn.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "common/clock.h"

#define PAUSE_FIRST_MS 50
#define PAUSE_MOST_MS 2000
#define PATIENCE_MS 3000 /* from connect() to content() */

/* Sent bytes unacknowledged for this long mean a dead path; a silent one is probed after as long.
 */
#define SILENCE_MS 10000

/* One read of the socket, and one portion of it for the parser: hiredis moves what it has not
 * parsed yet down after each reply, so small portions are cheaper. */
#define READ_BYTES 65536
#define FEED_BYTES 16384

static const char not_resp[] = "what it sends is not an answer in RESP";
static const char too_long[] = "an answer is longer than anything that was asked for";
static const char closed[] = "it closed the connection";

static void conn_attempt(struct resp_conn *conn);

int resp_conn_init(struct resp_conn *conn, size_t room)
{
    memset(conn, 0, sizeof *conn);
    conn->room = room;
    conn->lent = -1;
    conn->fill.bytes = malloc(room);
    conn->flight.bytes = malloc(room);
    conn->inbox = malloc(READ_BYTES);
    if (conn->fill.bytes == NULL || conn->flight.bytes == NULL || conn->inbox == NULL) {
        resp_conn_deinit(conn);
        return -ENOMEM;
    }
    memset(conn->fill.bytes, 0, room);
    memset(conn->flight.bytes, 0, room);
    memset(conn->inbox, 0, READ_BYTES);
    return 0;
}

static void free_wiped(char **bytes, size_t size)
{
    if (*bytes != NULL)
        explicit_bzero(*bytes, size);
    free(*bytes);
    *bytes = NULL;
}

void resp_conn_deinit(struct resp_conn *conn)
{
    free_wiped(&conn->fill.bytes, conn->room);
    free_wiped(&conn->flight.bytes, conn->room);
    free_wiped(&conn->inbox, READ_BYTES);
    if (conn->reader != NULL)
        redisReaderFree(conn->reader);
    conn->reader = NULL;
}

/* ---- going down ---- */

static void on_timer(uv_timer_t *timer)
{
    struct resp_conn *conn = timer->data;

    if (conn->state == RESP_CONN_RESTING)
        conn_attempt(conn);
    else
        resp_conn_reset(conn, "no answer within 3 s");
}

/* Half to all of the pause, so that many hosts don't come back in step. */
static uint64_t jitter(uint64_t pause_ms)
{
    unsigned short dice = 0;

    if (getrandom(&dice, sizeof dice, GRND_NONBLOCK) < 0)
        dice = (unsigned short)uv_hrtime();
    return pause_ms / 2 + pause_ms * dice / 65536 / 2;
}

static void conn_rest(struct resp_conn *conn)
{
    conn->state = RESP_CONN_RESTING;
    if (conn->pause_ms > PAUSE_FIRST_MS) /* not the first failure in a row: try elsewhere */
        conn->place = (conn->place + 1) % conn->address->count;
    uv_timer_start(&conn->timer, on_timer, jitter(conn->pause_ms), 0);
    conn->pause_ms = conn->pause_ms * 2 < PAUSE_MOST_MS ? conn->pause_ms * 2 : PAUSE_MOST_MS;
}

static void on_closed(uv_handle_t *handle)
{
    struct resp_conn *conn = handle->data;

    if (conn->reader != NULL)
        redisReaderFree(conn->reader);
    conn->reader = NULL;
    conn->fill.used = conn->flight.used = 0;
    if (conn->ending)
        conn->state = RESP_CONN_ENDED;
    else
        conn_rest(conn);
}

static void conn_close(struct resp_conn *conn)
{
    conn->state = RESP_CONN_CLOSING;
    uv_timer_stop(&conn->timer);
    if (conn->socket.handle.type != UV_TCP || uv_tcp_close_reset(&conn->socket.tcp, on_closed) != 0)
        uv_close(&conn->socket.handle, on_closed);
}

static int conn_alive(const struct resp_conn *conn)
{
    return conn->state == RESP_CONN_CONNECTING || conn->state == RESP_CONN_UP;
}

void resp_conn_reset(struct resp_conn *conn, const char *why)
{
    if (!conn_alive(conn))
        return;
    conn_close(conn);
    conn->hooks->down(conn, why);
}

void resp_conn_hurry(struct resp_conn *conn, unsigned place)
{
    if (conn->state != RESP_CONN_RESTING || conn->ending)
        return;
    conn->place = place;
    conn_attempt(conn);
}

void resp_conn_end(struct resp_conn *conn)
{
    if (conn->ending)
        return;
    conn->ending = 1;
    if (conn_alive(conn))
        conn_close(conn);
    else if (conn->state == RESP_CONN_RESTING)
        conn->state = RESP_CONN_ENDED;
    uv_close((uv_handle_t *)&conn->timer, NULL);
}

/* ---- replies in ---- */

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *ret_buffer)
{
    struct resp_conn *conn = handle->data;

    *ret_buffer = uv_buf_init(conn->inbox, READ_BYTES);
}

/* Hands on every complete reply. The owner may reset the connection in the middle. */
static void take_replies(struct resp_conn *conn)
{
    while (conn->state == RESP_CONN_UP) {
        void *reply = NULL;

        if (redisReaderGetReply(conn->reader, &reply) != REDIS_OK) {
            resp_conn_reset(conn, not_resp);
            return;
        }
        if (reply == NULL)
            return;
        conn->hooks->reply(conn, reply);
        freeReplyObject(reply);
    }
}

static void feed(struct resp_conn *conn, const char *bytes, size_t length)
{
    if (redisReaderFeed(conn->reader, bytes, length) != REDIS_OK) {
        resp_conn_reset(conn, "no memory for an answer");
        return;
    }
    take_replies(conn);
    if (conn->state == RESP_CONN_UP && conn->reader->len - conn->reader->pos > RESP_UNPARSED_MOST)
        resp_conn_reset(conn, too_long);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct resp_conn *conn = stream->data;

    if (n == 0)
        return;
    if (n < 0) {
        resp_conn_reset(conn, n == UV_EOF ? closed : uv_strerror((int)n));
        return;
    }
    conn->heard_ns = fsw_now_ns();
    conn->bytes_in += (uint64_t)n;
    for (ssize_t at = 0; at < n && conn->state == RESP_CONN_UP; at += FEED_BYTES)
        feed(conn, buffer->base + at, (size_t)(n - at < FEED_BYTES ? n - at : FEED_BYTES));
    if (conn->state == RESP_CONN_UP)
        conn->hooks->turn(conn);
}

/* ---- commands out ---- */

int resp_conn_command(struct resp_conn *conn, const struct resp_word *words, size_t count)
{
    struct resp_buffer *fill = &conn->fill;

    if (resp_command_size(words, count) > conn->room - fill->used)
        return -ENOBUFS;
    fill->used += resp_command_write(fill->bytes + fill->used, words, count);
    return 0;
}

static void on_written(uv_write_t *write, int status)
{
    struct resp_conn *conn = write->data;

    conn->writing = 0;
    if (conn->state != RESP_CONN_UP)
        return;
    if (status < 0) {
        resp_conn_reset(conn, uv_strerror(status));
        return;
    }
    conn->bytes_out += conn->flight.used;
    conn->flight.used = 0;
    resp_conn_flush(conn);
    conn->hooks->turn(conn);
}

void resp_conn_flush(struct resp_conn *conn)
{
    struct resp_buffer full = conn->fill;
    uv_buf_t bytes;
    int r;

    if (conn->state != RESP_CONN_UP || conn->writing || full.used == 0)
        return;
    conn->fill = conn->flight;
    conn->flight = full;
    bytes = uv_buf_init(full.bytes, (unsigned)full.used);
    conn->writing = 1;
    r = uv_write(&conn->write, &conn->socket.stream, &bytes, 1, on_written);
    if (r < 0) {
        conn->writing = 0;
        resp_conn_reset(conn, uv_strerror(r));
    }
}

/* ---- lent ---- */

int resp_conn_is_quiet(const struct resp_conn *conn)
{
    return conn->state == RESP_CONN_UP && !conn->writing && conn->fill.used == 0 &&
           conn->reader->pos == conn->reader->len;
}

/* libuv leaves the descriptor in its epoll set until it is told of something there for the first time,
 * and nothing is told after that: so the loop is not woken by what the borrower reads. */
void resp_conn_lend(struct resp_conn *conn)
{
    const struct timeval tick = {.tv_usec = 1};
    uv_os_fd_t fd = -1;

    uv_read_stop(&conn->socket.stream);
    uv_fileno(&conn->socket.handle, &fd);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tick, sizeof tick);
    uv_stream_set_blocking(&conn->socket.stream, 1);
    conn->lent = fd;
}

void resp_conn_take_back(struct resp_conn *conn)
{
    int r = uv_stream_set_blocking(&conn->socket.stream, 0);

    if (r == 0)
        r = uv_read_start(&conn->socket.stream, on_alloc, on_read);
    conn->lent = -1;
    conn->heard_ns = fsw_now_ns();
    if (r < 0)
        resp_conn_reset(conn, uv_strerror(r));
}

int resp_conn_say(struct resp_conn *conn, const char *command, size_t length)
{
    ssize_t n = send(conn->lent, command, length, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (n < 0)
        return -errno;
    conn->bytes_out += (uint64_t)n;
    return (size_t)n == length ? 0 : -ENOBUFS;
}

/* An answer that fills the reader's buffer is one too many. */
static int one_reply(redisReader *reader, redisReply **ret_reply)
{
    void *reply = NULL;

    if (redisReaderGetReply(reader, &reply) != REDIS_OK)
        return -EPROTO;
    if (reply == NULL)
        return reader->len - reader->pos > RESP_UNPARSED_MOST ? -EMSGSIZE : 0;
    if (reader->pos != reader->len) {
        freeReplyObject(reply);
        return -EPROTO;
    }
    *ret_reply = reply;
    return 1;
}

int resp_conn_hear(struct resp_conn *conn, int asleep, redisReply **ret_reply)
{
    ssize_t n = recv(conn->lent, conn->inbox, READ_BYTES, asleep ? 0 : MSG_DONTWAIT);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    if (n == 0)
        return -EPIPE;
    conn->bytes_in += (uint64_t)n;
    if (redisReaderFeed(conn->reader, conn->inbox, (size_t)n) != REDIS_OK)
        return -ENOMEM;
    return one_reply(conn->reader, ret_reply);
}

const char *resp_conn_why(int error)
{
    switch (error) {
    case -EPROTO:
        return not_resp;
    case -EMSGSIZE:
        return too_long;
    case -EPIPE:
        return closed;
    default:
        return uv_strerror(error);
    }
}

/* ---- going up ---- */

static void tune_tcp(struct resp_conn *conn)
{
    unsigned silence_ms = SILENCE_MS;
    uv_os_fd_t fd;

    uv_tcp_nodelay(&conn->socket.tcp, 1);
    uv_tcp_keepalive(&conn->socket.tcp, 1, SILENCE_MS / 1000);
    if (uv_fileno(&conn->socket.handle, &fd) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, sizeof silence_ms);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct resp_conn *conn = connect->data;

    if (conn->state != RESP_CONN_CONNECTING)
        return;
    conn->reader = resp_reader_new();
    if (status == 0 && conn->reader == NULL)
        status = UV_ENOMEM;
    if (status == 0)
        status = uv_read_start(&conn->socket.stream, on_alloc, on_read);
    if (status < 0) {
        resp_conn_reset(conn, uv_strerror(status));
        return;
    }
    if (conn->socket.handle.type == UV_TCP)
        tune_tcp(conn);
    conn->state = RESP_CONN_UP;
    conn->heard_ns = fsw_now_ns();
    conn->hooks->up(conn);
    resp_conn_flush(conn);
}

static int start_connect(struct resp_conn *conn, const union fsw_sockaddr *place)
{
    if (place->any.sa_family == AF_UNIX) {
        uv_pipe_connect(&conn->connect, &conn->socket.pipe, place->path.sun_path, on_connected);
        return 0;
    }
    return uv_tcp_connect(&conn->connect, &conn->socket.tcp, &place->any, on_connected);
}

static void conn_attempt(struct resp_conn *conn)
{
    const union fsw_sockaddr *place = &conn->address->places[conn->place];
    int r;

    if (place->any.sa_family == AF_UNIX)
        uv_pipe_init(conn->loop, &conn->socket.pipe, 0);
    else
        uv_tcp_init(conn->loop, &conn->socket.tcp);
    conn->socket.handle.data = conn->connect.data = conn->write.data = conn;
    conn->state = RESP_CONN_CONNECTING;
    uv_timer_start(&conn->timer, on_timer, PATIENCE_MS, 0);
    r = start_connect(conn, place);
    if (r < 0)
        resp_conn_reset(conn, uv_strerror(r));
}

void resp_conn_open(struct resp_conn *conn, uv_loop_t *loop, const struct fsw_address *address,
                    const struct resp_conn_hooks *hooks, void *owner)
{
    conn->loop = loop;
    conn->address = address;
    conn->hooks = hooks;
    conn->owner = owner;
    conn->pause_ms = PAUSE_FIRST_MS;
    uv_timer_init(loop, &conn->timer);
    conn->timer.data = conn;
    conn_attempt(conn);
}

void resp_conn_content(struct resp_conn *conn)
{
    conn->pause_ms = PAUSE_FIRST_MS;
    uv_timer_stop(&conn->timer);
}
