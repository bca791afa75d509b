/*
 * client.h: one connection, from accept to close.
 *
 * A client is known to the rest by its session, in the server's list; it frees itself when libuv has
 * let go of its handle. One thread, the loop's.
 */
#ifndef FSW_SERVER_CLIENT_H
#define FSW_SERVER_CLIENT_H

#include <uv.h>

#include "server/server.h"

/* What one read takes at most. With 16 or 32 KiB, and large arguments read straight to their slot, a
 * SET of 65,520 bytes took the donor 15.8 and 16.7 us of CPU; with this, and a copy, 15.0. */
#define FSW_READ_BYTES (128 * 1024)

struct fsw_client;

struct fsw_clients {
    struct fsw_server *server;
    uv_loop_t *loop;
    uv_idle_t others_first; /* goes on with clients whose turn was cut short, while there are any */
    unsigned cut_short;
    char bytes[FSW_READ_BYTES]; /* lent to one read at a time: all reads are used up at once */
};

/* 0 or negative UV_E…. */
int fsw_clients_init(struct fsw_clients *clients, uv_loop_t *loop, struct fsw_server *server);
/* Once a second. Closes those who stayed too long without a password, or in the middle of a request,
 * or do not read their answers. */
void fsw_clients_show_door(struct fsw_clients *clients);
/* Starts to close all clients; they are gone when the loop has run out. */
void fsw_clients_close(struct fsw_clients *clients);

/* Accepts one connection from a listening stream. At the limit it is told so and closed. */
void fsw_client_accept(struct fsw_clients *clients, uv_stream_t *listener);

#endif
