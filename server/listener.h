/*
 * listener.h: the sockets that clients come to.
 */
#ifndef FSW_SERVER_LISTENER_H
#define FSW_SERVER_LISTENER_H

#include <uv.h>

#include "farswap/error.h"
#include "server/client.h"
#include "server/options.h"

/* "[v6 address]:port" or "unix:" and a path */
#define FSW_LISTENER_TEXT 128

struct fsw_listener {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    struct fsw_clients *clients;
    char text[FSW_LISTENER_TEXT]; /* where it listens, with the port that it got */
    int port;                     /* 0: a Unix socket */
};

struct fsw_listeners {
    struct fsw_listener of[FSW_LISTEN_MAX + 1];
    unsigned count;
};

/* Listens wherever the options say. On failure: negative errno and one line; what was opened is
 * in *listeners and must be closed. A Unix socket that nobody serves any more is replaced, one
 * that is served refused. May block while it asks who serves it (connect on this machine). */
int fsw_listeners_open(struct fsw_listeners *listeners, const struct fsw_server_options *options,
                       struct fsw_clients *clients, struct fsw_error *err);
/* Starts to close; libuv removes the Unix socket's file. */
void fsw_listeners_close(struct fsw_listeners *listeners);

#endif
