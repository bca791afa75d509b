/*
 * test_store_fixture.c: how a test of the stores begins and ends.
 */
#include "test_store_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after the headers it needs */
#include <cmocka.h>

struct fixture *fixture_new(const struct place *chosen)
{
    struct fixture *f = calloc(1, sizeof *f);

    assert_non_null(f);
    if (chosen != NULL)
        f->place = *chosen;
    f->server = &f->place.servers[0];
    f->device = device_random();
    return f;
}

void fixture_close(struct fixture *f)
{
    if (f->store != NULL)
        f->store->ops->close(f->store);
    f->store = NULL;
}

void fixture_end(struct fixture *f)
{
    for (unsigned copy = 0; copy < 2; copy++)
        if (f->place.servers[copy].pid > 0)
            server_thaw(&f->place.servers[copy]);
    fixture_close(f);
    place_stop(&f->place);
    free(f);
}

int fixture_teardown(void **state)
{
    fixture_end(*state);
    return 0;
}

struct fsw_store_health fixture_health(struct fixture *f)
{
    struct fsw_store_health health;

    f->store->ops->health(f->store, &health);
    return health;
}

void fixture_deadlines_are_kept(struct fixture *f, unsigned verbs, uint32_t length)
{
    enum { N = 60 };
    static const enum fsw_store_verb order[] = {FSW_STORE_PUT, FSW_STORE_DROP, FSW_STORE_GET};
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    unsigned ever[N] = {0}, never, late;
    struct call calls[N];

    do {
        late = never = 0;
        for (unsigned i = 0; i < N; i++) {
            call_prepare(&calls[i], order[i % verbs], i, f->bytes, 0, length, 10 + 20 * i);
            call_submit(f->store, &calls[i]);
        }
        for (unsigned i = 0; i < N; i++) {
            assert_int_equal(call_wait(&calls[i]), FSW_STORE_UNREACHABLE);
            int kept = call_kept_deadline(&calls[i]);
            late += !kept;
            never += !(ever[i] |= (unsigned)kept);
        }
    } while ((late > N / 4 || never > 0) && fsw_now_ns() < end);
    if (late > N / 4 || never > 0)
        fail_msg("%u of %u deadlines are never kept, %u not this time", never, N, late);
}

void assert_says(struct fsw_store *store, const char *part)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    struct fsw_store_health health;

    for (store->ops->health(store, &health); strstr(health.last_error, part) == NULL;
         store->ops->health(store, &health)) {
        if (fsw_now_ns() > end)
            fail_msg("\"%s\" does not say \"%s\"", health.last_error, part);
        usleep(2000);
    }
}
