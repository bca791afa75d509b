/*
 * file_worker.c: the threads that read and write a file store's slots.
 *
 * What an error of the disk means: a put that failed is undone, and full or refused; a get is tried
 * again for a second, since a kernel may lose and find a disk again, and is damaged then, as it
 * would be on a swap partition. A network file system that is away keeps its requests waiting.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "client/store/file.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/touch.h"

#define REST_NS (100 * FSW_NS_PER_MS)
#define GET_TRIES 10 /* of a read that fails, REST_NS apart */

/* ---- what an I/O's end means ---- */

/* How a request goes on. */
enum outcome { FINISHED, RESTS };

static enum fsw_store_result put_result(int r)
{
    if (r == 0)
        return FSW_STORE_OK;
    return r == -ENOSPC || r == -EDQUOT || r == -EFBIG ? FSW_STORE_FULL : FSW_STORE_REFUSED;
}

static int is_away(int r)
{
    return r == -ESTALE || r == -ETIMEDOUT || r == -ENOTCONN || r == -ECONNREFUSED ||
           r == -EHOSTDOWN || r == -EHOSTUNREACH || r == -EAGAIN || r == -ENOMEM || r == -EINTR;
}

static void say_errno(struct file_store *store, const char *what, int r)
{
    char text[sizeof store->report.last_error];

    snprintf(text, sizeof text, "%s: %s", store->path, what);
    report_say(&store->report, text, strerror(-r));
}

static enum outcome do_put(struct file_worker *worker, const struct fsw_store_request *task,
                           enum fsw_store_result *ret_result)
{
    struct file_store *store = worker->store;
    int r;

    known_clear(&store->known, task->row);
    r = slots_put(&store->slots, task->row, task->id, task->length, worker->buffer);
    if (r == 0) {
        known_set(&store->known, task->row, task->id, task->length);
        store->report.bytes_out += SLOTS_HEAD + task->length;
    } else {
        say_errno(store, "a write failed", r);
        slots_drop(&store->slots, task->row, task->id, 1, worker->buffer); /* whatever it holds */
    }
    *ret_result = put_result(r);
    return FINISHED;
}

static enum outcome do_drop(struct file_worker *worker, const struct fsw_store_request *task,
                            enum fsw_store_result *ret_result)
{
    struct file_store *store = worker->store;
    int known = known_length(&store->known, task->row, task->id) != 0, r = 0;

    *ret_result = FSW_STORE_OK;
    if (known)
        known_clear(&store->known, task->row);
    if (task->row != 0)
        r = slots_drop(&store->slots, task->row, task->id, known, worker->buffer);
    if (r == 0)
        return FINISHED;
    say_errno(store, "a slot could not be emptied", r);
    return RESTS;
}

/* The slot holds something else. */
static enum outcome get_missed(struct file_worker *worker, const struct fsw_store_request *task,
                               enum fsw_store_result *ret_result)
{
    struct file_store *store = worker->store;

    known_clear(&store->known, task->row);
    *ret_result = FSW_STORE_GONE;
    if (slots_shows_sentinel(&store->slots, worker->buffer))
        return FINISHED;
    report_emptied(&store->report, store->path, 1);
    if (slots_shows_sentinel(&store->slots, worker->buffer)) /* left again since we looked */
        report_emptied(&store->report, store->path, 0);
    return RESTS;
}

static enum outcome do_get(struct file_worker *worker, struct fsw_store_request *task,
                           const void **ret_at, enum fsw_store_result *ret_result)
{
    struct file_store *store = worker->store;
    uint32_t length = known_length(&store->known, task->row, task->id);
    int r = slots_get(&store->slots, task->row, task->id, &length, task->offset, task->length,
                      worker->buffer, ret_at);

    *ret_result = r == 0 ? FSW_STORE_OK : FSW_STORE_CORRUPT;
    if (r == 0) {
        known_set(&store->known, task->row, task->id, length);
        store->report.bytes_in += task->length;
        return FINISHED;
    }
    if (r == -ENOENT)
        return get_missed(worker, task, ret_result);
    if (r == -ERANGE || r == -EUCLEAN)
        return FINISHED;
    say_errno(store, "a read failed", r);
    return is_away(r) || ++task->scratch[1] < GET_TRIES ? RESTS : FINISHED;
}

static enum outcome do_task(struct file_worker *worker, struct fsw_store_request *task,
                            const void **ret_at, enum fsw_store_result *ret_result)
{
    switch (task->verb) {
    case FSW_STORE_PUT:
        return do_put(worker, task, ret_result);
    case FSW_STORE_DROP:
        return do_drop(worker, task, ret_result);
    case FSW_STORE_GET:
        return do_get(worker, task, ret_at, ret_result);
    }
    return FINISHED;
}

/* ---- the workers ---- */

static int row_is_busy(const struct file_store *store, uint32_t row)
{
    for (unsigned i = 0; i < FILE_WORKERS; i++)
        if (store->workers[i].writes && store->workers[i].busy && store->workers[i].row == row)
            return 1;
    return 0;
}

/* The next that a worker may do now, taken out of its list; NULL: none. The lock is held. */
static struct fsw_store_request *take(struct file_worker *worker)
{
    struct file_store *store = worker->store;

    if (!store->open)
        return NULL;
    if (!worker->writes)
        return fsw_requests_pop(&store->gets);
    FSW_FOR_EACH_REQUEST(request, &store->puts)
    {
        if (row_is_busy(store, request->row))
            continue;
        fsw_requests_remove(request);
        return request;
    }
    return NULL;
}

/* Waits for work: 1, with a copy of the request, which may be given up under our hands; 0: the store
 * ends. */
static int begin(struct file_worker *worker, struct fsw_store_request *task)
{
    struct file_store *store = worker->store;
    struct fsw_store_request *request = NULL;
    FSW_LOCK_SCOPE(&store->lock);

    while (!store->stopping && (request = take(worker)) == NULL)
        pthread_cond_wait(worker->writes ? &store->puts_wake : &store->gets_wake, &store->lock);
    if (store->stopping)
        return 0;
    *task = *request;
    worker->request = request;
    worker->row = request->row;
    worker->busy = 1;
    worker->keeps = request->verb == FSW_STORE_PUT;
    return 1;
}

static void copy_put(struct file_worker *worker, const struct fsw_store_request *task)
{
    memcpy((char *)worker->buffer + SLOTS_HEAD, task->bytes, task->length);
    FSW_LOCK_SCOPE(&worker->store->lock);
    worker->keeps = 0;
}

/* The worker has no request any more; returns what it was, unless it was given up. */
static struct fsw_store_request *end(struct file_worker *worker, enum outcome outcome,
                                     uint64_t tries)
{
    struct file_store *store = worker->store;
    FSW_LOCK_SCOPE(&store->lock);
    struct fsw_store_request *request = worker->request;

    worker->request = NULL;
    worker->busy = 0;
    if (worker->writes)
        pthread_cond_broadcast(&store->puts_wake); /* its row may be waited for */
    if (request == NULL || outcome == FINISHED)
        return request;
    store->report.retries++;
    request->scratch[0] = fsw_now_ns() + REST_NS;
    request->scratch[1] = tries;
    fsw_requests_push_back(&store->resting, request);
    return NULL;
}

void *file_worker_run(void *opaque)
{
    struct file_worker *worker = opaque;
    struct fsw_store_request task, *request;
    enum fsw_store_result result = FSW_STORE_REFUSED;
    const void *at = NULL;

    pthread_setname_np(pthread_self(), "farswap-file");
    fsw_touch_stack();
    while (begin(worker, &task)) {
        if (task.verb == FSW_STORE_PUT)
            copy_put(worker, &task);
        enum outcome outcome = do_task(worker, &task, &at, &result);
        request = end(worker, outcome, task.scratch[1]);
        if (request == NULL)
            continue;
        if (task.verb == FSW_STORE_GET && result == FSW_STORE_OK)
            memcpy(request->bytes, at, request->length);
        report_finish(&worker->store->report, request, result, 1);
    }
    return NULL;
}
