/*
 * server.h: what all connections of one donor share. No sockets in here: commands run without them.
 */
#ifndef FSW_SERVER_SERVER_H
#define FSW_SERVER_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/keyspace.h"
#include "server/limits.h"
#include "server/pressure.h"

/* Grow only, since the start. One line each: X(name in INFO). */
#define FSW_SERVER_COUNTERS(X)                                                                     \
    X(total_connections_received)                                                                  \
    X(total_commands_processed)                                                                    \
    X(total_net_input_bytes)                                                                       \
    X(total_net_output_bytes)                                                                      \
    X(rejected_connections)                                                                        \
    X(keyspace_hits)                                                                               \
    X(keyspace_misses)                                                                             \
    X(protocol_errors)                                                                             \
    X(unknown_commands)                                                                            \
    X(auth_failures)                                                                               \
    X(refused_for_host)

struct fsw_server_counters {
#define FSW_COUNTER_FIELD(name) uint64_t name;
    FSW_SERVER_COUNTERS(FSW_COUNTER_FIELD)
#undef FSW_COUNTER_FIELD
};

struct fsw_session;

struct fsw_server {
    struct fsw_keyspace *keyspace;
    struct fsw_pressure pressure;
    const char *name;
    bool named;           /* the image stays when we end */
    const char *password; /* NULL: none needed */
    int port;             /* of the first TCP address; 0: none */
    uint64_t started;     /* CLOCK_MONOTONIC ns */
    unsigned patience;    /* seconds: instead of each FSW_MAX_..._SECONDS */
    struct fsw_server_counters counters;
    struct fsw_limit_hits hits;
    /* gauges */
    uint64_t clients, clients_paused, output_bytes;
    struct fsw_session *sessions;
    /* Ends the connection: what it sent and we have not run, will not run. The session stays until
     * its connection is closed, which is not at once. NULL: there are no connections (tests). */
    void (*kill)(struct fsw_session *session);
};

#define FSW_SESSION_NAME 65
#define FSW_SESSION_ADDRESS 64

/* What commands know of the connection that they came on. */
struct fsw_session {
    struct fsw_server *server;
    struct fsw_session *next, *previous; /* of the server's */
    uint64_t id;                         /* of the connection, never used twice */
    bool welcome;                        /* showed the password, or none is needed */
    bool admin;                          /* came by the Unix socket */
    bool resp3;
    bool closing; /* set by QUIT: answer, then close */
    bool killed;
    uint64_t since, heard; /* accepted, and the last command: CLOCK_MONOTONIC ns */
    uint64_t commands;
    const char *command; /* the last one's name */
    char host[40];       /* its address without the port, or "unix" */
    char address[FSW_SESSION_ADDRESS];
    char name[FSW_SESSION_NAME];
};

#endif
