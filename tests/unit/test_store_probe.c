/*
 * test_store_probe.c: what a store says of its server when somebody asks, and of a password that is
 * wanted or wrong. Each test has a server of its own.
 *     test_store_probe redis|farswapd BINARY [unix]
 */
#include "test_store_fixture.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct place chosen; /* what the arguments say */

static int setup_server(void **state, const char *memory, const char *password)
{
    struct fixture *f = *state = fixture_new(&chosen);

    f->server->memory = memory;
    f->server->password = password;
    fill_segment(f->bytes, 100, 1);
    place_start(&f->place);
    return 0;
}

static int setup(void **state)
{
    return setup_server(state, NULL, NULL);
}

static int setup_limited(void **state)
{
    return setup_server(state, "32mb", NULL);
}

static int setup_secret(void **state)
{
    return setup_server(state, "32mb", "open sesame");
}

/* ---- passwords ---- */

static int probe_with(struct fixture *f, const char *password, struct fsw_error *err)
{
    struct fsw_store *store = store_open(server_uri(f->server), password);
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    int r;

    do { /* again, if it said nothing for 3 s */
        err->text[0] = '\0';
        r = store->ops->probe(store, err);
    } while (r == -ETIMEDOUT && fsw_now_ns() < end);
    store->ops->close(store);
    return r;
}

static void test_password(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err = {""};

    assert_int_equal(probe_with(f, "open sesame", &err), 0);
    assert_int_equal(probe_with(f, NULL, &err), -EACCES);
    assert_non_null(strstr(err.text, "wants a password"));
    assert_int_equal(probe_with(f, "hush", &err), -EACCES);
    assert_non_null(strstr(err.text, "does not take the password"));
    assert_null(strstr(err.text, "hush"));
    f->store = store_started(f->server, &f->device);
    assert_int_equal(do_put(f->store, 1, f->bytes, 100), FSW_STORE_OK);
    assert_int_equal(do_get(f->store, 1, f->back, 0, 100, LONG_MS), FSW_STORE_OK);
}

static void start_with(struct fixture *f, const char *password)
{
    struct fsw_error err;

    f->store = store_open(server_uri(f->server), password);
    assert_int_equal(store_start_as(f->store, &f->device, 0, &err), 0);
}

/* Puts are refused at once, gets and drops wait for somebody to mend it. */
static void test_wrong_password_refuses_puts(void **state)
{
    static const char *const passwords[] = {"hush", NULL};
    struct fixture *f = *state;

    for (unsigned i = 0; i < 2; i++) {
        start_with(f, passwords[i]);
        assert_int_equal(do_put(f->store, 1, f->bytes, 100), FSW_STORE_REFUSED);
        assert_int_equal(do_get(f->store, 1, f->back, 0, 100, 300), FSW_STORE_UNREACHABLE);
        assert_says(f->store, passwords[i] ? "WRONGPASS" : "NOAUTH");
        fixture_close(f);
    }
}

/* ---- probe ---- */

static void test_eviction_is_refused(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err = {""};

    freeReplyObject(server_command(f->server, "CONFIG SET maxmemory-policy allkeys-lru"));
    assert_int_equal(probe_with(f, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "allkeys-lru"));
    assert_non_null(strstr(err.text, "CONFIG SET maxmemory-policy noeviction"));
}

static void test_probe_says_who_is_missing(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err = {""};
    char port[16];

    snprintf(port, sizeof port, "%d", f->server->port);
    server_kill(f->server);
    assert_int_equal(probe_with(f, NULL, &err), -ECONNREFUSED);
    assert_non_null(strstr(err.text, "Connection refused"));
    assert_non_null(strstr(err.text, f->server->over_unix ? f->server->socket : port));
    assert_non_null(strstr(err.text, "farswapd"));
}

/* ---- it can, and that should be known ---- */

/* farswapd has a limit always. */
static void test_no_limit_is_a_warning(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err = {""};

    assert_int_equal(probe_with(f, NULL, &err), 0);
    if (chosen.servers[0].kind == SERVER_REDIS)
        assert_non_null(strstr(err.text, "CONFIG SET maxmemory"));
    else
        assert_string_equal(err.text, "");
}

static void test_a_limit_is_none(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err = {""};

    assert_int_equal(probe_with(f, NULL, &err), 0);
    assert_string_equal(err.text, "");
}

/* 0.0.0.0 leads to this host, but is not one of those that are known to. */
static void test_a_password_that_leaves_the_host_is_a_warning(void **state)
{
    struct fixture *f = *state;
    struct fsw_error err = {""};
    char uri[40];

    snprintf(uri, sizeof uri, "resp://0.0.0.0:%d", f->server->port);
    f->store = store_open(uri, "open sesame");
    assert_int_equal(PATIENTLY(f->store->ops->probe(f->store, &err)), 0);
    assert_non_null(strstr(err.text, "password goes"));
    assert_null(strstr(err.text, "open sesame"));
    err.text[0] = '\0';
    assert_int_equal(probe_with(f, "open sesame", &err), 0);
    assert_string_equal(err.text, "");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(test_password, setup_secret),
        FIXTURE_TEST(test_wrong_password_refuses_puts, setup_secret),
        FIXTURE_TEST(test_probe_says_who_is_missing, setup),
        FIXTURE_TEST(test_no_limit_is_a_warning, setup),
        FIXTURE_TEST(test_a_limit_is_none, setup_limited),
        FIXTURE_TEST(test_a_password_that_leaves_the_host_is_a_warning, setup_secret),
    };
    /* farswapd never evicts */
    const struct CMUnitTest redis_tests[] = {FIXTURE_TEST(test_eviction_is_refused, setup)};
    int failed;

    place_choose(&chosen, argc, argv);
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (chosen.servers[0].kind == SERVER_REDIS)
        failed += cmocka_run_group_tests(redis_tests, NULL, NULL);
    return failed;
}
