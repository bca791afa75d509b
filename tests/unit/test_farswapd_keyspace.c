/*
 * test_farswapd_keyspace.c: the donor's keyspace against a plain array, and its promises one by
 * one.
 *
 * FSW_SEED chooses the random operations; the seed is printed when a test fails.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "server/glob.h"
#include "server/keyspace.h"
#include "server/limits.h"
#include "server/siphash.h"

#define KEYS 5000
#define PLENTY (1ull << 30)

static uint64_t seed, state;

static uint64_t roll(uint64_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % below;
}

static size_t name_key(unsigned k, char *key)
{
    return (size_t)snprintf(key, FSW_MAX_KEY, "device:%u:segment", k);
}

static struct fsw_value *make_value(uint32_t content, size_t length)
{
    struct fsw_value *value = fsw_value_new(length);

    assert_non_null(value);
    for (size_t i = 0; i < length; i++)
        value->bytes[i] = (char)(content + i);
    return value;
}

static int set(struct fsw_keyspace *keyspace, unsigned k, uint32_t content, size_t length)
{
    struct fsw_value *value = make_value(content, length);
    char key[FSW_MAX_KEY];
    int r = fsw_keyspace_set(keyspace, key, name_key(k, key), value);

    fsw_value_release(value);
    return r;
}

static struct fsw_value *get(struct fsw_keyspace *keyspace, unsigned k)
{
    char key[FSW_MAX_KEY];

    return fsw_keyspace_get(keyspace, key, name_key(k, key));
}

static int del(struct fsw_keyspace *keyspace, unsigned k)
{
    char key[FSW_MAX_KEY];

    return fsw_keyspace_del(keyspace, key, name_key(k, key));
}

static void must_be_sound(const struct fsw_keyspace *keyspace)
{
    struct fsw_error err = {""};

    if (fsw_keyspace_check(keyspace, &err) < 0)
        fail_msg("%s", err.text);
}

static struct fsw_donor_image image;

static struct fsw_keyspace *make_keyspace(uint64_t limit)
{
    struct fsw_keyspace *keyspace;
    struct fsw_error err = {""};

    if (fsw_donor_image_open(&image, NULL, limit, &err) < 0)
        fail_msg("%s", err.text);
    assert_int_equal(fsw_keyspace_open(&image, limit, &keyspace), 0);
    return keyspace;
}

static uint64_t used(struct fsw_keyspace *keyspace)
{
    return fsw_vault_used(fsw_keyspace_vault(keyspace));
}

/* Gives all that is free back to the system. */
static void tidy(struct fsw_keyspace *keyspace)
{
    struct fsw_vault *vault = fsw_keyspace_vault(keyspace);

    vault->shut = true;
    assert_false(fsw_vault_tidy(vault, UINT32_MAX));
    vault->shut = false;
    assert_int_equal(vault->warm_frames, 0);
}

static void end(struct fsw_keyspace *keyspace)
{
    must_be_sound(keyspace);
    fsw_keyspace_close(keyspace);
    fsw_donor_image_close(&image);
    assert_int_equal(fsw_value_cost_of_all(), 0);
}

/* ---- against a plain array ---- */

struct model {
    bool there;
    uint32_t content, length;
};

static void compare(struct fsw_keyspace *keyspace, const struct model *model, unsigned k)
{
    struct fsw_value *value = get(keyspace, k);

    assert_int_equal(value != NULL, model[k].there);
    if (value == NULL)
        return;
    assert_int_equal(value->length, model[k].length);
    for (size_t i = 0; i < value->length; i++)
        assert_int_equal((uint8_t)value->bytes[i], (uint8_t)(model[k].content + i));
}

/* Mostly within a descriptor or a page, sometimes more. */
static uint32_t some_length(void)
{
    switch (roll(16)) {
    case 0:
        return (uint32_t)roll(20000);
    case 1:
        return 4096 - 2 + (uint32_t)roll(4);
    default:
        return (uint32_t)roll(300);
    }
}

static void random_operation(struct fsw_keyspace *keyspace, struct model *model, bool growing)
{
    unsigned k = (unsigned)roll(KEYS);

    if (roll(10) < (growing ? 7 : 2)) {
        model[k] = (struct model){true, (uint32_t)roll(UINT32_MAX), some_length()};
        assert_int_equal(set(keyspace, k, model[k].content, model[k].length), 0);
    } else {
        assert_int_equal(del(keyspace, k), model[k].there);
        model[k].there = false;
    }
    compare(keyspace, model, (unsigned)roll(KEYS));
}

static void test_model(void **unused)
{
    static struct model model[KEYS];
    struct fsw_keyspace *keyspace = make_keyspace(PLENTY);
    uint64_t there = 0;

    memset(model, 0, sizeof model);
    for (unsigned i = 0; i < 100000; i++) {
        random_operation(keyspace, model, (i / 12500) % 2 == 0);
        if (i % 1009 == 0)
            must_be_sound(keyspace);
    }
    for (unsigned k = 0; k < KEYS; k++) {
        compare(keyspace, model, k);
        there += model[k].there;
    }
    assert_int_equal(fsw_keyspace_count(keyspace), there);
    end(keyspace);
}

/* ---- scan ---- */

static void note_seen(const char *key, size_t key_length, void *opaque)
{
    unsigned char *seen = opaque;
    char text[FSW_MAX_KEY + 1] = "";
    unsigned k;

    memcpy(text, key, key_length);
    assert_int_equal(sscanf(text, "device:%u:segment", &k), 1);
    assert_true(k < KEYS);
    assert_true(seen[k] < 255);
    seen[k]++;
}

/* One whole scan during which `changes` random sets and dels happen a step. Keys below `stay` are
 * there all the time and not touched. */
static void scan_while_changing(struct fsw_keyspace *keyspace, unsigned stay, unsigned changes,
                                bool growing)
{
    static unsigned char seen[KEYS];
    uint64_t cursor = 0;

    memset(seen, 0, sizeof seen);
    do {
        cursor = fsw_keyspace_scan(keyspace, cursor, note_seen, seen);
        for (unsigned i = 0; i < changes; i++) {
            unsigned k = stay + (unsigned)roll(KEYS - stay);
            if (roll(10) < (growing ? 9 : 1))
                assert_int_equal(set(keyspace, k, k, 3), 0);
            else
                del(keyspace, k);
        }
    } while (cursor != 0);
    for (unsigned k = 0; k < stay; k++)
        if (seen[k] != 1)
            fail_msg("key %u was shown %u times", k, seen[k]);
}

static void test_scan_shows_each_key_once_whatever_happens(void **unused)
{
    for (unsigned round = 0; round < 60; round++) {
        struct fsw_keyspace *keyspace = make_keyspace(PLENTY);
        unsigned stay = 1 + (unsigned)roll(round % 2 ? KEYS / 2 : 40);
        unsigned more = round % 4 < 2 ? 0 : KEYS;

        for (unsigned k = 0; k < stay; k++)
            assert_int_equal(set(keyspace, k, k, 3), 0);
        for (unsigned k = stay; k < more; k++)
            assert_int_equal(set(keyspace, k, k, 3), 0);
        scan_while_changing(keyspace, stay, 1 + (unsigned)roll(60), more == 0);
        end(keyspace);
    }
}

/* The cursor meets the frontier wherever that can be. */
static void test_scan_at_every_step_of_resizing(void **unused)
{
    struct fsw_keyspace *keyspace = make_keyspace(PLENTY);

    for (unsigned k = 0; k < 600; k++) {
        assert_int_equal(set(keyspace, k, k, 3), 0);
        scan_while_changing(keyspace, k + 1, 0, false);
    }
    for (unsigned k = 600; k-- > 0;) {
        scan_while_changing(keyspace, k + 1, 0, false);
        assert_int_equal(del(keyspace, k), 1);
    }
    end(keyspace);
}

static void test_any_cursor_is_safe(void **unused)
{
    static unsigned char seen[KEYS];
    struct fsw_keyspace *keyspace = make_keyspace(PLENTY);

    for (unsigned k = 0; k < 100; k++)
        set(keyspace, k, k, 3);
    for (unsigned i = 0; i < 10000; i++) {
        memset(seen, 0, sizeof seen);
        fsw_keyspace_scan(keyspace, i < 100 ? UINT64_MAX - i : roll(UINT64_MAX) >> roll(60),
                          note_seen, seen);
    }
    end(keyspace);
}

/* ---- limits ---- */

static void test_at_the_limit_set_refuses_and_nothing_changes(void **unused)
{
    struct fsw_keyspace *keyspace = make_keyspace(1 << 20);
    unsigned count = 0;
    uint64_t bytes;

    while (set(keyspace, count, count, 4000) == 0)
        count++;
    assert_in_range(count, 200, 240);
    bytes = used(keyspace);
    assert_true(bytes <= 1 << 20);
    assert_int_equal(set(keyspace, count, 0, 5000), -ENOMEM);
    assert_null(get(keyspace, count));
    assert_int_equal(used(keyspace), bytes);
    assert_int_equal(fsw_keyspace_count(keyspace), count);
    assert_int_equal(set(keyspace, 7, 8, 4000), 0); /* as large as what it replaces */
    assert_int_equal(get(keyspace, 7)->bytes[0], 8);
    for (unsigned i = 0; i < 100; i++)
        set(keyspace, i, 9, 65536); /* larger: some may be, until it is full indeed */
    assert_true(used(keyspace) <= 1 << 20);
    assert_int_equal(set(keyspace, 99, 7, 65536), -ENOMEM);
    assert_int_equal(get(keyspace, 99)->bytes[0], 99);
    for (unsigned i = 0; i < 50; i++)
        assert_int_equal(del(keyspace, i), 1);
    assert_int_equal(set(keyspace, count, 0, 4000), 0);
    end(keyspace);
}

/* Some of these limits are reached just before the table is due to double, and some just after. */
static void test_no_limit_is_passed_by_descriptors_or_table(void **unused)
{
    for (uint64_t limit = 500000; limit < 700000; limit += 3003) {
        struct fsw_keyspace *keyspace = make_keyspace(limit);
        unsigned count = 0;

        for (; set(keyspace, count, count, 1) == 0; count++)
            assert_true(used(keyspace) <= limit);
        assert_true(count > 1000);
        assert_true(used(keyspace) <= limit);
        for (unsigned k = 0; k < count; k++)
            assert_non_null(get(keyspace, k));
        end(keyspace);
    }
}

/* Bytes of the image that the system says are in RAM: what the vault says, to the page. */
static void must_be_resident(struct fsw_keyspace *keyspace)
{
    char path[64], line[512];
    unsigned long long pages = 0, resident;
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/smaps");
    file = fopen(path, "r");
    assert_non_null(file);
    for (int inside = 0; fgets(line, sizeof line, file) != NULL;) {
        unsigned long begin;
        if (sscanf(line, "%lx-", &begin) == 1 && strchr(line, '-') != NULL &&
            strchr(line, '-') - line < 17)
            inside = begin == (unsigned long)image.super;
        if (inside && sscanf(line, "Rss: %llu kB", &resident) == 1)
            pages += resident / 4;
    }
    fclose(file);
    assert_int_equal(pages, fsw_keyspace_vault(keyspace)->frames);
}

static void test_bytes_come_back(void **unused)
{
    struct fsw_keyspace *keyspace = make_keyspace(PLENTY);
    uint64_t before = fsw_keyspace_vault(keyspace)->frames;

    for (unsigned k = 0; k < KEYS; k++)
        assert_int_equal(set(keyspace, k, k, 100 + k * 5), 0);
    must_be_resident(keyspace);
    assert_true(used(keyspace) >= KEYS * 4096ull);
    for (unsigned k = 0; k < KEYS; k += 2)
        assert_int_equal(del(keyspace, k), 1);
    tidy(keyspace);
    must_be_resident(keyspace);
    must_be_sound(keyspace);
    for (unsigned k = 1; k < KEYS; k += 2)
        assert_int_equal(del(keyspace, k), 1);
    fsw_vault_tidy(fsw_keyspace_vault(keyspace), UINT32_MAX);
    assert_true(fsw_keyspace_vault(keyspace)->warm_frames <= FSW_WARM_FRAMES);
    must_be_resident(keyspace);
    tidy(keyspace);
    assert_int_equal(fsw_keyspace_vault(keyspace)->frames, before);
    must_be_resident(keyspace);
    /* The table shrinks too, as long as there are changes. */
    for (unsigned i = 0; i < KEYS; i++) {
        set(keyspace, 0, 0, 1);
        del(keyspace, 0);
    }
    assert_in_range(fsw_keyspace_vault(keyspace)->charged, 0, 2048);
    end(keyspace);
}

static void test_memory_is_handed_from_small_values_to_large_ones(void **unused)
{
    struct fsw_keyspace *keyspace = make_keyspace(4 << 20);
    unsigned small = 0, large = 0;

    for (unsigned round = 0; round < 3; round++) {
        for (small = 0; small < KEYS && set(keyspace, small, small, 4) == 0;)
            small++;
        assert_int_equal(small, KEYS);
        assert_int_equal(fsw_keyspace_clear(keyspace), small);
        for (large = 0; set(keyspace, large, large, 65520) == 0;)
            large++;
        assert_in_range(large, 50, 64);
        assert_true(used(keyspace) <= 4 << 20);
        must_be_resident(keyspace);
        assert_int_equal(fsw_keyspace_clear(keyspace), large);
        must_be_sound(keyspace);
    }
    end(keyspace);
}

static void test_a_value_in_use_outlives_its_key(void **unused)
{
    struct fsw_keyspace *keyspace = make_keyspace(PLENTY);
    struct fsw_value *value;

    set(keyspace, 1, 'x', 1000);
    value = fsw_value_hold(get(keyspace, 1));
    assert_int_equal(del(keyspace, 1), 1);
    assert_int_equal(value->bytes[0], 'x');
    tidy(keyspace);
    assert_int_equal(value->bytes[0], 'x');
    assert_int_equal(fsw_vault_descriptor(value)->frames, 1); /* it still counts */
    assert_int_equal(set(keyspace, 2, 'y', 1000), 0);
    assert_int_equal(value->bytes[0], 'x');
    fsw_value_release(value);
    end(keyspace);
}

static void test_keys_are_bytes_up_to_the_limit(void **unused)
{
    struct fsw_keyspace *keyspace = make_keyspace(PLENTY);
    struct fsw_value *value = make_value(1, 1);
    char key[FSW_MAX_KEY + 1] = {0};

    assert_int_equal(fsw_keyspace_set(keyspace, key, 0, value), 0);
    assert_int_equal(fsw_keyspace_set(keyspace, key, 1, value), 0);
    assert_int_equal(fsw_keyspace_set(keyspace, key, FSW_MAX_KEY, value), 0);
    assert_int_equal(fsw_keyspace_set(keyspace, key, FSW_MAX_KEY + 1, value), -ENAMETOOLONG);
    assert_int_equal(fsw_keyspace_count(keyspace), 3);
    assert_null(fsw_keyspace_get(keyspace, key, FSW_MAX_KEY + 1));
    fsw_value_release(value);
    end(keyspace);
}

/* ---- the hash and the glob ---- */

static void test_siphash_is_the_papers(void **unused)
{
    struct fsw_siphash_key key = {{0x0706050403020100, 0x0f0e0d0c0b0a0908}};
    uint8_t bytes[15];

    for (unsigned i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    assert_true(fsw_siphash(&key, bytes, sizeof bytes) == 0xa129ca6149be45e5);
    assert_true(fsw_siphash(&key, bytes, 0) == 0x726fdb47dd0e0e31);
}

static void test_glob(void **unused)
{
    static const struct {
        const char *pattern, *text;
        bool matches;
    } cases[] = {
        {"*", "", true},
        {"", "", true},
        {"", "a", false},
        {"a*c", "abbbc", true},
        {"a*c", "abbb", false},
        {"?", "", false},
        {"a?c", "abc", true},
        {"[a-c]x", "bx", true},
        {"[^a-c]x", "bx", false},
        {"[c-a]", "b", true},
        {"[]", "a", false},
        {"[a", "a", true},
        {"\\*", "*", true},
        {"\\*", "a", false},
        {"[\\]]", "]", true},
        {"*a*b*c", "xaxbxc", true},
        {"*a*b*c", "xaxcxb", false},
        {"**", "ab", true},
        {"dev:*:7", "dev:ab:7", true},
        {"a\\", "a\\", true},
        {"[^a]", "", false},
        {"[a-", "a", true},
        {"*[0-9]", "ab5", true},
        {"*x", "xxxxxy", false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *pattern = cases[i].pattern, *text = cases[i].text;
        if (fsw_glob_match(pattern, strlen(pattern), text, strlen(text)) != cases[i].matches)
            fail_msg("%s against %s", pattern, text);
    }
}

/* Takes a human lifetime if each star tries again what earlier ones took. */
static void test_glob_does_not_blow_up(void **unused)
{
    char pattern[512], text[FSW_MAX_KEY];

    for (size_t i = 0; i < sizeof pattern; i += 2)
        memcpy(pattern + i, "*a", 2);
    memset(text, 'a', sizeof text);
    assert_false(fsw_glob_match(pattern, sizeof pattern, text, sizeof text));
    pattern[61] = 'b';
    assert_false(fsw_glob_match(pattern, 62, text, sizeof text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_scan_shows_each_key_once_whatever_happens),
        cmocka_unit_test(test_scan_at_every_step_of_resizing),
        cmocka_unit_test(test_any_cursor_is_safe),
        cmocka_unit_test(test_at_the_limit_set_refuses_and_nothing_changes),
        cmocka_unit_test(test_no_limit_is_passed_by_descriptors_or_table),
        cmocka_unit_test(test_bytes_come_back),
        cmocka_unit_test(test_memory_is_handed_from_small_values_to_large_ones),
        cmocka_unit_test(test_a_value_in_use_outlives_its_key),
        cmocka_unit_test(test_keys_are_bytes_up_to_the_limit),
        cmocka_unit_test(test_siphash_is_the_papers),
        cmocka_unit_test(test_glob),
        cmocka_unit_test(test_glob_does_not_blow_up),
    };
    const char *text = getenv("FSW_SEED");
    seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2654435761u + 1;
    state = seed;
    printf("FSW_SEED=%llu\n", (unsigned long long)seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
