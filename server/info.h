/*
 * info.h: INFO, in redis's format, so that redis's tools and exporters read it.
 */
#ifndef FSW_SERVER_INFO_H
#define FSW_SERVER_INFO_H

#include "server/reply.h"
#include "server/request.h"
#include "server/server.h"

/* Appends one bulk reply: the sections that the arguments after the first name, or all. */
void fsw_info(const struct fsw_server *server, const struct fsw_request *request,
              struct fsw_reply *reply);

#endif
