/*
 * resp_conn.h: one connection to a RESP server, which comes back by itself when it is lost.
 *
 * It moves commands out and replies in, and knows nothing of requests: its owner (resp_lane) hears
 * through the hooks when it is up, of each reply in the order of the commands, and when it is down,
 * and then everything without a reply is unknown. After down() it connects again, first after 50
 * ms, then doubling up to 2 s, with jitter, and starts over from 50 ms once the owner is content().
 *
 * All calls and hooks on the loop's thread, but for one that is lent: its borrower's thread, and only
 * that, may say() and hear() until it is given back.
 */
#ifndef FSW_STORE_RESP_CONN_H
#define FSW_STORE_RESP_CONN_H

#include <stdatomic.h>
#include <stdint.h>
#include <uv.h>

#include "client/store/address.h"
#include "client/store/resp_wire.h"

struct resp_conn;

struct resp_conn_hooks {
    void (*up)(struct resp_conn *conn);
    void (*reply)(struct resp_conn *conn, const redisReply *reply);
    void (*turn)(struct resp_conn *conn); /* after a few replies, or when there is room again */
    void (*down)(struct resp_conn *conn, const char *why);
};

enum resp_conn_state {
    RESP_CONN_ENDED,   /* before open, after end */
    RESP_CONN_RESTING, /* waits for its next attempt */
    RESP_CONN_CONNECTING,
    RESP_CONN_UP,
    RESP_CONN_CLOSING, /* the handle is on its way out; RESTING or ENDED follows */
};

/* Commands wait in `fill` while `flight` is being written; then the two change places. */
struct resp_buffer {
    char *bytes;
    size_t used;
};

struct resp_conn {
    uv_loop_t *loop;
    const struct fsw_address *address;
    const struct resp_conn_hooks *hooks;
    void *owner;
    enum resp_conn_state state;
    unsigned ending;   /* end() was called */
    unsigned place;    /* of address->places, the one in use */
    uint64_t pause_ms; /* before the next attempt */
    uint64_t heard_ns; /* when bytes came last, or when it came up */
    uv_timer_t timer;  /* RESTING: the next attempt. Else, until content(): patience is over */
    uv_connect_t connect;
    uv_write_t write;
    unsigned writing;
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } socket;
    int lent; /* its descriptor; -1: it is not */
    redisReader *reader;
    size_t room; /* of each buffer */
    struct resp_buffer fill, flight;
    char *inbox;                              /* where the loop reads to */
    atomic_uint_fast64_t bytes_out, bytes_in; /* any thread may read these */
};

/* Allocates and touches the buffers: `room` bytes of commands can wait while as many are written.
 * 0 or -ENOMEM. */
int resp_conn_init(struct resp_conn *conn, size_t room);

/* Begins to connect, for ever until end(). Never fails: failures are retried. */
void resp_conn_open(struct resp_conn *conn, uv_loop_t *loop, const struct fsw_address *address,
                    const struct resp_conn_hooks *hooks, void *owner);

/* Puts a command behind the others: 0, or -ENOBUFS when there is no room now (turn() will tell).
 * It leaves with the next flush(). Only while up. */
int resp_conn_command(struct resp_conn *conn, const struct resp_word *words, size_t count);
void resp_conn_flush(struct resp_conn *conn);

/* The server answers as it should: the next loss is retried quickly. Until the owner says this the
 * connection has 3 seconds. */
void resp_conn_content(struct resp_conn *conn);

/* Drops the connection (with a reset: nothing that is still under way is delivered later) and
 * connects again. Calls down() first. Nothing happens unless it is up or connecting. */
void resp_conn_reset(struct resp_conn *conn, const char *why);

/* Somebody else has reached the server, by that place: a connection that rests tries now. */
void resp_conn_hurry(struct resp_conn *conn, unsigned place);

/* Up, with nothing to be written and no part of an answer: it can be lent. */
int resp_conn_is_quiet(const struct resp_conn *conn);

/* The loop does not look at the socket any more, until it is taken back. No other call on a connection
 * that is lent. */
void resp_conn_lend(struct resp_conn *conn);
void resp_conn_take_back(struct resp_conn *conn);

/* For its borrower. say: the command as a whole, or -errno; never blocks. hear: 1 and one answer, which
 * the caller frees; 0: it has not come as a whole; or -errno, and then the connection is of no more use.
 * It blocks only if `asleep`, until something comes, or one or two ticks of the kernel (4 ms each, mostly):
 * waiting in recv() costs 1.4 us less than poll() before it. resp_conn_why() says an error to people. */
int resp_conn_say(struct resp_conn *conn, const char *command, size_t length);
int resp_conn_hear(struct resp_conn *conn, int asleep, redisReply **ret_reply);
const char *resp_conn_why(int error);

/* For good: no hook is called any more; handles are closed when the loop has run dry. */
void resp_conn_end(struct resp_conn *conn);

/* After the loop has run dry, or without open(). Wipes the buffers: passwords went through. */
void resp_conn_deinit(struct resp_conn *conn);

#endif
