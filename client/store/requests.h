/*
 * requests.h: lists of requests, linked through the requests themselves, so that nothing is
 * allocated and any of them can leave from the middle without knowing which list it is in.
 *
 * A list is a ring: head.next is the first, head.prev the last. No locks: the owner's affair.
 */
#ifndef FSW_STORE_REQUESTS_H
#define FSW_STORE_REQUESTS_H

#include <assert.h>
#include <stddef.h>

#include "farswap/store.h"

/* What a caller owes a store. */
static inline void fsw_request_check(const struct fsw_store_request *request)
{
    assert(request->done != NULL);
    assert(request->verb == FSW_STORE_DROP ||
           (request->length >= 1 && request->length <= FSW_SEGMENT_BYTES));
    assert(request->verb != FSW_STORE_GET ||
           request->offset <= FSW_SEGMENT_BYTES - request->length);
}

struct fsw_requests {
    struct fsw_store_request head;
};

static inline void fsw_requests_init(struct fsw_requests *list)
{
    list->head.next = list->head.prev = &list->head;
}

static inline struct fsw_store_request *fsw_requests_first(struct fsw_requests *list)
{
    return list->head.next == &list->head ? NULL : list->head.next;
}

static inline int fsw_requests_are_none(const struct fsw_requests *list)
{
    return list->head.next == &list->head;
}

static inline void fsw_requests_insert(struct fsw_store_request *request,
                                       struct fsw_store_request *prev,
                                       struct fsw_store_request *next)
{
    request->prev = prev;
    request->next = next;
    prev->next = request;
    next->prev = request;
}

static inline void fsw_requests_push_back(struct fsw_requests *list,
                                          struct fsw_store_request *request)
{
    fsw_requests_insert(request, list->head.prev, &list->head);
}

static inline void fsw_requests_push_front(struct fsw_requests *list,
                                           struct fsw_store_request *request)
{
    fsw_requests_insert(request, &list->head, list->head.next);
}

static inline void fsw_requests_remove(struct fsw_store_request *request)
{
    request->prev->next = request->next;
    request->next->prev = request->prev;
    request->next = request->prev = NULL;
}

/* The first one, taken out; NULL if there is none. */
static inline struct fsw_store_request *fsw_requests_pop(struct fsw_requests *list)
{
    struct fsw_store_request *first = fsw_requests_first(list);

    if (first != NULL)
        fsw_requests_remove(first);
    return first;
}

/* Moves all of `from`, in order, to the end of `to`. */
static inline void fsw_requests_splice(struct fsw_requests *to, struct fsw_requests *from)
{
    struct fsw_store_request *first = fsw_requests_first(from), *last = from->head.prev;

    if (first == NULL)
        return;
    first->prev = to->head.prev;
    to->head.prev->next = first;
    last->next = &to->head;
    to->head.prev = last;
    fsw_requests_init(from);
}

/* Safe against removal of `at` inside the loop. */
#define FSW_FOR_EACH_REQUEST(at, list)                                                             \
    for (struct fsw_store_request *at = (list)->head.next, *at##_next = at->next;                  \
         at != &(list)->head; at = at##_next, at##_next = at->next)

#endif
