/*
 * main.c: farswapd, the donor: options, wiring, and the end.
 *
 * One thread, one libuv loop. What it listens on, it prints in one line when it is ready; warnings
 * and errors are one line each on stderr. SIGTERM and SIGINT end it. With a name, what it holds stays
 * in its image for the next one; without, it is gone then.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "common/clock.h"
#include "server/chores.h"
#include "server/client.h"
#include "server/harden.h"
#include "server/listener.h"
#include "server/options.h"
#include "server/server.h"
#include "server/version.h"

#define OTHER_FILES 64 /* beside clients: listeners, the loop's own */

struct program {
    uv_loop_t loop;
    uv_signal_t terminate, interrupt;
    struct fsw_server server;
    struct fsw_donor_image image;
    struct fsw_clients clients;
    struct fsw_chores chores;
    struct fsw_listeners listeners;
};

static void complain(const char *text)
{
    fprintf(stderr, "farswapd: %s\n", text);
}

static void program_stop(struct program *program)
{
    uv_close((uv_handle_t *)&program->terminate, NULL);
    uv_close((uv_handle_t *)&program->interrupt, NULL);
    fsw_chores_stop(&program->chores);
    fsw_listeners_close(&program->listeners);
    fsw_clients_close(&program->clients);
}

static void on_signal(uv_signal_t *handle, int number)
{
    program_stop(handle->data);
}

/* Signals after the first find their handles closed and are dropped: the end is near anyway. */
static int watch_signals(struct program *program)
{
    uv_signal_t *const handles[] = {&program->terminate, &program->interrupt};
    const int numbers[] = {SIGTERM, SIGINT};
    int r = 0;

    for (unsigned i = 0; i < 2; i++) {
        uv_signal_init(&program->loop, handles[i]);
        handles[i]->data = program;
        if (r == 0)
            r = uv_signal_start(handles[i], on_signal, numbers[i]);
    }
    return r;
}

static void say_ready(struct program *program)
{
    printf("farswapd %s ready on", program->server.name);
    for (unsigned i = 0; i < program->listeners.count; i++) {
        const struct fsw_listener *listener = &program->listeners.of[i];
        printf(" %s", listener->text);
        if (program->server.port == 0)
            program->server.port = listener->port;
    }
    printf("\n");
    fflush(stdout);
}

static int program_start(struct program *program, const struct fsw_server_options *options,
                         struct fsw_error *err)
{
    int r = fsw_clients_init(&program->clients, &program->loop, &program->server);

    if (r == 0)
        r = watch_signals(program);
    if (r == 0)
        r = fsw_chores_start(&program->chores, &program->loop, &program->server, &program->clients);
    if (r < 0)
        return fsw_error(err, r, "can't start: %s", uv_strerror(r));
    return fsw_listeners_open(&program->listeners, options, &program->clients, err);
}

/* What was found in a kept image, where it is worth a line. */
static void tell_found(const struct fsw_keyspace *keyspace)
{
    const struct fsw_keyspace_found *found = fsw_keyspace_found(keyspace);

    if (found->damaged > 0)
        fprintf(stderr,
                "farswapd: the image was damaged: %llu values could not be trusted and are gone, "
                "%llu are there\n",
                (unsigned long long)found->damaged, (unsigned long long)found->values);
}

/* The values, as they were left. */
static int open_values(struct program *program, const struct fsw_server_options *options,
                       struct fsw_error *err)
{
    int r = fsw_donor_image_open(&program->image, options->named ? options->name : NULL,
                                 options->memory, err);

    if (r < 0)
        return r;
    r = fsw_keyspace_open(&program->image, options->memory, &program->server.keyspace);
    if (r < 0) {
        fsw_donor_image_close(&program->image);
        return fsw_error(err, r, "out of memory");
    }
    tell_found(program->server.keyspace);
    return 0;
}

static void warn_of_swapping(bool locked)
{
    if (!locked)
        complain("can't lock memory: this host may swap the values out, which is slow for the "
                 "hosts that swap on us and leaves their memory on this host's disk; give it "
                 "CAP_IPC_LOCK (run as root), or ulimit -l unlimited");
}

static void run(struct program *program)
{
    uv_run(&program->loop, UV_RUN_DEFAULT);
    uv_loop_close(&program->loop);
    fsw_keyspace_close(program->server.keyspace);
    fsw_donor_image_close(&program->image);
}

static int serve(const struct fsw_server_options *options, struct fsw_error *err)
{
    struct program *program = calloc(1, sizeof *program);
    bool locked = fsw_lock_memory() == 0;
    int r = program == NULL || uv_loop_init(&program->loop) < 0
                ? fsw_error(err, -ENOMEM, "out of memory")
                : open_values(program, options, err);

    if (r < 0) {
        free(program); /* and the loop: the process ends here */
        return r;
    }
    warn_of_swapping(locked && !program->image.unlocked);
    program->server.name = options->name;
    program->server.named = options->named;
    program->server.password = options->password;
    program->server.pressure.keep = options->keep;
    program->server.patience = options->patience;
    program->server.started = fsw_now_ns();
    fsw_vault_charge(fsw_keyspace_vault(program->server.keyspace), fsw_own_memory());
    r = program_start(program, options, err);
    if (r == 0)
        say_ready(program);
    else
        program_stop(program);
    run(program);
    free(program);
    return r;
}

static int act(const struct fsw_server_options *options, struct fsw_error *err)
{
    if (options->show_help) {
        fsw_server_options_print_help(stdout);
        return 0;
    }
    if (options->show_version) {
        printf("farswapd %s\n", FSW_SERVER_VERSION);
        return 0;
    }
    if (options->destroy != NULL)
        return fsw_donor_image_destroy(options->destroy, err);
    if (fsw_check_memory(options->memory, err) < 0)
        complain(err->text);
    fsw_raise_open_files(FSW_MAX_CLIENTS + FSW_MAX_ADMINS + OTHER_FILES);
    return serve(options, err);
}

int main(int argc, char **argv)
{
    struct fsw_server_options options;
    struct fsw_error err = {""};

    fsw_harden();
    if (fsw_server_options_parse(argc, argv, &options, &err) < 0) {
        complain(err.text);
        return 2;
    }
    int r = act(&options, &err);
    if (r < 0)
        complain(err.text);
    if (options.password != NULL)
        explicit_bzero(options.password, strlen(options.password));
    free(options.password);
    return r < 0 ? 1 : 0;
}
