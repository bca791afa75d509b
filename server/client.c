/*
 * client.c: reads, lets commands run, writes; and stops reading from who does not read.
 *
 *     bytes ─ parser ─ request ─ command ─┐
 *                                         reply (all of this turn) ─ one uv_write
 *
 * A turn answers what one read brought, until the client's unread answers pass FSW_MAX_OUTPUT. Then
 * the client is paused: the rest of the read is kept, nothing more is read, and the turn goes on
 * when the kernel has taken enough. So a client that pipelines and never reads costs its limit and
 * no more, and others do not notice.
 *
 * Invariants:
 *  1. paused == the stream is not being read == kept may hold bytes;
 *  2. output is the sum of the bytes of all writes that libuv still has;
 *  3. a client is freed when its handle is closed, which is after the last write's callback.
 */
#include "server/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "server/command.h"
#include "server/reply.h"
#include "server/request.h"

#define KEEPALIVE_SECONDS 60
#define DOORMAN_MS 1000

struct fsw_client {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    struct fsw_clients *clients;
    struct fsw_client *next, *previous;
    struct fsw_session session;
    struct fsw_parser *parser;
    uint64_t since;  /* accepted: CLOCK_MONOTONIC ns */
    uint64_t output; /* bytes that wait for the kernel */
    bool paused;
    bool last_words; /* close when all is written */
    char *kept;      /* what was read and not parsed when we paused */
};

struct write {
    uv_write_t request;
    struct fsw_client *client;
    struct fsw_reply reply;
};

/* ---- life ---- */

static void on_closed(uv_handle_t *handle)
{
    struct fsw_client *client = handle->data;
    struct fsw_clients *clients = client->clients;

    *(client->previous != NULL ? &client->previous->next : &clients->first) = client->next;
    if (client->next != NULL)
        client->next->previous = client->previous;
    clients->server->clients--;
    clients->server->clients_paused -= client->paused;
    fsw_parser_free(client->parser);
    free(client->kept);
    free(client);
}

static void client_close(struct fsw_client *client)
{
    if (!uv_is_closing(&client->handle))
        uv_close(&client->handle, on_closed);
}

static void link_client(struct fsw_clients *clients, struct fsw_client *client)
{
    client->next = clients->first;
    if (client->next != NULL)
        client->next->previous = client;
    clients->first = client;
    clients->server->clients++;
}

/* ---- writing ---- */

static void resume(struct fsw_client *client);

static void write_free(struct write *write)
{
    struct fsw_client *client = write->client;

    client->output -= write->reply.bytes;
    client->clients->server->output_bytes -= write->reply.bytes;
    fsw_reply_clear(&write->reply);
    free(write);
}

static void on_written(uv_write_t *request, int status)
{
    struct write *write = request->data;
    struct fsw_client *client = write->client;

    if (status == 0)
        client->clients->server->counters.total_net_output_bytes += write->reply.bytes;
    write_free(write);
    if (status < 0)
        client_close(client);
    else if (client->last_words && client->output == 0)
        client_close(client);
    else if (client->paused && client->output <= FSW_MAX_OUTPUT / 2)
        resume(client);
}

/* Takes the reply over. Few pieces, the common case, need no memory for their list. */
static int start_write(struct write *write)
{
    uv_buf_t few[32] = {0}, *buffers = few;
    size_t pieces = write->reply.pieces;
    int r;

    if (pieces > sizeof few / sizeof few[0])
        buffers = malloc(pieces * sizeof *buffers);
    if (buffers == NULL)
        return UV_ENOMEM;
    for (size_t i = 0; i < pieces; i++) {
        struct iovec piece = fsw_reply_piece(&write->reply, i);
        buffers[i] = uv_buf_init(piece.iov_base, (unsigned)piece.iov_len);
    }
    r = uv_write(&write->request, &write->client->stream, buffers, (unsigned)pieces, on_written);
    if (buffers != few)
        free(buffers);
    return r;
}

static void client_write(struct fsw_client *client, struct fsw_reply *reply)
{
    struct write *write = reply->failed ? NULL : malloc(sizeof *write);

    if (write == NULL) {
        fsw_reply_clear(reply);
        client_close(client);
        return;
    }
    *write = (struct write){.client = client, .reply = *reply};
    write->request.data = write;
    client->output += reply->bytes;
    client->clients->server->output_bytes += reply->bytes;
    if (start_write(write) < 0) {
        write_free(write);
        client_close(client);
    }
}

/* ---- reading ---- */

static bool output_full(const struct fsw_client *client, const struct fsw_reply *reply)
{
    return client->output + reply->bytes >= FSW_MAX_OUTPUT;
}

/* Runs what the parser has, until it has no more, or the client must read first. */
static int run_requests(struct fsw_client *client, struct fsw_reply *reply)
{
    struct fsw_request *request;
    int r = 0;

    while (!client->session.closing && !output_full(client, reply)) {
        r = fsw_parser_next(client->parser, &request);
        if (r <= 0)
            break;
        fsw_command_run(&client->session, request, reply);
        fsw_request_free(request);
        fsw_parser_set_stranger(client->parser, !client->session.welcome);
    }
    return r;
}

/* Stops reading, and keeps what of the last read the parser has not seen. */
static void pause_client(struct fsw_client *client)
{
    struct fsw_server *server = client->clients->server;
    const char *left;
    size_t length = fsw_parser_lent(client->parser, &left);
    char *kept = malloc(length + 1);

    if (kept == NULL) {
        client_close(client);
        return;
    }
    memcpy(kept, left, length);
    free(client->kept);
    client->kept = kept;
    fsw_parser_lend(client->parser, kept, length);
    if (!client->paused) {
        client->paused = true;
        server->clients_paused++;
        server->hits.of[FSW_LIMIT_OUTPUT]++;
        uv_read_stop(&client->stream);
    }
}

static void take_turn(struct fsw_client *client)
{
    struct fsw_reply reply = {0};
    int r = run_requests(client, &reply);
    bool full = output_full(client, &reply);

    if (r == -EPROTO) {
        client->clients->server->counters.protocol_errors++;
        fsw_reply_error(&reply, "ERR Protocol error: %s", fsw_parser_error(client->parser));
    } else if (r < 0) {
        fsw_reply_error(&reply, "ERR %s", fsw_parser_error(client->parser));
    }
    if (r < 0 || client->session.closing) {
        client->last_words = true;
        uv_read_stop(&client->stream);
    }
    if (reply.failed || reply.pieces > 0)
        client_write(client, &reply);
    if (full && !client->last_words && !uv_is_closing(&client->handle))
        pause_client(client);
}

static void on_bytes(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct fsw_client *client = handle->data;

    *buffer = uv_buf_init(client->clients->bytes, sizeof client->clients->bytes);
}

static void on_read(uv_stream_t *stream, ssize_t length, const uv_buf_t *buffer)
{
    struct fsw_client *client = stream->data;

    if (length < 0) {
        client_close(client);
        return;
    }
    if (length == 0)
        return;
    client->clients->server->counters.total_net_input_bytes += (uint64_t)length;
    fsw_parser_lend(client->parser, buffer->base, (size_t)length);
    take_turn(client);
}

/* The client has read: goes on with what was kept, and reads again when that is done. */
static void resume(struct fsw_client *client)
{
    const char *left;

    take_turn(client);
    if (client->last_words || uv_is_closing(&client->handle) ||
        fsw_parser_lent(client->parser, &left) > 0)
        return;
    client->paused = false;
    client->clients->server->clients_paused--;
    free(client->kept);
    client->kept = NULL;
    if (uv_read_start(&client->stream, on_bytes, on_read) < 0)
        client_close(client);
}

/* ---- accepting ---- */

static int init_stream(struct fsw_client *client, uv_stream_t *listener)
{
    uv_loop_t *loop = client->clients->loop;
    int r = listener->type == UV_TCP ? uv_tcp_init(loop, &client->tcp)
                                     : uv_pipe_init(loop, &client->pipe, 0);

    client->stream.data = client;
    return r;
}

static void say_goodbye(struct fsw_client *client, const char *error)
{
    struct fsw_reply reply = {0};

    client->last_words = true;
    fsw_reply_error(&reply, "%s", error);
    client_write(client, &reply);
}

static void welcome(struct fsw_client *client)
{
    struct fsw_server *server = client->clients->server;

    if (client->stream.type == UV_TCP) {
        uv_tcp_nodelay(&client->tcp, 1);
        uv_tcp_keepalive(&client->tcp, 1, KEEPALIVE_SECONDS);
    }
    client->session.id = ++server->counters.total_connections_received;
    if (server->clients > FSW_MAX_CLIENTS) {
        server->counters.rejected_connections++;
        server->hits.of[FSW_LIMIT_CLIENTS]++;
        say_goodbye(client, "ERR max number of clients reached");
    } else if (fsw_parser_new(&server->hits, &client->parser) < 0) {
        client_close(client);
    } else {
        fsw_parser_set_stranger(client->parser, !client->session.welcome);
        if (uv_read_start(&client->stream, on_bytes, on_read) < 0)
            client_close(client);
    }
}

void fsw_client_accept(struct fsw_clients *clients, uv_stream_t *listener)
{
    struct fsw_client *client = calloc(1, sizeof *client);

    if (client == NULL)
        return;
    client->clients = clients;
    client->session.server = clients->server;
    client->session.welcome = clients->server->password == NULL;
    client->since = fsw_now_ns();
    if (init_stream(client, listener) < 0) {
        free(client);
        return;
    }
    link_client(clients, client);
    if (uv_accept(listener, &client->stream) < 0)
        client_close(client);
    else
        welcome(client);
}

/* ---- all of them ---- */

static bool kill_client(struct fsw_server *server, uint64_t id)
{
    struct fsw_clients *clients = server->kill_owner;

    for (struct fsw_client *client = clients->first; client != NULL; client = client->next) {
        if (client->session.id == id && !uv_is_closing(&client->handle)) {
            client_close(client);
            return true;
        }
    }
    return false;
}

static void on_doorman(uv_timer_t *timer)
{
    struct fsw_clients *clients = timer->data;
    uint64_t now = fsw_now_ns();

    for (struct fsw_client *client = clients->first; client != NULL; client = client->next) {
        if (client->session.welcome || uv_is_closing(&client->handle) ||
            now - client->since < FSW_MAX_STRANGER_SECONDS * FSW_NS_PER_S)
            continue;
        clients->server->hits.of[FSW_LIMIT_STRANGER_SECONDS]++;
        client_close(client);
    }
}

int fsw_clients_init(struct fsw_clients *clients, uv_loop_t *loop, struct fsw_server *server)
{
    int r;

    clients->server = server;
    clients->loop = loop;
    clients->first = NULL;
    server->kill = kill_client;
    server->kill_owner = clients;
    r = uv_timer_init(loop, &clients->doorman);
    clients->doorman.data = clients;
    if (r == 0 && server->password != NULL)
        r = uv_timer_start(&clients->doorman, on_doorman, DOORMAN_MS, DOORMAN_MS);
    return r;
}

void fsw_clients_close(struct fsw_clients *clients)
{
    uv_close((uv_handle_t *)&clients->doorman, NULL);
    for (struct fsw_client *client = clients->first; client != NULL; client = client->next)
        client_close(client);
}
