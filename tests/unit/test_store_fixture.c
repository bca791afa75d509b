/*
 * test_store_fixture.c: how a test of the stores begins and ends.
 */
#include "test_store_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
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

void assert_says(struct fsw_store *store, const char *part)
{
    struct fsw_store_health health;

    store->ops->health(store, &health);
    if (strstr(health.last_error, part) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", health.last_error, part);
}
