/*
 * listener.c: bind, listen, and say where.
 */
#include "server/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"

#define BACKLOG 511

static void on_connection(uv_stream_t *stream, int status)
{
    struct fsw_listener *listener = stream->data;

    if (status == 0)
        fsw_client_accept(listener->clients, stream);
}

/* What we got: the port may have been 0. */
static int name_tcp(struct fsw_listener *listener)
{
    struct sockaddr_storage address;
    int r, length = sizeof address;
    char host[INET6_ADDRSTRLEN];
    bool v6;

    r = uv_tcp_getsockname(&listener->tcp, (struct sockaddr *)&address, &length);
    if (r < 0)
        return r;
    v6 = address.ss_family == AF_INET6;
    listener->port = ntohs(v6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                              : ((struct sockaddr_in *)&address)->sin_port);
    if (v6)
        uv_ip6_name((struct sockaddr_in6 *)&address, host, sizeof host);
    else
        uv_ip4_name((struct sockaddr_in *)&address, host, sizeof host);
    snprintf(listener->text, sizeof listener->text, v6 ? "[%s]:%d" : "%s:%d", host, listener->port);
    return 0;
}

static int open_tcp(struct fsw_listener *listener, const struct sockaddr_storage *address)
{
    unsigned flags = address->ss_family == AF_INET6 ? UV_TCP_IPV6ONLY : 0;
    int r = uv_tcp_bind(&listener->tcp, (const struct sockaddr *)address, flags);

    if (r == 0)
        r = uv_listen(&listener->stream, BACKLOG, on_connection);
    return r == 0 ? name_tcp(listener) : r;
}

/* 0: the path is free now. */
static int clear_path(const char *path, struct fsw_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    FSW_CLEANUP_CLOSE int fd = -1;
    struct stat status;

    if (lstat(path, &status) < 0)
        return errno == ENOENT ? 0 : fsw_error(err, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISSOCK(status.st_mode))
        return fsw_error(err, -EEXIST, "--unix %s: there is a file that is not a socket", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fsw_error(err, -errno, "socket: %s", strerror(errno));
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno != ECONNREFUSED)
        return fsw_error(err, -EADDRINUSE, "--unix %s: another server listens there", path);
    if (unlink(path) < 0)
        return fsw_error(err, -errno, "--unix %s: can't remove the stale socket: %s", path,
                         strerror(errno));
    return 0;
}

static int open_unix(struct fsw_listener *listener, const char *path)
{
    mode_t mask = umask(0177); /* before bind: it is never open to others, not for a moment */
    int r = uv_pipe_bind(&listener->pipe, path);

    umask(mask);
    if (r == 0)
        r = uv_listen(&listener->stream, BACKLOG, on_connection);
    snprintf(listener->text, sizeof listener->text, "unix:%s", path);
    return r;
}

static struct fsw_listener *add_listener(struct fsw_listeners *listeners,
                                         struct fsw_clients *clients)
{
    struct fsw_listener *listener = &listeners->of[listeners->count++];

    listener->clients = clients;
    return listener;
}

static int open_one_tcp(struct fsw_listeners *listeners, const struct sockaddr_storage *address,
                        struct fsw_clients *clients, struct fsw_error *err)
{
    struct fsw_listener *listener = add_listener(listeners, clients);
    char host[INET6_ADDRSTRLEN] = "";
    int r = uv_tcp_init(clients->loop, &listener->tcp);

    if (r < 0) {
        listeners->count--;
        return fsw_error(err, r, "socket: %s", uv_strerror(r));
    }
    listener->stream.data = listener;
    r = open_tcp(listener, address);
    if (r == 0)
        return 0;
    uv_inet_ntop(address->ss_family,
                 address->ss_family == AF_INET6
                     ? (const void *)&((const struct sockaddr_in6 *)address)->sin6_addr
                     : (const void *)&((const struct sockaddr_in *)address)->sin_addr,
                 host, sizeof host);
    return fsw_error(err, r, "can't listen on %s port %d: %s", host,
                     ntohs(((const struct sockaddr_in *)address)->sin_port), uv_strerror(r));
}

static int open_one_unix(struct fsw_listeners *listeners, const char *path,
                         struct fsw_clients *clients, struct fsw_error *err)
{
    struct fsw_listener *listener;
    int r = clear_path(path, err);

    if (r < 0)
        return r;
    listener = add_listener(listeners, clients);
    r = uv_pipe_init(clients->loop, &listener->pipe, 0);
    if (r < 0) {
        listeners->count--;
        return fsw_error(err, r, "socket: %s", uv_strerror(r));
    }
    listener->stream.data = listener;
    r = open_unix(listener, path);
    if (r == UV_EACCES) /* libuv says so for ENOENT as well */
        return fsw_error(err, r, "can't listen on %s: its folder is missing, or not ours to write",
                         path);
    return r == 0 ? 0 : fsw_error(err, r, "can't listen on %s: %s", path, uv_strerror(r));
}

int fsw_listeners_open(struct fsw_listeners *listeners, const struct fsw_server_options *options,
                       struct fsw_clients *clients, struct fsw_error *err)
{
    int r = 0;

    listeners->count = 0;
    for (unsigned i = 0; r == 0 && i < options->listens; i++)
        r = open_one_tcp(listeners, &options->listen[i], clients, err);
    if (r == 0 && options->unix_path != NULL)
        r = open_one_unix(listeners, options->unix_path, clients, err);
    return r;
}

void fsw_listeners_close(struct fsw_listeners *listeners)
{
    for (unsigned i = 0; i < listeners->count; i++)
        uv_close(&listeners->of[i].handle, NULL);
    listeners->count = 0;
}
