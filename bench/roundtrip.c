/*
 * roundtrip.c: how long one request takes, one at a time, with as little around it as there can be.
 *
 *      roundtrip read URI ORDER FIRST PAGES BYTES COUNT [STUCK_FIRST STUCK]
 *                          COUNT reads of BYTES each of PAGES pages from page FIRST on, in ORDER
 *                          (random, sequential) through libnbd. First STUCK reads of pages from
 *                          STUCK_FIRST on are sent, whose answers nobody waits for: of a store that is
 *                          away, on the same connection
 *      roundtrip getrange HOST PORT KEY OFFSET LENGTH COUNT
 *                          the same range of a RESP server's value, COUNT times
 *
 * Prints "p50 US p99 US mean US seconds S". Reads are not checked: bench/pages does that.
 */
#include <errno.h>
#include <libnbd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/target.h"
#include "common/clock.h"

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);

    if (*text == '\0' || *end != '\0')
        die("%s is not a number", text);
    return value;
}

/* ---- times ---- */

struct times {
    uint64_t *ns;
    uint64_t count, started;
};

static struct times times_of(uint64_t room)
{
    struct times times = {.ns = calloc(room + 1, sizeof(uint64_t)), .started = fsw_now_ns()};

    if (times.ns == NULL)
        die("no memory");
    return times;
}

static int by_size(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void print(struct times *times)
{
    double seconds = (double)(fsw_now_ns() - times->started) / 1e9;

    if (times->count == 0)
        die("nothing was measured");
    qsort(times->ns, times->count, sizeof times->ns[0], by_size);
    printf("p50 %.2f p99 %.2f mean %.2f seconds %.4f\n", (double)times->ns[times->count / 2] / 1e3,
           (double)times->ns[times->count * 99 / 100] / 1e3, seconds * 1e6 / (double)times->count,
           seconds);
    free(times->ns);
}

/* ---- an NBD server ---- */

static void must(struct nbd_handle *nbd, int failed, const char *verb)
{
    if (failed)
        die("%s: %s", verb, nbd_get_error());
    (void)nbd;
}

static void leave_stuck(struct nbd_handle *nbd, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        char *bytes = malloc(PAGE);
        if (bytes == NULL)
            die("no memory");
        must(nbd, nbd_aio_pread(nbd, bytes, PAGE, (first + i) * PAGE, NBD_NULL_COMPLETION, 0) < 0,
             "read");
    }
}

static int run_read(int argc, char **argv)
{
    uint64_t first = number(argv[2]), pages = number(argv[3]), bytes = number(argv[4]);
    uint64_t count = number(argv[5]), random = 88172645463325252ull, parts = pages * PAGE / bytes;
    int sequential = strcmp(argv[1], "sequential") == 0;
    struct nbd_handle *nbd = nbd_create();
    char *buffer = malloc(bytes);

    if (nbd == NULL || buffer == NULL || parts == 0)
        die("no memory, or nothing to read");
    must(nbd, nbd_connect_uri(nbd, argv[0]) < 0, "connect");
    if (argc > 7)
        leave_stuck(nbd, number(argv[6]), number(argv[7]));
    struct times times = times_of(count);
    for (uint64_t i = 0; i < count; i++) {
        random ^= random << 13, random ^= random >> 7, random ^= random << 17;
        uint64_t part = (sequential ? i : random) % parts, start = fsw_now_ns();
        must(nbd, nbd_pread(nbd, buffer, bytes, first * PAGE + part * bytes, 0) < 0, "read");
        times.ns[times.count++] = fsw_now_ns() - start;
    }
    print(&times);
    return 0; /* and the connection ends, whatever waits on it */
}

/* ---- a RESP server ---- */

static int dial(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int one = 1;

    if (getaddrinfo(host, port, &hints, &found) != 0)
        die("%s: no such host", host);
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) < 0)
        die("%s:%s: %s", host, port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    freeaddrinfo(found);
    return fd;
}

/* Bytes of the whole answer: its head says how long it is. */
static size_t answer_length(int fd, const char *command, int length)
{
    char bytes[128 << 10];
    size_t have = 0, head = 0, whole = SIZE_MAX;

    if (write(fd, command, (size_t)length) != length)
        die("the server does not take a command");
    while (have < whole) {
        ssize_t n = read(fd, bytes + have, sizeof bytes - have);
        if (n <= 0)
            die("the server has gone");
        have += (size_t)n;
        char *end = head == 0 ? memchr(bytes, '\n', have) : NULL;
        if (end == NULL)
            continue;
        head = (size_t)(end - bytes) + 1;
        if (bytes[0] != '$' || atol(bytes + 1) <= 0)
            die("the server answers: %.40s", bytes);
        whole = head + (size_t)atol(bytes + 1) + 2;
    }
    return whole - head - 2;
}

static int run_getrange(int argc, char **argv)
{
    uint64_t from = number(argv[3]), length = number(argv[4]), count = number(argv[5]);
    int fd = dial(argv[0], argv[1]);
    char command[512], a[24], b[24];

    snprintf(a, sizeof a, "%llu", (unsigned long long)from);
    snprintf(b, sizeof b, "%llu", (unsigned long long)(from + length - 1));
    int n = snprintf(command, sizeof command,
                     "*4\r\n$8\r\nGETRANGE\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n",
                     strlen(argv[2]), argv[2], strlen(a), a, strlen(b), b);
    struct times times = times_of(count);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t start = fsw_now_ns();
        if (answer_length(fd, command, n) != length)
            die("the value is shorter");
        times.ns[times.count++] = fsw_now_ns() - start;
    }
    print(&times);
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc >= 8 && strcmp(argv[1], "read") == 0)
        return run_read(argc - 2, argv + 2);
    if (argc == 8 && strcmp(argv[1], "getrange") == 0)
        return run_getrange(argc - 2, argv + 2);
    fputs("usage: roundtrip read URI ORDER FIRST PAGES BYTES COUNT [STUCK_FIRST STUCK]\n"
          "       roundtrip getrange HOST PORT KEY OFFSET LENGTH COUNT\n",
          stderr);
    return 2;
}
