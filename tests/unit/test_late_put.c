/*
 * test_late_put.c: a server is killed while segments are on their way, another recovers its image, and
 * only then do they land: before the next server asks for their drop, between, or after it. Nothing
 * wrong may come of it: no page changes, no id is used twice, no row means another segment.
 */
#include "handover.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

/* ---- the store: `keep`, but that puts of a process that holds them stay on the wire ---- */

struct late {
    _Atomic unsigned count;
    _Atomic int ready; /* the process that will be killed has done its part */
    struct {
        uint64_t id;
        uint32_t length;
        char bytes[FSW_SEGMENT_BYTES];
    } puts[FSW_PUTS_IN_FLIGHT];
};

static struct late *late; /* shared */
static int holding;
static struct fsw_store_ops late_ops;
static const struct fsw_store_ops *keep_ops;

static void late_submit(struct fsw_store *base, struct fsw_store_request *const *requests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!holding || requests[i]->verb != FSW_STORE_PUT) {
            keep_ops->submit(base, &requests[i], 1);
            continue;
        }
        unsigned at = atomic_load(&late->count);
        late->puts[at].id = requests[i]->id;
        late->puts[at].length = requests[i]->length;
        memcpy(late->puts[at].bytes, requests[i]->bytes, requests[i]->length);
        atomic_store(&late->count, at + 1);
    }
}

static struct fsw_store *store_new(void)
{
    struct fsw_store *store = keep_new();

    keep_ops = store->ops;
    late_ops = *store->ops;
    late_ops.submit = late_submit;
    store->ops = &late_ops;
    return store;
}

/* The wire gives them up. */
static void land(unsigned from, unsigned to)
{
    for (unsigned i = from; i < to && i < atomic_load(&late->count); i++) {
        uint64_t id = late->puts[i].id;
        assert_true(keep.bytes[id] == NULL); /* nobody else was given it */
        keep.bytes[id] = malloc(late->puts[i].length);
        memcpy(keep.bytes[id], late->puts[i].bytes, late->puts[i].length);
        keep.length[id] = late->puts[i].length;
    }
}

/* ---- the server that is killed ---- */

/* Page N held seed N; those that it writes anew while they are on their way hold N + REWRITTEN. */
#define REWRITTEN 5000u

static int is_rewritten(unsigned page)
{
    return page >= HANDOVER_PAGES / 2 && page % 5 == 4;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000 * 1000}, NULL);
}

static void serve_and_wait(const struct fsw_params *params, struct fsw_store *store)
{
    struct rig rig;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    handover_take(&rig, params, store);
    holding = 1;
    rig_evict(&rig, 1);
    while (atomic_load(&late->count) < FSW_PUTS_IN_FLIGHT)
        nap();
    for (unsigned page = 0; page < HANDOVER_PAGES; page++)
        if (is_rewritten(page))
            rig_write_page(&rig, page, RIG_HALF, page + REWRITTEN);
    atomic_store(&late->ready, 1);
    for (;;)
        nap();
}

static void kill_a_server(const struct fsw_params *params, struct fsw_store *store)
{
    uint64_t deadline = fsw_now_ns() + 60 * FSW_NS_PER_S;

    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        serve_and_wait(params, store);
    while (!atomic_load(&late->ready) && fsw_now_ns() < deadline)
        nap();
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(atomic_load(&late->ready), 1);
}

/* ---- the next one ---- */

static void expect_pages(struct rig *rig)
{
    for (unsigned page = 0; page < HANDOVER_PAGES; page++)
        if (is_rewritten(page))
            rig_expect_page(rig, page, RIG_HALF, page + REWRITTEN);
        else
            rig_expect_page(rig, page, (enum rig_kind)(page % RIG_KINDS), page);
}

static void everything_goes_and_comes(struct rig *rig)
{
    expect_pages(rig);
    rig_evict_all(rig);
    expect_pages(rig);
    rig_prove(rig);
}

/* A third lands before recovery, a third after it and its drops, the rest when all has been put anew. */
static void puts_land_after_their_server(void **state)
{
    struct fsw_params params = handover_params("late", HANDOVER_PAGES, MIB(16));
    struct fsw_store *store = store_new();
    struct rig rig;

    late = mmap(NULL, sizeof *late, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(late != MAP_FAILED);
    strcpy(params.overflow, "keep");
    handover_leave(&rig, &params, store);
    handover_let_go(&rig);
    kill_a_server(&params, store);
    land(0, 3);
    unsigned drops = keep.drops;

    handover_take(&rig, &params, store);
    expect_pages(&rig);
    rig_prove(&rig); /* waits for the drops */
    assert_int_equal(keep.drops, drops + FSW_PUTS_IN_FLIGHT);
    for (unsigned i = 0; i < FSW_PUTS_IN_FLIGHT; i++)
        assert_null(keep.bytes[late->puts[i].id]); /* those that had landed are gone */
    land(3, 6);
    everything_goes_and_comes(&rig);
    land(6, FSW_PUTS_IN_FLIGHT);
    for (unsigned page = 0; page < HANDOVER_PAGES; page += 3)
        assert_int_equal(
            rig_write_page(&rig, page,
                           is_rewritten(page) ? RIG_HALF : (enum rig_kind)(page % RIG_KINDS),
                           is_rewritten(page) ? page + REWRITTEN : page),
            0);
    everything_goes_and_comes(&rig);
    handover_let_go(&rig);

    handover_take(&rig, &params, store); /* and once more, with the strays there */
    everything_goes_and_comes(&rig);
    handover_let_go(&rig);
    assert_int_equal(handover_check("late").leftovers, 0);
    handover_destroy("late");
    munmap(late, sizeof *late);
}

RIG_MAIN(cmocka_unit_test(puts_land_after_their_server))
