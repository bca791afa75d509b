/*
 * test_recovery_asked.c: what a server is told against what its image says: size, store, layout,
 * memory=, codec=.
 */
#include "gone.h"
#include "handover.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "core/registry.h"
#include "farswap/steer.h"

/* ---- what is asked for against what there is ---- */

static void refused(const struct fsw_params *params, enum fsw_open how, struct fsw_store *store,
                    int code, const char *says)
{
    struct fsw_device *device = NULL;
    struct fsw_error err = {""};

    assert_int_equal(fsw_device_open(params, how, 0, store, &device, &err), code);
    assert_null(device);
    if (strstr(err.text, says) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void contradictions_are_refused_and_change_nothing(void **state)
{
    struct fsw_params params = handover_params("agree", HANDOVER_PAGES, MIB(16)), other;
    struct fsw_error err = {""};
    struct rig rig;

    refused(&params, FSW_OPEN_EXISTING, NULL, -ENOENT, "no device named agree");
    assert_int_equal(fsw_device_complete_params(&params, &err), 0);
    handover_leave(&rig, &params, NULL);
    refused(&params, FSW_OPEN_NEW_OR_EXISTING, NULL, -EBUSY, "being served");
    handover_let_go(&rig);
    refused(&params, FSW_OPEN_NEW, NULL, -EEXIST, "farswap destroy agree");
    other = params;
    other.size += FSW_PAGE_SIZE;
    refused(&other, FSW_OPEN_NEW_OR_EXISTING, NULL, -EINVAL, "size=");
    other = params;
    strcpy(other.overflow, "keep");
    refused(&other, FSW_OPEN_NEW_OR_EXISTING, keep_new(), -EINVAL, "without a store");
    other = params;
    handover_must(fsw_params_set(&other, "memory", "1M", &err), &err);
    refused(&other, FSW_OPEN_NEW_OR_EXISTING, NULL, -EINVAL, "at least");
    handover_must(fsw_params_set(&other, "memory", "900T", &err), &err);
    refused(&other, FSW_OPEN_NEW_OR_EXISTING, NULL, -EINVAL, "MemAvailable");

    fsw_params_init(&other);
    strcpy(other.name, "agree"); /* a name is enough */
    assert_int_equal(fsw_device_complete_params(&other, &err), 1);
    assert_int_equal(other.size, params.size);
    assert_int_equal(other.memory, params.memory);
    handover_take(&rig, &other, NULL);
    assert_int_equal(fsw_device_size(rig.device), params.size);
    assert_int_equal(rig_stat(&rig, FSW_STAT_MEM_LIMIT), MIB(16));
    handover_expect(&rig);
    rig_prove(&rig);
    handover_let_go(&rig);
    handover_destroy("agree");
}

static void a_store_is_the_images(void **state)
{
    struct fsw_params params = handover_params("store", HANDOVER_PAGES, MIB(16)), other;
    struct fsw_error err = {""};
    struct rig rig;

    strcpy(params.overflow, "keep");
    handover_leave(&rig, &params, keep_new());
    handover_let_go(&rig);
    other = params;
    other.overflow[0] = '\0';
    refused(&other, FSW_OPEN_EXISTING, NULL, -EINVAL, "overflow=keep");
    strcpy(other.overflow, "another");
    refused(&other, FSW_OPEN_EXISTING, &keep.base, -EINVAL, "overflow=keep");
    other.overflow[0] = '\0';
    assert_int_equal(fsw_device_complete_params(&other, &err), 1);
    assert_string_equal(other.overflow, "keep");
    struct fsw_image image = handover_image("store");
    for (int encrypted = 1; encrypted >= 0;
         encrypted--) { /* as the image is, so is what it knows */
        atomic_store(&image.super->seal, encrypted ? FSW_SEAL_BYTES : 0);
        assert_int_equal(fsw_device_complete_params(&other, &err), 1);
        assert_int_equal(other.encrypted, encrypted);
    }
    fsw_image_detach(&image);
    handover_take(&rig, &other, &keep.base);
    handover_expect(&rig);
    handover_let_go(&rig);
    handover_destroy("store");
}

static void images_of_others_are_refused(void **state)
{
    struct fsw_params params = handover_params("layout", HANDOVER_PAGES, MIB(16));
    struct fsw_error err = {""};
    struct rig rig;

    handover_leave(&rig, &params, NULL);
    handover_let_go(&rig);
    struct fsw_image image = handover_image("layout");
    image.super->layout = 1;
    refused(&params, FSW_OPEN_NEW_OR_EXISTING, NULL, -ENOTSUP, "farswap destroy");
    assert_int_equal(fsw_device_complete_params(&params, &err), -ENOTSUP);
    assert_non_null(strstr(err.text, "has layout 1"));
    image.super->layout = FSW_IMAGE_LAYOUT;
    image.super->magic[0] ^= 1; /* still ours: its id is */
    refused(&params, FSW_OPEN_NEW_OR_EXISTING, NULL, -EUCLEAN, "damaged");
    image.super->magic[0] ^= 1;
    image.super->frames++;
    refused(&params, FSW_OPEN_NEW_OR_EXISTING, NULL, -EUCLEAN, "damaged");
    image.super->frames--;
    fsw_image_detach(&image);
    handover_take(&rig, &params, NULL);
    handover_expect(&rig);
    handover_let_go(&rig);
    handover_destroy("layout");
}

/* As `farswap list` does, and the donors of this host: somebody maps it for a moment. */
static pid_t look_at_for_a_moment(int shmid)
{
    int looks[2];
    char byte;

    assert_int_equal(pipe(looks), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (shmat(shmid, NULL, SHM_RDONLY) == (void *)-1)
            _exit(1);
        if (write(looks[1], "", 1) != 1)
            _exit(1);
        usleep(100000);
        _exit(0);
    }
    close(looks[1]);
    assert_int_equal(read(looks[0], &byte, 1), 1);
    close(looks[0]);
    return pid;
}

/* A maker that died before the image was one. */
static void what_was_never_finished_is_removed(void **state)
{
    struct fsw_params params = handover_params("unfinished", HANDOVER_PAGES, MIB(16));
    struct fsw_record record = {.name = "unfinished"}, after;
    struct fsw_error err = {""};
    struct fsw_image image;
    struct rig rig;
    int fd, unlocked;

    assert_int_equal(fsw_image_create(&image, &params, &unlocked, &err), 0);
    record.shmid = image.shmid;
    record.device = image.super->device;
    assert_int_equal(fsw_registry_lock("unfinished", &fd, &err), 0);
    assert_int_equal(fsw_registry_write(fd, &record, &err), 0);
    fsw_image_detach(&image);
    close(fd);
    pid_t pid = look_at_for_a_moment(record.shmid);
    refused(&params, FSW_OPEN_EXISTING, NULL, -ENOENT, "no device named unfinished");
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(shm_is_gone(record.shmid));
    handover_leave(&rig, &params, NULL);
    assert_int_equal(fsw_registry_read("unfinished", -1, &after, NULL), 0);
    assert_int_not_equal(after.shmid, record.shmid);
    handover_let_go(&rig);
    handover_destroy("unfinished");
}

/* ---- memory= and codec= ---- */

static int has_no_reserve(struct rig *rig, void *opaque)
{
    return rig->device->pool.frames.nready == 0;
}

static void memory_and_codec_may_change(void **state)
{
    struct fsw_params params = handover_params("change", HANDOVER_PAGES, MIB(16));
    struct fsw_error err = {""};
    char page[FSW_PAGE_SIZE];
    struct rig rig;

    handover_leave(&rig, &params, NULL);
    uint64_t used = rig_stat(&rig, FSW_STAT_MEM_USED_TOTAL);
    handover_let_go(&rig);
    handover_must(fsw_params_set(&params, "memory", "1500k", &err), &err);
    handover_must(fsw_params_set(&params, "codec", "zstd:3", &err), &err);
    handover_must(fsw_params_set(&params, "prefetch", "off", &err), &err);
    handover_must(fsw_params_set(&params, "fetch_timeout", "7", &err), &err);
    handover_must(fsw_params_set(&params, "watermarks", "80:60", &err), &err);
    handover_must(fsw_params_set(&params, "write_wait", "0", &err), &err);
    handover_must(fsw_params_set(&params, "read_age", "keep", &err), &err);
    handover_must(fsw_params_set(&params, "huge", "first", &err), &err);
    handover_take(&rig, &params, NULL);
    assert_true(used > rig_stat(&rig, FSW_STAT_MEM_LIMIT)); /* in debt */
    handover_expect(&rig);
    rig_wait(&rig, has_no_reserve, NULL); /* what an earlier server had is given back */
    rig_fill(page, RIG_NOISE, 1);
    assert_int_equal(fsw_device_write(rig.device, page, 0, sizeof page), -ENOSPC);
    assert_int_equal(fsw_device_discard(rig.device, 0, HANDOVER_PAGES * FSW_PAGE_SIZE), 0);
    assert_int_equal(rig_write_page(&rig, 3, RIG_TEXT, 3), 0);
    assert_int_equal(rig.device->contexts.codec_id, FSW_CODEC_ZSTD);
    assert_int_equal(rig.device->contexts.level, 3);
    handover_let_go(&rig);

    params =
        handover_params("change", HANDOVER_PAGES, MIB(16)); /* nothing given: as the image says */
    handover_take(&rig, &params, NULL);
    assert_int_equal(rig_stat(&rig, FSW_STAT_MEM_LIMIT), 1500 << 10);
    assert_int_equal(rig.device->contexts.codec_id, FSW_CODEC_ZSTD);
    assert_int_equal(rig.device->image.super->prefetch, FSW_PREFETCH_OFF);
    assert_int_equal(rig.device->image.super->fetch_timeout, 7000);
    assert_int_equal(rig.device->image.super->watermarks, 80 << 8 | 60);
    assert_int_equal(fsw_write_wait_ns(rig.device->image.super), 0);
    assert_int_equal(rig.device->image.super->read_age, FSW_READ_AGE_KEEP);
    assert_int_equal(rig.device->image.super->huge, 1);
    rig_expect_page(&rig, 3, RIG_TEXT, 3);
    rig_prove(&rig);
    handover_let_go(&rig);
    handover_destroy("change");
}

static int fits(struct rig *rig, void *opaque)
{
    return rig_stat(rig, FSW_STAT_MEM_USED_TOTAL) + rig_stat(rig, FSW_STAT_MEM_RESERVE) <=
           rig_stat(rig, FSW_STAT_MEM_LIMIT);
}

/* What left today is known to the next server. */
static void a_restart_does_not_refill_the_limit(void **state)
{
    struct fsw_params params = handover_params("limit", HANDOVER_PAGES, MIB(16));
    struct fsw_overflowed went;
    struct fsw_error err = {""};
    struct rig rig;

    strcpy(params.overflow, "keep");
    handover_must(fsw_params_set(&params, "overflow_limit", "1M", &err), &err);
    handover_leave(&rig, &params, keep_new());
    uint64_t bytes = rig_stat(&rig, FSW_STAT_OVERFLOW_BYTES);
    assert_int_equal(atomic_load(&rig.device->image.super->overflow_spent), bytes);
    atomic_store(&rig.device->image.super->overflow_spent, MIB(1));
    handover_let_go(&rig);
    handover_take(&rig, &params, &keep.base);
    assert_int_equal(fsw_device_overflow_idle(rig.device, 0, 30 * FSW_NS_PER_S, &went), -EDQUOT);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_LIMITED), 1);
    assert_int_equal(rig_stat(&rig, FSW_STAT_OVERFLOW_BYTES), bytes);
    assert_int_equal(atomic_load(&rig.device->image.super->overflow_spent), MIB(1));
    handover_must(fsw_device_set(rig.device, "overflow_limit", "off", &err), &err);
    assert_int_equal(fsw_device_overflow_idle(rig.device, 0, 30 * FSW_NS_PER_S, &went), 0);
    assert_true(went.pages > 0);
    handover_expect(&rig);
    rig_prove(&rig);
    handover_let_go(&rig);
    handover_destroy("limit");
}

static void what_is_too_much_overflows(void **state)
{
    struct fsw_params params = handover_params("less", HANDOVER_PAGES, MIB(16));
    struct fsw_error err = {""};
    struct rig rig;

    strcpy(params.overflow, "keep");
    handover_leave(&rig, &params, keep_new());
    handover_let_go(&rig);
    handover_must(fsw_params_set(&params, "memory", "1500k", &err), &err);
    handover_take(&rig, &params, &keep.base);
    rig_wait(&rig, fits, NULL);
    handover_expect(&rig);
    rig_prove(&rig);
    handover_let_go(&rig);
    handover_destroy("less");
}

static void an_idle_device_costs_nothing_after_a_restart(void **state)
{
    struct fsw_params params = handover_params("idle", FSW_SIZE_MAX / FSW_PAGE_SIZE, 36ull << 30);
    uint64_t took = UINT64_MAX;
    struct fsw_error err = {""};
    struct rig rig = {0};

    params.memory = fsw_image_base_bytes(params.size) + fsw_image_table_bytes(params.size) + MIB(2);
    if (fsw_params_check_available(&params, NULL) < 0) { /* 16 TiB has a table of 32 GiB */
        params.size = 1ull << 40;
        params.memory = MIB(2560);
    }
    handover_must(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &rig.device, &err), &err);
    rig_be_patient(rig.device);
    handover_must(fsw_device_start(rig.device, &err), &err);
    for (uint64_t page = 0; page < params.size / FSW_PAGE_SIZE; page += params.size >> 18)
        assert_int_equal(rig_write_page(&rig, page, RIG_TEXT, page), 0);
    handover_let_go(&rig);
    struct fsw_image image = handover_image("idle");
    uint64_t before = rig_resident(&image);
    fsw_image_detach(&image);
    for (unsigned i = 0; i < 5; i++) { /* a machine that stands still does not do so each time */
        uint64_t start = fsw_now_ns();
        handover_take(&rig, &params, NULL);
        took = fsw_now_ns() - start < took ? fsw_now_ns() - start : took;
        if (took < FSW_NS_PER_S)
            break;
        handover_let_go(&rig);
    }
    assert_true(took < FSW_NS_PER_S);
    assert_true(rig_resident(&rig.device->image) <= before + FSW_RESERVE_FRAMES * FSW_FRAME_SIZE);
    for (uint64_t page = 0; page < params.size / FSW_PAGE_SIZE; page += params.size >> 18)
        rig_expect_page(&rig, page, RIG_TEXT, page);
    handover_let_go(&rig);
    handover_destroy("idle");
}

RIG_MAIN(cmocka_unit_test(contradictions_are_refused_and_change_nothing),
         cmocka_unit_test(a_store_is_the_images), cmocka_unit_test(images_of_others_are_refused),
         cmocka_unit_test(what_was_never_finished_is_removed),
         cmocka_unit_test(memory_and_codec_may_change),
         cmocka_unit_test(what_is_too_much_overflows),
         cmocka_unit_test(a_restart_does_not_refill_the_limit),
         cmocka_unit_test(an_idle_device_costs_nothing_after_a_restart))
