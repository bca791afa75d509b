/*
 * test_store_server.c: real servers and awaitable requests for the tests of the stores.
 */
#include "test_store_server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the headers it needs */
#include <cmocka.h>

#include "client/store/store_open.h"

/* ---- servers ---- */

void server_choose(struct server *server, int argc, char **argv)
{
    memset(server, 0, sizeof *server);
    if (argc < 3) {
        fprintf(stderr, "usage: %s redis|farswapd|nbdkit BINARY [unix]\n", argv[0]);
        exit(2);
    }
    server->kind = strcmp(argv[1], "redis") == 0      ? SERVER_REDIS
                   : strcmp(argv[1], "farswapd") == 0 ? SERVER_FARSWAPD
                                                      : SERVER_NBDKIT;
    server->binary = argv[2];
    server->over_unix = argc > 3 && strcmp(argv[3], "unix") == 0;
}

int listen_on(int *ret_port)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof any;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof any), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&any, &size), 0);
    *ret_port = ntohs(any.sin_port);
    return fd;
}

/* Bound, a port is given to nobody who asks for any, also as the near end of a connection; and a server
 * can listen there, since neither side minds (SO_REUSEADDR). */
int free_port(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof any;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;

    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes), 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&any, sizeof any), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&any, &size), 0);
    return ntohs(any.sin_port); /* fd: until the program ends */
}

static void write_password(struct server *server, char path[128])
{
    FILE *file;

    snprintf(path, 128, "%s/password", server->dir);
    file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "%s\n", server->password);
    fclose(file);
    chmod(path, 0600);
}

static void exec_redis(struct server *server)
{
    char port[16];
    const char *argv[32] = {
        server->binary, "--bind",    "127.0.0.1", "--port",     port,     "--unixsocket",
        server->socket, "--dir",     server->dir, "--save",     "",       "--appendonly",
        "no",           "--logfile", "log",       "--loglevel", "warning"};
    int n = 17;

    snprintf(port, sizeof port, "%d", server->port);
    if (server->memory != NULL) {
        argv[n++] = "--maxmemory";
        argv[n++] = server->memory;
    }
    if (server->password != NULL) {
        argv[n++] = "--requirepass";
        argv[n++] = server->password;
    }
    execv(server->binary, (char **)argv);
}

/* In the server's own folder. All have one name, and none has another's image. */
#define KEPT_NAME "kept"

static void exec_farswapd(struct server *server)
{
    char listen_text[32], path[128];
    const char *argv[16] = {server->binary,
                            "--listen",
                            listen_text,
                            "--unix",
                            server->socket,
                            "--memory",
                            server->memory != NULL ? server->memory : "256M"};
    int n = 7;

    snprintf(listen_text, sizeof listen_text, "127.0.0.1:%d", server->port);
    if (server->password != NULL) {
        write_password(server, path);
        argv[n++] = "--requirepass-file";
        argv[n++] = path;
    }
    if (server->keeps) {
        argv[n++] = "--name";
        argv[n++] = KEPT_NAME;
        setenv("FARSWAP_RUNDIR", server->dir, 1);
    }
    execv(server->binary, (char **)argv);
}

/* Every file in its directory is an export. One thread a connection: 1.32 aborts when a client drops
 * with several requests in flight. */
static void exec_nbdkit(struct server *server)
{
    char port[16], dir[80];

    snprintf(dir, sizeof dir, "dir=%s/exports", server->dir);
    snprintf(port, sizeof port, "%d", server->port);
    if (server->memory != NULL)
        execl(server->binary, server->binary, "-f", "-t", "1", "-U", server->socket, "memory",
              server->memory, NULL);
    else if (server->over_unix)
        execl(server->binary, server->binary, "-f", "-t", "1", "-U", server->socket, "file", dir,
              NULL);
    else
        execl(server->binary, server->binary, "-f", "-t", "1", "-i", "127.0.0.1", "-p", port,
              "file", dir, NULL);
}

static void run_server(struct server *server, pid_t parent)
{
    char path[128];
    int log;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    snprintf(path, sizeof path, "%s/output", server->dir);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, 1);
    dup2(log, 2);
    if (server->kind == SERVER_REDIS)
        exec_redis(server);
    else if (server->kind == SERVER_NBDKIT)
        exec_nbdkit(server);
    else
        exec_farswapd(server);
    _exit(127);
}

/* It listens. */
static int accepts(struct server *server)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in any = {.sin_family = AF_INET,
                              .sin_port = htons((uint16_t)server->port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int over_unix = server->over_unix || server->memory != NULL;
    int fd = socket(over_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(path.sun_path, sizeof path.sun_path, "%s", server->socket);
    int r = over_unix ? connect(fd, (struct sockaddr *)&path, sizeof path)
                      : connect(fd, (struct sockaddr *)&any, sizeof any);
    close(fd);
    return r == 0;
}

/* PONG, or an error that says a server is there. */
static int answers(struct server *server)
{
    if (server->kind == SERVER_NBDKIT)
        return accepts(server);
    redisContext *context = redisConnectUnix(server->socket);
    redisReply *reply = NULL;
    int r;

    if (context != NULL && context->err == 0)
        reply = redisCommand(context, "PING");
    r = reply != NULL &&
        (reply->type == REDIS_REPLY_STATUS || strncmp(reply->str, "NOAUTH", 6) == 0);
    if (reply != NULL)
        freeReplyObject(reply);
    if (context != NULL)
        redisFree(context);
    return r;
}

void server_restart(struct server *server)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    pid_t parent = getpid();

    unlink(server->socket);
    server->pid = fork();
    assert_true(server->pid >= 0);
    if (server->pid == 0)
        run_server(server, parent);
    while (!answers(server)) {
        if (fsw_now_ns() > end || waitpid(server->pid, NULL, WNOHANG) != 0)
            fail_msg("%s does not start; see %s", server->binary, server->dir);
        usleep(5000);
    }
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *at)
{
    return remove(path);
}

/* What it keeps is no file. It may live for a moment yet. */
static void destroy_kept(const struct server *server)
{
    pid_t pid = fork();

    if (pid == 0) {
        setenv("FARSWAP_RUNDIR", server->dir, 1);
        execl(server->binary, server->binary, "--destroy", KEPT_NAME, NULL);
        _exit(1);
    }
    waitpid(pid, NULL, 0);
}

/* Also when the test crashes. The server dies with it too, but may write until it does. */
static void run_janitor(const struct server *server, int alive)
{
    const char *dir = server->dir;
    char byte, disk[96];

    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    while (read(alive, &byte, 1) < 0)
        ;
    snprintf(disk, sizeof disk, "%s/disk", dir); /* where a test may have mounted one */
    umount2(disk, MNT_DETACH);
    if (server->keeps)
        destroy_kept(server);
    for (unsigned i = 0; i < 100 && nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0; i++)
        usleep(20000);
    _exit(0);
}

static void start_janitor(struct server *server)
{
    int ends[2];

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    server->janitor = fork();
    assert_true(server->janitor >= 0);
    if (server->janitor == 0) {
        close(ends[1]);
        run_janitor(server, ends[0]);
    }
    close(ends[0]);
    server->alive = ends[1];
}

void server_directory(struct server *server)
{
    strcpy(server->dir, "/var/tmp/fsw-store-XXXXXX"); /* not /tmp, which may be memory */
    assert_non_null(mkdtemp(server->dir));
    start_janitor(server);
}

void server_start(struct server *server)
{
    server_directory(server);
    snprintf(server->socket, sizeof server->socket, "%s/socket", server->dir);
    server->port = free_port();
    if (server->kind == SERVER_NBDKIT) {
        char exports[80];
        snprintf(exports, sizeof exports, "%s/exports", server->dir);
        assert_int_equal(mkdir(exports, 0700), 0);
    }
    server_restart(server);
}

void server_kill(struct server *server)
{
    if (server->pid <= 0)
        return;
    kill(server->pid, SIGKILL);
    waitpid(server->pid, NULL, 0);
    server->pid = 0;
}

/* SIGSTOP takes effect some time after kill() returns. */
void server_freeze(struct server *server)
{
    int status;

    assert_true(server->pid > 0); /* 0 would be all of us */
    kill(server->pid, SIGSTOP);
    waitpid(server->pid, &status, WUNTRACED);
    assert_true(WIFSTOPPED(status));
}

void server_thaw(struct server *server)
{
    kill(server->pid, SIGCONT);
}

void server_stop(struct server *server)
{
    server_kill(server);
    if (server->janitor <= 0)
        return;
    close(server->alive);
    waitpid(server->janitor, NULL, 0);
    server->janitor = 0;
}

const char *server_uri(struct server *server)
{
    if (server->over_unix)
        snprintf(server->uri_text, sizeof server->uri_text, "resp+unix://%s", server->socket);
    else
        snprintf(server->uri_text, sizeof server->uri_text, "resp://127.0.0.1:%d", server->port);
    return server->uri_text;
}

redisContext *server_connect(struct server *server)
{
    redisContext *context = redisConnectUnix(server->socket);

    assert_non_null(context);
    assert_int_equal(context->err, 0);
    if (server->password != NULL)
        freeReplyObject(redisCommand(context, "AUTH %s", server->password));
    return context;
}

static redisReply *command_v(struct server *server, const char *format, va_list args)
{
    redisContext *context = server_connect(server);
    redisReply *reply = redisvCommand(context, format, args);

    assert_non_null(reply);
    if (reply->type == REDIS_REPLY_ERROR)
        fail_msg("%s: %s", format, reply->str);
    redisFree(context);
    return reply;
}

redisReply *server_command(struct server *server, const char *format, ...)
{
    redisReply *reply;
    va_list args;

    va_start(args, format);
    reply = command_v(server, format, args);
    va_end(args);
    return reply;
}

long long server_ask(struct server *server, const char *format, ...)
{
    redisReply *reply;
    long long number;
    va_list args;

    va_start(args, format);
    reply = command_v(server, format, args);
    va_end(args);
    number = reply->type == REDIS_REPLY_INTEGER ? reply->integer : 0;
    freeReplyObject(reply);
    return number;
}

/* ---- stores and requests ---- */

struct fsw_device_id device_random(void)
{
    struct fsw_device_id device;

    assert_int_equal(getrandom(&device, sizeof device, 0), sizeof device);
    return device;
}

struct fsw_store *store_open(const char *uri, const char *password)
{
    struct fsw_store_options options = {.uri = uri, .password = password};
    struct fsw_store *store;
    struct fsw_error err = {""};

    if (fsw_store_open(&options, &store, &err) < 0)
        fail_msg("%s", err.text);
    return store;
}

int store_start_with(struct fsw_store *store, const struct fsw_device_id *device, uint64_t sentinel,
                     int planted, struct fsw_error *err)
{
    struct fsw_store_identity identity = {.device = *device,
                                          .sentinel = {sentinel, sentinel},
                                          .planted = planted,
                                          .key = "a key of 32 bytes"};

    return store->ops->start(store, &identity, err);
}

int store_start_as(struct fsw_store *store, const struct fsw_device_id *device, int planted,
                   struct fsw_error *err)
{
    return store_start_with(store, device, SENTINEL, planted, err);
}

void store_start(struct fsw_store *store, const struct fsw_device_id *device)
{
    struct fsw_error err = {""};

    if (PATIENTLY(store->ops->probe(store, &err)) < 0 || store_start_as(store, device, 0, &err) < 0)
        fail_msg("%s", err.text);
}

struct fsw_store *store_started(struct server *server, const struct fsw_device_id *device)
{
    struct fsw_store *store = store_open(server_uri(server), server->password);

    store_start(store, device);
    return store;
}

static pthread_mutex_t calls_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t calls_changed;

__attribute__((constructor)) static void init_calls(void)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&calls_changed, &attr);
}

static void on_done(struct fsw_store_request *request)
{
    struct call *call = (struct call *)request;

    pthread_mutex_lock(&calls_lock);
    call->finished_ns = fsw_now_ns();
    call->by = pthread_self();
    call->done++;
    pthread_cond_broadcast(&calls_changed);
    pthread_mutex_unlock(&calls_lock);
}

void call_prepare(struct call *call, enum fsw_store_verb verb, uint64_t id, void *bytes,
                  uint32_t offset, uint32_t length, unsigned deadline_ms)
{
    memset(call, 0, sizeof *call);
    call->request = (struct fsw_store_request){
        .verb = verb,
        .row = (uint32_t)(id % 65536) + 1,
        .id = id,
        .bytes = bytes,
        .offset = offset,
        .length = length,
        .deadline = deadline_ms == 0 ? 0 : fsw_now_ns() + deadline_ms * FSW_NS_PER_MS,
        .done = on_done,
    };
}

void call_submit(struct fsw_store *store, struct call *call)
{
    struct fsw_store_request *request = &call->request;

    store->ops->submit(store, &request, 1);
}

void call_get(struct fsw_store *store, struct call *call, uint64_t patience_ns)
{
    fsw_store_get(store, &call->request, patience_ns == 0 ? 0 : fsw_now_ns() + patience_ns);
}

enum fsw_store_result call_wait(struct call *call)
{
    struct timespec end = fsw_timespec(fsw_now_ns() + 2 * PATIENCE_NS);
    int r = 0;

    pthread_mutex_lock(&calls_lock);
    while (call->done == 0 && r == 0)
        r = pthread_cond_timedwait(&calls_changed, &calls_lock, &end);
    pthread_mutex_unlock(&calls_lock);
    if (r != 0)
        fail_msg("a request was never answered");
    return call->request.result;
}

int call_kept_deadline(const struct call *call)
{
    uint64_t finished = call->finished_ns + FSW_NS_PER_MS;

    assert_true(finished >= call->request.deadline);
    return finished <= call->request.deadline + 250 * FSW_NS_PER_MS;
}

static enum fsw_store_result do_call(struct fsw_store *store, struct call *call)
{
    call_submit(store, call);
    return call_wait(call);
}

enum fsw_store_result do_put(struct fsw_store *store, uint64_t id, void *bytes, uint32_t length)
{
    struct call call;

    call_prepare(&call, FSW_STORE_PUT, id, bytes, 0, length, LONG_MS);
    return do_call(store, &call);
}

enum fsw_store_result do_get(struct fsw_store *store, uint64_t id, void *bytes, uint32_t offset,
                             uint32_t length, unsigned deadline_ms)
{
    static atomic_uint turn;
    struct call call;

    call_prepare(&call, FSW_STORE_GET, id, bytes, offset, length, deadline_ms);
    switch (turn++ % 3) {
    case 0:
        return do_call(store, &call);
    case 1:
        call_get(store, &call, 0);
        break;
    default: /* the answer is on its way when it is over */
        call_get(store, &call, 1000);
    }
    return call_wait(&call);
}

enum fsw_store_result do_drop(struct fsw_store *store, uint64_t id)
{
    struct call call;

    call_prepare(&call, FSW_STORE_DROP, id, NULL, 0, 0, LONG_MS);
    return do_call(store, &call);
}

void fill_segment(void *bytes, size_t length, uint64_t id)
{
    uint8_t *p = bytes;
    uint64_t x = id * 0x9e3779b97f4a7c15u + 1;

    for (size_t i = 0; i < length; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        p[i] = (uint8_t)x;
    }
}

void wait_connected(struct fsw_store *store, int connected)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    struct fsw_store_health health;

    for (;;) {
        store->ops->health(store, &health);
        if (health.connected == connected)
            return;
        if (fsw_now_ns() > end)
            fail_msg("not %sconnected in time: %s", connected ? "" : "dis", health.last_error);
        usleep(2000);
    }
}
