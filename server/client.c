/*
 * client.c: reads, lets commands run, writes; and stops reading from who does not read.
 *
 *     bytes ─ parser ─ request ─ command ─┐
 *                                         reply (all of this turn) ─ one uv_write
 *
 * A turn answers what one read brought, until the client's unread answers pass FSW_MAX_OUTPUT. Then
 * the client is paused: the rest of the read is kept, nothing more is read, and the turn goes on
 * when the kernel has taken enough. So a client that pipelines and never reads costs its limit and
 * no more, for as long as we are patient, and others do not notice. A turn that takes FSW_MAX_TURN
 * microseconds is cut short the same way, and goes on when the others have had theirs.
 *
 * Invariants:
 *  1. paused == the stream is not being read == kept may hold bytes; cut_short implies paused;
 *  2. output is the sum of the bytes of all writes that libuv still has;
 *  3. a client is freed when its handle is closed, which is after the last write's callback;
 *  4. what is kept and what waits to be written is charged to the vault.
 */
#include "server/client.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/clock.h"
#include "server/command.h"
#include "server/reply.h"
#include "server/request.h"

#define KEEPALIVE_SECONDS 60
/* What a client costs that does nothing: itself, its parser, libuv's and the allocator's part. */
#define CLIENT_COST (sizeof(struct fsw_client) + 4096)

struct fsw_client {
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    };
    struct fsw_clients *clients;
    struct fsw_session session;
    struct fsw_parser *parser;
    uint64_t inside_since; /* a request has begun and not ended: CLOCK_MONOTONIC ns; 0: none */
    uint64_t output;       /* bytes that wait for the kernel */
    uint64_t answered;     /* bytes of all answers */
    int64_t taken;         /* of them by the peer, when it had last taken enough */
    unsigned waits;        /* seconds that answers wait, since then; 0: none do */
    bool paused;
    bool cut_short;  /* paused for the others' sake */
    bool last_words; /* close when all is written */
    char *kept;      /* what was read and not parsed when we paused */
    size_t kept_length;
};

struct write {
    uv_write_t request;
    struct fsw_client *client;
    struct fsw_reply reply;
    size_t cost;
};

static struct fsw_client *client_of(struct fsw_session *session)
{
    return (struct fsw_client *)((char *)session - offsetof(struct fsw_client, session));
}

static struct fsw_vault *vault_of(const struct fsw_client *client)
{
    return fsw_keyspace_vault(client->session.server->keyspace);
}

/* ---- life ---- */

/* What was read and not parsed; NULL: nothing. */
static void set_kept(struct fsw_client *client, char *kept, size_t length)
{
    fsw_vault_uncharge(vault_of(client), client->kept_length);
    fsw_vault_charge(vault_of(client), length);
    free(client->kept);
    client->kept = kept;
    client->kept_length = length;
}

static void set_cut_short(struct fsw_client *client, bool cut_short);

static void on_closed(uv_handle_t *handle)
{
    struct fsw_client *client = handle->data;
    struct fsw_session *session = &client->session;
    struct fsw_server *server = session->server;

    *(session->previous != NULL ? &session->previous->next : &server->sessions) = session->next;
    if (session->next != NULL)
        session->next->previous = session->previous;
    server->clients--;
    server->clients_paused -= client->paused;
    set_cut_short(client, false);
    set_kept(client, NULL, 0);
    fsw_vault_uncharge(vault_of(client), CLIENT_COST);
    fsw_parser_free(client->parser);
    free(client);
}

static void client_close(struct fsw_client *client)
{
    client->session.killed = true;
    if (!uv_is_closing(&client->handle))
        uv_close(&client->handle, on_closed);
}

static void link_client(struct fsw_client *client)
{
    struct fsw_session *session = &client->session;
    struct fsw_server *server = session->server;

    session->next = server->sessions;
    if (session->next != NULL)
        session->next->previous = session;
    server->sessions = session;
    server->clients++;
    fsw_vault_charge(vault_of(client), CLIENT_COST);
}

/* ---- writing ---- */

static void resume(struct fsw_client *client);

static void write_free(struct write *write)
{
    struct fsw_client *client = write->client;

    client->output -= write->reply.bytes;
    client->session.server->output_bytes -= write->reply.bytes;
    fsw_vault_uncharge(vault_of(client), write->cost);
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
    else if (client->paused && !client->cut_short && client->output <= FSW_MAX_OUTPUT / 2)
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
    write->cost = sizeof *write + reply->text_room + reply->piece_room * sizeof *reply->piece;
    client->output += reply->bytes;
    client->session.server->output_bytes += reply->bytes;
    fsw_vault_charge(vault_of(client), write->cost);
    client->answered += reply->bytes;
    if (start_write(write) < 0) {
        write_free(write);
        client_close(client);
    }
}

/* ---- reading ---- */

static bool is_crowded(const struct fsw_server *server)
{
    return server->output_bytes >= FSW_MAX_OUTPUT_ALL;
}

static bool output_full(const struct fsw_client *client, const struct fsw_reply *reply)
{
    uint64_t max = is_crowded(client->session.server) ? FSW_MAX_OUTPUT / 16 : FSW_MAX_OUTPUT;

    return client->output + reply->bytes >= max;
}

/* Runs what the parser has, until it has no more, the client must read first, or has had its turn.
 */
static int run_requests(struct fsw_client *client, struct fsw_reply *reply, bool *ret_turn_over)
{
    uint64_t end = fsw_now_ns() + FSW_MAX_TURN * 1000ull;
    struct fsw_request *request;
    int r = 0;

    *ret_turn_over = false;
    while (!client->session.closing && !output_full(client, reply) && !*ret_turn_over) {
        r = fsw_parser_next(client->parser, &request);
        if (r <= 0)
            break;
        fsw_command_run(&client->session, request, reply);
        fsw_request_free(request);
        fsw_parser_set_stranger(client->parser, !client->session.welcome);
        client->inside_since = 0;
        *ret_turn_over = client->session.heard >= end;
    }
    return r;
}

static void on_others_served(uv_idle_t *idle);

static void set_cut_short(struct fsw_client *client, bool cut_short)
{
    struct fsw_clients *clients = client->clients;

    if (client->cut_short == cut_short)
        return;
    client->cut_short = cut_short;
    clients->cut_short += cut_short ? 1u : -1u;
    if (clients->cut_short > 0)
        uv_idle_start(&clients->others_first, on_others_served);
    else
        uv_idle_stop(&clients->others_first);
}

/* Stops reading, and keeps what of the last read the parser has not seen. */
static void pause_client(struct fsw_client *client)
{
    const char *left;
    size_t length = fsw_parser_lent(client->parser, &left);
    char *kept = malloc(length + 1);

    if (kept == NULL) {
        client_close(client);
        return;
    }
    memcpy(kept, left, length);
    set_kept(client, kept, length);
    fsw_parser_lend(client->parser, kept, length);
    if (!client->paused) {
        client->paused = true;
        client->session.server->clients_paused++;
        uv_read_stop(&client->stream);
    }
}

static void note_inside(struct fsw_client *client)
{
    if (!fsw_parser_is_inside(client->parser))
        client->inside_since = 0;
    else if (client->inside_since == 0)
        client->inside_since = fsw_now_ns();
}

static void say_what_is_wrong(struct fsw_client *client, int r, struct fsw_reply *reply)
{
    if (r == -EPROTO) {
        client->session.server->counters.protocol_errors++;
        fsw_reply_error(reply, "ERR Protocol error: %s", fsw_parser_error(client->parser));
    } else if (r < 0) {
        fsw_reply_error(reply, "ERR %s", fsw_parser_error(client->parser));
    }
}

/* The client is not read for now, or again. */
static void settle(struct fsw_client *client, bool full, bool turn_over)
{
    struct fsw_server *server = client->session.server;
    const char *left;

    turn_over = turn_over && !full && fsw_parser_lent(client->parser, &left) > 0;
    if (full && !client->paused)
        server->hits.of[is_crowded(server) ? FSW_LIMIT_OUTPUT_ALL : FSW_LIMIT_OUTPUT]++;
    server->hits.of[FSW_LIMIT_TURN] += turn_over;
    set_cut_short(client, turn_over);
    if (full || turn_over)
        pause_client(client);
}

static void take_turn(struct fsw_client *client)
{
    struct fsw_reply reply = {0};
    bool turn_over;
    int r = run_requests(client, &reply, &turn_over);
    bool full = output_full(client, &reply);

    say_what_is_wrong(client, r, &reply);
    if (r < 0 || client->session.closing) {
        client->last_words = true;
        uv_read_stop(&client->stream);
    }
    note_inside(client);
    if (reply.failed || reply.pieces > 0)
        client_write(client, &reply);
    if (!client->last_words && !uv_is_closing(&client->handle))
        settle(client, full, turn_over);
    else
        set_cut_short(client, false);
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
    client->session.server->counters.total_net_input_bytes += (uint64_t)length;
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
    client->session.server->clients_paused--;
    set_kept(client, NULL, 0);
    if (uv_read_start(&client->stream, on_bytes, on_read) < 0)
        client_close(client);
}

/* Each goes on once; those whose turn is cut short again wait for the next time. */
static void on_others_served(uv_idle_t *idle)
{
    struct fsw_clients *clients = idle->data;
    struct fsw_session *next;

    for (struct fsw_session *session = clients->server->sessions; session != NULL; session = next) {
        next = session->next;
        if (client_of(session)->cut_short && !uv_is_closing(&client_of(session)->handle))
            resume(client_of(session));
    }
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

static void note_address(struct fsw_client *client)
{
    struct fsw_session *session = &client->session;
    struct sockaddr_storage address;
    char host[INET6_ADDRSTRLEN] = "?";
    int length = sizeof address;

    session->admin = client->stream.type != UV_TCP;
    if (session->admin) {
        snprintf(session->host, sizeof session->host, "unix");
        snprintf(session->address, sizeof session->address, "unix:0");
        return;
    }
    if (uv_tcp_getpeername(&client->tcp, (struct sockaddr *)&address, &length) < 0)
        return; /* gone already */
    bool v6 = address.ss_family == AF_INET6;
    struct sockaddr_in *in = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
    if (v6)
        uv_ip6_name(in6, host, sizeof host);
    else
        uv_ip4_name(in, host, sizeof host);
    snprintf(session->host, sizeof session->host, "%.39s", host);
    snprintf(session->address, sizeof session->address, v6 ? "[%s]:%d" : "%s:%d", host,
             ntohs(v6 ? in6->sin6_port : in->sin_port));
}

static bool is_stranger(const struct fsw_session *session)
{
    return !session->killed && !session->welcome;
}

/* There is one more stranger: who waited longest goes, so that nobody can take all the places. */
static void limit_strangers(struct fsw_server *server)
{
    struct fsw_session *longest = NULL;
    unsigned strangers = 0;

    for (struct fsw_session *session = server->sessions; session != NULL; session = session->next) {
        if (!is_stranger(session))
            continue;
        strangers++;
        longest = session;
    }
    if (strangers <= FSW_MAX_STRANGERS)
        return;
    server->hits.of[FSW_LIMIT_STRANGERS]++;
    client_close(client_of(longest));
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
    struct fsw_server *server = client->session.server;

    if (client->stream.type == UV_TCP) {
        uv_tcp_nodelay(&client->tcp, 1);
        uv_tcp_keepalive(&client->tcp, 1, KEEPALIVE_SECONDS);
    }
    note_address(client);
    client->session.id = ++server->counters.total_connections_received;
    limit_strangers(server);
    if (server->clients > FSW_MAX_CLIENTS + (client->session.admin ? FSW_MAX_ADMINS : 0)) {
        server->counters.rejected_connections++;
        server->hits.of[FSW_LIMIT_CLIENTS]++;
        say_goodbye(client, "ERR max number of clients reached");
    } else if (fsw_parser_new(&server->hits, vault_of(client), &client->parser) < 0) {
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
    client->session.since = client->session.heard = fsw_now_ns();
    if (init_stream(client, listener) < 0) {
        free(client);
        return;
    }
    link_client(client);
    if (uv_accept(listener, &client->stream) < 0)
        client_close(client);
    else
        welcome(client);
}

/* ---- all of them ---- */

static void kill_client(struct fsw_session *session)
{
    client_close(client_of(session));
}

/* Whether it did not show a password, or say anything at all, or end what it began. */
static bool overstayed(const struct fsw_client *client, uint64_t now, enum fsw_limit *ret_limit)
{
    const struct fsw_session *session = &client->session;
    uint64_t inside = client->paused ? 0 : client->inside_since;
    uint64_t patience = session->server->patience * FSW_NS_PER_S;

    *ret_limit = inside != 0 ? FSW_LIMIT_REQUEST_SECONDS : FSW_LIMIT_STRANGER_SECONDS;
    if (inside != 0 && now - inside >= patience)
        return true;
    *ret_limit = FSW_LIMIT_STRANGER_SECONDS;
    return (!session->welcome || session->commands == 0) && now - session->since >= patience;
}

/* Bytes that the kernel has for it, which asks for more in large steps only. (Of a Unix socket it is
 * the memory that they take: it may seem to have taken less than nothing.) */
static int kernel_has(struct fsw_client *client)
{
    int bytes = 0;
    uv_os_fd_t fd;

    if (uv_fileno(&client->handle, &fd) == 0)
        ioctl(fd, SIOCOUTQ, &bytes);
    return bytes;
}

/* Whether answers wait for it that it does not read. As redis's soft limit of output, which is one
 * of seconds above so many bytes; but here all that waits counts, since it is the kernel's buffers
 * that are full then, and who reads slowly is no offender. Seconds are looks: those in which we were
 * stopped ourselves do not count. */
static bool does_not_read(struct fsw_client *client)
{
    size_t waiting = uv_stream_get_write_queue_size(&client->stream);

    if (waiting == 0) {
        client->waits = 0;
        return false;
    }
    int64_t taken = (int64_t)(client->answered - waiting) - kernel_has(client);
    if (client->waits == 0 || taken - client->taken >= FSW_MAX_OUTPUT / 16) {
        client->taken = taken;
        client->waits = 0;
    }
    return ++client->waits > client->session.server->patience;
}

/* What the kernel still has for it is lost, too: it would keep that for who never reads. */
static void client_reset(struct fsw_client *client)
{
    if (client->stream.type == UV_TCP && !uv_is_closing(&client->handle) &&
        uv_tcp_close_reset(&client->tcp, on_closed) == 0)
        client->session.killed = true;
    else
        client_close(client);
}

void fsw_clients_show_door(struct fsw_clients *clients)
{
    uint64_t now = fsw_now_ns();
    enum fsw_limit limit;

    for (struct fsw_session *session = clients->server->sessions; session;
         session = session->next) {
        struct fsw_client *client = client_of(session);
        if (session->killed) {
            continue;
        } else if (does_not_read(client)) {
            clients->server->hits.of[FSW_LIMIT_OUTPUT_SECONDS]++;
            client_reset(client);
        } else if (overstayed(client, now, &limit)) {
            clients->server->hits.of[limit]++;
            client_close(client);
        }
    }
}

int fsw_clients_init(struct fsw_clients *clients, uv_loop_t *loop, struct fsw_server *server)
{
    clients->server = server;
    clients->loop = loop;
    clients->cut_short = 0;
    clients->others_first.data = clients;
    server->kill = kill_client;
    return uv_idle_init(loop, &clients->others_first);
}

void fsw_clients_close(struct fsw_clients *clients)
{
    struct fsw_session *session = clients->server->sessions;

    uv_close((uv_handle_t *)&clients->others_first, NULL);
    for (; session != NULL; session = session->next)
        client_close(client_of(session));
}
