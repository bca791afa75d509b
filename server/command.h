/*
 * command.h: what a peer can ask for.
 */
#ifndef FSW_SERVER_COMMAND_H
#define FSW_SERVER_COMMAND_H

#include "server/reply.h"
#include "server/request.h"
#include "server/server.h"

/* Appends exactly one reply. The request stays the caller's. Neither blocks nor fails. */
void fsw_command_run(struct fsw_session *session, struct fsw_request *request,
                     struct fsw_reply *reply);

#endif
