/*
 * doctor.c: farswap doctor. What on this host would make swap on farswap slow, unsafe or
 * impossible, and what to do about each. It changes nothing. One line a finding:
 *
 *      ok      what was looked at, and is well
 *      warn    it works, and risks this; do that
 *      FAIL    it will not work; do that
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "client/cli/doctor.h"
#include "client/cli/view.h"
#include "common/parse.h"
#include "common/rights.h"

static int failures, warnings, quiet;

static void line(const char *kind, const char *format, va_list args)
{
    if (quiet && strcmp(kind, "ok") == 0)
        return;
    printf("%-5s ", kind);
    vprintf(format, args);
    putchar('\n');
}

#define FINDING(name, kind, counter)                                                               \
    static void __attribute__((format(printf, 1, 2))) name(const char *format, ...)                \
    {                                                                                              \
        va_list args;                                                                              \
        va_start(args, format);                                                                    \
        line(kind, format, args);                                                                  \
        va_end(args);                                                                              \
        counter;                                                                                   \
    }
FINDING(ok, "ok", (void)0)
FINDING(warn, "warn", warnings++)
FINDING(fail, "FAIL", failures++)

static int read_number(const char *path, long *ret_value)
{
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return 0;
    int found = fscanf(file, "%ld", ret_value) == 1;
    fclose(file);
    return found;
}

/* A "Name:   123 kB" line of a /proc file, in bytes. */
static int read_field(const char *path, const char *name, long long *ret_bytes)
{
    char text[256];
    int found = 0;
    FILE *file = fopen(path, "re");

    if (file == NULL)
        return 0;
    while (!found && fgets(text, sizeof text, file) != NULL)
        if (strncmp(text, name, strlen(name)) == 0 && text[strlen(name)] == ':')
            found = sscanf(text + strlen(name) + 1, "%lld", ret_bytes) == 1;
    fclose(file);
    if (found && strstr(text, "kB") != NULL)
        *ret_bytes *= 1024;
    return found;
}

/* ---- the host ---- */

static void look_at_memory_rules(void)
{
    struct fsw_error err = {""};

    if (fsw_registry_check_host(&err) < 0)
        fail("shared memory: %s", err.text);
    else
        ok("shared memory outlives its processes here");
}

static void warn_of_right(const char *text)
{
    warn("rights: %s", text);
}

static void look_at_rights(void)
{
    int before = warnings;

    fsw_rights_check(warn_of_right); /* zswap is among them */
    if (warnings == before)
        ok("rights: memory can be locked, the OOM score and the I/O flag set; zswap is off");
}

static int module_exists(const char *name)
{
    char path[256], wanted[64], text[512];
    struct utsname host;
    int found = 0;

    snprintf(path, sizeof path, "/sys/module/%s", name);
    if (access(path, F_OK) == 0)
        return 1;
    if (uname(&host) < 0)
        return 0;
    snprintf(wanted, sizeof wanted, "/%s.ko", name);
    const char *const lists[] = {"modules.dep", "modules.builtin"};
    for (unsigned i = 0; i < 2 && !found; i++) {
        snprintf(path, sizeof path, "/lib/modules/%s/%s", host.release, lists[i]);
        FILE *file = fopen(path, "re");
        while (file != NULL && !found && fgets(text, sizeof text, file) != NULL) {
            text[strcspn(text, ":\n")] = '\0';
            found = strstr(text, wanted) != NULL;
        }
        if (file != NULL)
            fclose(file);
    }
    return found;
}

/* FUSE can ask for unanswered requests again since 6.9. */
static int fuse_survives(void)
{
    struct utsname host;
    int major = 0, minor = 0;

    return uname(&host) == 0 && sscanf(host.release, "%d.%d", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 9));
}

int doctor_has_nbd(void)
{
    return module_exists("nbd");
}

static void look_at_door(void)
{
    if (doctor_has_nbd())
        ok("nbd: this kernel has it");
    else if (access("/dev/fuse", R_OK | W_OK) < 0)
        fail("door: this kernel has no nbd module, and /dev/fuse can't be used (%s): there is no "
             "way to "
             "give it a swap device. Install the kernel's extra modules, or load fuse",
             strerror(errno));
    else if (fuse_survives())
        ok("door: no nbd module here; FUSE and a loop device do it, and this kernel asks again for "
           "what was in flight when a server is killed");
    else
        warn("door: no nbd module here, so FUSE and a loop device do it. This kernel (before 6.9) "
             "can't "
             "ask a new server for what was in flight: if the server is killed, what is swapped "
             "is lost. Install the kernel's extra modules for nbd");
}

static void look_at_knobs(void)
{
    long swappiness, cluster;

    if (read_number("/proc/sys/vm/swappiness", &swappiness)) {
        if (swappiness < 60)
            warn("vm.swappiness is %ld: the kernel drops file pages, which come back from disk, "
                 "before it uses "
                 "this swap, which is faster. For compressed swap 100 and more is usual: sysctl "
                 "vm.swappiness=100",
                 swappiness);
        else
            ok("vm.swappiness is %ld", swappiness);
    }
    if (read_number("/proc/sys/vm/page-cluster", &cluster)) {
        if (cluster > 3)
            warn("vm.page-cluster is %ld: each fault reads %ld pages, most of them for nothing: "
                 "sysctl vm.page-cluster=3",
                 cluster, 1l << cluster);
        else
            ok("vm.page-cluster is %ld", cluster);
    }
}

/* ---- one device ---- */

static void look_at_server(const struct view *view)
{
    const char *name = view->record.name;
    int pid = (int)atomic_load(&view->image.super->holder);
    long long locked = 0, score = 0;
    char path[64];

    if (!view->record.served) {
        warn("%s: no server: its pages are kept, and nobody can read them. Start it again with the "
             "same name",
             name);
        return;
    }
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    if (!read_field(path, "VmLck", &locked)) {
        ok("%s: served by process %d, which can't be seen from here", name, pid);
        return;
    }
    if (locked == 0)
        warn("%s: process %d has no memory locked: it can be swapped out to the device it serves, "
             "and hang the "
             "host. Give it CAP_IPC_LOCK (systemd: LimitMEMLOCK=infinity)",
             name, pid);
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
    long adj = 0;
    if (read_number(path, &adj))
        score = adj;
    if (score > -1000)
        warn("%s: process %d can be killed by the OOM killer (oom_score_adj %lld): give it "
             "CAP_SYS_RESOURCE "
             "(systemd: OOMScoreAdjust=-1000)",
             name, pid, score);
    if (locked > 0 && score == -1000)
        ok("%s: process %d is locked in memory and safe from the OOM killer", name, pid);
}

static void look_at_swap(const struct view *view)
{
    char text[512], path[256];
    int priority, better = 0;
    FILE *file;

    if (view->swap[0] == '\0' || (file = fopen("/proc/swaps", "re")) == NULL)
        return;
    while (fgets(text, sizeof text, file) != NULL)
        if (sscanf(text, "%255s %*s %*s %*s %d", path, &priority) == 2 &&
            strcmp(path, view->swap) != 0 && priority >= view->priority) {
            warn("%s: %s has priority %d and is used before %s (%d): give farswap the higher one "
                 "(swapon -p)",
                 view->record.name, path, priority, view->swap, view->priority);
            better = 1;
        }
    fclose(file);
    if (!better)
        ok("%s: swap on %s, before any other", view->record.name, view->swap);
}

static void look_at_room(const struct view *view)
{
    long long available;
    uint64_t limit = view->values[FSW_STAT_MEM_LIMIT], cost = view_cost(view);
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT];

    if (!read_field("/proc/meminfo", "MemAvailable", &available))
        return;
    if (limit > cost && limit - cost > (uint64_t)available)
        warn("%s: memory=%s, of which %s is still to be taken, is more than this host has free "
             "(%s): the pool "
             "would push out what it should make room for. Lower it: farswap set %s memory=...",
             view->record.name, fsw_format_size(limit, a), fsw_format_size(limit - cost, b),
             fsw_format_size((uint64_t)available, (char[FSW_SIZE_TEXT]){""}), view->record.name);
    else
        ok("%s: there is memory for what memory=%s may still take", view->record.name,
           fsw_format_size(limit, a));
}

static void look_at_store(const struct view *view)
{
    struct fsw_error err = {""};
    struct fsw_store *store = NULL;

    if (view->record.overflow[0] == '\0') {
        ok("%s: no store: what does not fit memory= is refused (ENOSPC)", view->record.name);
        return;
    }
    int r = cli_open_store(&view->record, &store, &err);
    if (r == 0) {
        r = store->ops->probe(store, &err);
        store->ops->close(store);
    }
    if (r < 0)
        fail("%s: store: %s", view->record.name, err.text);
    else
        ok("%s: %s answers", view->record.name, view->record.overflow);
}

static int look_at_device(const struct fsw_record *record, int orphan, void *opaque)
{
    const char *name = opaque;
    struct fsw_error err = {""};
    struct view view;

    if (orphan || (name != NULL && strcmp(name, record->name) != 0))
        return 0;
    if (view_open(&view, record, orphan, &err) < 0) {
        fail("%s: %s", record->name, err.text);
        return 0;
    }
    look_at_server(&view);
    look_at_swap(&view);
    look_at_room(&view);
    look_at_store(&view);
    view_close(&view);
    return 0;
}

int doctor_look_at_host(int trouble_only)
{
    failures = warnings = 0;
    quiet = trouble_only;
    look_at_memory_rules();
    look_at_rights();
    look_at_door();
    look_at_knobs();
    return failures;
}

static int run(int argc, char **argv)
{
    struct fsw_error err = {""};
    struct fsw_record record;
    int orphan;
    char *name = argc > 1 ? argv[1] : NULL;

    if (argc > 2 || (name != NULL && name[0] == '-'))
        return cli_usage(&cli_doctor, 0);
    if (name != NULL && cli_find(name, &record, &orphan, &err) < 0)
        return cli_fail(&err);
    doctor_look_at_host(0);
    if (fsw_registry_list(look_at_device, name, &err) < 0)
        return cli_fail(&err);
    return failures > 0 ? CLI_FAILED : CLI_OK;
}

const struct cli_command cli_doctor = {
    .name = "doctor",
    .arguments = "[NAME]",
    .summary = "what is wrong with this host, and what to do",
    .help = "Looks at kernel, limits, knobs, and each device's server, swap priority, room and "
            "store. Changes\n"
            "nothing. Exit code 1 if something FAILs; warnings alone are 0.\n",
    .run = run,
};
