/*
 * dial.c: one TCP connection to an NBD server, up to where the kernel goes on with it.
 *
 *   TCP_USER_TIMEOUT   below the request timeout: a connection whose packets are not acknowledged is
 *                      dead before the kernel sends its requests again on the next one
 *   keepalive          the same for one on which nothing is sent
 *   SO_LINGER {1,0}    when the kernel lets go of it, nothing that stands in its buffer is sent
 *
 * The server fences what came on an earlier connection before it answers a new handshake; that is
 * what holds. These make sure that nothing is on its way for long.
 */
#include "client/attach/dial.h"

#include <ctype.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <linux/nbd.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define LIBRARY "libnbd.so.0"
#define PORT "10809"
#define SEND_WRITE_ZEROES (1 << 6)

/* ---- libnbd ---- */

#define FUNCTIONS(F)                                                                               \
    F(create)                                                                                      \
    F(close)                                                                                       \
    F(get_error)                                                                                   \
    F(set_export_name)                                                                             \
    F(set_full_info)                                                                               \
    F(set_request_structured_replies)                                                              \
    F(set_tls)                                                                                     \
    F(aio_connect_socket)                                                                          \
    F(aio_is_connecting)                                                                           \
    F(aio_is_ready)                                                                                \
    F(aio_get_fd)                                                                                  \
    F(poll)                                                                                        \
    F(get_size)                                                                                    \
    F(get_export_description)                                                                      \
    F(is_read_only)                                                                                \
    F(can_flush)                                                                                   \
    F(can_fua)                                                                                     \
    F(can_trim)                                                                                    \
    F(can_zero)

#define MEMBER(name) __typeof__(nbd_##name) *name;
static struct {
    FUNCTIONS(MEMBER)
} lib;

static int load(struct fsw_error *err)
{
    void *library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        return fsw_error(err, -ENOENT, "--connect needs libnbd (package libnbd0): %s", dlerror());
#define LOOK_UP(name) lib.name = (__typeof__(lib.name))dlsym(library, "nbd_" #name);
    FUNCTIONS(LOOK_UP)
#define IS_THERE(name)                                                                             \
    if (lib.name == NULL)                                                                          \
        return fsw_error(err, -ENOENT, LIBRARY " has no nbd_" #name);
    FUNCTIONS(IS_THERE)
    return 0;
}

/* ---- the address ---- */

/* "HOST:PORT", "HOST", "[ADDRESS]:PORT". */
static int split(const char *where, char host[256], char port[16], struct fsw_error *err)
{
    const char *colon = strrchr(where, ':'), *bracket = strrchr(where, ']');
    size_t length = colon != NULL && colon > bracket ? (size_t)(colon - where) : strlen(where);

    snprintf(port, 16, "%s", where[length] == ':' ? where + length + 1 : PORT);
    if (where[0] == '[' && bracket != NULL) {
        where++;
        length = (size_t)(bracket - where);
    }
    if (length == 0 || length >= 256 || port[0] == '\0')
        return fsw_error(err, -EINVAL, "--connect %s: say ADDR:PORT", where);
    memcpy(host, where, length);
    host[length] = '\0';
    return 0;
}

static int look_up(struct fsw_dial *dial, struct fsw_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *found;
    char host[256], port[16];

    int r = split(dial->where, host, port, err);
    if (r < 0)
        return r;
    r = getaddrinfo(host, port, &hints, &found);
    if (r != 0)
        return fsw_error(err, -ENOENT, "--connect %s: %s", dial->where, gai_strerror(r));
    memcpy(&dial->address, found->ai_addr, found->ai_addrlen);
    dial->address_length = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int fsw_dial_init(struct fsw_dial *dial, const struct fsw_attach_options *options,
                  struct fsw_error *err)
{
    memset(dial, 0, sizeof *dial);
    dial->where = options->connect;
    dial->export_name = options->export_name;
    dial->timeout = options->timeout;
    dial->old = dial->fd = -1;
    int r = look_up(dial, err);
    return r < 0 ? r : load(err);
}

void fsw_dial_prefix(const char *name, char backend[FSW_BACKEND_MAX])
{
    snprintf(backend, FSW_BACKEND_MAX, "connect:%s:", name);
}

void fsw_dial_backend(const struct fsw_dial *dial, const char *name, char backend[FSW_BACKEND_MAX])
{
    snprintf(backend, FSW_BACKEND_MAX, "connect:%s:%s", name, dial->description);
}

/* ---- the connection ---- */

void fsw_dial_abort(struct fsw_dial *dial, int fd)
{
    if (dial->old >= 0)
        close(dial->old);
    dial->old = fd;
}

/* shutdown() makes the kernel's reader let go; after that the connection can be reset although the
 * kernel still has its descriptor. */
static void abort_old(struct fsw_dial *dial)
{
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    const struct timespec pause = {.tv_nsec = FSW_NS_PER_MS};

    if (dial->old < 0)
        return;
    shutdown(dial->old, SHUT_RDWR);
    for (int tries = 0;
         tries < 50 && connect(dial->old, &nowhere, sizeof nowhere) < 0 && errno == EBUSY; tries++)
        nanosleep(&pause, NULL);
    close(dial->old);
    dial->old = -1;
}

static void set_options(int fd, uint64_t timeout)
{
    const struct linger none = {.l_onoff = 1, .l_linger = 0};
    const unsigned patience = (unsigned)(timeout * 1000 * 3 / 4);
    const int on = 1, idle = (int)timeout, interval = 1, count = 3;

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static int left_ms(uint64_t deadline)
{
    uint64_t now = fsw_now_ns();

    return now < deadline ? (int)((deadline - now) / FSW_NS_PER_MS) + 1 : 0;
}

/* A connected socket, non-blocking, or negative errno. */
static int connect_soon(const struct fsw_dial *dial, uint64_t deadline)
{
    int fd = socket(dial->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int code = 0;
    socklen_t length = sizeof code;

    if (fd < 0)
        return -errno;
    set_options(fd, dial->timeout);
    if (connect(fd, (const struct sockaddr *)&dial->address, dial->address_length) < 0) {
        struct pollfd out = {.fd = fd, .events = POLLOUT};
        code = errno;
        if (code == EINPROGRESS)
            code = poll(&out, 1, left_ms(deadline)) == 1 ? 0 : ETIMEDOUT;
        if (code == 0)
            getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length);
    }
    if (code == 0)
        return fd;
    close(fd);
    return -code;
}

/* ---- the handshake ---- */

static int fail(struct fsw_dial *dial, const char *why)
{
    snprintf(dial->text, sizeof dial->text, "%s: %s", dial->where, why);
    return -1;
}

/* The kernel knows simple replies only. */
static int set_up(struct nbd_handle *nbd, const struct fsw_dial *dial)
{
    return lib.set_export_name(nbd, dial->export_name) < 0 || lib.set_full_info(nbd, true) < 0 ||
                   lib.set_request_structured_replies(nbd, false) < 0 ||
                   lib.set_tls(nbd, LIBNBD_TLS_DISABLE) < 0
               ? -1
               : 0;
}

/* Of what the server says only letters, digits and a few signs: it becomes part of a name. */
static void read_description(struct fsw_dial *dial, struct nbd_handle *nbd)
{
    char *text = lib.get_export_description(nbd);
    unsigned n = 0;

    for (const char *c = text; c != NULL && *c != '\0' && n < FSW_DIAL_DESCRIPTION; c++)
        dial->description[n++] =
            (char)(isalnum((unsigned char)*c) || strchr(".-_=", *c) ? *c : '_');
    dial->description[n] = '\0';
    free(text);
}

static int read_export(struct fsw_dial *dial, struct nbd_handle *nbd)
{
    int64_t size = lib.get_size(nbd);

    if (size <= 0)
        return fail(dial, "its size is not known");
    dial->size = (uint64_t)size;
    dial->flags = NBD_FLAG_HAS_FLAGS;
    dial->flags |= lib.is_read_only(nbd) > 0 ? NBD_FLAG_READ_ONLY : 0;
    dial->flags |= lib.can_flush(nbd) > 0 ? NBD_FLAG_SEND_FLUSH : 0;
    dial->flags |= lib.can_fua(nbd) > 0 ? NBD_FLAG_SEND_FUA : 0;
    dial->flags |= lib.can_trim(nbd) > 0 ? NBD_FLAG_SEND_TRIM : 0;
    dial->flags |= lib.can_zero(nbd) > 0 ? SEND_WRITE_ZEROES : 0;
    read_description(dial, nbd);
    return 0;
}

/* libnbd reads no byte past the handshake, so a second descriptor goes on where it ends; closing
 * libnbd's own sends nothing. */
static int take_socket(struct fsw_dial *dial, struct nbd_handle *nbd)
{
    int fd = fcntl(lib.aio_get_fd(nbd), F_DUPFD_CLOEXEC, 0);

    if (fd < 0 || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0)
        return fail(dial, strerror(errno));
    dial->fd = fd;
    return 0;
}

static int shake_hands(struct fsw_dial *dial, struct nbd_handle *nbd, int fd, uint64_t deadline)
{
    if (set_up(nbd, dial) < 0 || lib.aio_connect_socket(nbd, fd) < 0) {
        close(fd);
        return fail(dial, lib.get_error());
    }
    while (lib.aio_is_connecting(nbd) > 0) {
        int left = left_ms(deadline);
        if (left == 0)
            return fail(dial, "no handshake in time");
        if (lib.poll(nbd, left) < 0)
            return fail(dial, lib.get_error());
    }
    if (lib.aio_is_ready(nbd) <= 0)
        return fail(dial, lib.get_error() != NULL ? lib.get_error() : "no handshake");
    return read_export(dial, nbd) < 0 ? -1 : take_socket(dial, nbd);
}

void fsw_dial_job(void *opaque)
{
    struct fsw_dial *dial = opaque;
    uint64_t deadline = fsw_now_ns() + dial->timeout * FSW_NS_PER_S;

    dial->fd = -1;
    abort_old(dial);
    int fd = connect_soon(dial, deadline);
    if (fd < 0) {
        fail(dial, strerror(-fd));
        return;
    }
    struct nbd_handle *nbd = lib.create();
    if (nbd == NULL) {
        close(fd);
        fail(dial, lib.get_error());
        return;
    }
    shake_hands(dial, nbd, fd, deadline);
    lib.close(nbd);
}
