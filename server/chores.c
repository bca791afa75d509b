/*
 * chores.c: a timer, a poll, and an idle handle that is there only while it has work.
 */
#include "server/chores.h"

#include <malloc.h>
#include <unistd.h>

#include "server/harden.h"

#define SECOND_MS 1000
/* Slots given back in one turn of the loop: some hundred microseconds. */
#define TIDY_SLOTS 32
#define IDLE_HEAP_MAX (512u * 1024)

static struct fsw_vault *vault_of(struct fsw_chores *chores)
{
    return fsw_keyspace_vault(chores->server->keyspace);
}

static void look(struct fsw_chores *chores, bool triggered)
{
    fsw_pressure_look(&chores->server->pressure, triggered);
    vault_of(chores)->shut = chores->server->pressure.short_of;
}

/* The allocator keeps what a burst of clients left, in the hope of another. (What it has free below
 * something in use it can't give back: the memory is locked. It counts as used then.) */
static void measure(struct fsw_vault *vault)
{
    uint64_t own = fsw_own_memory();

    if (own > vault->charged + fsw_value_cost_of_all() + IDLE_HEAP_MAX && own > vault->measured) {
        malloc_trim(0);
        own = fsw_own_memory();
    }
    fsw_vault_measured(vault, own);
}

static void on_second(uv_timer_t *timer)
{
    struct fsw_chores *chores = timer->data;

    look(chores, false);
    measure(vault_of(chores));
    fsw_clients_show_door(chores->clients);
}

static void on_stall(uv_poll_t *poll, int status, int events)
{
    struct fsw_chores *chores = poll->data;

    if (status == 0 && (events & UV_PRIORITIZED))
        look(chores, true);
    else
        uv_poll_stop(poll); /* the timer still looks */
}

static void on_idle(uv_idle_t *idle)
{
    struct fsw_chores *chores = idle->data;

    if (!fsw_vault_tidy(vault_of(chores), TIDY_SLOTS))
        uv_idle_stop(idle);
}

/* An idle handle lets the loop not wait: so it is there only when a first piece did not do it. */
static void on_after_io(uv_check_t *check)
{
    struct fsw_chores *chores = check->data;

    if (!uv_is_active((uv_handle_t *)&chores->tidying) &&
        fsw_vault_tidy(vault_of(chores), TIDY_SLOTS))
        uv_idle_start(&chores->tidying, on_idle);
}

static int watch_stalls(struct fsw_chores *chores, uv_loop_t *loop)
{
    chores->stall_fd = chores->server->pressure.keep > 0 ? fsw_pressure_trigger() : -1;
    if (chores->stall_fd >= 0 && uv_poll_init(loop, &chores->stall, chores->stall_fd) < 0) {
        close(chores->stall_fd); /* a plain file, in a test */
        chores->stall_fd = -1;
    }
    if (chores->stall_fd < 0)
        return 0;
    chores->stall.data = chores;
    return uv_poll_start(&chores->stall, UV_PRIORITIZED, on_stall);
}

int fsw_chores_start(struct fsw_chores *chores, uv_loop_t *loop, struct fsw_server *server,
                     struct fsw_clients *clients)
{
    int r;

    chores->server = server;
    chores->clients = clients;
    chores->second.data = chores->after_io.data = chores->tidying.data = chores;
    uv_timer_init(loop, &chores->second);
    uv_check_init(loop, &chores->after_io);
    uv_idle_init(loop, &chores->tidying);
    look(chores, false);
    r = watch_stalls(chores, loop);
    if (r == 0)
        r = uv_timer_start(&chores->second, on_second, SECOND_MS, SECOND_MS);
    return r == 0 ? uv_check_start(&chores->after_io, on_after_io) : r;
}

static void on_stall_closed(uv_handle_t *handle)
{
    struct fsw_chores *chores = handle->data;

    close(chores->stall_fd);
}

void fsw_chores_stop(struct fsw_chores *chores)
{
    uv_close((uv_handle_t *)&chores->second, NULL);
    uv_close((uv_handle_t *)&chores->after_io, NULL);
    uv_close((uv_handle_t *)&chores->tidying, NULL);
    if (chores->stall_fd >= 0)
        uv_close((uv_handle_t *)&chores->stall, on_stall_closed);
}
