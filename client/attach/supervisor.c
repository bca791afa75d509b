/*
 * supervisor.c: start, and the loop. supervisor.h tells how the parts go together.
 */
#include "client/attach/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "client/attach/harden.h"
#include "client/attach/notify.h"
#include "client/attach/say.h"
#include "client/attach/sight.h"
#include "client/attach/watch.h"
#include "common/nudge.h"
#include "core/registry.h"

#define LOOK_NS (2 * FSW_NS_PER_S)
#define PROBE_LEAST (100 * FSW_NS_PER_MS)
#define PROBE_MOST (2 * FSW_NS_PER_S)

/* ---- what the parts share ---- */

void fsw_wake_at(struct fsw_supervisor *supervisor, uint64_t when)
{
    if (when < supervisor->wake)
        supervisor->wake = when;
}

/* The first failure costs least_ns, each further one in a row twice as much. */
void fsw_backoff_failed(struct fsw_backoff *backoff, uint64_t least_ns, uint64_t most_ns)
{
    uint64_t pause = least_ns << (backoff->failures < 16 ? backoff->failures : 16);

    backoff->failures++;
    backoff->next = fsw_now_ns() + (pause < most_ns ? pause : most_ns);
}

static void fail(struct fsw_supervisor *supervisor)
{
    supervisor->status = 1;
    supervisor->ending.state = FSW_ENDING_NOW;
}

static void keep_text(struct fsw_supervisor *supervisor, const char *format, va_list arguments)
{
    char text[sizeof supervisor->problem];

    vsnprintf(text, sizeof text, format, arguments);
    if (strcmp(text, supervisor->problem) != 0)
        fsw_say("%s", text);
    strcpy(supervisor->problem, text);
}

void fsw_problem(struct fsw_supervisor *supervisor, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    keep_text(supervisor, format, arguments);
    va_end(arguments);
    if (!supervisor->usable && !supervisor->takeover)
        fail(supervisor);
}

void fsw_fatal(struct fsw_supervisor *supervisor, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    keep_text(supervisor, format, arguments);
    va_end(arguments);
    fail(supervisor);
}

/* ---- start ---- */

/* What every server is started with. */
static int make_arguments(struct fsw_supervisor *supervisor)
{
    const struct fsw_attach_options *options = supervisor->options;
    static char control[16], timeout[32];
    char **arguments = calloc(options->param_count + 8, sizeof *arguments);
    unsigned n = 0;

    if (arguments == NULL)
        return -ENOMEM;
    snprintf(control, sizeof control, "%d", FSW_CONTROL_FD);
    snprintf(timeout, sizeof timeout, "%llu", (unsigned long long)options->timeout);
    /* '@' is what systemd's last sweep of processes at shutdown spares. */
    arguments[n++] = options->called[0] == '@' ? "@farswap-nbd" : "farswap-nbd";
    arguments[n++] = "--control";
    arguments[n++] = control;
    arguments[n++] = "--wait";
    arguments[n++] = "--timeout";
    arguments[n++] = timeout;
    arguments[n++] = (char *)options->name;
    for (unsigned i = 0; i < options->param_count; i++)
        arguments[n++] = options->params[i];
    supervisor->arguments = arguments;
    snprintf(supervisor->server_path, sizeof supervisor->server_path, "%s", options->server);
    return 0;
}

/* What is there already: the image, and a device of the kernel's that belongs to it. */
static int find_device(struct fsw_supervisor *supervisor, struct fsw_error *err)
{
    const struct fsw_attach_options *options = supervisor->options;
    struct fsw_kernel_config *config = &supervisor->config;
    struct fsw_record record;
    char backend[FSW_BACKEND_MAX];

    if (options->connect != NULL)
        fsw_dial_prefix(options->name, backend);
    else if (fsw_registry_read(options->name, -1, &record, NULL) == 0)
        fsw_device_id_format(&record.device, backend);
    else
        return 0;
    supervisor->index = fsw_sight_device(backend, config->backend);
    if (supervisor->index < 0)
        return 0;
    supervisor->takeover = 1;
    config->size = fsw_sight_size(supervisor->index);
    if (options->index >= 0 && options->index != supervisor->index)
        return fsw_error(err, -EBUSY, "%s is attached already, as /dev/nbd%d", options->name,
                         supervisor->index);
    fsw_say("/dev/nbd%d is there: taking it over", supervisor->index);
    return 0;
}

/* Blocked for all threads; servers get them back. */
static int take_signals(void)
{
    sigset_t signals;

    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void watch_all(const struct fsw_supervisor *supervisor)
{
    fsw_watch_add(supervisor->signals, FSW_WATCH_LEVEL);
    fsw_watch_add(supervisor->kernel.events_fd, FSW_WATCH_LEVEL);
    fsw_watch_add(supervisor->spawner.done, FSW_WATCH_LEVEL);
    fsw_watch_add(supervisor->prober.done, FSW_WATCH_LEVEL);
    fsw_watch_add(supervisor->dialer.done, FSW_WATCH_LEVEL);
    fsw_watch_add(supervisor->output[0], FSW_WATCH_LEVEL);
}

static int set_up(struct fsw_supervisor *supervisor, struct fsw_error *err)
{
    const struct fsw_attach_options *options = supervisor->options;

    fsw_harden_heap();
    int r = fsw_watch_open();
    if (r == 0)
        r = fsw_desk_open(&supervisor->desk, options->name, err);
    if (r == 0)
        r = fsw_kernel_open(&supervisor->kernel, err);
    if (r == 0)
        r = find_device(supervisor, err);
    if (r == 0)
        r = make_arguments(supervisor);
    if (r < 0)
        return r;
    supervisor->signals = take_signals();
    if (pipe2(supervisor->output, O_CLOEXEC) < 0)
        return -errno;
    fcntl(supervisor->output[0], F_SETFL, O_NONBLOCK);
    fsw_harden(options->connect == NULL);
    /* Large libraries come after that: of them only what is used is locked. */
    r = options->connect != NULL ? fsw_dial_init(&supervisor->dial, options, err) : 0;
    if (r < 0)
        return r;
    r = fsw_worker_init(&supervisor->spawner);
    if (r == 0)
        r = fsw_worker_init(&supervisor->prober);
    if (r == 0)
        r = fsw_worker_init(&supervisor->dialer);
    if (r == 0)
        r = fsw_say_start();
    if (r < 0)
        return fsw_error(err, r, "no thread can be started: %s", strerror(-r));
    fsw_harden_urgent(); /* this thread alone */
    fsw_nudge_prepare();
    watch_all(supervisor);
    return 0;
}

/* ---- the device can be used ---- */

static void first_read_is_done(struct fsw_supervisor *supervisor)
{
    char text[96];

    if (supervisor->probe.result < 0) {
        fsw_backoff_failed(&supervisor->probe_retry, PROBE_LEAST, PROBE_MOST);
        fsw_problem(supervisor, "%s", supervisor->probe.text);
        return;
    }
    supervisor->usable = 1;
    printf("%s is attached as /dev/nbd%d\n", supervisor->options->name, supervisor->index);
    fflush(stdout);
    snprintf(text, sizeof text, "READY=1\nSTATUS=/dev/nbd%d", supervisor->index);
    fsw_notify(text);
}

static void probe_step(struct fsw_supervisor *supervisor)
{
    if (fsw_worker_take(&supervisor->prober)) {
        int first_read = supervisor->probing == 1;
        supervisor->probing = 0;
        if (first_read)
            first_read_is_done(supervisor);
        else
            fsw_ending_claimed(supervisor);
    }
    if (supervisor->usable || supervisor->probing != 0 || !fsw_link_is_up(supervisor))
        return;
    if (fsw_now_ns() < supervisor->probe_retry.next) {
        fsw_wake_at(supervisor, supervisor->probe_retry.next);
        return;
    }
    supervisor->probe.index = supervisor->index;
    supervisor->probe.size = supervisor->config.size;
    if (fsw_worker_give(&supervisor->prober, fsw_probe_first_read, &supervisor->probe) == 0)
        supervisor->probing = 1;
}

/* ---- the loop ---- */

static void answer(struct fsw_supervisor *supervisor, unsigned guest, char *question)
{
    char text[FSW_DESK_ANSWER];

    if (strcmp(question, "status") == 0) {
        fsw_report(supervisor, text);
        fsw_desk_answer(&supervisor->desk, (int)guest, text);
    } else if (strcmp(question, "detach") == 0 || strcmp(question, "detach force") == 0) {
        fsw_ending_ask(supervisor, (int)guest, question[6] != '\0');
    } else if (strncmp(question, "upgrade ", 8) == 0) {
        fsw_upgrade_ask(supervisor, (int)guest, question + 8);
    } else {
        fsw_desk_answer(&supervisor->desk, (int)guest, "error that is no question");
    }
}

static void listen_to_people(struct fsw_supervisor *supervisor)
{
    struct signalfd_siginfo signal;
    char question[FSW_DESK_QUESTION];
    unsigned guest;

    if (read(supervisor->signals, &signal, sizeof signal) == sizeof signal)
        fsw_ending_signal(supervisor);
    while (fsw_desk_question(&supervisor->desk, &guest, question))
        answer(supervisor, guest, question);
}

/* Events get lost, and somebody may take the device from the kernel behind our back. */
static void look_at_kernel(struct fsw_supervisor *supervisor)
{
    if (supervisor->index < 0 || fsw_now_ns() < supervisor->look_next)
        return;
    supervisor->look_next = fsw_now_ns() + LOOK_NS;
    if (fsw_kernel_connected(&supervisor->kernel, supervisor->index) == 0)
        fsw_fatal(supervisor, "somebody else has detached /dev/nbd%d", supervisor->index);
}

static void step(struct fsw_supervisor *supervisor)
{
    listen_to_people(supervisor);
    if (fsw_worker_take(&supervisor->dialer))
        fsw_link_dialed(supervisor);
    fsw_heal_step(supervisor);
    fsw_upgrade_step(supervisor);
    fsw_link_step(supervisor);
    probe_step(supervisor);
    look_at_kernel(supervisor);
    fsw_ending_step(supervisor);
}

int fsw_supervise(const struct fsw_attach_options *options)
{
    static struct fsw_supervisor supervisor; /* zero; touched and locked with the rest */
    struct fsw_error err = {""};

    supervisor.options = options;
    supervisor.index = -1;
    supervisor.link.kernel_end = -1;
    supervisor.upgrade.guest = supervisor.ending.guest = -1;
    supervisor.config.timeout = options->timeout;
    supervisor.config.dead_timeout = options->dead_timeout;
    for (unsigned i = 0; i < FSW_SERVERS; i++)
        fsw_server_init(&supervisor.servers[i]);
    int r = set_up(&supervisor, &err);
    if (r < 0) {
        fsw_say("%s", err.text[0] != '\0' ? err.text : strerror(-r));
        return 1;
    }
    while (!supervisor.done) {
        supervisor.wake = UINT64_MAX;
        fsw_nudge_begin();
        step(&supervisor);
        fsw_nudge_end();
        uint64_t most = fsw_now_ns() + LOOK_NS;
        if (!supervisor.done)
            fsw_watch_wait(supervisor.wake < most ? supervisor.wake : most);
    }
    fsw_desk_close(&supervisor.desk);
    fsw_say_finish();
    return supervisor.status;
}
