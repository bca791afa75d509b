/*
 * docs_facts: what the documents are held to, out of the code's own tables (docs.sh compares).
 *
 *      param NAME [DEFAULT]          core/params.c
 *      stat NAME KIND UNIT           include/farswap/stats.h
 *      codec NUMBER NAME             core/codec/
 *      limit NAME VALUE              server/limits.h
 *      field STRUCT NAME OFFSET BYTES     of what lies in the image, and of an object's header
 *      bits FIELD FIRST COUNT        of an entry
 *      constant NAME VALUE
 *
 * One fact a line, the words as the documents spell them.
 */
#include <inttypes.h>
#include <stdio.h>

#include "core/engine.h"
#include "server/limits.h"

#define FIELD(structure, name)                                                                     \
    printf("field %s %s %zu %zu\n", #structure, #name, offsetof(struct fsw_##structure, name),     \
           sizeof((struct fsw_##structure *)0)->name)
#define CONSTANT(name) printf("constant %s %" PRIu64 "\n", #name, (uint64_t)(name))

static void tables(void)
{
    for (unsigned i = 0; i < fsw_param_count; i++)
        printf("param %s %s\n", fsw_param_table[i].name,
               fsw_param_table[i].default_text ? fsw_param_table[i].default_text : "");
    for (unsigned i = 0; i < FSW_STAT_COUNT; i++)
        printf("stat %s %s %s\n", fsw_stat_table[i].name,
               fsw_stat_table[i].kind == FSW_STAT_COUNTER ? "counter" : "gauge",
               fsw_stat_table[i].unit);
    for (unsigned id = 0; id < FSW_CODEC_MAX; id++)
        if (fsw_codec_by_id(id) != NULL)
            printf("codec %u %s\n", id, fsw_codec_by_id(id)->name);
#define LIMIT(upper, name, value, effect) printf("limit %s %d\n", #name, value);
    FSW_LIMITS(LIMIT)
}

static void superblock(void)
{
    FIELD(superblock, magic);
    FIELD(superblock, layout);
    FIELD(superblock, checksum);
    FIELD(superblock, device);
    FIELD(superblock, name);
    FIELD(superblock, size);
    FIELD(superblock, bytes);
    FIELD(superblock, counters_at);
    FIELD(superblock, class_stats_at);
    FIELD(superblock, directory_at);
    FIELD(superblock, rows_at);
    FIELD(superblock, classes_at);
    FIELD(superblock, zspages_at);
    FIELD(superblock, frames_at);
    FIELD(superblock, leaves);
    FIELD(superblock, rows);
    FIELD(superblock, zspages);
    FIELD(superblock, frames);
    FIELD(superblock, created);
    FIELD(superblock, overflow);
    FIELD(superblock, store_key);
    FIELD(superblock, sentinel);
    FIELD(superblock, counters);
    FIELD(superblock, counter_names);
    FIELD(superblock, latencies_at);
    FIELD(superblock, next_segment);
    FIELD(superblock, rows_top);
    FIELD(superblock, zspages_top);
    FIELD(superblock, frames_top);
    FIELD(superblock, holder);
    FIELD(superblock, memory_limit);
    FIELD(superblock, codec);
    FIELD(superblock, planted);
    FIELD(superblock, seal);
    FIELD(superblock, compact_asked);
    FIELD(superblock, compact_answered);
    FIELD(superblock, store_state);
    FIELD(superblock, idle_asked);
    FIELD(superblock, idle_answered);
    FIELD(superblock, idle_pages);
    FIELD(superblock, idle_bytes);
    FIELD(superblock, idle_result);
    FIELD(superblock, lost_asked);
    FIELD(superblock, lost_refused);
    FIELD(superblock, prefetch);
    FIELD(superblock, fetch_timeout);
    FIELD(superblock, watermarks);
    FIELD(superblock, write_wait);
    FIELD(superblock, read_age);
    FIELD(superblock, huge);
    FIELD(superblock, overflow_limit);
    FIELD(superblock, overflow_spent);
    FIELD(superblock, overflow_refill);
    FIELD(superblock, overflow_limited);
    FIELD(superblock, copy_state);
    FIELD(superblock, sentinels);
    CONSTANT(FSW_IMAGE_LAYOUT);
}

static void structures(void)
{
    FIELD(store_state, sequence);
    FIELD(store_state, connected);
    FIELD(store_state, since);
    FIELD(store_state, last_error);
    FIELD(copy_state, state);
    FIELD(copy_state, lies);
    FIELD(copy_state, since);
    FIELD(copy_state, sent);
    FIELD(copy_state, received);
    FIELD(copy_state, last_error);
    FIELD(class_stats, objects);
    FIELD(class_stats, zspages);
    FIELD(class_stats, frames);
    FIELD(class_stats, spare);
    FIELD(row, id);
    FIELD(row, word);
    FIELD(row, bytes);
    FIELD(row, copies);
    FIELD(row, next);
    FIELD(row, check);
    FIELD(object_header, page);
    FIELD(object_header, checksum);
    FIELD(object_header, length);
    FIELD(object_header, codec);
    FIELD(object_header, dictionary);
    FIELD(zspage_frames, frame);
}

/* Where a field lies, seen from what its maker does with all ones. */
static void bits(const char *name, uint64_t value)
{
    printf("bits %s %d %d\n", name, __builtin_ctzll(value), __builtin_popcountll(value));
}

static void entry(void)
{
    uint64_t pool = fsw_entry_pool(0, 0, 0), store = fsw_entry_store(0, 0, 0), same_check = 0;

    for (unsigned bit = 0; bit < 32; bit++)
        same_check |= (fsw_entry_same(1u << bit) ^ fsw_entry_same(0)) & ~(uint64_t)UINT32_MAX;

    bits("state", pool | store);
    bits("lock", FSW_ENTRY_LOCK);
    bits("overflow", FSW_ENTRY_OVERFLOW);
    bits("age", FSW_ENTRY_AGE);
    bits("where", FSW_ENTRY_WHERE);
    bits("same.word", (fsw_entry_same(UINT32_MAX) ^ fsw_entry_same(0)) & UINT32_MAX);
    bits("same.check", same_check);
    bits("pool.location", fsw_entry_pool((1ull << 40) - 1, 0, 0) ^ pool);
    bits("pool.length", fsw_entry_pool(0, FSW_LENGTH_MASK, 0) ^ pool);
    bits("store.row", fsw_entry_store(INT32_MAX, 0, 0) ^ store);
    bits("store.offset", fsw_entry_store(0, (1u << FSW_OFFSET_BITS) - 1, 0) ^ store);
    bits("store.length", fsw_entry_store(0, 0, FSW_LENGTH_MASK) ^ store);
}

static void constants(void)
{
    unsigned fsw_class_count = fsw_class_table()->count - 1u;

    CONSTANT(FSW_UNIT);
    CONSTANT(FSW_FRAME_SIZE);
    CONSTANT(FSW_LEAF_ENTRIES);
    CONSTANT(FSW_STAT_STRIPES);
    CONSTANT(FSW_STAT_ROOM);
    CONSTANT(FSW_ZSPAGE_FRAMES);
    CONSTANT(FSW_ZSPAGE_UNIT_BITS);
    CONSTANT(FSW_SLOTS_MAX);
    CONSTANT(FSW_CLASS_MAX);
    CONSTANT(fsw_class_count);
    CONSTANT(FSW_OBJECT_HEADER);
    CONSTANT(FSW_OBJECT_MAX);
    CONSTANT(FSW_OBJECT_UNITS_MIN);
    CONSTANT(FSW_OBJECT_UNITS_MAX);
    CONSTANT(FSW_HUGE_THRESHOLD);
    CONSTANT(FSW_SEGMENT_BYTES);
    CONSTANT(FSW_SEAL_BYTES);
    CONSTANT(FSW_RESERVE_FRAMES);
    CONSTANT(FSW_FILLER_WAIT_NS);
    CONSTANT(FSW_HEADROOM_FRAMES);
    CONSTANT(FSW_PUTS_IN_FLIGHT);
    CONSTANT(FSW_DROPS_IN_FLIGHT);
    CONSTANT(FSW_FETCH_BATCH);
    CONSTANT(FSW_PART_BYTES);
    CONSTANT(FSW_CREW_MAX);
    CONSTANT(FSW_CLEAN_BEGIN);
    CONSTANT(FSW_CLEAN_LIMIT);
    CONSTANT(FSW_CLEAN_STOP);
    CONSTANT(FSW_CLEAN_FULL);
    CONSTANT(FSW_CLEAN_WORTH);
    CONSTANT(FSW_CLEAN_SOURCES);
    CONSTANT(FSW_CLEAN_PUTS);
    CONSTANT(FSW_CLEAN_KEPT);
    CONSTANT(FSW_WRITE_WAIT_NS);
}

int main(void)
{
    tables();
    superblock();
    structures();
    entry();
    constants();
    return 0;
}
