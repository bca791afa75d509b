/*
 * resp_lane.h: requests over one connection: which go out, which wait, which are given up.
 *
 *     waiting ──▶ flights (ring, in the order of the replies) ──▶ done()
 *        ▲            │ "later"      │ GET came back empty
 *        └─ resting ◀─┘              └▶ asking ──▶ flight of its own: still our sentinel?
 *
 * All on the loop's thread.
 */
#ifndef FSW_STORE_RESP_LANE_H
#define FSW_STORE_RESP_LANE_H

#include <stdint.h>

#include "client/store/requests.h"
#include "client/store/resp_conn.h"

struct resp_store;

/* What a reply will be the answer to. */
enum resp_flight_kind {
    RESP_FLIGHT_REQUEST, /* the request's own command */
    RESP_FLIGHT_CHECK,   /* GET of the sentinel, for a request that came back empty */
    RESP_FLIGHT_AUTH,    /* the greeting: before any request */
    RESP_FLIGHT_LEAVE,   /* the sentinel is SET */
    RESP_FLIGHT_SEEN,    /* the sentinel is looked at */
};

/* Apart from the request, because it outlives it: a request that is given up at its deadline goes
 * back to its caller, and its flight stays, with request NULL, until the reply or the connection's
 * end. */
struct resp_flight {
    enum resp_flight_kind kind;
    unsigned left; /* 1: the sentinel was there when this went out, so it must be seen */
    struct fsw_store_request *request;
};

enum resp_lane_kind {
    RESP_LANE_GETS,
    RESP_LANE_PUTS,  /* and drops */
    RESP_LANE_QUICK, /* see resp_quick.h */
};

struct resp_lane {
    struct resp_store *store;
    struct resp_conn conn;
    enum resp_lane_kind kind;
    unsigned ready;   /* greeted: requests may go out */
    unsigned ever;    /* was ready before */
    unsigned emptied; /* this connection's peer did not show the sentinel that was left */
    struct fsw_requests waiting, asking, resting;
    struct resp_flight *ring;
    unsigned window, head, count; /* of the ring */
    uint64_t quiet_since_ns;      /* flights went out after a time without any */
    uint64_t silence_ns;          /* with flights out: how long a peer may say nothing */
};

/* Allocates. 0 or -ENOMEM. */
int resp_lane_init(struct resp_lane *lane, struct resp_store *store, enum resp_lane_kind kind);
void resp_lane_deinit(struct resp_lane *lane);

void resp_lane_open(struct resp_lane *lane);

/* Takes a request on; it goes out with the next pump(). */
void resp_lane_add(struct resp_lane *lane, struct fsw_store_request *request);
void resp_lane_pump(struct resp_lane *lane);

/* A request whose command was sent already, by another, and is the only one. */
void resp_lane_adopt(struct resp_lane *lane, struct fsw_store_request *request);

/* 1: nothing is out, and nothing waits here for any reason. */
int resp_lane_is_idle(const struct resp_lane *lane);

/* Every 50 ms: gives up what is past its deadline, wakes what has rested, resets a connection that
 * has requests in flight and has said nothing for 10 s. Returns how many requests the lane has. */
size_t resp_lane_sweep(struct resp_lane *lane, uint64_t now);

/* Answers everything with UNREACHABLE, and goes on. */
void resp_lane_give_up(struct resp_lane *lane);

/* The command of a GET; returns its length. */
#define RESP_GET_TEXT 192
size_t resp_get_write(char to[RESP_GET_TEXT], const struct fsw_device_id *device,
                      const struct fsw_store_request *request);

/* Answers everything with UNREACHABLE and ends the connection. */
void resp_lane_end(struct resp_lane *lane);

#endif
