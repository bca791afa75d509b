/*
 * fake_kernel.c: farswap-attach's view of the kernel (kernel.h, probe.h) without one, so that the
 * supervisor can run where there is no nbd, and under sanitizers.
 *
 * What it does with the socket is real: a thread speaks NBD on it as the kernel does. It writes pages
 * that no two are alike, reads others back and compares them with what it wrote, one request at a
 * time; when the socket dies it sends the request again on the next one. A page that is wrong ends
 * the process.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nbd.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "client/attach/kernel.h"
#include "client/attach/probe.h"
#include "common/cleanup.h"

#define PAGE 4096u
#define PAGES 2048u

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    int fd; /* -1: dead */
    int configured;
    uint64_t operations, sockets;
    uint64_t serials[PAGES]; /* what page holds which write; 0: none */
} fake = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, .fd = -1};

/* ---- the client in the kernel's place ---- */

static int all(int fd, void *bytes, size_t length, int out)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = out ? send(fd, (char *)bytes + done, length - done, MSG_NOSIGNAL)
                        : recv(fd, (char *)bytes + done, length - done, 0);
        if (n <= 0)
            return 0;
        done += (size_t)n;
    }
    return 1;
}

static void fill(uint64_t page[PAGE / 8], uint64_t serial)
{
    for (unsigned i = 0; i < PAGE / 8; i++)
        page[i] = serial == 0 ? 0 : serial * 0x9E3779B97F4A7C15u + i / 4;
}

/* One request and its answer: 0 if the socket died in between. */
static int request(int fd, uint32_t type, uint32_t number, uint64_t page[PAGE / 8])
{
    struct nbd_request ask = {.magic = htobe32(NBD_REQUEST_MAGIC),
                              .type = htobe32(type),
                              .from = htobe64((uint64_t)number * PAGE),
                              .len = htobe32(PAGE)};
    struct nbd_reply reply;

    if (!all(fd, &ask, sizeof ask, 1) || (type == NBD_CMD_WRITE && !all(fd, page, PAGE, 1)) ||
        !all(fd, &reply, sizeof reply, 0))
        return 0;
    if (reply.error != 0) {
        fprintf(stderr, "fake kernel: error %u\n", be32toh(reply.error));
        abort();
    }
    return type != NBD_CMD_READ || all(fd, page, PAGE, 0);
}

/* The socket that there is, once there is one; -1 when the device has gone. */
static int wait_for_socket(void)
{
    FSW_LOCK_SCOPE(&fake.lock);
    while (fake.fd < 0 && fake.configured)
        pthread_cond_wait(&fake.changed, &fake.lock);
    return fake.configured ? fake.fd : -1;
}

static void socket_died(void)
{
    FSW_LOCK_SCOPE(&fake.lock);
    shutdown(fake.fd, SHUT_RDWR);
    close(fake.fd);
    fake.fd = -1;
}

/* Until it is answered, on as many sockets as that takes. 0: the device has gone. */
static int insist(uint32_t type, uint32_t number, uint64_t page[PAGE / 8])
{
    for (;;) {
        int fd = wait_for_socket();
        if (fd < 0)
            return 0;
        if (request(fd, type, number, page))
            return 1;
        socket_died();
    }
}

static void *use_device(void *opaque)
{
    uint64_t page[PAGE / 8], wanted[PAGE / 8], serial = 0;
    unsigned seed = 1;

    for (;;) {
        uint32_t number = (uint32_t)rand_r(&seed) % PAGES, other = (uint32_t)rand_r(&seed) % PAGES;
        fill(page, ++serial);
        if (!insist(NBD_CMD_WRITE, number, page))
            return NULL;
        fake.serials[number] = serial;
        if (!insist(NBD_CMD_READ, other, page))
            return NULL;
        fill(wanted, fake.serials[other]);
        if (memcmp(page, wanted, PAGE) != 0) {
            fprintf(stderr, "fake kernel: page %u is wrong\n", other);
            abort();
        }
        fake.operations += 2;
    }
}

/* ---- kernel.h ---- */

int fsw_kernel_open(struct fsw_kernel *kernel, struct fsw_error *err)
{
    memset(kernel, 0, sizeof *kernel);
    kernel->events_fd = -1;
    return 0;
}

/* With the request timeout: a server that does not answer has lost its socket. */
static void take(int fd, const struct fsw_kernel_config *config)
{
    const struct timeval timeout = {.tv_sec = (time_t)config->timeout};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    fake.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    fake.sockets++;
    pthread_cond_signal(&fake.changed);
}

int fsw_kernel_connect(struct fsw_kernel *kernel, int index, const struct fsw_kernel_config *config,
                       int fd, int *ret_index)
{
    FSW_LOCK_SCOPE(&fake.lock);
    if (config->size < (uint64_t)PAGES * PAGE)
        return -EINVAL;
    fake.configured = 1;
    take(fd, config);
    *ret_index = index < 0 ? 0 : index;
    return -pthread_create(&fake.thread, NULL, use_device, NULL);
}

int fsw_kernel_reconfigure(struct fsw_kernel *kernel, int index,
                           const struct fsw_kernel_config *config, int fd)
{
    FSW_LOCK_SCOPE(&fake.lock);
    if (!fake.configured)
        return -EINVAL;
    if (fake.fd >= 0)
        return 0; /* its client has not noticed yet */
    take(fd, config);
    return 1;
}

int fsw_kernel_disconnect(struct fsw_kernel *kernel, int index)
{
    pthread_mutex_lock(&fake.lock);
    fake.configured = 0;
    if (fake.fd >= 0)
        shutdown(fake.fd, SHUT_RDWR);
    pthread_cond_signal(&fake.changed);
    pthread_mutex_unlock(&fake.lock);
    pthread_join(fake.thread, NULL);
    printf("%llu operations, %llu sockets\n", (unsigned long long)fake.operations,
           (unsigned long long)fake.sockets);
    fflush(stdout);
    return 0;
}

int fsw_kernel_connected(struct fsw_kernel *kernel, int index)
{
    FSW_LOCK_SCOPE(&fake.lock);
    return fake.configured;
}

int fsw_kernel_link_died(struct fsw_kernel *kernel, int index)
{
    return 0;
}

/* ---- probe.h ---- */

void fsw_probe_first_read(void *opaque)
{
    struct fsw_probe *probe = opaque;

    probe->result = 0;
}

void fsw_probe_claim(void *opaque)
{
    struct fsw_probe *probe = opaque;

    probe->result = open("/dev/null", O_RDONLY | O_CLOEXEC);
}
