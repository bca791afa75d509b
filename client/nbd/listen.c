/*
 * listen.c: bind, listen, and say where.
 */
#include "client/nbd/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"

#define BACKLOG 64

/* ---- addresses ---- */

/* Splits "HOST:PORT", "[HOST]:PORT", "HOST"; host has room for text. 0 or -EINVAL. */
static int split(const char *text, char *host, char *port)
{
    const char *colon = strrchr(text, ':'), *end = strchr(text, ']');
    size_t length = strlen(text);

    snprintf(port, 8, "%d", FSW_LISTEN_PORT_DEFAULT);
    if (text[0] == '[') {
        if (end == NULL || (end[1] != ':' && end[1] != '\0'))
            return -EINVAL;
        text++;
        length = (size_t)(end - text);
        colon = end[1] == ':' ? end + 1 : NULL;
    } else if (colon != NULL && strchr(text, ':') == colon) {
        length = (size_t)(colon - text);
    } else {
        colon = NULL; /* none, or a bare IPv6 address */
    }
    if (colon != NULL && (strlen(colon + 1) > 5 || colon[1] == '\0'))
        return -EINVAL;
    if (colon != NULL)
        strcpy(port, colon + 1);
    if (length == 0 || length >= INET6_ADDRSTRLEN)
        return -EINVAL;
    memcpy(host, text, length);
    host[length] = '\0';
    return 0;
}

int fsw_listen_parse(const char *text, struct sockaddr_storage *ret_address, struct fsw_error *err)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                   .ai_socktype = SOCK_STREAM};
    char host[INET6_ADDRSTRLEN], port[8];
    struct addrinfo *found = NULL;

    if (split(text, host, port) < 0 || atoi(port) > 65535 ||
        getaddrinfo(host, port, &hints, &found) != 0)
        return fsw_error(err, -EINVAL,
                         "--listen %s is no address: a number and a port are allowed, as "
                         "127.0.0.1:10809 or [::1]:10809",
                         text);
    memset(ret_address, 0, sizeof *ret_address);
    memcpy(ret_address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

int fsw_listen_is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24 == 127;
}

/* ---- listening ---- */

static int listen_on(int fd, struct fsw_listener *listener, const char *where,
                     struct fsw_error *err)
{
    if (listen(fd, BACKLOG) < 0)
        return fsw_error(err, -errno, "%s: %s", where, strerror(errno));
    listener->fd = fd;
    return 0;
}

/* 0: nobody listens at the path, and it is free now. */
static int clear_path(const struct sockaddr_un *address, struct fsw_error *err)
{
    const char *path = address->sun_path;
    struct stat status;
    FSW_CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return fsw_error(err, -errno, "socket: %s", strerror(errno));
    if (lstat(path, &status) < 0)
        return errno == ENOENT ? 0 : fsw_error(err, -errno, "%s: %s", path, strerror(errno));
    if (!S_ISSOCK(status.st_mode))
        return fsw_error(err, -EEXIST, "--unix %s: there is a file that is not a socket", path);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ||
        errno != ECONNREFUSED)
        return fsw_error(err, -EADDRINUSE, "--unix %s: another server listens there", path);
    return unlink(path) == 0 ? 0 : fsw_error(err, -errno, "--unix %s: %s", path, strerror(errno));
}

int fsw_listen_unix(const char *path, struct fsw_listener *ret_listener, struct fsw_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path || path[0] == '\0')
        return fsw_error(err, -ENAMETOOLONG, "--unix %s: 1 to %zu bytes are allowed", path,
                         sizeof address.sun_path - 1);
    strcpy(address.sun_path, path);
    int r = clear_path(&address, err);
    if (r < 0)
        return r;
    FSW_CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fsw_error(err, -errno, "socket: %s", strerror(errno));
    mode_t before = umask(0177);
    r = bind(fd, (struct sockaddr *)&address, sizeof address) < 0 ? -errno : 0;
    umask(before);
    if (r < 0)
        return fsw_error(err, r, "--unix %s: %s", path, strerror(-r));
    ret_listener->unix_path = path;
    snprintf(ret_listener->text, sizeof ret_listener->text, "%s", path);
    r = listen_on(fd, ret_listener, path, err);
    if (r == 0)
        fd = -1;
    return r;
}

/* What we got: the port may have been 0. */
static void name_tcp(struct fsw_listener *listener, int fd)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char host[INET6_ADDRSTRLEN] = "?", port[8] = "?";

    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0)
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(listener->text, sizeof listener->text,
             address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}

int fsw_listen_tcp(const struct sockaddr_storage *address, struct fsw_listener *ret_listener,
                   struct fsw_error *err)
{
    socklen_t length =
        address->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    FSW_CLEANUP_CLOSE int fd =
        socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;

    if (fd < 0)
        return fsw_error(err, -errno, "socket: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (address->ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)address, length) < 0)
        return fsw_error(err, -errno, "--listen: %s", strerror(errno));
    ret_listener->unix_path = NULL;
    name_tcp(ret_listener, fd);
    int r = listen_on(fd, ret_listener, ret_listener->text, err);
    if (r == 0)
        fd = -1;
    return r;
}
