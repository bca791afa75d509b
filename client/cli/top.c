/*
 * top.c: farswap top. What farswap status says, once a second, with graphs of the last minutes.
 *
 * Devices come and go while it runs: each tick compares what there is with what is shown, by shared
 * memory id, so that a graph never goes on with another image of the same name. The images are
 * read, no server is asked.
 */
#include <langinfo.h>
#include <locale.h>
#include <ncurses.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/cli/graph.h"
#include "client/cli/view.h"
#include "common/parse.h"

#define DEVICES_MAX 32
#define TICK_NS FSW_NS_PER_S
#define LABEL_COLUMNS 50 /* of a row, without its two graphs, and with a last column left free */

enum { READ, WRITE, FETCH, OVERFLOW, ROWS };

static const struct {
    const char *name;
    enum fsw_stat count, bytes;
    enum fsw_latency latency;
} rows[ROWS] = {
    {"read", FSW_STAT_READS, FSW_STAT_READ_BYTES, FSW_LATENCY_READ},
    {"write", FSW_STAT_WRITES, FSW_STAT_WRITE_BYTES, FSW_LATENCY_WRITE},
    {"fetch", FSW_STAT_FETCH_PAGES, FSW_STAT_FETCH_BYTES, FSW_LATENCY_FETCH},
    {"overflow", FSW_STAT_OVERFLOW_PAGES, FSW_STAT_OVERFLOW_BYTES, FSW_LATENCY_OVERFLOW},
};

struct shown {
    struct view view;
    struct view_rate rate;
    struct graph rates[ROWS], times[ROWS];
    int present; /* in the list of this tick */
};

struct top {
    struct shown *devices[DEVICES_MAX];
    unsigned count;
    const char *name; /* NULL: all */
    int utf8;
};

/* ---- what there is ---- */

static struct shown *find(struct top *top, const struct fsw_record *record)
{
    for (unsigned i = 0; i < top->count; i++)
        if (top->devices[i]->view.record.shmid == record->shmid &&
            memcmp(&top->devices[i]->view.record.device, &record->device, sizeof record->device) ==
                0)
            return top->devices[i];
    return NULL;
}

static int meet(const struct fsw_record *record, int orphan, void *opaque)
{
    struct top *top = opaque;
    struct shown *shown;

    if (orphan || (top->name != NULL && strcmp(top->name, record->name) != 0))
        return 0;
    shown = find(top, record);
    if (shown == NULL && top->count < DEVICES_MAX) {
        shown = calloc(1, sizeof *shown);
        if (shown == NULL || view_open(&shown->view, record, 0, NULL) < 0) {
            free(shown);
            return 0;
        }
        top->devices[top->count++] = shown;
    }
    if (shown != NULL) {
        shown->view.record = *record;
        shown->present = 1;
    }
    return 0;
}

static void forget(struct top *top, unsigned at)
{
    view_close(&top->devices[at]->view);
    free(top->devices[at]);
    top->count--;
    memmove(top->devices + at, top->devices + at + 1, (top->count - at) * sizeof *top->devices);
}

static void look(struct shown *shown)
{
    view_look(&shown->view, &shown->rate);
    for (unsigned i = 0; i < ROWS; i++) {
        graph_add(&shown->rates[i], shown->rate.values[rows[i].bytes]);
        graph_add(&shown->times[i],
                  (double)fsw_latency_percentile(shown->rate.times[rows[i].latency], 0.99));
    }
}

static int tick(struct top *top, struct fsw_error *err)
{
    for (unsigned i = 0; i < top->count; i++)
        top->devices[i]->present = 0;
    int r = fsw_registry_list(meet, top, err);
    for (unsigned i = top->count; i-- > 0;)
        if (!top->devices[i]->present)
            forget(top, i);
        else
            look(top->devices[i]);
    return r;
}

/* ---- the screen ---- */

/* The next line; 0: the screen ends here. What ran over from the line above is cleared. */
static int line(int *at)
{
    if (*at >= LINES)
        return 0;
    move((*at)++, 0);
    clrtoeol();
    return 1;
}

static void draw_head(const struct view *view, int *at)
{
    char size[FSW_SIZE_TEXT];

    if (!line(at))
        return;
    attron(A_BOLD);
    printw("%s", view->record.name);
    attroff(A_BOLD);
    printw("  %s", view_state(view));
    if (view->record.served)
        printw(" by process %d", (int)atomic_load(&view->image.super->holder));
    printw(", %s", fsw_format_size(view->image.super->size, size));
    if (view->swap[0] != '\0')
        printw(", swap on %s with priority %d", view->swap, view->priority);
}

static void draw_pages(const struct view *view, int *at)
{
    const uint64_t *v = view->values;
    char a[FSW_SIZE_TEXT], b[FSW_SIZE_TEXT], c[FSW_SIZE_TEXT];
    uint64_t cost = view_cost(view);

    if (line(at))
        printw("  stored %s: %s here, %s in the store",
               fsw_format_size(v[FSW_STAT_ORIG_DATA_SIZE], a), fsw_format_size(view_local(view), b),
               fsw_format_size(v[FSW_STAT_PAGES_STORE] * FSW_PAGE_SIZE, c));
    if (!line(at))
        return;
    printw("  RAM %s of memory=%s", fsw_format_size(cost, a),
           fsw_format_size(v[FSW_STAT_MEM_LIMIT], b));
    if (v[FSW_STAT_COMPR_DATA_SIZE] > 0)
        printw(", compressed to 1/%.2f", (double)v[FSW_STAT_PAGES_POOL] * FSW_PAGE_SIZE /
                                             (double)v[FSW_STAT_COMPR_DATA_SIZE]);
    if (v[FSW_STAT_ORIG_DATA_SIZE] > cost)
        printw(", saves %s", fsw_format_size(v[FSW_STAT_ORIG_DATA_SIZE] - cost, c));
    if (view->record.overflow[0] != '\0' && line(at))
        printw("  store %s, %s", view->record.overflow,
               view->record.served && view->store_connected ? "connected" : "AWAY");
}

static void draw_row(const struct top *top, const struct shown *shown, unsigned row)
{
    int columns = (COLS - LABEL_COLUMNS) / 2;
    unsigned width = columns < 0 ? 0 : (unsigned)columns;
    char text[GRAPH_TEXT], time[FSW_SIZE_TEXT];
    uint64_t p99 = fsw_latency_percentile(shown->rate.times[rows[row].latency], 0.99);

    printw("  %-8s %8.0f/s %8.1f MB/s ", rows[row].name, shown->rate.values[rows[row].count],
           shown->rate.values[rows[row].bytes] / 1e6);
    addstr(graph_draw(&shown->rates[row], width, top->utf8, text));
    printw(" p99 %8s ", view_time(p99, time));
    addstr(graph_draw(&shown->times[row], width, top->utf8, text));
}

static void draw(const struct top *top)
{
    time_t now = time(NULL);
    struct tm local;
    char clock[16] = "";
    int at = 0;

    if (localtime_r(&now, &local) != NULL)
        strftime(clock, sizeof clock, "%H:%M:%S", &local);
    erase();
    line(&at);
    printw("farswap top  %s  q quits", clock);
    line(&at);
    if (top->count == 0 && line(&at))
        printw("there is no device%s%s on this host now", top->name != NULL ? " " : "",
               top->name != NULL ? top->name : "");
    for (unsigned i = 0; i < top->count; i++) {
        draw_head(&top->devices[i]->view, &at);
        draw_pages(&top->devices[i]->view, &at);
        for (unsigned row = 0; row < ROWS && line(&at); row++)
            draw_row(top, top->devices[i], row);
        line(&at);
    }
    if (at < LINES) {
        move(at, 0);
        clrtobot();
    }
    refresh();
}

/* Keys until the next tick; 1: q was one of them. */
static int listen(const struct top *top, uint64_t until)
{
    for (uint64_t now = fsw_now_ns(); now < until; now = fsw_now_ns()) {
        timeout((int)((until - now) / FSW_NS_PER_MS) + 1);
        int key = getch();
        if (key == 'q' || key == 'Q')
            return 1;
        if (key == KEY_RESIZE)
            draw(top);
    }
    return 0;
}

static int show(struct top *top, struct fsw_error *err)
{
    SCREEN *screen = newterm(NULL, stdout, stdin);
    int r = 0, quit = 0;

    if (screen == NULL)
        return fsw_error(err, -1, "this terminal (TERM=%s) is not known",
                         getenv("TERM") != NULL ? getenv("TERM") : "");
    cbreak();
    noecho();
    curs_set(0);
    keypad(stdscr, TRUE);
    for (uint64_t next = fsw_now_ns(); r == 0 && !quit; next += TICK_NS) {
        r = tick(top, err);
        draw(top);
        if (next + TICK_NS < fsw_now_ns())
            next = fsw_now_ns(); /* we were stopped */
        quit = listen(top, next + TICK_NS);
    }
    endwin();
    delscreen(screen);
    return r;
}

/* ---- the command ---- */

static int run(int argc, char **argv)
{
    static struct top top;
    struct fsw_error err = {""};
    struct fsw_record record;
    int orphan;

    if (argc > 2 || (argc > 1 && argv[1][0] == '-'))
        return cli_usage(&cli_top, 0);
    top.name = argc > 1 ? argv[1] : NULL;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
        fsw_error(&err, -1, "top needs a terminal; `farswap status` says the same once");
        return cli_fail(&err);
    }
    if (top.name != NULL && cli_find(top.name, &record, &orphan, &err) < 0)
        return cli_fail(&err);
    setlocale(LC_CTYPE, "");
    top.utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
    int r = show(&top, &err);
    while (top.count > 0)
        forget(&top, top.count - 1);
    return r < 0 ? cli_fail(&err) : CLI_OK;
}

const struct cli_command cli_top = {
    .name = "top",
    .arguments = "[NAME]",
    .summary = "status, live, with graphs of rates and latencies",
    .help =
        "Once a second, in a terminal: what each device holds and costs, and for read, write, "
        "fetch and\n"
        "overflow the rate and the latency that 99 % are below, with graphs of both. q quits.\n",
    .examples = "  farswap top\n"
                "  farswap top swap0\n",
    .run = run,
};
