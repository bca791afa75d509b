/*
 * keyspace.c: a hash table in hash order, resized a bucket at a time from the left. Its entries are
 * the LIVE descriptors of the image, chained by slot number.
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
 *     `now`; it is LIVE and sound, and no other entry has its key;
 *  2. the frontier is 0 when `next` is not there, and otherwise a multiple of the wider cut;
 *  3. entries, value_bytes, table_bytes and the devices' sums are the sums of what is there;
 *  4. used memory never passes the limit through a set: a set that would is refused, a table that
 *     would does not grow (its chains do);
 *  5. a value is published (LIVE) after all of it is written, and what it replaces is retired
 *     (FREE) after that. Every moment between leaves an image that open makes whole.
 */
#include "server/keyspace.h"

#include <errno.h>
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
/* What only an overwrite may use: it needs the new value's memory before it frees the old one's. */
#define SLACK_MAX (512u * 1024)

struct table {
    uint32_t *bucket; /* slot numbers, 0: empty; NULL: not there */
    unsigned bits;
};

struct fsw_keyspace {
    struct fsw_vault vault;
    struct fsw_devices devices;
    struct table now, next;
    uint64_t frontier;
    uint64_t entries, value_bytes, table_bytes;
    struct fsw_siphash_key hash_key;
    struct fsw_keyspace_found found;
};

static struct fsw_descriptor *entry_at(const struct fsw_keyspace *keyspace, uint32_t slot)
{
    return fsw_donor_descriptor(keyspace->vault.image, slot);
}

static uint64_t table_cost(unsigned bits)
{
    return sizeof(uint32_t) << bits;
}

static int table_init(struct fsw_keyspace *keyspace, struct table *table, unsigned bits)
{
    table->bucket = calloc(1ull << bits, sizeof *table->bucket);
    if (table->bucket == NULL)
        return -ENOMEM;
    table->bits = bits;
    keyspace->table_bytes += table_cost(bits);
    fsw_vault_charge(&keyspace->vault, table_cost(bits));
    return 0;
}

static void table_deinit(struct fsw_keyspace *keyspace, struct table *table)
{
    if (table->bucket == NULL)
        return;
    keyspace->table_bytes -= table_cost(table->bits);
    fsw_vault_uncharge(&keyspace->vault, table_cost(table->bits));
    free(table->bucket);
    table->bucket = NULL;
}

static uint32_t *table_bucket(const struct table *table, uint64_t position)
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

/* The link that names the key's entry, or the 0 that ends its chain. */
static uint32_t *find(const struct fsw_keyspace *keyspace, uint64_t position, const char *key,
                      size_t key_length)
{
    uint32_t *link = table_bucket(table_at(keyspace, position), position);

    while (*link != 0) {
        struct fsw_descriptor *entry = entry_at(keyspace, *link);
        if (entry->position == position && entry->key_length == key_length &&
            memcmp(entry->text, key, key_length) == 0)
            break;
        link = &entry->next;
    }
    return link;
}

static uint64_t position_of(const struct fsw_keyspace *keyspace, const char *key, size_t key_length)
{
    return fsw_siphash(&keyspace->hash_key, key, key_length) >> (64 - LINE_BITS);
}

/* ---- resizing ---- */

static void resize_start(struct fsw_keyspace *keyspace, unsigned bits)
{
    if (!fsw_vault_room(&keyspace->vault, table_cost(bits)))
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

static void move_chain(struct fsw_keyspace *keyspace, uint32_t chain)
{
    while (chain != 0) {
        uint32_t slot = chain;
        struct fsw_descriptor *entry = entry_at(keyspace, slot);
        uint32_t *bucket = table_bucket(&keyspace->next, entry->position);
        chain = entry->next;
        entry->next = *bucket;
        *bucket = slot;
    }
}

/* The frontier steps over one bucket of the wider cut. */
static void resize_step(struct fsw_keyspace *keyspace)
{
    struct table *now = &keyspace->now, *next = &keyspace->next;
    unsigned bits = now->bits < next->bits ? now->bits : next->bits;
    uint64_t end = keyspace->frontier + (1ull << (LINE_BITS - bits));

    for (uint64_t at = keyspace->frontier; at < end; at += 1ull << (LINE_BITS - now->bits)) {
        uint32_t *bucket = table_bucket(now, at);
        move_chain(keyspace, *bucket);
        *bucket = 0;
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

/* ---- entries ---- */

/* One more value is there (1), or one less (-1). */
static void count(struct fsw_keyspace *keyspace, const struct fsw_descriptor *entry, int by)
{
    struct fsw_device_use *use = &keyspace->devices.use[entry->device];
    uint64_t bytes = by > 0 ? entry->length : 0 - (uint64_t)entry->length;

    keyspace->entries += (uint64_t)by;
    keyspace->value_bytes += bytes;
    use->keys += (uint64_t)by;
    use->bytes += bytes;
}

/* The entry, out of its chain already, is no more. */
static void retire(struct fsw_keyspace *keyspace, struct fsw_descriptor *entry)
{
    atomic_store_explicit(&entry->state, FSW_DESCRIPTOR_FREE, memory_order_release);
    count(keyspace, entry, -1);
    fsw_value_release(&entry->value);
}

/* An unpublished descriptor with the value's bytes, held for the keyspace: the value's own, if it
 * lies in a slot that is not published, or a new one. */
static struct fsw_descriptor *place(struct fsw_keyspace *keyspace, struct fsw_value *value,
                                    size_t key_length)
{
    bool within = key_length + value->length <= FSW_DESCRIPTOR_TEXT;
    struct fsw_descriptor *entry;

    if (value->vault != NULL && !within &&
        fsw_vault_descriptor(value)->state == FSW_DESCRIPTOR_FREE) {
        entry = fsw_vault_descriptor(fsw_value_hold(value));
        entry->within = 0;
        return entry;
    }
    struct fsw_value *copy = fsw_vault_take(&keyspace->vault, value->length, within);
    if (copy == NULL)
        return NULL;
    entry = fsw_vault_descriptor(copy);
    entry->within = within;
    if (within)
        copy->bytes = entry->text + key_length;
    memcpy(copy->bytes, value->bytes, value->length);
    return entry;
}

static void describe(struct fsw_keyspace *keyspace, struct fsw_descriptor *entry, const char *key,
                     size_t key_length, uint64_t position)
{
    entry->sequence = ++keyspace->vault.image->super->sequence;
    entry->length = entry->value.length;
    entry->key_length = (uint8_t)key_length;
    memcpy(entry->text, key, key_length);
    entry->checksum = fsw_descriptor_checksum(entry);
    entry->position = position;
    entry->device = (uint16_t)fsw_devices_of_key(&keyspace->devices, key, key_length, true);
}

/* ---- the verbs ---- */

static bool room_for_new(struct fsw_keyspace *keyspace)
{
    uint64_t limit = keyspace->vault.limit;
    uint64_t slack = limit / 16 < SLACK_MAX ? limit / 16 : SLACK_MAX;

    return fsw_vault_room(&keyspace->vault, slack);
}

int fsw_keyspace_set(struct fsw_keyspace *keyspace, const char *key, size_t key_length,
                     struct fsw_value *value)
{
    uint64_t position;
    uint32_t *link, old;

    _Static_assert(FSW_MAX_KEY <= UINT8_MAX, "key_length is a byte");
    if (key_length > FSW_MAX_KEY)
        return -ENAMETOOLONG;
    position = position_of(keyspace, key, key_length);
    link = find(keyspace, position, key, key_length);
    old = *link;
    if (keyspace->vault.shut || (old == 0 && !room_for_new(keyspace)))
        return -ENOMEM;
    struct fsw_descriptor *entry = place(keyspace, value, key_length);
    if (entry == NULL)
        return -ENOMEM;
    describe(keyspace, entry, key, key_length, position);
    atomic_store_explicit(&entry->state, FSW_DESCRIPTOR_LIVE, memory_order_release);
    count(keyspace, entry, 1);
    entry->next = old == 0 ? 0 : entry_at(keyspace, old)->next;
    *link = fsw_vault_slot(&keyspace->vault, entry);
    if (old != 0)
        retire(keyspace, entry_at(keyspace, old));
    else
        after_change(keyspace);
    return 0;
}

struct fsw_value *fsw_keyspace_get(struct fsw_keyspace *keyspace, const char *key,
                                   size_t key_length)
{
    uint32_t slot = *find(keyspace, position_of(keyspace, key, key_length), key, key_length);

    return slot != 0 ? &entry_at(keyspace, slot)->value : NULL;
}

int fsw_keyspace_del(struct fsw_keyspace *keyspace, const char *key, size_t key_length)
{
    uint32_t *link = find(keyspace, position_of(keyspace, key, key_length), key, key_length);
    uint32_t slot = *link;

    if (slot == 0)
        return 0;
    *link = entry_at(keyspace, slot)->next;
    retire(keyspace, entry_at(keyspace, slot));
    after_change(keyspace);
    return 1;
}

/* Dels what is in one chain and is the device's, or anybody's. */
static uint64_t forget_chain(struct fsw_keyspace *keyspace, uint32_t *link, int device)
{
    uint64_t gone = 0;

    while (*link != 0) {
        struct fsw_descriptor *entry = entry_at(keyspace, *link);
        if (device >= 0 && entry->device != device) {
            link = &entry->next;
            continue;
        }
        *link = entry->next;
        retire(keyspace, entry);
        gone++;
    }
    return gone;
}

static uint64_t forget(struct fsw_keyspace *keyspace, int device)
{
    const struct table *const tables[] = {&keyspace->now, &keyspace->next};
    uint64_t gone = 0;

    for (unsigned t = 0; t < 2; t++)
        for (uint64_t i = 0; tables[t]->bucket != NULL && i >> tables[t]->bits == 0; i++)
            gone += forget_chain(keyspace, &tables[t]->bucket[i], device);
    after_change(keyspace);
    return gone;
}

uint64_t fsw_keyspace_forget(struct fsw_keyspace *keyspace, unsigned device)
{
    uint64_t gone = forget(keyspace, (int)device);

    fsw_devices_forget(&keyspace->devices, device);
    return gone;
}

uint64_t fsw_keyspace_clear(struct fsw_keyspace *keyspace)
{
    uint64_t gone = forget(keyspace, -1);

    for (unsigned device = 1; device < FSW_MAX_DEVICES; device++)
        fsw_devices_forget(&keyspace->devices, device);
    return gone;
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
    for (uint32_t slot = *table_bucket(table, cursor); slot != 0;) {
        const struct fsw_descriptor *entry = entry_at(keyspace, slot);
        if (entry->position >= cursor)
            each(entry->text, entry->key_length, opaque);
        slot = entry->next;
    }
    cursor = (cursor & ~(width - 1)) + width;
    return cursor == LINE_END ? 0 : cursor;
}

uint64_t fsw_keyspace_count(const struct fsw_keyspace *keyspace)
{
    return keyspace->entries;
}

uint64_t fsw_keyspace_value_bytes(const struct fsw_keyspace *keyspace)
{
    return keyspace->value_bytes;
}

struct fsw_vault *fsw_keyspace_vault(struct fsw_keyspace *keyspace)
{
    return &keyspace->vault;
}

struct fsw_devices *fsw_keyspace_devices(struct fsw_keyspace *keyspace)
{
    return &keyspace->devices;
}

const struct fsw_keyspace_found *fsw_keyspace_found(const struct fsw_keyspace *keyspace)
{
    return &keyspace->found;
}

/* ---- opening ---- */

/* Takes a descriptor that says it is LIVE into the table, instead of an older one of its key. */
static void recover_entry(struct fsw_keyspace *keyspace, uint32_t slot)
{
    struct fsw_descriptor *entry = entry_at(keyspace, slot);
    uint64_t position = position_of(keyspace, entry->text, entry->key_length);
    uint32_t *link = find(keyspace, position, entry->text, entry->key_length);
    struct fsw_descriptor *other = *link != 0 ? entry_at(keyspace, *link) : NULL;

    if (entry->sequence > keyspace->vault.image->super->sequence)
        keyspace->vault.image->super->sequence = entry->sequence;
    keyspace->found.stale += other != NULL;
    if (other != NULL && other->sequence > entry->sequence) {
        entry->state = FSW_DESCRIPTOR_FREE;
        return;
    }
    entry->position = position;
    entry->next = other != NULL ? other->next : 0;
    *link = slot;
    if (other != NULL)
        other->state = FSW_DESCRIPTOR_FREE;
    else
        keyspace->entries++;
    after_change(keyspace);
}

/* Which descriptors count; frees the others. */
static void recover_table(struct fsw_keyspace *keyspace)
{
    uint32_t top = keyspace->vault.image->super->top;

    for (uint32_t slot = 1; slot < top; slot++) {
        struct fsw_descriptor *entry = entry_at(keyspace, slot);
        uint64_t state = entry->state;
        if (state == FSW_DESCRIPTOR_FREE)
            continue;
        if (state == FSW_DESCRIPTOR_LIVE && fsw_descriptor_sound(entry)) {
            recover_entry(keyspace, slot);
        } else {
            entry->state = FSW_DESCRIPTOR_FREE;
            keyspace->found.damaged++;
        }
    }
}

/* What the table holds takes its slots, and is counted. */
static void recover_values(struct fsw_keyspace *keyspace)
{
    uint32_t top = keyspace->vault.image->super->top;

    keyspace->entries = 0;
    for (uint32_t slot = 1; slot < top; slot++) {
        struct fsw_descriptor *entry = entry_at(keyspace, slot);
        if (entry->state != FSW_DESCRIPTOR_LIVE)
            continue;
        fsw_vault_claim(&keyspace->vault, slot);
        entry->device =
            (uint16_t)fsw_devices_of_key(&keyspace->devices, entry->text, entry->key_length, true);
        count(keyspace, entry, 1);
    }
    fsw_vault_rebuilt(&keyspace->vault);
    keyspace->found.values = keyspace->entries;
}

int fsw_keyspace_open(struct fsw_donor_image *image, uint64_t limit,
                      struct fsw_keyspace **ret_keyspace)
{
    struct fsw_keyspace *keyspace = calloc(1, sizeof *keyspace);

    if (keyspace == NULL)
        return -ENOMEM;
    if (fsw_vault_init(&keyspace->vault, image, limit) < 0 ||
        getrandom(&keyspace->hash_key, sizeof keyspace->hash_key, 0) != sizeof keyspace->hash_key ||
        table_init(keyspace, &keyspace->now, BITS_MIN) < 0) {
        fsw_vault_deinit(&keyspace->vault);
        free(keyspace);
        return -ENOMEM;
    }
    fsw_devices_init(&keyspace->devices, image->contacts);
    recover_table(keyspace);
    recover_values(keyspace);
    *ret_keyspace = keyspace;
    return 0;
}

void fsw_keyspace_close(struct fsw_keyspace *keyspace)
{
    table_deinit(keyspace, &keyspace->now);
    table_deinit(keyspace, &keyspace->next);
    fsw_vault_deinit(&keyspace->vault);
    free(keyspace);
}

/* ---- proof ---- */

struct sums {
    uint64_t entries, value_bytes, table_bytes;
    struct fsw_device_use use[FSW_MAX_DEVICES];
};

static void sum_up(struct sums *sums, const struct fsw_descriptor *entry)
{
    sums->entries++;
    sums->value_bytes += entry->length;
    sums->use[entry->device].keys++;
    sums->use[entry->device].bytes += entry->length;
}

static int check_entry(const struct fsw_keyspace *keyspace, const struct table *table,
                       const uint32_t *bucket, const struct fsw_descriptor *entry,
                       struct fsw_error *err)
{
    if (position_of(keyspace, entry->text, entry->key_length) != entry->position ||
        table_at(keyspace, entry->position) != table ||
        table_bucket(table, entry->position) != bucket)
        return fsw_error(err, -EUCLEAN, "invariant 1: an entry is in the wrong bucket");
    if (entry->state != FSW_DESCRIPTOR_LIVE || !fsw_descriptor_sound(entry) ||
        entry->value.holders == 0 || entry->value.length != entry->length)
        return fsw_error(err, -EUCLEAN, "invariant 1: an entry is not LIVE, or not sound");
    if (entry_at(keyspace, *find(keyspace, entry->position, entry->text, entry->key_length)) !=
        entry)
        return fsw_error(err, -EUCLEAN, "invariant 1: two entries have one key");
    return 0;
}

static int check_table(const struct fsw_keyspace *keyspace, const struct table *table,
                       struct sums *sums, struct fsw_error *err)
{
    int r = 0;

    if (table->bucket == NULL)
        return 0;
    sums->table_bytes += table_cost(table->bits);
    for (uint64_t i = 0; i >> table->bits == 0; i++) {
        for (uint32_t slot = table->bucket[i]; r == 0 && slot != 0;) {
            const struct fsw_descriptor *entry = entry_at(keyspace, slot);
            sum_up(sums, entry);
            r = check_entry(keyspace, table, &table->bucket[i], entry, err);
            slot = entry->next;
        }
    }
    return r;
}

static int check_sums(const struct fsw_keyspace *keyspace, struct sums *sums, struct fsw_error *err)
{
    const struct table *now = &keyspace->now, *next = &keyspace->next;
    int r = check_table(keyspace, now, sums, err);

    if (r == 0)
        r = check_table(keyspace, next, sums, err);
    if (r == 0 &&
        (sums->entries != keyspace->entries || sums->value_bytes != keyspace->value_bytes ||
         sums->table_bytes != keyspace->table_bytes ||
         memcmp(sums->use, keyspace->devices.use, sizeof sums->use) != 0))
        r = fsw_error(err, -EUCLEAN, "invariant 3: a sum is wrong");
    return r;
}

int fsw_keyspace_check(const struct fsw_keyspace *keyspace, struct fsw_error *err)
{
    const struct table *now = &keyspace->now, *next = &keyspace->next;
    unsigned bits = resizing(keyspace) && next->bits < now->bits ? next->bits : now->bits;
    struct sums *sums = calloc(1, sizeof *sums);
    int r;

    if (sums == NULL)
        return -ENOMEM;
    if (resizing(keyspace) ? keyspace->frontier % (1ull << (LINE_BITS - bits)) != 0
                           : keyspace->frontier != 0)
        r = fsw_error(err, -EUCLEAN, "invariant 2: the frontier cuts a bucket");
    else
        r = check_sums(keyspace, sums, err);
    free(sums);
    return r == 0 ? fsw_vault_check(&keyspace->vault, err) : r;
}
