/*
 * status.c: farswap status. One screen for people, or JSON for programs: what a device holds, what
 * it costs and saves, how its store is, rates of the last moment, and latencies.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/cli/settings.h"
#include "client/cli/status.h"
#include "common/parse.h"
#include "core/budget.h"

#define DEVICES_MAX 64
/* Long enough for rates, and short enough that the answer is there at once. */
#define MOMENT_MS 100

struct devices {
    struct view views[DEVICES_MAX];
    struct view_rate rates[DEVICES_MAX];
    unsigned count, broken;
    const char *name; /* NULL: all */
};

/* ---- for people ---- */

static const char *bold(void)
{
    return cli_colours() ? "\033[1m" : "";
}

static const char *red(void)
{
    return cli_colours() ? "\033[31m" : "";
}

static const char *plain(void)
{
    return cli_colours() ? "\033[0m" : "";
}

static void print_head(const struct view *view)
{
    char size[FSW_SIZE_TEXT];

    printf("%s%s%s  %s%s%s", bold(), view->record.name, plain(), view->record.served ? "" : red(),
           view_state(view), plain());
    if (view->record.served)
        printf(" by process %d", (int)atomic_load(&view->image.super->holder));
    printf("\n  device    %s", fsw_format_size(view->image.super->size, size));
    if (view->swap[0] != '\0')
        printf(", swap on %s with priority %d", view->swap, view->priority);
    putchar('\n');
    if (survival_is_bad(view->survival))
        printf("  %scrash%s     %s\n", red(), plain(), survival_text(view->survival));
}

/* Those of reads from a store, and of what leaves for it, only where there is one. */
static void print_settings(const struct view *view)
{
    unsigned count = view->record.overflow[0] != '\0' ? settings_count : 1;
    char text[SETTING_TEXT];

    printf("  set      ");
    for (unsigned i = 0; i < count; i++) {
        settings[i].value(view->image.super, text);
        printf(" %s=%s", settings[i].key, text);
    }
    putchar('\n');
}

static void print_pages(const struct view *view)
{
    const uint64_t *v = view->values;
    uint64_t local = view_local(view), cost = view_cost(view);
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT], c[FSW_SIZE_TEXT];

    printf("  stored    %s: %s here, %s in the store\n",
           fsw_format_size(v[FSW_STAT_ORIG_DATA_SIZE], a), fsw_format_size(local, b),
           fsw_format_size(v[FSW_STAT_PAGES_STORE] * FSW_PAGE_SIZE, c));
    printf("  RAM       %s of memory=%s", fsw_format_size(cost, a),
           fsw_format_size(v[FSW_STAT_MEM_LIMIT], b));
    if (v[FSW_STAT_COMPR_DATA_SIZE] > 0)
        printf(", compressed to 1/%.2f", (double)v[FSW_STAT_PAGES_POOL] * FSW_PAGE_SIZE /
                                             (double)v[FSW_STAT_COMPR_DATA_SIZE]);
    if (v[FSW_STAT_ORIG_DATA_SIZE] > cost)
        printf(", saves %s", fsw_format_size(v[FSW_STAT_ORIG_DATA_SIZE] - cost, c));
    printf("\n  pages     %llu compressed, %llu same-filled, %llu that don't compress\n",
           (unsigned long long)(v[FSW_STAT_PAGES_POOL] - v[FSW_STAT_HUGE_PAGES]),
           (unsigned long long)v[FSW_STAT_PAGES_SAME], (unsigned long long)v[FSW_STAT_HUGE_PAGES]);
}

static void print_duration(int64_t seconds)
{
    if (seconds < 120)
        printf("%lld s", (long long)seconds);
    else if (seconds < 7200)
        printf("%lld min", (long long)seconds / 60);
    else
        printf("%lld h", (long long)seconds / 3600);
}

static void print_wire(uint64_t sent, uint64_t received)
{
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT];

    printf("%s sent, %s received", fsw_format_size(sent, a), fsw_format_size(received, b));
}

/* One of two. */
static void print_copy(const struct view_copy *copy)
{
    int bad = copy->is == FSW_COPY_AWAY || copy->is == FSW_COPY_EMPTIED;
    const char *word = copy->is == FSW_COPY_AWAY ? "AWAY" : "EMPTIED";

    printf("            %s: ", copy->uri);
    if (copy->is != FSW_COPY_UNKNOWN) {
        printf("%s%s%s for ", bad ? red() : "", bad ? word : "connected", plain());
        print_duration((int64_t)time(NULL) - copy->since);
        printf(", ");
    }
    print_wire(copy->sent, copy->received);
    if (copy->lies > 0)
        printf(", %s%u answers were not what was put there%s", red(), copy->lies, plain());
    if (bad && copy->error[0] != '\0')
        printf("\n              %s", copy->error);
    putchar('\n');
}

static void print_store(const struct view *view)
{
    char bytes[FSW_SIZE_TEXT];

    printf("  store     %s", view->record.overflow[0] ? view->record.overflow : "none");
    if (view->record.overflow[0] != '\0') {
        printf(": %s in %llu segments", fsw_format_size(view->values[FSW_STAT_STORE_BYTES], bytes),
               (unsigned long long)view->values[FSW_STAT_SEGMENTS]);
        if (view->record.served && view->store_since != 0) {
            printf(", %s%s%s for ", view->store_connected ? "" : red(),
                   view->store_connected ? "connected" : "AWAY", plain());
            print_duration((int64_t)time(NULL) - view->store_since);
        }
        uint64_t away = view->values[FSW_STAT_STORES_AWAY];
        if (view->record.served && view->store_connected && away > 0)
            printf(", %sbut %llu store%s AWAY or EMPTIED%s", red(), (unsigned long long)away,
                   away > 1 ? "s are" : " is", plain());
        if (view->copies == 1) {
            printf(", ");
            print_wire(view->values[FSW_STAT_STORE_SENT], view->values[FSW_STAT_STORE_RECEIVED]);
            if ((!view->store_connected || away > 0) && view->store_error[0] != '\0')
                printf("\n            %s", view->store_error);
        }
    }
    putchar('\n');
    for (unsigned copy = 0; view->copies > 1 && copy < view->copies; copy++)
        print_copy(&view->copy[copy]);
}

/* What may still leave, where that is limited. */
static void print_limit(const struct view *view)
{
    const struct fsw_superblock *super = view->image.super;
    uint64_t left = fsw_budget_left(super), until = fsw_budget_until_refill(super);
    int daily = until != UINT64_MAX;
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT];

    if (!fsw_budget_is_on(super) || view->record.overflow[0] == '\0')
        return;
    printf("  limit     %s of %s%s may leave", fsw_format_size(left, a),
           fsw_format_size(atomic_load(&super->overflow_limit), b), daily ? " a day" : "");
    if (until > 0 && daily) {
        printf(", all of it again in ");
        print_duration((int64_t)until);
    }
    if (left < FSW_SEGMENT_BYTES)
        printf(": %sUSED UP%s", red(), plain());
    putchar('\n');
}

static void print_rates(const struct view_rate *rate)
{
    const double *v = rate->values;
    const struct {
        const char *name;
        double number, bytes;
    } rows[] = {{"read", v[FSW_STAT_READS], v[FSW_STAT_READ_BYTES]},
                {"write", v[FSW_STAT_WRITES], v[FSW_STAT_WRITE_BYTES]},
                {"fetch", v[FSW_STAT_FETCH_PAGES], v[FSW_STAT_FETCH_BYTES]},
                {"overflow", v[FSW_STAT_OVERFLOW_PAGES], v[FSW_STAT_OVERFLOW_BYTES]}};

    printf("  now      ");
    for (unsigned i = 0; i < sizeof rows / sizeof rows[0]; i++)
        printf("%s %s %.0f/s %.1f MB/s", i > 0 ? "," : "", rows[i].name, rows[i].number,
               rows[i].bytes / 1e6);
    putchar('\n');
}

static void print_latencies(const struct view *view)
{
    const double parts[] = {0.5, 0.9, 0.99, 0.999, 1};
    char text[FSW_SIZE_TEXT];

    printf("  latency   %9s %9s %9s %9s %9s\n", "median", "90 %", "99 %", "99.9 %", "longest");
    for (unsigned kind = 0; kind < FSW_LATENCY_COUNT; kind++) {
        if (fsw_latency_percentile(view->times[kind], 1) == 0)
            continue;
        printf("    %-8s", fsw_latency_table[kind].name);
        for (unsigned i = 0; i < sizeof parts / sizeof parts[0]; i++)
            printf(" %9s", view_time(fsw_latency_percentile(view->times[kind], parts[i]), text));
        putchar('\n');
    }
}

/* What should be 0, where it is not. */
static void print_trouble(const struct view *view)
{
    const enum fsw_stat stats[] = {FSW_STAT_CORRUPT_PAGES, FSW_STAT_STORE_LOST_PAGES,
                                   FSW_STAT_NO_SPACE,      FSW_STAT_WRITE_STALLS,
                                   FSW_STAT_FAILED_READS,  FSW_STAT_OVERFLOW_FAILED,
                                   FSW_STAT_STORE_LIES};

    for (unsigned i = 0; i < sizeof stats / sizeof stats[0]; i++)
        if (view->values[stats[i]] > 0)
            printf("  %strouble%s   %s %llu: %s\n", red(), plain(), fsw_stat_table[stats[i]].name,
                   (unsigned long long)view->values[stats[i]], fsw_stat_table[stats[i]].meaning);
}

static void print_people(const struct devices *devices)
{
    for (unsigned i = 0; i < devices->count; i++) {
        const struct view *view = &devices->views[i];

        if (i > 0)
            putchar('\n');
        print_head(view);
        print_settings(view);
        print_pages(view);
        print_store(view);
        print_limit(view);
        print_rates(&devices->rates[i]);
        print_latencies(view);
        print_trouble(view);
    }
}

/* ---- all devices ---- */

static int add(const struct fsw_record *record, int orphan, void *opaque)
{
    struct devices *devices = opaque;
    struct fsw_error err = {""};

    /* An orphan may be another run directory's: `farswap list` shows it. */
    if (orphan || devices->count == DEVICES_MAX ||
        (devices->name != NULL && strcmp(devices->name, record->name) != 0))
        return 0;
    if (view_open(&devices->views[devices->count], record, orphan, &err) < 0) {
        fprintf(stderr, "farswap: %s: %s\n", record->name, err.text);
        devices->broken++;
        return 0;
    }
    devices->count++;
    return 0;
}

static int show(struct devices *devices, int json)
{
    struct timespec moment = {.tv_nsec = MOMENT_MS * 1000000L};

    if (devices->count > 0)
        nanosleep(&moment, NULL);
    for (unsigned i = 0; i < devices->count; i++)
        view_look(&devices->views[i], &devices->rates[i]);
    if (json)
        status_print_json(devices->views, devices->rates, devices->count);
    else
        print_people(devices);
    for (unsigned i = 0; i < devices->count; i++)
        view_close(&devices->views[i]);
    return devices->broken > 0 ? CLI_FAILED : CLI_OK;
}

static int run(int argc, char **argv)
{
    struct fsw_error err = {""};
    int json = cli_take_option(&argc, argv, "--json");

    if (argc > 2 || (argc > 1 && argv[1][0] == '-'))
        return cli_usage(&cli_status, 0);
    struct devices *devices = calloc(1, sizeof *devices);
    if (devices == NULL)
        return CLI_FAILED;
    devices->name = argc > 1 ? argv[1] : NULL;
    int r = fsw_registry_list(add, devices, &err) < 0 ? cli_fail(&err) : CLI_OK;
    if (r == CLI_OK && devices->count + devices->broken == 0 && (devices->name != NULL || !json)) {
        fprintf(stderr,
                devices->name == NULL ? "farswap: there is no device on this host\n"
                                      : "farswap: there is no device %s (`farswap list` "
                                        "shows all)\n",
                devices->name);
        r = devices->name == NULL ? CLI_OK : CLI_FAILED;
    } else if (r == CLI_OK) {
        r = show(devices, json);
    }
    free(devices);
    return r;
}

const struct cli_command cli_status = {
    .name = "status",
    .arguments = "[--json] [NAME]",
    .summary = "one screen: pages, cost, store, rates, latencies",
    .help =
        "Read from the image: the server is not asked, and may hang or be dead. Rates are of "
        "a tenth of a\n"
        "second; latencies of all requests since the image was made, told at most a quarter too "
        "high.\n"
        "With --json an array with one object a device, numbers in bytes, pages, ns.\n",
    .examples = "  farswap status\n"
                "  farswap status --json swap0 | jq '.[0].counters.mem_used_total'\n",
    .run = run,
};
