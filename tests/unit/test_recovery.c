/*
 * test_recovery.c: images that change hands. A server is a child process that is killed; the next one
 * is this process.
 */
#include "rig.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "core/check.h"
#include "core/registry.h"

#define MIB(n) ((uint64_t)(n) << 20)
#define PAGES 1100u /* two leaves and a part of a third */

static struct fsw_params params_of(const char *name, uint64_t pages, uint64_t memory)
{
    struct fsw_params params;

    fsw_params_init(&params);
    snprintf(params.name, sizeof params.name, "%s", name);
    params.size = pages * FSW_PAGE_SIZE;
    params.memory = memory;
    return params;
}

static void must(int r, const struct fsw_error *err)
{
    if (r < 0)
        fail_msg("%s", err->text);
}

static void let_go(struct rig *rig)
{
    fsw_device_close(rig->device);
    rig->device = NULL;
}

/* Goes on with an image, in this process. */
static void take_over(struct rig *rig, const struct fsw_params *params, struct fsw_store *store)
{
    struct fsw_error err = {""};

    memset(rig, 0, sizeof *rig);
    must(fsw_device_open(params, FSW_OPEN_EXISTING, 0, store, &rig->device, &err), &err);
    assert_int_equal(fsw_device_is_recovered(rig->device, NULL), 1);
    must(fsw_device_start(rig->device, &err), &err);
    rig->high = rig->device->reclaim.high;
}

static void destroy(const char *name)
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

static void pages_are_there_after_a_close(void **state)
{
    struct fsw_params params = params_of("close", PAGES, MIB(16));
    struct fsw_error err = {""};
    struct rig rig = {0};

    must(fsw_device_open(&params, FSW_OPEN_NEW_OR_EXISTING, 0, NULL, &rig.device, &err), &err);
    assert_int_equal(fsw_device_is_recovered(rig.device, NULL), 0);
    must(fsw_device_start(rig.device, &err), &err);
    for (unsigned page = 0; page < PAGES; page++)
        if (page % 3 != 0)
            assert_int_equal(rig_write_page(&rig, page, (enum rig_kind)(page % RIG_KINDS), page),
                             0);
    let_go(&rig);
    take_over(&rig, &params, NULL);
    rig_prove(&rig);
    for (unsigned page = 0; page < PAGES; page++)
        rig_expect_page(&rig, page, page % 3 == 0 ? RIG_ZERO : (enum rig_kind)(page % RIG_KINDS),
                        page);
    let_go(&rig);
    destroy("close");
}

RIG_MAIN(cmocka_unit_test(pages_are_there_after_a_close))
