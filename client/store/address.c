/*
 * address.c: parse, resolve, and tell whether it stays on this host.
 */
#include "client/store/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "common/parse.h"

/* Copies n characters as a string. -EINVAL if there are none or too many. */
static int copy_text(char *to, size_t size, const char *from, size_t n)
{
    if (n == 0 || n >= size)
        return -EINVAL;
    memcpy(to, from, n);
    to[n] = '\0';
    return 0;
}

static int parse_port(char *port, size_t size, const char *text)
{
    uint64_t value;
    int r = fsw_parse_u64(text, 1, 65535, &value);

    if (r < 0)
        return r;
    snprintf(port, size, "%u", (unsigned)value);
    return 0;
}

/* HOST, HOST:PORT, [IPV6], [IPV6]:PORT. */
static int split_host_port(struct fsw_host_port *to, const char *rest)
{
    const char *end = rest + strcspn(rest, ":"), *from = rest;
    int r;

    if (*rest == '[') {
        from = rest + 1;
        end = strchr(rest, ']');
        if (end == NULL)
            return -EINVAL;
    }
    r = copy_text(to->host, sizeof to->host, from, (size_t)(end - from));
    if (r < 0)
        return r;
    if (*end == ']')
        end++;
    if (*end == '\0')
        return copy_text(to->port, sizeof to->port, FSW_DEFAULT_PORT, strlen(FSW_DEFAULT_PORT));
    return *end == ':' ? parse_port(to->port, sizeof to->port, end + 1) : -EINVAL;
}

static int is_loopback(const struct sockaddr *any)
{
    if (any->sa_family == AF_INET) {
        const struct sockaddr_in *v4 = (const void *)any;
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    }
    if (any->sa_family == AF_INET6) {
        const struct in6_addr *v6 = &((const struct sockaddr_in6 *)(const void *)any)->sin6_addr;
        return IN6_IS_ADDR_LOOPBACK(v6) || (IN6_IS_ADDR_V4MAPPED(v6) && v6->s6_addr[12] == 127);
    }
    return 0;
}

/* Keeps the first few; the store is local only if all of them are. */
int fsw_address_keep(struct fsw_address *address, const struct addrinfo *list,
                     struct fsw_error *err)
{
    address->local = 1;
    for (const struct addrinfo *p = list; p != NULL && address->count < FSW_ADDRESS_MOST;
         p = p->ai_next) {
        if (address->stays && !is_loopback(p->ai_addr))
            continue;
        memcpy(&address->places[address->count++].storage, p->ai_addr, p->ai_addrlen);
        address->local &= (unsigned)is_loopback(p->ai_addr);
    }
    return address->count > 0 ? 0
                              : fsw_error(err, -ENOENT,
                                          "%s was on this host, is not any more, and what is there "
                                          "is not encrypted",
                                          address->text);
}

static int resolve(struct fsw_address *address, const struct fsw_host_port *where, int flags,
                   struct fsw_error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags};
    struct addrinfo *list = NULL;
    int r = getaddrinfo(where->host, where->port, &hints, &list);

    if (r != 0)
        return fsw_error(err, -ENOENT, "the store's host %s can't be found: %s; give its address",
                         where->host, r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
    r = fsw_address_keep(address, list, err);
    freeaddrinfo(list);
    return r;
}

void fsw_address_question(const struct fsw_address *address, struct fsw_host_port *ret_where)
{
    if (split_host_port(ret_where, address->text) < 0)
        *ret_where = (struct fsw_host_port){{0}, {0}}; /* it was split before */
}

int fsw_address_resolve(struct fsw_address *address, struct fsw_error *err)
{
    struct fsw_host_port where;

    fsw_address_question(address, &where);
    return resolve(address, &where, 0, err);
}

int fsw_address_parse_tcp(struct fsw_address *address, const char *rest, int later,
                          struct fsw_error *err)
{
    struct fsw_host_port where;

    memset(address, 0, sizeof *address);
    if (split_host_port(&where, rest) < 0)
        return fsw_error(err, -EINVAL,
                         "resp://%s is not resp://HOST[:PORT] (port 1 to 65535, default %s; "
                         "an IPv6 address goes in brackets)",
                         rest, FSW_DEFAULT_PORT);
    snprintf(address->text, sizeof address->text, strchr(where.host, ':') ? "[%s]:%s" : "%s:%s",
             where.host, where.port);
    if (!later)
        return resolve(address, &where, 0, err);
    resolve(address, &where, AI_NUMERICHOST, NULL); /* a name fails, at once */
    return 0;
}

int fsw_address_parse_unix(struct fsw_address *address, const char *rest, struct fsw_error *err)
{
    struct sockaddr_un *path = &address->places[0].path;

    memset(address, 0, sizeof *address);
    path->sun_family = AF_UNIX;
    if (*rest != '/' || copy_text(path->sun_path, sizeof path->sun_path, rest, strlen(rest)) < 0)
        return fsw_error(err, -EINVAL,
                         "resp+unix://%s is not resp+unix:///PATH (an absolute path of at most %zu "
                         "characters)",
                         rest, sizeof path->sun_path - 1);
    snprintf(address->text, sizeof address->text, "%s", rest);
    address->count = 1;
    address->local = 1;
    return 0;
}

void fsw_place_text(const union fsw_sockaddr *place, char text[FSW_HOST_TEXT], int *ret_port)
{
    const struct sockaddr_in *v4 = (const void *)place;
    char port[8] = "0";

    text[0] = '\0';
    getnameinfo(&place->any, sizeof place->storage, text, FSW_HOST_TEXT, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    *ret_port = ntohs(v4->sin_port); /* at the same place in sockaddr_in6 */
}
