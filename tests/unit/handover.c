/*
 * handover.c: images that go from one server to the next, in one process.
 */
#include "handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>

#include "core/registry.h"

/* ---- a store that outlives its servers, and answers at once ---- */

struct keep keep;
static pthread_mutex_t keep_lock = PTHREAD_MUTEX_INITIALIZER;

static enum fsw_store_result keep_one(struct fsw_store_request *request)
{
    char **bytes = &keep.bytes[request->id];

    if (request->id >= KEEP_IDS || (request->verb == FSW_STORE_PUT && *bytes != NULL)) {
        fprintf(stderr, "segment %llu: put twice, or an id of nobody's\n",
                (unsigned long long)request->id);
        abort();
    }
    if (request->verb == FSW_STORE_PUT) {
        *bytes = malloc(request->length);
        memcpy(*bytes, request->bytes, request->length);
        keep.length[request->id] = request->length;
        keep.stored++;
        request->copies = 1;
        return FSW_STORE_OK;
    }
    if (request->verb == FSW_STORE_DROP) {
        keep.stored -= *bytes != NULL;
        keep.drops++;
        free(*bytes);
        *bytes = NULL;
        return FSW_STORE_OK;
    }
    if (*bytes == NULL)
        return FSW_STORE_GONE;
    if ((uint64_t)request->offset + request->length > keep.length[request->id])
        return FSW_STORE_CORRUPT;
    memcpy(request->bytes, *bytes + request->offset, request->length);
    return FSW_STORE_OK;
}

static void keep_submit(struct fsw_store *base, struct fsw_store_request *const *requests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        pthread_mutex_lock(&keep_lock);
        requests[i]->result = keep_one(requests[i]);
        pthread_mutex_unlock(&keep_lock);
        requests[i]->done(requests[i]);
    }
}

static int keep_start(struct fsw_store *base, const struct fsw_store_identity *identity,
                      struct fsw_error *err)
{
    keep.starts++;
    keep.sentinel = identity->sentinel[0];
    keep.planted = identity->planted;
    return 0;
}

static int keep_has(uint64_t id)
{
    pthread_mutex_lock(&keep_lock);
    int has = keep.bytes[id] != NULL;
    pthread_mutex_unlock(&keep_lock);
    return has;
}

static int keep_list(struct fsw_store *base, const struct fsw_device_id *device,
                     int (*each)(uint32_t row, uint64_t id, void *opaque), void *opaque,
                     struct fsw_error *err)
{
    int r = 0;

    for (uint64_t id = 0; r == 0 && id < KEEP_IDS; id++)
        if (keep_has(id))
            r = each(0, id, opaque);
    return r;
}

static void keep_health(struct fsw_store *base, struct fsw_store_health *ret_health)
{
    *ret_health = (struct fsw_store_health){.connected = 1};
}

static void keep_close(struct fsw_store *base) {}

static const struct fsw_store_ops keep_ops = {
    .scheme = "keep",
    .start = keep_start,
    .submit = keep_submit,
    .list = keep_list,
    .health = keep_health,
    .close = keep_close,
};

struct fsw_store *keep_new(void)
{
    for (unsigned i = 0; i < KEEP_IDS; i++)
        free(keep.bytes[i]);
    memset(&keep, 0, sizeof keep);
    keep.base.ops = &keep_ops;
    return &keep.base;
}

/* ---- devices ---- */

struct fsw_params handover_params(const char *name, uint64_t pages, uint64_t memory)
{
    struct fsw_params params;

    fsw_params_init(&params);
    snprintf(params.name, sizeof params.name, "%s", name);
    params.size = pages * FSW_PAGE_SIZE;
    params.memory = memory;
    return params;
}

void handover_must(int r, const struct fsw_error *err)
{
    if (r < 0)
        fail_msg("%s", err->text);
}

void handover_let_go(struct rig *rig)
{
    fsw_device_close(rig->device);
    rig->device = NULL;
}

void handover_take(struct rig *rig, const struct fsw_params *params, struct fsw_store *store)
{
    struct fsw_error err = {""};

    memset(rig, 0, sizeof *rig);
    handover_must(fsw_device_open(params, FSW_OPEN_EXISTING, 0, store, &rig->device, &err), &err);
    assert_int_equal(fsw_device_is_recovered(rig->device, NULL), 1);
    rig_be_patient(rig->device);
    handover_must(fsw_device_start(rig->device, &err), &err);
    rig->high = rig->device->reclaim.high;
}

void handover_destroy(const char *name)
{
    struct fsw_record record;
    struct fsw_image image;

    assert_int_equal(fsw_registry_read(name, -1, &record, NULL), 0);
    if (fsw_registry_attach(&record, 1, &image, NULL) == 0)
        fsw_image_wipe(&image, NULL);
    else
        shmctl(record.shmid, IPC_RMID, NULL);
    fsw_registry_remove(name);
}

void handover_leave(struct rig *rig, const struct fsw_params *params, struct fsw_store *store)
{
    struct fsw_error err = {""};

    memset(rig, 0, sizeof *rig);
    handover_must(fsw_device_open(params, FSW_OPEN_NEW, 0, store, &rig->device, &err), &err);
    assert_int_equal(fsw_device_is_recovered(rig->device, NULL), 0);
    rig_be_patient(rig->device);
    handover_must(fsw_device_start(rig->device, &err), &err);
    rig->high = rig->device->reclaim.high;
    for (unsigned page = 0; page < HANDOVER_PAGES / 2; page++)
        assert_int_equal(rig_write_page(rig, page, (enum rig_kind)(page % RIG_KINDS), page), 0);
    if (store != NULL)
        rig_evict_all(rig);
    for (unsigned page = HANDOVER_PAGES / 2; page < HANDOVER_PAGES; page++)
        assert_int_equal(rig_write_page(rig, page, (enum rig_kind)(page % RIG_KINDS), page), 0);
}

void handover_expect(struct rig *rig)
{
    for (unsigned page = 0; page < HANDOVER_PAGES; page++)
        rig_expect_page(rig, page, (enum rig_kind)(page % RIG_KINDS), page);
}

void handover_problem(const char *line, void *opaque)
{
    fprintf(stderr, "%s\n", line);
    ++*(unsigned *)opaque;
}

struct fsw_check_report handover_check(const char *name)
{
    struct fsw_check_report report;
    struct fsw_record record;
    struct fsw_image image;
    unsigned problems = 0;

    assert_int_equal(fsw_registry_read(name, -1, &record, NULL), 0);
    assert_int_equal(record.served, 0);
    assert_int_equal(fsw_registry_attach(&record, 0, &image, NULL), 0);
    assert_int_equal(fsw_image_check(&image, 0, handover_problem, &problems, &report), 0);
    fsw_image_detach(&image);
    assert_int_equal(problems, 0);
    return report;
}

struct fsw_image handover_image(const char *name)
{
    struct fsw_record record;
    struct fsw_image image;

    assert_int_equal(fsw_registry_read(name, -1, &record, NULL), 0);
    assert_int_equal(fsw_registry_attach(&record, 1, &image, NULL), 0);
    return image;
}
