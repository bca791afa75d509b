/*
 * mirror_get.c: a GET asks one copy after the other, until one has it or all say that they have not.
 *
 * The caller's request itself goes to the stores; where it is in its search lies in `outer`.
 */
#include <assert.h>
#include <string.h>

#include "client/store/mirror.h"
#include "common/clock.h"

/* kept[0]: the request's own deadline. kept[1], from the lowest byte: copies that may be asked, those
 * that said no, the one that is being asked, the worst that was said, how often one was slow, whether
 * none answered when this one was asked; and the store's generation when it began. */
struct search {
    uint8_t asked, refused, copy, worst, tries, astray;
    uint16_t generation;
};

static struct search search_of(const struct fsw_store_request *request)
{
    struct search search;

    memcpy(&search, &request->outer[FSW_OUTER_MIRROR].kept[1], sizeof search);
    return search;
}

static void search_keep(struct fsw_store_request *request, struct search search)
{
    memcpy(&request->outer[FSW_OUTER_MIRROR].kept[1], &search, sizeof search);
}

/* The best of those that are left, which is not the one that was just tried if there is a choice. */
static unsigned choose(struct mirror_store *store, struct search search, uint64_t id, int again)
{
    unsigned left = search.asked & ~search.refused, first = (unsigned)(id % MIRROR_COPIES);
    int best[MIRROR_COPIES];

    assert(left != 0);
    for (unsigned copy = 0; copy < MIRROR_COPIES; copy++)
        best[copy] = left >> copy & 1 ? (int)mirror_worth(&store->copies[copy]) : -1;
    if (again && best[search.copy ^ 1] >= 0)
        return search.copy ^ 1;
    return best[first] >= best[first ^ 1] ? first : first ^ 1;
}

static void get_finish(struct mirror_store *store, struct fsw_store_request *request,
                       enum fsw_store_result result)
{
    struct fsw_store_outer *outer = &request->outer[FSW_OUTER_MIRROR];

    request->done = outer->done;
    request->deadline = outer->kept[0];
    report_finish(&store->report, request, result, 1u << search_of(request).copy);
}

static void get_done(struct fsw_store_request *request);

/* Inside the gate: the store to ask next; NULL: its caller has to think again. */
static struct fsw_store *get_turn_to(struct mirror_store *store, struct fsw_store_request *request,
                                     int again)
{
    struct search search = search_of(request);
    uint32_t left = search.asked & ~(uint32_t)search.refused;
    uint64_t deadline = request->outer[FSW_OUTER_MIRROR].kept[0];
    uint64_t until = fsw_now_ns() + (store->try_ns << (search.tries < 10 ? search.tries / 2 : 5));

    if (search.tries == 0 && search.refused == 0)
        search.generation = store->generation;
    if (search.generation != store->generation)
        return NULL;
    search.copy = (uint8_t)choose(store, search, request->id, again);
    int choice = (left & (left - 1)) != 0; /* there is another to turn to */
    search.astray = choice && mirror_worth(&store->copies[0]) < MIRROR_EMPTIED &&
                    mirror_worth(&store->copies[1]) < MIRROR_EMPTIED;
    search_keep(request, search);
    request->deadline = choice && (deadline == 0 || deadline > until) ? until : deadline;
    if (search.astray)
        mirror_astray(store, 1);
    return store->copies[search.copy].store;
}

static void get_ask(struct mirror_store *store, struct fsw_store_request *request, int again)
{
    struct fsw_store *to = NULL;

    if (mirror_enter(store)) {
        to = get_turn_to(store, request, again);
        if (to != NULL)
            to->ops->submit(to, &request, 1);
        mirror_leave(store);
    }
    if (to == NULL)
        get_finish(store, request, FSW_STORE_UNREACHABLE);
}

static void get_done(struct fsw_store_request *request)
{
    struct mirror_store *store = request->outer[FSW_OUTER_MIRROR].owner;
    struct search search = search_of(request);
    struct mirror_copy *copy = &store->copies[search.copy];
    uint64_t deadline = request->outer[FSW_OUTER_MIRROR].kept[0];

    if (search.astray)
        mirror_astray(store, -1);
    search.astray = 0;
    if (request->result == FSW_STORE_OK) {
        mirror_answered(copy);
        get_finish(store, request, FSW_STORE_OK);
        return;
    }
    if (request->result == FSW_STORE_UNREACHABLE) {
        if (mirror_worth(copy) !=
            MIRROR_EMPTIED) /* an emptied one can't say of what it lacks that it is gone */
            mirror_was_slow(store, search.copy);
        search.tries += search.tries < UINT8_MAX;
        search_keep(request, search);
        if (deadline != 0 && deadline <= fsw_now_ns())
            get_finish(store, request, FSW_STORE_UNREACHABLE);
        else
            get_ask(store, request, 1);
        return;
    }
    mirror_answered(copy);
    search.refused |= (uint8_t)(1u << search.copy);
    search.worst = (uint8_t)mirror_worse((enum fsw_store_result)search.worst, request->result);
    search_keep(request, search);
    if ((search.asked & ~search.refused) == 0)
        get_finish(store, request, (enum fsw_store_result)search.worst);
    else
        get_ask(store, request, 0);
}

/* As get_ask, with the gate held while the store works on this thread: for its moment. */
static void get_ask_here(struct mirror_store *store, struct fsw_store_request *request,
                         uint64_t until)
{
    struct fsw_store *to = NULL;

    if (mirror_enter(store)) {
        to = get_turn_to(store, request, 0);
        if (to != NULL)
            fsw_store_get(to, request, until);
        mirror_leave(store);
    }
    if (to == NULL)
        get_finish(store, request, FSW_STORE_UNREACHABLE);
}

static void begin(struct mirror_store *store, struct fsw_store_request *request)
{
    uint8_t asked = (uint8_t)request->copies & MIRROR_ALL;
    struct search search = {.asked = asked ? asked : MIRROR_ALL};

    request->outer[FSW_OUTER_MIRROR] = (struct fsw_store_outer){
        .done = request->done, .owner = store, .kept = {request->deadline}};
    request->done = get_done;
    search_keep(request, search);
}

void mirror_get(struct mirror_store *store, struct fsw_store_request *request)
{
    begin(store, request);
    get_ask(store, request, 0);
}

void mirror_get_here(struct mirror_store *store, struct fsw_store_request *request, uint64_t until)
{
    begin(store, request);
    get_ask_here(store, request, until);
}
