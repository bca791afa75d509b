/*
 * answer.c: what goes out to a client: answers of small requests, in one piece, and those of large
 * ones, where their bytes are; all that is ready with one call.
 */
#include "client/nbd/answer.h"

#include <errno.h>
#include <sys/socket.h>

#include "common/nudge.h"
#include "common/priority.h"

/* Answers are sent when so many bytes of large reads are ready: one, so that the client has
 * something to do meanwhile, and its bytes are still in the cache. */
#define FLUSH_BYTES (64u << 10)

static int send_iov(struct fsw_conn *conn)
{
    struct msghdr message = {.msg_iov = conn->iov, .msg_iovlen = conn->iovs};

    while (message.msg_iovlen > 0) {
        ssize_t n = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n < 0)
            continue;
        while (message.msg_iovlen > 0 && (size_t)n >= message.msg_iov->iov_len) {
            n -= (ssize_t)message.msg_iov->iov_len;
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (message.msg_iovlen > 0) {
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + n;
            message.msg_iov->iov_len -= (size_t)n;
        }
    }
    return 0;
}

/* The kernel takes memory for what it is given: when that is short, it must not be waited for. */
static int send_in_need(struct fsw_conn *conn)
{
    if (!fsw_priority_is_raised())
        return send_iov(conn);
    fsw_nudge_begin();
    int r = send_iov(conn);
    fsw_nudge_end();
    return r;
}

void fsw_conn_release(struct fsw_conn *conn, struct fsw_request *request)
{
    if (request->block != NULL)
        fsw_arena_give(&conn->arena, request->block, request->io.length);
    request->block = NULL;
    request->in_room = 0;
    request->next = conn->idle;
    conn->idle = request;
    conn->out--;
}

/* Nobody is there to be answered, or nobody that can be trusted. */
void fsw_conn_break_off(struct fsw_conn *conn)
{
    atomic_store(&conn->peer.gone, 1);
    conn->broken = conn->leaving = 1;
}

/* Sends what there is to send. */
void fsw_conn_flush(struct fsw_conn *conn)
{
    int r = 0;

    conn->iov[0] = (struct iovec){.iov_base = conn->staging, .iov_len = conn->staged};
    if (!conn->broken && (conn->staged > 0 || conn->iovs > 1))
        r = send_in_need(conn);
    conn->staged = conn->pending = 0;
    conn->iovs = 1;
    while (conn->answered != NULL) {
        struct fsw_request *request = conn->answered;
        conn->answered = request->next;
        fsw_conn_release(conn, request);
    }
    if (r < 0)
        fsw_conn_break_off(conn);
}

/* Room in `staging` for an answer. */
char *fsw_conn_stage(struct fsw_conn *conn, size_t bytes)
{
    if (FSW_CONN_OUT_BYTES - conn->staged < bytes)
        fsw_conn_flush(conn);
    return conn->staging + conn->staged;
}

void fsw_conn_answer_small(struct fsw_conn *conn, uint64_t cookie, uint32_t error)
{
    fsw_wire_reply(fsw_conn_stage(conn, FSW_WIRE_REPLY_BYTES), cookie, error);
    conn->staged += FSW_WIRE_REPLY_BYTES;
}

static void add_iov(struct fsw_conn *conn, void *bytes, size_t length)
{
    conn->iov[conn->iovs++] = (struct iovec){.iov_base = bytes, .iov_len = length};
    conn->pending += length;
}

void fsw_conn_answer(struct fsw_conn *conn, struct fsw_request *request)
{
    const struct fsw_io *io = &request->io;

    fsw_wire_reply(request->reply, request->cookie, fsw_wire_error_of(io->result));
    add_iov(conn, request->reply, FSW_WIRE_REPLY_BYTES);
    if (io->verb == FSW_READ && io->result == 0)
        add_iov(conn, io->bytes, io->length);
    request->next = conn->answered;
    conn->answered = request;
    if (conn->pending >= FLUSH_BYTES)
        fsw_conn_flush(conn);
}
