/*
 * chores.h: what a donor does beside answering: looks after its host's memory each second (and at
 * once when the kernel says that tasks stall), gives freed memory back, shows strangers the door.
 */
#ifndef FSW_SERVER_CHORES_H
#define FSW_SERVER_CHORES_H

#include <uv.h>

#include "server/client.h"
#include "server/server.h"

struct fsw_chores {
    struct fsw_server *server;
    struct fsw_clients *clients;
    uv_timer_t second;
    uv_check_t after_io; /* is there something to give back? */
    uv_idle_t tidying;   /* runs while there is */
    uv_poll_t stall;
    int stall_fd; /* negative: no trigger */
};

/* 0 or negative UV_E…. */
int fsw_chores_start(struct fsw_chores *chores, uv_loop_t *loop, struct fsw_server *server,
                     struct fsw_clients *clients);
void fsw_chores_stop(struct fsw_chores *chores);

#endif
