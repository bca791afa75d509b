/*
 * main.c: farswap-nbd: options, wiring, and the thread that accepts.
 *
 *      options ─> store opened ─> all of us touched and locked ─> (waiting) ─> image ─> threads ─> ready
 *
 * The main thread accepts, talks to the supervisor and waits for signals; each connection has a
 * thread of its own. A stop is a kill: SIGTERM ends the process at once, with no error replies, and
 * the image stays. Warnings and errors are one line each on stderr; an error before it is ready also
 * goes to the supervisor.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "client/nbd/conn.h"
#include "client/nbd/control.h"
#include "client/nbd/listen.h"
#include "client/nbd/shake.h"
#include "client/nbd/options.h"
#include "common/nudge.h"
#include "common/rights.h"

/* The kernel's connection, the one before it that has not ended yet, and one to spare. */
#define PREPARED 3u
/* What a spare gives back to the system when it takes over. */
#define KEPT_BYTES (8u << 20)

struct program {
    struct fsw_nbd_options options;
    struct fsw_door door;
    struct fsw_nbd nbd;
    struct fsw_listener listeners[1 + FSW_NBD_LISTEN_MAX];
    unsigned listening;
    int signals;
    char name[FSW_NAME_MAX + 1], description[FSW_SHAKE_DESCRIPTION + 1];
};

static void complain(const char *line)
{
    fprintf(stderr, "farswap-nbd: %s\n", line);
}

static void warn(const char *line)
{
    fprintf(stderr, "farswap-nbd: warning: %s\n", line);
}

/* ---- the start ---- */

static int open_listeners(struct program *program, struct fsw_error *err)
{
    const struct fsw_nbd_options *options = &program->options;
    int r = 0;

    if (options->unix_path != NULL)
        r = fsw_listen_unix(options->unix_path, &program->listeners[program->listening++], err);
    for (unsigned i = 0; r == 0 && i < options->listens; i++) {
        r = fsw_listen_tcp(&options->listen[i], &program->listeners[program->listening++], err);
        if (r == 0 && !fsw_listen_is_loopback(&options->listen[i]))
            warn("NBD has no password and no encryption: whoever reaches --listen can read and "
                 "write the device");
    }
    return r;
}

/* Code, libraries and heap as they are now: what is touched later is locked as it is. A spare has
 * put off its rights until here. */
static void touch(void)
{
    mlockall(MCL_CURRENT);
    fsw_rights_take();
}

static int watch_signals(struct program *program)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    program->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return program->signals < 0 ? -errno : 0;
}

/* A spare dies with its supervisor (the thread that started it): nobody would know of it any more,
 * and it would take the image from whoever comes next. One that has the image stays. */
static int wait_as_spare(struct program *program, struct fsw_error *err)
{
    const struct fsw_nbd_options *options = &program->options;
    struct pollfd supervisor = {.fd = options->control, .events = POLLRDHUP};

    int r = fsw_device_could_open(&program->door.params, err);
    if (r < 0 || options->control < 0)
        return r;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (poll(&supervisor, 1, 0) == 1 && (supervisor.revents & POLLRDHUP) != 0)
        return fsw_error(err, -EPIPE, "the supervisor has gone");
    fsw_control_waiting(options->control);
    return 0;
}

/* What the engine's threads and lists will take, which can't be there before the image is. */
static void *keep_memory(void)
{
    void *kept = mmap(NULL, KEPT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (kept == MAP_FAILED)
        return NULL;
    memset(kept, 1, KEPT_BYTES);
    return kept;
}

/* Threads that a spare has before it has the image. Signals are the main thread's, which has not
 * asked for them yet: one that comes while it waits ends the process. */
static int make_threads(struct program *program, struct fsw_error *err)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = fsw_conns_init(&program->nbd, program->options.control >= 0 ? PREPARED : 0);
    if (r == 0)
        r = fsw_room_start(&program->nbd.room, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r < 0 ? fsw_error(err, r, "connections and threads: %s", strerror(-r)) : 0;
}

static int open_device(struct program *program, struct fsw_error *err)
{
    const struct fsw_nbd_options *options = &program->options;
    struct fsw_door *door = &program->door;

    if (options->wait)
        fsw_rights_put_off();
    int r = fsw_door_check(door, err);
    if (r == 0)
        r = fsw_door_probe(door, err);
    if (r < 0)
        return r;
    snprintf(program->name, sizeof program->name, "%s", door->params.name);
    touch();
    r = make_threads(program, err);
    if (r < 0)
        return r;
    if (options->wait)
        fsw_rights_put_off();
    fsw_conns_touch(&program->nbd);
    void *kept = options->wait ? keep_memory() : NULL;
    fsw_rights_take();
    fsw_nudge_prepare();
    if (!options->wait)
        return fsw_door_open(door, 0, err);
    r = wait_as_spare(program, err);
    if (r == 0)
        r = fsw_door_open(door, 1, err);
    if (kept != NULL)
        munmap(kept, KEPT_BYTES);
    if (options->control >= 0)
        prctl(PR_SET_PDEATHSIG, 0);
    return r;
}

/* The device's id: another image under the same name is another device. */
static void describe(struct program *program)
{
    const struct fsw_device_id *id = fsw_device_id(program->door.device);
    int n = snprintf(program->description, sizeof program->description, "farswap-");

    for (unsigned i = 0; i < sizeof id->bytes; i++)
        n += snprintf(program->description + n, sizeof program->description - (size_t)n, "%02x",
                      id->bytes[i]);
}

static int start_threads(struct program *program, struct fsw_error *err)
{
    struct fsw_nbd *nbd = &program->nbd;
    int r = fsw_door_serve(&program->door, warn, err);

    if (r < 0)
        return r;
    nbd->device = program->door.device;
    nbd->name = program->name;
    describe(program);
    nbd->description = program->description;
    nbd->size = fsw_device_size(nbd->device);
    nbd->timeout = program->options.timeout;
    nbd->timeout_given = program->options.timeout_given;
    nbd->room.device = nbd->device;
    return 0;
}

static int start(struct program *program, struct fsw_error *err)
{
    int r = open_device(program, err);

    if (r < 0)
        return r;
    r = watch_signals(program); /* before there are threads, so that none of them gets one */
    if (r == 0)
        r = open_listeners(program, err);
    if (r < 0) {
        fsw_door_abandon(&program->door);
        return r;
    }
    fsw_door_warn(&program->door, warn);
    return start_threads(program, err);
}

/* ---- while it serves ---- */

static void stop(struct program *program)
{
    for (unsigned i = 0; i < program->listening; i++)
        if (program->listeners[i].unix_path != NULL)
            unlink(program->listeners[i].unix_path);
    fsw_door_leave(&program->door);
    _exit(0);
}

static void accept_one(struct program *program, const struct fsw_listener *listener)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    int fd = accept4(listener->fd, (struct sockaddr *)&address, &length, SOCK_CLOEXEC);

    if (fd >= 0)
        fsw_conn_start(&program->nbd, fd,
                       listener->unix_path != NULL ? FSW_CONN_UNIX : FSW_CONN_TCP, &address);
}

/* Returns 0 when the supervisor has gone: we go on with what we serve. */
static int heed(struct program *program, int control)
{
    int fd, r = fsw_control_receive(control, &fd);

    if (r == 1) {
        if (fsw_conn_start(&program->nbd, fd, FSW_CONN_HANDED, NULL) == 0)
            fsw_control_serving(control);
        else
            fsw_control_closed(control);
    }
    return r >= 0;
}

static void serve(struct program *program)
{
    enum { SIGNALS, NOTICE, CONTROL, LISTENERS };
    struct pollfd waits[LISTENERS + 1 + FSW_NBD_LISTEN_MAX] = {
        [SIGNALS] = {.fd = program->signals, .events = POLLIN},
        [NOTICE] = {.fd = program->nbd.notice, .events = POLLIN},
        [CONTROL] = {.fd = program->options.control, .events = POLLIN},
    };
    eventfd_t count;

    for (unsigned i = 0; i < program->listening; i++)
        waits[LISTENERS + i] = (struct pollfd){.fd = program->listeners[i].fd, .events = POLLIN};
    for (;;) {
        poll(waits, LISTENERS + program->listening, -1);
        if (waits[SIGNALS].revents)
            stop(program);
        if (waits[NOTICE].revents && eventfd_read(program->nbd.notice, &count) == 0)
            fsw_control_closed(waits[CONTROL].fd);
        if (waits[CONTROL].revents && !heed(program, waits[CONTROL].fd))
            waits[CONTROL].fd = -1;
        for (unsigned i = 0; i < program->listening; i++)
            if (waits[LISTENERS + i].revents)
                accept_one(program, &program->listeners[i]);
    }
}

static void say_ready(const struct program *program)
{
    printf("farswap-nbd: %s is served", program->name);
    for (unsigned i = 0; i < program->listening; i++)
        printf(" %s %s", i == 0 ? "on" : "and", program->listeners[i].text);
    printf("\n");
    fflush(stdout);
    fsw_control_ready(program->options.control, program->nbd.device);
}

int main(int argc, char **argv)
{
    static struct program program;
    struct fsw_error err = {""};

    fsw_door_init(&program.door);
    int r = fsw_nbd_options_parse(argc, argv, &program.options, &program.door, &err);
    if (r == 0 && program.options.show_help) {
        fsw_nbd_options_print_help(stdout);
        return 0;
    }
    if (r == 0 && program.options.show_version) {
        printf("farswap-nbd %s\n", FSW_VERSION);
        return 0;
    }
    if (r == 0)
        r = start(&program, &err);
    if (r < 0) {
        complain(err.text);
        fsw_control_failed(program.options.control, err.text);
        return 1;
    }
    say_ready(&program);
    serve(&program);
}
