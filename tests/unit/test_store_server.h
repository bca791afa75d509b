/*
 * test_store_server.h: a real server for a test of the stores, and requests that can be waited for.
 *
 * A server runs in a temporary directory of its own, on a Unix socket and a loopback port of its
 * own, and dies with the test, however that ends.
 */
#ifndef FSW_TEST_STORE_SERVER_H
#define FSW_TEST_STORE_SERVER_H

#include <errno.h>
#include <hiredis/hiredis.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/clock.h"
#include "farswap/store.h"

/* Of a device that a test makes. */
#define SENTINEL 0x5e47191eull

enum server_kind { SERVER_REDIS, SERVER_FARSWAPD, SERVER_NBDKIT };

struct server {
    enum server_kind kind;
    const char *binary;
    int over_unix; /* 1: uri() names the socket */
    char dir[64];
    char socket[96];
    int port;
    pid_t pid;
    pid_t janitor; /* removes the directory when `alive` is closed, by us or by our death */
    int alive;
    const char *memory;   /* limit as its option takes it; NULL: none */
    int keeps;            /* 1: farswapd has what it had, when it was killed and is started again */
    const char *password; /* NULL: none */
    char uri_text[128];
};

/* "redis PATH [unix]" or "farswapd PATH [unix]" from main's arguments. Exits with usage. */
void server_choose(struct server *server, int argc, char **argv);

/* Makes the directory only; server_stop() removes it. */
void server_directory(struct server *server);
/* Makes the directory, picks a port, starts, waits until it answers. Fails the test otherwise. */
void server_start(struct server *server);
/* Starts it again, same place: with what it has kept, if it keeps anything. */
void server_restart(struct server *server);
void server_kill(struct server *server); /* kill -9 and wait */
void server_freeze(struct server *server);
void server_thaw(struct server *server);
void server_stop(struct server *server); /* kill, and remove the directory */
const char *server_uri(struct server *server);

/* A connection of the test's own, with the password; and one command on it that must not fail. The
 * caller frees both. */
redisContext *server_connect(struct server *server);
redisReply *server_command(struct server *server, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* The same for an integer or status answer: its number, or 0. */
long long server_ask(struct server *server, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A loopback port that nobody else gets while this program lives, and a listener on one, that the test
 * plays itself. */
int free_port(void);
int listen_on(int *ret_port);

/* ---- requests ---- */

struct call {
    struct fsw_store_request request;
    atomic_uint done;     /* how often done() was called */
    uint64_t finished_ns; /* when */
    pthread_t by;         /* and on which thread */
};

/* What no test may wait for longer: a busy machine may stand still for seconds. And a deadline for what
 * is to be answered, which it never comes to. */
#define PATIENCE_NS (60 * FSW_NS_PER_S)
#define LONG_MS 60000u

/* Again, for as long as it finds that a server (by NBD: or its connection) said nothing for 3 s. */
#define PATIENTLY(call)                                                                            \
    ({                                                                                             \
        uint64_t patience_end = fsw_now_ns() + PATIENCE_NS;                                        \
        int patience_r;                                                                            \
        do                                                                                         \
            patience_r = (call);                                                                   \
        while ((patience_r == -ETIMEDOUT || patience_r == -EHOSTUNREACH) &&                        \
               fsw_now_ns() < patience_end);                                                       \
        patience_r;                                                                                \
    })

/* Opens (fails the test if it can't) and starts for the device. */
struct fsw_store *store_open(const char *uri, const char *password);
int store_start_with(struct fsw_store *store, const struct fsw_device_id *device, uint64_t sentinel,
                     int planted, struct fsw_error *err);
/* With SENTINEL. */
int store_start_as(struct fsw_store *store, const struct fsw_device_id *device, int planted,
                   struct fsw_error *err);
void store_start(struct fsw_store *store, const struct fsw_device_id *device);
struct fsw_store *store_started(struct server *server, const struct fsw_device_id *device);

/* A device of this test's own. */
struct fsw_device_id device_random(void);

/* deadline_ms: from now; 0: none. The row is id modulo 65536, plus 1. */
void call_prepare(struct call *call, enum fsw_store_verb verb, uint64_t id, void *bytes,
                  uint32_t offset, uint32_t length, unsigned deadline_ms);
void call_submit(struct fsw_store *store, struct call *call);
/* The same by get(), with so much patience; 0: as much as the store thinks right. */
void call_get(struct fsw_store *store, struct call *call, uint64_t patience_ns);
enum fsw_store_result call_wait(struct call *call);

/* It was answered at its deadline and not before (1 ms of grace: the clock is read again after the deadline
 * was computed). 1: and soon after it, as on a machine that is not busy. */
int call_kept_deadline(const struct call *call);

/* All three at once, those without one with a deadline of LONG_MS. Of the gets some are submitted, some by get(). */
enum fsw_store_result do_put(struct fsw_store *store, uint64_t id, void *bytes, uint32_t length);
enum fsw_store_result do_get(struct fsw_store *store, uint64_t id, void *bytes, uint32_t offset,
                             uint32_t length, unsigned deadline_ms);
enum fsw_store_result do_drop(struct fsw_store *store, uint64_t id);

/* Bytes that only this id has. */
void fill_segment(void *bytes, size_t length, uint64_t id);

/* Waits until health says so. */
void wait_connected(struct fsw_store *store, int connected);

#endif
