/*
 * keyspace.c: a hash table in hash order, resized a bucket at a time from the left.
 *
 * A key's hash (keyed, see siphash.h) is its position on a line of 2^48. A table of 2^bits buckets
 * cuts the line into as many equal pieces, by the position's upper bits; so the buckets of every
 * table, of any size, are in the same order, and a bucket of one size is a run of whole buckets of
 * a smaller cut:
 *
 *      position   0                                                  2^48
 *      now        |       |       |  a    |  b  c |       |  d    |
 *      next       |   |   |   |   |  a|   |...
 *                                         ^ frontier: left of it `next` has the keys,
 *                                           right of it `now`
 *
 * While it is resized, each set and del moves the piece right of the frontier over. A lookup looks
 * into one bucket of one table. And a scan's cursor is just a position: what is left of it has been
 * shown, and resizing does not change on which side of it a key is.
 *
 * Invariants:
 *  1. an entry is in the bucket that its position names, of `next` left of the frontier, else of
 *     `now`;
 *  2. the frontier is 0 when `next` is not there, and otherwise a multiple of the wider cut;
 *  3. entries, entry_bytes and table_bytes are the sums of what is there;
 *  4. bytes never pass the limit through a set: a set that would is refused, a table that would
 * does not grow (its chains do).
 */
#include "server/keyspace.h"

#include <errno.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "server/limits.h"
#include "server/siphash.h"

#define LINE_BITS 48
#define LINE_END (1ull << LINE_BITS)
#define BITS_MIN 6
#define BITS_MAX 32
/* Pieces of the line moved by a change. Growing starts at one key a bucket and must be over before
 * the next growing is due, as many sets later as there are pieces: 1 is enough, 2 are there early.
 */
#define MOVES_A_CHANGE 2

struct entry {
    struct entry *next;
    struct fsw_value *value;
    uint64_t position;
    uint8_t key_length;
    char key[];
};

struct table {
    struct entry **bucket; /* NULL: not there */
    unsigned bits;
};

struct fsw_keyspace {
    struct table now, next;
    uint64_t frontier;
    uint64_t entries, entry_bytes, table_bytes;
    uint64_t limit;
    struct fsw_siphash_key hash_key;
};

static uint64_t table_cost(unsigned bits)
{
    return sizeof(struct entry *) << bits;
}

static int table_init(struct fsw_keyspace *keyspace, struct table *table, unsigned bits)
{
    table->bucket = calloc(1ull << bits, sizeof *table->bucket);
    if (table->bucket == NULL)
        return -ENOMEM;
    table->bits = bits;
    keyspace->table_bytes += table_cost(bits);
    return 0;
}

static void table_deinit(struct fsw_keyspace *keyspace, struct table *table)
{
    if (table->bucket == NULL)
        return;
    keyspace->table_bytes -= table_cost(table->bits);
    free(table->bucket);
    table->bucket = NULL;
}

static struct entry **table_bucket(const struct table *table, uint64_t position)
{
    return &table->bucket[position >> (LINE_BITS - table->bits)];
}

static bool resizing(const struct fsw_keyspace *keyspace)
{
    return keyspace->next.bucket != NULL;
}

static const struct table *table_at(const struct fsw_keyspace *keyspace, uint64_t position)
{
    return resizing(keyspace) && position < keyspace->frontier ? &keyspace->next : &keyspace->now;
}

/* The link that points at the key's entry, or at the NULL that ends its chain. */
static struct entry **find(const struct fsw_keyspace *keyspace, uint64_t position, const char *key,
                           size_t key_length)
{
    struct entry **link = table_bucket(table_at(keyspace, position), position);

    for (; *link != NULL; link = &(*link)->next) {
        const struct entry *entry = *link;
        if (entry->position == position && entry->key_length == key_length &&
            memcmp(entry->key, key, key_length) == 0)
            break;
    }
    return link;
}

static uint64_t position_of(const struct fsw_keyspace *keyspace, const char *key, size_t key_length)
{
    return fsw_siphash(&keyspace->hash_key, key, key_length) >> (64 - LINE_BITS);
}

static size_t entry_cost(const struct entry *entry)
{
    return malloc_usable_size((void *)entry) + sizeof(size_t);
}

/* ---- resizing ---- */

static void resize_start(struct fsw_keyspace *keyspace, unsigned bits)
{
    if (fsw_keyspace_bytes(keyspace) + table_cost(bits) > keyspace->limit)
        return;
    table_init(keyspace, &keyspace->next, bits); /* without memory for it, we try again later */
}

/* Starts what the number of entries asks for: doubling at one a bucket, a quarter at one in eight.
 */
static void resize_if_due(struct fsw_keyspace *keyspace)
{
    unsigned bits = keyspace->now.bits;
    uint64_t buckets = 1ull << bits;

    if (resizing(keyspace))
        return;
    if (keyspace->entries > buckets && bits < BITS_MAX)
        resize_start(keyspace, bits + 1);
    else if (keyspace->entries < buckets / 8 && bits > BITS_MIN)
        resize_start(keyspace, bits < BITS_MIN + 2 ? BITS_MIN : bits - 2);
}

static void move_chain(struct fsw_keyspace *keyspace, struct entry *chain)
{
    while (chain != NULL) {
        struct entry *entry = chain;
        struct entry **bucket = table_bucket(&keyspace->next, entry->position);
        chain = entry->next;
        entry->next = *bucket;
        *bucket = entry;
    }
}

/* The frontier steps over one bucket of the wider cut. */
static void resize_step(struct fsw_keyspace *keyspace)
{
    struct table *now = &keyspace->now, *next = &keyspace->next;
    unsigned bits = now->bits < next->bits ? now->bits : next->bits;
    uint64_t end = keyspace->frontier + (1ull << (LINE_BITS - bits));

    for (uint64_t at = keyspace->frontier; at < end; at += 1ull << (LINE_BITS - now->bits)) {
        struct entry **bucket = table_bucket(now, at);
        move_chain(keyspace, *bucket);
        *bucket = NULL;
    }
    keyspace->frontier = end;
    if (end == LINE_END) {
        table_deinit(keyspace, now);
        *now = *next;
        next->bucket = NULL;
        keyspace->frontier = 0;
    }
}

static void after_change(struct fsw_keyspace *keyspace)
{
    resize_if_due(keyspace);
    for (unsigned i = 0; i < MOVES_A_CHANGE && resizing(keyspace); i++)
        resize_step(keyspace);
}

/* ---- the verbs ---- */

int fsw_keyspace_new(uint64_t limit, struct fsw_keyspace **ret_keyspace)
{
    struct fsw_keyspace *keyspace = calloc(1, sizeof *keyspace);

    if (keyspace == NULL)
        return -ENOMEM;
    keyspace->limit = limit;
    if (getrandom(&keyspace->hash_key, sizeof keyspace->hash_key, 0) != sizeof keyspace->hash_key ||
        table_init(keyspace, &keyspace->now, BITS_MIN) < 0) {
        free(keyspace);
        return -ENOMEM;
    }
    *ret_keyspace = keyspace;
    return 0;
}

static void entry_free(struct fsw_keyspace *keyspace, struct entry *entry)
{
    keyspace->entries--;
    keyspace->entry_bytes -= entry_cost(entry);
    fsw_value_release(entry->value);
    free(entry);
}

void fsw_keyspace_free(struct fsw_keyspace *keyspace)
{
    struct table *tables[] = {&keyspace->now, &keyspace->next};

    for (unsigned t = 0; t < 2; t++) {
        for (uint64_t i = 0; tables[t]->bucket != NULL && i >> tables[t]->bits == 0; i++) {
            struct entry *next;
            for (struct entry *entry = tables[t]->bucket[i]; entry != NULL; entry = next) {
                next = entry->next;
                entry_free(keyspace, entry);
            }
        }
        table_deinit(keyspace, tables[t]);
    }
    free(keyspace);
}

/* value is among the bytes already: it lives. */
static int replace(struct fsw_keyspace *keyspace, struct entry *entry, struct fsw_value *value)
{
    uint64_t bytes = fsw_keyspace_bytes(keyspace);

    if (bytes > keyspace->limit && bytes - fsw_value_cost(entry->value) > keyspace->limit)
        return -ENOMEM;
    fsw_value_hold(value);
    fsw_value_release(entry->value);
    entry->value = value;
    return 0;
}

static int insert(struct fsw_keyspace *keyspace, uint64_t position, const char *key,
                  size_t key_length, struct fsw_value *value)
{
    struct entry *entry = malloc(sizeof *entry + key_length);
    struct entry **bucket = table_bucket(table_at(keyspace, position), position);

    if (entry == NULL)
        return -ENOMEM;
    if (fsw_keyspace_bytes(keyspace) + entry_cost(entry) > keyspace->limit) {
        free(entry);
        return -ENOMEM;
    }
    entry->value = fsw_value_hold(value);
    entry->position = position;
    entry->key_length = (uint8_t)key_length;
    memcpy(entry->key, key, key_length);
    entry->next = *bucket;
    *bucket = entry;
    keyspace->entries++;
    keyspace->entry_bytes += entry_cost(entry);
    return 0;
}

int fsw_keyspace_set(struct fsw_keyspace *keyspace, const char *key, size_t key_length,
                     struct fsw_value *value)
{
    uint64_t position;
    struct entry *entry;
    int r;

    _Static_assert(FSW_MAX_KEY <= UINT8_MAX, "entry.key_length is a byte");
    if (key_length > FSW_MAX_KEY)
        return -ENAMETOOLONG;
    position = position_of(keyspace, key, key_length);
    entry = *find(keyspace, position, key, key_length);
    if (entry != NULL)
        return replace(keyspace, entry, value);
    r = insert(keyspace, position, key, key_length, value);
    if (r == 0)
        after_change(keyspace);
    return r;
}

struct fsw_value *fsw_keyspace_get(struct fsw_keyspace *keyspace, const char *key,
                                   size_t key_length)
{
    struct entry *entry = *find(keyspace, position_of(keyspace, key, key_length), key, key_length);

    return entry != NULL ? entry->value : NULL;
}

int fsw_keyspace_del(struct fsw_keyspace *keyspace, const char *key, size_t key_length)
{
    struct entry **link = find(keyspace, position_of(keyspace, key, key_length), key, key_length);
    struct entry *entry = *link;

    if (entry == NULL)
        return 0;
    *link = entry->next;
    entry_free(keyspace, entry);
    after_change(keyspace);
    return 1;
}

uint64_t fsw_keyspace_scan(struct fsw_keyspace *keyspace, uint64_t cursor,
                           void (*each)(const char *key, size_t key_length, void *opaque),
                           void *opaque)
{
    const struct table *table;
    uint64_t width;

    if (cursor >= LINE_END)
        return 0;
    table = table_at(keyspace, cursor);
    width = 1ull << (LINE_BITS - table->bits);
    /* The cursor can be inside of a bucket, when the table has shrunk since. */
    for (const struct entry *entry = *table_bucket(table, cursor); entry; entry = entry->next)
        if (entry->position >= cursor)
            each(entry->key, entry->key_length, opaque);
    cursor = (cursor & ~(width - 1)) + width;
    return cursor == LINE_END ? 0 : cursor;
}

uint64_t fsw_keyspace_count(const struct fsw_keyspace *keyspace)
{
    return keyspace->entries;
}

uint64_t fsw_keyspace_bytes(const struct fsw_keyspace *keyspace)
{
    return fsw_value_cost_of_all() + keyspace->entry_bytes + keyspace->table_bytes;
}

uint64_t fsw_keyspace_limit(const struct fsw_keyspace *keyspace)
{
    return keyspace->limit;
}

/* ---- proof ---- */

struct sums {
    uint64_t entries, entry_bytes, table_bytes;
};

static int check_table(const struct fsw_keyspace *keyspace, const struct table *table,
                       struct sums *sums, struct fsw_error *err)
{
    if (table->bucket == NULL)
        return 0;
    sums->table_bytes += table_cost(table->bits);
    for (uint64_t i = 0; i >> table->bits == 0; i++) {
        for (const struct entry *entry = table->bucket[i]; entry != NULL; entry = entry->next) {
            sums->entries++;
            sums->entry_bytes += entry_cost(entry);
            if (position_of(keyspace, entry->key, entry->key_length) != entry->position ||
                table_at(keyspace, entry->position) != table ||
                table_bucket(table, entry->position) != &table->bucket[i])
                return fsw_error(err, -EUCLEAN, "invariant 1: an entry is in the wrong bucket");
        }
    }
    return 0;
}

int fsw_keyspace_check(const struct fsw_keyspace *keyspace, struct fsw_error *err)
{
    const struct table *now = &keyspace->now, *next = &keyspace->next;
    unsigned bits = resizing(keyspace) && next->bits < now->bits ? next->bits : now->bits;
    struct sums sums = {0};
    int r;

    if (resizing(keyspace) ? keyspace->frontier % (1ull << (LINE_BITS - bits)) != 0
                           : keyspace->frontier != 0)
        return fsw_error(err, -EUCLEAN, "invariant 2: the frontier cuts a bucket");
    r = check_table(keyspace, now, &sums, err);
    if (r == 0)
        r = check_table(keyspace, next, &sums, err);
    if (r == 0 && (sums.entries != keyspace->entries || sums.entry_bytes != keyspace->entry_bytes ||
                   sums.table_bytes != keyspace->table_bytes))
        r = fsw_error(err, -EUCLEAN, "invariant 3: a sum is wrong");
    return r;
}
