/* test_registry.c: names, images and who may serve them; parameters; the table of counters. */
#include "gone.h"
#include "rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/registry.h"

static struct fsw_params params_of(const char *name)
{
    struct fsw_params params;

    fsw_params_init(&params);
    snprintf(params.name, sizeof params.name, "%s", name);
    params.size = 4 << 20;
    params.memory = 3 << 20;
    return params;
}

static void an_image_outlives_its_server_and_keeps_its_name(void **state)
{
    struct fsw_params params = params_of("alpha");
    struct fsw_device *device, *second;
    struct fsw_record record;
    struct fsw_error err = {""};
    struct fsw_image image;
    char page[FSW_PAGE_SIZE], back[FSW_PAGE_SIZE];
    int fd;

    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &device, &err), 0);
    assert_int_equal(fsw_device_start(device, &err), 0);
    rig_fill(page, RIG_NOISE, 1);
    assert_int_equal(fsw_device_write(device, page, 0, sizeof page), 0);
    struct fsw_device_id id = *fsw_device_id(device);
    uint64_t seed = fsw_object_seed(&id);
    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &second, &err), -EBUSY);
    assert_int_equal(fsw_registry_read("alpha", -1, &record, &err), 0);
    assert_int_equal(record.served, 1);
    fsw_device_close(device);

    assert_int_equal(fsw_registry_read("alpha", -1, &record, &err), 0);
    assert_int_equal(record.served, 0);
    assert_memory_equal(&record.device, &id, sizeof id);
    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &second, &err), -EEXIST);
    assert_non_null(strstr(err.text, "farswap destroy alpha"));
    assert_int_equal(fsw_image_attach(&image, record.shmid, 1, &err), 0);
    uint64_t value = *fsw_table_find(&image, 0);
    char object[FSW_OBJECT_MAX];
    assert_int_equal(
        fsw_pool_read(&image, fsw_entry_location(value), object, fsw_entry_units(value)), 0);
    assert_int_equal(fsw_object_open(seed, 0, object, fsw_entry_units(value), back), 0);
    assert_memory_equal(page, back, sizeof page);

    assert_int_equal(fsw_registry_lock("alpha", &fd, &err), 0);
    assert_int_equal(fsw_image_wipe(&image, &err), 0);
    fsw_registry_remove("alpha");
    close(fd);
    assert_true(shm_is_gone(record.shmid));
    assert_int_equal(fsw_registry_read("alpha", -1, &record, &err), -ENOENT);
    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &device, &err), 0);
    fsw_device_discard_image(device);
    assert_int_equal(fsw_registry_read("alpha", -1, &record, &err), -ENOENT);
}

static int count_record(const struct fsw_record *record, int orphan, void *opaque)
{
    int *counts = opaque;
    counts[orphan] += strcmp(record->name, "orphan") == 0 || strcmp(record->name, "named") == 0;
    return 0;
}

static void an_image_without_a_file_is_found(void **state)
{
    struct fsw_params a = params_of("named"), b = params_of("orphan");
    struct fsw_device *named, *orphan;
    struct fsw_error err;
    char path[128];
    int counts[2] = {0, 0};

    assert_int_equal(fsw_device_open(&a, FSW_OPEN_NEW, 0, NULL, &named, &err), 0);
    assert_int_equal(fsw_device_open(&b, FSW_OPEN_NEW, 0, NULL, &orphan, &err), 0);
    snprintf(path, sizeof path, "%s/orphan.image", getenv("FARSWAP_RUNDIR"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fsw_registry_list(count_record, counts, &err), 0);
    fsw_device_discard_image(named);
    fsw_device_discard_image(orphan);
    assert_int_equal(counts[0], 1);
    assert_int_equal(counts[1], 1);
}

static void a_damaged_superblock_is_refused(void **state)
{
    struct fsw_params params = params_of("damaged");
    struct fsw_device *device;
    struct fsw_image image;
    struct fsw_error err = {""};

    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &device, &err), 0);
    struct fsw_superblock *super = device->image.super;
    super->rows ^= 1;
    assert_int_equal(fsw_image_attach(&image, device->image.shmid, 0, &err), -EUCLEAN);
    super->rows ^= 1;
    super->magic[2] ^= 1;
    assert_int_equal(fsw_image_attach(&image, device->image.shmid, 0, &err), -EINVAL);
    super->magic[2] ^= 1;
    super->layout++;
    assert_int_equal(fsw_image_attach(&image, device->image.shmid, 0, &err), -ENOTSUP);
    super->layout--;
    assert_int_equal(fsw_image_attach(&image, device->image.shmid, 0, &err), 0);
    fsw_image_detach(&image);
    int foreign = shmget(IPC_PRIVATE, 8 << 20, IPC_CREAT | 0600);
    assert_int_equal(fsw_image_attach(&image, foreign, 0, &err), -EINVAL);
    shmctl(foreign, IPC_RMID, NULL);
    fsw_device_discard_image(device);
}

/* Numbers of shared memory come again: after a reboot, the first ones do. */
static void a_file_whose_memory_is_another_devices_attaches_to_nothing(void **state)
{
    struct fsw_params params = params_of("newer");
    struct fsw_device *device, *second;
    struct fsw_record record;
    struct fsw_image image;
    struct fsw_error err = {""};
    int fd;

    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &device, &err), 0);
    assert_int_equal(fsw_registry_read("newer", -1, &record, &err), 0);
    assert_int_equal(fsw_registry_attach(&record, 0, &image, &err), 0);
    fsw_image_detach(&image);

    snprintf(record.name, sizeof record.name, "older");
    record.device.bytes[0] ^= 1;
    assert_int_equal(fsw_registry_attach(&record, 1, &image, &err), -ENOENT);
    assert_non_null(strstr(err.text, "another device"));
    assert_int_equal(fsw_registry_lock("older", &fd, &err), 0);
    assert_int_equal(fsw_registry_write(fd, &record, &err), 0);
    close(fd);
    params = params_of("older"); /* such a name is free */
    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &second, &err), 0);
    fsw_device_discard_image(second);

    fsw_device_discard_image(device);
}

static void an_image_of_another_version_keeps_its_name(void **state)
{
    struct fsw_params params = params_of("version");
    struct fsw_device *device, *second;
    struct fsw_record record;
    struct fsw_image image;
    struct fsw_error err = {""};

    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &device, &err), 0);
    assert_int_equal(fsw_device_start(device, &err), 0);
    assert_int_equal(fsw_registry_read("version", -1, &record, &err), 0);
    assert_int_equal(fsw_registry_attach(&record, 1, &image, &err), 0);
    fsw_device_close(device);
    image.super->layout++;
    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &second, &err), -EEXIST);
    image.super->layout--;
    assert_int_equal(fsw_image_wipe(&image, &err), 0);
    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &second, &err),
                     0); /* its memory is gone */
    fsw_device_discard_image(second);
}

static void a_device_id_is_its_text(void **state)
{
    struct fsw_device_id id = {{0, 1, 255, 16}}, back;
    char text[FSW_DEVICE_ID_TEXT];

    fsw_device_id_format(&id, text);
    assert_string_equal(text, "0001ff10000000000000000000000000");
    assert_int_equal(fsw_device_id_parse(text, &back), 0);
    assert_memory_equal(&id, &back, sizeof id);
    assert_int_equal(fsw_device_id_parse("12", &back), -EINVAL);
    text[31] = 'g';
    assert_int_equal(fsw_device_id_parse(text, &back), -EINVAL);
}

/* ---- parameters ---- */

static void wrong_parameters_say_what_is_allowed(void **state)
{
    static const char *const bad[][3] = {
        {"size", "1000", "4096"},
        {"size", "4097", "4096"},
        {"size", "3M", "4M"},
        {"size", "17T", "16T"},
        {"size", "x", "size"},
        {"memory", "0%", "100%"},
        {"memory", "101%", "100%"},
        {"memory", "lots", "memory"},
        {"codec", "gzip", "lz4"},
        {"name", "a/b", "A-Z"},
        {"name", "", "A-Z"},
        {"name", ".x", "A-Z"},
        {"overflow-plaintext", "maybe", "yes or no"},
        {"overflow-password", "secret", "+FILE"},
        {"prefetch", "much", "auto, off"},
        {"prefetch", "4095", "4k"},
        {"prefetch", "17k", "16k"},
        {"watermarks", "low", "START:STOP"},
        {"watermarks", "90", "START:STOP"},
        {"watermarks", "90:90", "STOP less"},
        {"watermarks", "90:", "START:STOP"},
        {"watermarks", ":50", "START:STOP"},
        {"watermarks", "100:50", "10 to 99"},
        {"watermarks", "9:5", "10 to 99"},
        {"watermarks", "0090:50", "START:STOP"},
        {"watermarks", "90:50:10", "START:STOP"},
        {"fetch_timeout", "-1", "for ever"},
        {"fetch_timeout", "1.5", "in seconds"},
        {"fetch_timeout", "86401", "86400"},
        {"overflow_limit", "0", "1M or more"},
        {"overflow_limit", "1023k", "1M or more"},
        {"overflow_limit", "none", "off"},
        {"huge", "last", "first, age or store"},
        {"huge", "", "first, age or store"},
        {"read_age", "old", "young, half or keep"},
        {"read_age", "", "young, half or keep"},
        {"write_wait", "-1", "not at all"},
        {"write_wait", "0.5", "in seconds"},
        {"write_wait", "86401", "86400"},
    };
    struct fsw_params params;
    struct fsw_error err;

    fsw_params_init(&params);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        err.text[0] = '\0';
        assert_int_equal(fsw_params_set(&params, bad[i][0], bad[i][1], &err), -EINVAL);
        assert_non_null(strstr(err.text, bad[i][2]));
        assert_null(strchr(err.text, '\n'));
    }
    assert_int_equal(fsw_params_set(&params, "colour", "red", &err), -ENOENT);
    for (unsigned i = 0; i < fsw_param_count; i++)
        assert_non_null(strstr(err.text, fsw_param_table[i].name));
    char name[FSW_NAME_MAX + 2];
    memset(name, 'n', sizeof name);
    name[FSW_NAME_MAX + 1] = '\0';
    assert_int_equal(fsw_params_set(&params, "name", name, &err), -EINVAL);
    name[FSW_NAME_MAX] = '\0';
    assert_int_equal(fsw_params_set(&params, "name", name, &err), 0);
}

static int set_password_of(const char *bytes, size_t length, struct fsw_params *params,
                           struct fsw_error *err)
{
    char path[PATH_MAX], value[PATH_MAX + 1];

    snprintf(path, sizeof path, "%s/password", getenv("FARSWAP_RUNDIR"));
    snprintf(value, sizeof value, "+%s", path);
    mkdir(getenv("FARSWAP_RUNDIR"), 0700);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    fsw_params_init(params);
    int r = fsw_params_set(params, "overflow-password", value, err);
    assert_int_equal(unlink(path), 0);
    return r;
}

static void a_password_is_the_first_line_of_a_text(void **state)
{
    char longest[300];
    struct fsw_params params;
    struct fsw_error err;

    memset(longest, 'x', sizeof longest);
    assert_int_equal(set_password_of("hush\r\nmore", 10, &params, &err), 0);
    assert_string_equal(params.overflow_password, "hush");
    assert_int_equal(set_password_of("no line", 7, &params, &err), 0);
    assert_string_equal(params.overflow_password, "no line");
    assert_int_equal(set_password_of(longest, FSW_PASSWORD_BYTES, &params, &err), 0);
    assert_int_equal(strlen(params.overflow_password), FSW_PASSWORD_BYTES);
    assert_int_equal(set_password_of(longest, FSW_PASSWORD_BYTES + 1, &params, &err), -EINVAL);
    assert_non_null(strstr(err.text, "longer than 255"));
    assert_int_equal(set_password_of("", 0, &params, &err), -EINVAL);
    assert_non_null(strstr(err.text, "is empty"));
    assert_int_equal(set_password_of("\nhush", 5, &params, &err), -EINVAL);
    assert_non_null(strstr(err.text, "is empty"));
    assert_int_equal(set_password_of("hu\0sh", 5, &params, &err), -EINVAL);
    assert_non_null(strstr(err.text, "no text"));
    assert_string_equal(params.overflow_password, "");
    assert_int_equal(fsw_params_set(&params, "overflow-password", "+/no/such", &err), -ENOENT);
}

static void memory_must_hold_the_table_and_fit_the_host(void **state)
{
    struct fsw_params params;
    struct fsw_error err;

    fsw_params_init(&params);
    assert_int_equal(fsw_params_check(&params, &err), -EINVAL);
    assert_non_null(strstr(err.text, "name="));
    fsw_params_set(&params, "name", "x", &err);
    assert_int_equal(fsw_params_check(&params, &err), -EINVAL);
    assert_non_null(strstr(err.text, "size="));
    fsw_params_set(&params, "size", "1G", &err);
    fsw_params_set(&params, "memory", "2M", &err);
    assert_int_equal(fsw_params_check(&params, &err), -EINVAL);
    assert_non_null(strstr(err.text, "at least"));
    fsw_params_set(&params, "memory", "64M", &err);
    assert_int_equal(fsw_params_check(&params, &err), 0);
    fsw_params_set(&params, "memory", "900T", &err);
    assert_int_equal(fsw_params_check(&params, &err), -EINVAL);
    assert_non_null(strstr(err.text, "MemAvailable"));
}

/* ---- counters ---- */

static void every_counter_has_a_name_of_its_own(void **state)
{
    for (unsigned i = 0; i < FSW_STAT_COUNT; i++) {
        const struct fsw_stat_info *info = &fsw_stat_table[i];
        assert_true(info->name[0] != '\0' && info->unit[0] != '\0' && info->meaning[0] != '\0');
        assert_int_equal(strspn(info->name, "abcdefghijklmnopqrstuvwxyz_0123456789"),
                         strlen(info->name));
        for (unsigned j = 0; j < i; j++)
            assert_string_not_equal(info->name, fsw_stat_table[j].name);
    }
}

/* Its pages are lost, its memory is not: it is refused, not forgotten, until somebody removes it. */
static void a_damaged_image_is_not_forgotten(void **state)
{
    struct fsw_params params = params_of("spoilt");
    struct fsw_device *device;
    struct fsw_record record;
    struct fsw_image image;
    struct fsw_error err = {""};

    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &device, &err), 0);
    int shmid = device->image.shmid;
    device->image.super->size ^= 1 << 22;
    fsw_device_close(device);
    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &device, &err), -EEXIST);
    assert_int_equal(fsw_image_attach(&image, shmid, 0, &err), -EUCLEAN);
    assert_int_equal(fsw_image_wipe_damaged(shmid, &err), 0);
    assert_int_equal(fsw_image_attach(&image, shmid, 0, &err), -EINVAL);
    assert_int_equal(fsw_device_open(&params, FSW_OPEN_NEW, 0, NULL, &device, &err), 0);
    assert_int_equal(fsw_registry_read("spoilt", -1, &record, NULL), 0);
    assert_int_not_equal(record.shmid, shmid);
    fsw_device_discard_image(device);
}

RIG_MAIN(cmocka_unit_test(an_image_outlives_its_server_and_keeps_its_name),
         cmocka_unit_test(an_image_without_a_file_is_found),
         cmocka_unit_test(a_damaged_superblock_is_refused),
         cmocka_unit_test(a_damaged_image_is_not_forgotten),
         cmocka_unit_test(a_file_whose_memory_is_another_devices_attaches_to_nothing),
         cmocka_unit_test(an_image_of_another_version_keeps_its_name),
         cmocka_unit_test(a_device_id_is_its_text),
         cmocka_unit_test(wrong_parameters_say_what_is_allowed),
         cmocka_unit_test(a_password_is_the_first_line_of_a_text),
         cmocka_unit_test(memory_must_hold_the_table_and_fit_the_host),
         cmocka_unit_test(every_counter_has_a_name_of_its_own))
