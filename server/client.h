/*
 * client.h: one connection, from accept to close.
 *
 * Clients belong to a list that the listener and the program's end see; each frees itself when
 * libuv has let go of its handle. One thread, the loop's.
 */
#ifndef FSW_SERVER_CLIENT_H
#define FSW_SERVER_CLIENT_H

#include <uv.h>

#include "server/server.h"

/* What one read takes at most. CPU of the donor a SET of 65,520 bytes: 11 us with 64 KiB, 9.5 with
 * this and with 256 KiB (redis 7.0.15: 12). */
#define FSW_READ_BYTES (128 * 1024)

struct fsw_client;

struct fsw_clients {
    struct fsw_server *server;
    uv_loop_t *loop;
    struct fsw_client *first;
    uv_timer_t doorman;         /* closes strangers who stay too long */
    char bytes[FSW_READ_BYTES]; /* lent to one read at a time: all reads are used up at once */
};

/* 0 or negative UV_E…. */
int fsw_clients_init(struct fsw_clients *clients, uv_loop_t *loop, struct fsw_server *server);
/* Starts to close all clients; they are gone when the loop has run out. */
void fsw_clients_close(struct fsw_clients *clients);

/* Accepts one connection from a listening stream. At the limit it is told so and closed. */
void fsw_client_accept(struct fsw_clients *clients, uv_stream_t *listener);

#endif
