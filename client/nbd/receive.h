/*
 * receive.h: the bytes of a connection. On its thread.
 */
#ifndef FSW_NBD_RECEIVE_H
#define FSW_NBD_RECEIVE_H

#include "client/nbd/conn.h"

/* The write whose payload is on its way has all of it. */
static inline int fsw_conn_is_whole(const struct fsw_conn *conn)
{
    return conn->filling != NULL && conn->filled == conn->filling->io.length;
}

/* Bytes read, 0 at the end of the stream, or -errno (-EAGAIN: none now). `flags` are recvmsg's. */
ssize_t fsw_conn_receive(struct fsw_conn *conn, int flags);

/* A round is done, and what it answers is about to be sent: waits for a moment, where that pays (pace.h). */
void fsw_conn_pace(struct fsw_conn *conn);

/* Looks for a moment whether something comes, before the thread goes to sleep: waking it costs more
 * than that, for both sides. Only as long as it mostly comes: an idle connection costs nothing, and
 * where the client needs this very CPU, nothing comes while we look. */
ssize_t fsw_conn_receive_soon(struct fsw_conn *conn);

#endif
