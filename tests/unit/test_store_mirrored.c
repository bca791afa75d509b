/*
 * test_store_mirrored.c: a mirror of two servers of the test's own.
 */
#include "test_store_mirrored.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
/* after the headers it needs */
#include <cmocka.h>

#include "common/clock.h"

static struct place chosen;

void mirrored_choose(int argc, char **argv)
{
    place_choose(&chosen, argc, argv);
}

enum server_kind mirrored_kind(void)
{
    return chosen.servers[0].kind;
}

void mirrored_wait_up(struct fixture *f, uint32_t up)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;

    while (fixture_health(f).up != up) {
        if (fsw_now_ns() > end)
            fail_msg("copies %x are up, not %x: %s", fixture_health(f).up, up,
                     fixture_health(f).last_error);
        usleep(2000);
    }
}

static int set_up(void **state, int encrypts, const char *memory)
{
    struct fixture *f = *state = fixture_new(&chosen);

    f->place.copies = 2;
    f->place.encrypts = encrypts;
    f->server->memory = memory;
    place_start(&f->place);
    f->store = place_started(&f->place, &f->device);
    wait_connected(f->store, 1);
    mirrored_wait_up(f, 3);
    return 0;
}

int mirrored_setup(void **state)
{
    return set_up(state, 0, NULL);
}

int mirrored_setup_encrypted(void **state)
{
    return set_up(state, 1, NULL);
}

int mirrored_setup_small(void **state)
{
    return set_up(state, 0, "16mb");
}

uint32_t mirrored_put(struct fixture *f, uint64_t id, uint32_t copies)
{
    uint64_t end = fsw_now_ns() + PATIENCE_NS;
    enum fsw_store_result result;
    struct call call;

    do { /* with the engine's deadline: a leg of the other copy may be under way for as long */
        segment_fill(f->store, f->bytes, MIRRORED_LENGTH, id);
        call_prepare(&call, FSW_STORE_PUT, id, f->bytes, 0, MIRRORED_LENGTH, 5000);
        call.request.copies = copies;
        call_submit(f->store, &call);
        result = call_wait(&call);
    } while (result == FSW_STORE_UNREACHABLE && fsw_now_ns() < end);
    return result == FSW_STORE_OK ? call.request.copies : 0;
}

enum fsw_store_result mirrored_get(struct fixture *f, uint64_t id, uint32_t copies,
                                   uint32_t *ret_copies, unsigned *ret_ms)
{
    uint8_t expected[PLACE_OBJECT], back[PLACE_OBJECT];
    uint64_t start = fsw_now_ns();
    struct call call;

    call_prepare(&call, FSW_STORE_GET, id, back, 0, PLACE_OBJECT, LONG_MS);
    call.request.copies = copies;
    call_submit(f->store, &call);
    enum fsw_store_result result = call_wait(&call);
    segment_fill(f->store, expected, PLACE_OBJECT, id);
    if (result == FSW_STORE_OK)
        assert_memory_equal(back, expected, PLACE_OBJECT);
    *ret_copies = call.request.copies;
    *ret_ms = (unsigned)((call.finished_ns - start) / FSW_NS_PER_MS);
    return result;
}

void mirrored_reads(struct fixture *f, uint64_t from, uint64_t to, uint32_t copies,
                    unsigned most_ms)
{
    uint32_t answered;
    unsigned ms;

    for (uint64_t id = from; id < to; id++) {
        uint64_t end = fsw_now_ns() + PATIENCE_NS;
        do {
            assert_int_equal(mirrored_get(f, id, 0, &answered, &ms), FSW_STORE_OK);
            if (copies != 0)
                assert_int_equal(answered, copies);
        } while (ms > most_ms && fsw_now_ns() < end);
        if (ms > most_ms)
            fail_msg("gets take %u ms, not %u at most", ms, most_ms);
    }
}

/* A machine that does too much else can be slow for half a second by itself: then again. */
void mirrored_puts(struct fixture *f, uint64_t from, uint64_t to, uint32_t copies)
{
    for (uint64_t id = from; id < to; id++) {
        uint64_t end = fsw_now_ns() + PATIENCE_NS;
        while (mirrored_put(f, id, 0) != copies)
            assert_true(fsw_now_ns() < end && usleep(300000) == 0);
    }
}
