/*
 * standin.c: a server that misbehaves as it is told, for tests of farswap-attach.
 *
 * It takes farswap-nbd's command line and speaks its control protocol, holds the lock of
 * RUNDIR/NAME.image and keeps its pages, uncompressed, in locked shared memory; so one of them goes
 * on where another was killed. The key bad= says what it does wrong:
 *
 *     deaf       never says that it waits
 *     exit       ends at once
 *     late       says that it waits, gets the lock, and fails
 *     mute       gets the lock, and never answers for a socket
 *     stranger   tells the id of another device
 *     unstable   takes a socket, and ends
 *
 * A copy of it named late-standin does the same as bad=late, where the command line is another's, and
 * so does "late" in the file RUNDIR/NAME.bad, for those that are started from then on.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/nbd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <unistd.h>

static int control = -1;
static const char *name = "", *bad = "";
static uint64_t size = 64 << 20;
static char device[33];
static int recovered;
static uint8_t *pages;

static void say(const char *text)
{
    if (send(control, text, strlen(text), MSG_NOSIGNAL) < 0)
        _exit(1);
}

static int is_bad(const char *mode)
{
    return strcmp(bad, mode) == 0;
}

/* ---- the image ---- */

static atomic_int has_lock;

static void *watch_supervisor(void *opaque)
{
    struct pollfd end = {.fd = control, .events = POLLRDHUP};

    poll(&end, 1, -1);
    if (!has_lock)
        _exit(0);
    return NULL;
}

static void make_image(int fd)
{
    uint8_t id[16];
    char text[128];
    int shm = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);

    if (shm < 0 || shmctl(shm, SHM_LOCK, NULL) < 0 || getrandom(id, sizeof id, 0) != sizeof id)
        say("failed no shared memory");
    for (unsigned i = 0; i < 16; i++)
        snprintf(device + 2 * i, 3, "%02x", id[i]);
    int n = snprintf(text, sizeof text, "shmid=%d\ndevice=%s\n", shm, device);
    if (pwrite(fd, text, (size_t)n, 0) != n)
        _exit(1);
    pages = shmat(shm, NULL, 0);
}

static void run_path(const char *suffix, char path[4096])
{
    const char *dir = getenv("FARSWAP_RUNDIR");

    snprintf(path, 4096, "%s/%s.%s", dir != NULL ? dir : "/run/farswap", name, suffix);
}

static void read_mode(void)
{
    static char mode[16];
    char path[4096];

    run_path("bad", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && read(fd, mode, sizeof mode - 1) > 0) {
        mode[strcspn(mode, "\n")] = '\0';
        bad = mode;
    }
}

static void open_image(void)
{
    char path[4096], text[128] = "";
    int shm;

    run_path("image", path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) {
        say("failed no image file");
        _exit(1);
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        pthread_t watcher;
        if (!is_bad("deaf"))
            say("waiting");
        pthread_create(&watcher, NULL, watch_supervisor, NULL);
        while (flock(fd, LOCK_EX) < 0)
            ;
        has_lock = 1;
    }
    if (pread(fd, text, sizeof text - 1, 0) <= 0) {
        make_image(fd);
    } else if (sscanf(text, "shmid=%d device=%32s", &shm, device) == 2) {
        pages = shmat(shm, NULL, 0);
        recovered = 1;
    }
    if (is_bad("stranger"))
        memset(device, 'e', 32);
}

/* ---- the transmission ---- */

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

/* By way of a buffer: User Mode Linux forgets that a page was written when it was the kernel that
 * wrote it for a read(), and may then drop the page while no process has it mapped. */
static int take_write(int fd, uint64_t from, uint32_t length)
{
    static char buffer[1 << 20]; /* the kernel asks for 128 KiB at most */

    if (length > sizeof buffer || !all(fd, buffer, length, 0))
        return 0;
    memcpy(pages + from, buffer, length);
    return 1;
}

static int serve_one(int fd)
{
    struct nbd_request request;
    struct nbd_reply reply = {.magic = htobe32(NBD_REPLY_MAGIC)};

    if (!all(fd, &request, sizeof request, 0))
        return 0;
    uint64_t from = be64toh(request.from);
    uint32_t length = be32toh(request.len), type = be32toh(request.type) & 0xffff;
    memcpy(reply.handle, request.handle, sizeof reply.handle);
    if (from + length > size)
        return 0;
    if (type == NBD_CMD_DISC || (type == NBD_CMD_WRITE && !take_write(fd, from, length)))
        return 0;
    if (type == NBD_CMD_TRIM)
        memset(pages + from, 0, length);
    return all(fd, &reply, sizeof reply, 1) &&
           (type != NBD_CMD_READ || all(fd, pages + from, length, 1));
}

static void *serve(void *opaque)
{
    int fd = (int)(intptr_t)opaque;

    while (serve_one(fd))
        ;
    shutdown(fd, SHUT_RDWR);
    say("closed");
    return NULL;
}

/* The next message; a descriptor that came with it, or -1. 0 at the end. */
static int hear(char text[512], int *ret_fd)
{
    char ancillary[CMSG_SPACE(sizeof(int))];
    struct iovec line = {.iov_base = text, .iov_len = 511};
    struct msghdr message = {.msg_iov = &line,
                             .msg_iovlen = 1,
                             .msg_control = ancillary,
                             .msg_controllen = sizeof ancillary};
    ssize_t n = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
    struct cmsghdr *rights = n > 0 ? CMSG_FIRSTHDR(&message) : NULL;

    *ret_fd = -1;
    if (rights != NULL)
        memcpy(ret_fd, CMSG_DATA(rights), sizeof *ret_fd);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static void take_sockets(void)
{
    char text[512];
    int fd, before = -1;
    pthread_t server;

    while (hear(text, &fd)) {
        if (strcmp(text, "serve") != 0 || is_bad("mute"))
            continue;
        if (before >= 0) {
            shutdown(before, SHUT_RDWR);
            pthread_join(server, NULL);
            close(before);
        }
        before = fd;
        pthread_create(&server, NULL, serve, (void *)(intptr_t)fd);
        say("serving");
        if (is_bad("unstable"))
            _exit(3);
    }
}

int main(int argc, char **argv)
{
    char text[128];

    static char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (n > 0 && strstr(self, "-standin") != NULL) {
        *strstr(self, "-standin") = '\0';
        bad = strrchr(self, '/') + 1;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--control") == 0)
            control = atoi(argv[++i]);
        else if (strcmp(argv[i], "--timeout") == 0)
            i++;
        else if (strncmp(argv[i], "size=", 5) == 0)
            size = strtoull(argv[i] + 5, NULL, 10) << 20;
        else if (strncmp(argv[i], "bad=", 4) == 0)
            bad = argv[i] + 4;
        else if (argv[i][0] != '-' && strchr(argv[i], '=') == NULL)
            name = argv[i];
    }
    read_mode();
    if (is_bad("exit"))
        return 4;
    mlockall(MCL_CURRENT | MCL_FUTURE);
    open_image();
    if (is_bad("late")) {
        say("failed I changed my mind");
        return 1;
    }
    snprintf(text, sizeof text, "ready size=%llu device=%s recovered=%d", (unsigned long long)size,
             device, recovered);
    say(text);
    take_sockets();
    for (;;)
        pause();
}
