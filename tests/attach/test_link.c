/*
 * test_link.c: when the kernel is to get another socket: the first time at once, and so again after one
 * that was good for something; one that is lost at once is followed by the next with growing pauses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/attach/supervisor.h"

/* The least timeout (1 s), and when a server gives a connection up for a read that waits that long. */
#define GIVEN_UP_NS (7 * FSW_NS_PER_S / 10)
#define MOST_NS FSW_NS_PER_S

static const struct fsw_attach_options options;
static struct fsw_supervisor supervisor = {.options = &options, .link.kernel_end = -1};

/* For how long the next try waits, after a socket that was there for so long. Asked again where this
 * test stood still in between. */
static uint64_t pause_after(uint64_t up_ns)
{
    struct fsw_link *link = &supervisor.link;
    const struct fsw_backoff before = link->retry;
    uint64_t now;

    do {
        now = fsw_now_ns();
        link->retry = before;
        link->state = FSW_LINK_UP;
        link->since = now - up_ns;
        fsw_link_drop(&supervisor);
        assert_int_equal(link->state, FSW_LINK_DOWN);
    } while (fsw_now_ns() - now > FSW_NS_PER_MS);
    return link->retry.next > now ? link->retry.next - now : 0;
}

static void what_served_long_enough_is_followed_at_once(void **state)
{
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(pause_after(GIVEN_UP_NS), 0);
}

static void what_is_lost_at_once_is_followed_later_and_later(void **state)
{
    uint64_t before = 0, pause = 0;

    for (unsigned i = 0; i < 40; i++, before = pause) {
        pause = pause_after(0);
        assert_true(pause > 0);
        assert_true(pause > before + before / 2 || pause >= MOST_NS);
        assert_true(pause <= MOST_NS + FSW_NS_PER_MS); /* which this may have taken */
    }
    assert_true(pause >= MOST_NS);
    assert_int_equal(pause_after(GIVEN_UP_NS), 0);
    assert_true(pause_after(0) < MOST_NS / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_served_long_enough_is_followed_at_once),
        cmocka_unit_test(what_is_lost_at_once_is_followed_later_and_later),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
