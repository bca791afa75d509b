/*
 * pattern.c: pages that look like a program's memory and give themselves away when they are wrong.
 *
 * By its number a page is of one of five kinds, in shares that lz4 packs 2 to 4 times:
 *
 *     text     words of a small vocabulary        35 %
 *     heap     records of pointers, counts, names 35 %
 *     numbers  an array of small integers         20 %
 *     noise    does not compress                   7 %
 *     same     one word repeated                   3 %
 *
 * More same-filled pages than that can be asked for, at the cost of all the others; and sparse ones,
 * of which all but the beginning is zeroes.
 *
 * A page begins and ends with a stamp that holds number and version in clear; between them all is
 * drawn from a generator started with (seed, number, version). A same-filled page has no room for
 * stamps: its word is number and version, under a key made of the seed.
 */
#include "pattern.h"

#include <stdio.h>
#include <string.h>

#define PAGE FSW_PATTERN_PAGE

enum kind { TEXT, HEAP, NUMBERS, NOISE, SAME };

struct stamp {
    uint64_t key; /* of the seed: tells a stamp from chance */
    uint32_t number, version;
};

#define BODY sizeof(struct stamp)
#define BODY_END (PAGE - sizeof(struct stamp))

/* The output function of splitmix64: a bijection that leaves no pattern of its input. */
static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t draw(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

static unsigned more_same;
static size_t contents_end = BODY_END;

void fsw_pattern_more_same(unsigned percent)
{
    more_same = percent;
}

void fsw_pattern_sparse(unsigned percent)
{
    contents_end = BODY + (BODY_END - BODY) * (100 - percent) / 100 / 8 * 8;
}

static enum kind kind_of(uint64_t seed, uint32_t number)
{
    uint64_t r = mix(seed ^ mix(number));
    unsigned percent = r % 100;

    if ((r >> 32) % 100 < more_same)
        return SAME;
    if (percent < 35)
        return TEXT;
    if (percent < 70)
        return HEAP;
    if (percent < 90)
        return NUMBERS;
    return percent < 97 ? NOISE : SAME;
}

/* Words of two to nine letters, made once: the same in every page, as in a corpus. */
#define WORDS 128
#define WORD_ROOM 16
#define PHRASE 4 /* words that keep together */
static const char *word(unsigned index, unsigned *ret_length)
{
    static char words[WORDS][WORD_ROOM];
    static unsigned char lengths[WORDS];

    if (lengths[index] == 0) {
        uint64_t state = mix(index + 1);
        unsigned length = 2 + draw(&state) % 8;
        for (unsigned i = 0; i < length; i++)
            words[index][i] = "eeetaoinshrdlucm"[(draw(&state) >> 40) % 16];
        words[index][length] = ' ';
        lengths[index] = length + 1;
    }
    *ret_length = lengths[index];
    return words[index];
}

static void fill_text(unsigned char *page, uint64_t state)
{
    size_t at = BODY;

    while (at < BODY_END - PHRASE * WORD_ROOM) {
        uint64_t r = draw(&state);
        /* the product of two draws prefers small indices, as language prefers some phrases */
        unsigned first = ((r >> 8) % WORDS) * ((r >> 32) % WORDS) / WORDS / PHRASE * PHRASE;
        for (unsigned i = 0; i < PHRASE; i++) {
            unsigned length;
            memcpy(page + at, word(first + i, &length), WORD_ROOM);
            at += length;
        }
    }
    memset(page + at, '\n', BODY_END - at);
}

struct record {
    uint64_t type, next;
    uint32_t references, length;
    uint64_t hash;
    char name[16];
};

static void fill_heap(unsigned char *page, uint64_t state)
{
    uint64_t arena = 0x00007f0000000000u | (draw(&state) & 0xfffff00000u);
    size_t at = BODY;

    for (; at + sizeof(struct record) <= BODY_END; at += sizeof(struct record)) {
        uint64_t r = draw(&state);
        unsigned length;
        struct record record = {
            .type = 0x000055d0c0de4000u + 0x1a0 * (r & 3),
            .next = arena + ((r >> 4) & 0xff) * 64,
            .references = 1 + ((r >> 20) & 1),
            .length = (r >> 24) & 15,
            .hash = (r & 0x700) ? UINT64_MAX : draw(&state),
        };
        memcpy(record.name, word((r >> 30) % 24, &length), sizeof(record.name));
        memcpy(page + at, &record, sizeof(record));
    }
    memset(page + at, 0, BODY_END - at);
}

static void fill_numbers(unsigned char *page, uint64_t state)
{
    for (size_t at = BODY; at < BODY_END; at += 8) {
        uint64_t r = draw(&state);
        uint32_t pair[2] = {(r >> 8) & 7, (r & 7) ? 0 : (r >> 16) & 0xfff};
        memcpy(page + at, pair, sizeof(pair));
    }
}

static void fill_noise(unsigned char *page, uint64_t state)
{
    for (size_t at = BODY; at < BODY_END; at += 8) {
        uint64_t r = draw(&state);
        memcpy(page + at, &r, sizeof(r));
    }
}

/* Half of them repeat 32 bits where number and version fit, half 64: devices may keep the two
 * apart. */
static uint64_t same_word(uint64_t seed, uint32_t number, uint32_t version)
{
    uint64_t key = mix(~seed);

    if (number % 2 == 0 && number < (1u << 22) && version < (1u << 10)) {
        uint32_t half = (number << 10 | version) ^ (uint32_t)key;
        return (uint64_t)half << 32 | half;
    }
    return ((uint64_t)number << 32 | version) ^ key;
}

void fsw_pattern_fill(void *page, uint64_t seed, uint32_t number, uint32_t version)
{
    struct stamp stamp = {.key = mix(seed), .number = number, .version = version};
    uint64_t state = mix(seed ^ mix((uint64_t)number << 32 | version)) | 1;

    switch (kind_of(seed, number)) {
    case TEXT:
        fill_text(page, state);
        break;
    case HEAP:
        fill_heap(page, state);
        break;
    case NUMBERS:
        fill_numbers(page, state);
        break;
    case NOISE:
        fill_noise(page, state);
        break;
    case SAME:
        for (size_t i = 0; i < PAGE / 8; i++)
            ((uint64_t *)page)[i] = same_word(seed, number, version);
        return;
    }
    memset((char *)page + contents_end, 0, BODY_END - contents_end);
    memcpy(page, &stamp, sizeof(stamp));
    memcpy((char *)page + BODY_END, &stamp, sizeof(stamp));
}

int fsw_pattern_matches(const void *page, void *scratch, uint64_t seed, uint32_t number,
                        uint32_t version)
{
    fsw_pattern_fill(scratch, seed, number, version);
    return memcmp(page, scratch, PAGE) == 0;
}

static const char *explain_stamps(char *text, size_t room, const struct stamp *head,
                                  const struct stamp *tail, uint64_t seed)
{
    int head_ok = head->key == mix(seed), tail_ok = tail->key == mix(seed);

    if (head_ok && tail_ok && head->number == tail->number && head->version == tail->version)
        snprintf(text, room, "page %u version %u", head->number, head->version);
    else if (head_ok && tail_ok)
        snprintf(text, room, "a torn page: page %u version %u, ending as page %u version %u",
                 head->number, head->version, tail->number, tail->version);
    else if (head_ok || tail_ok)
        snprintf(text, room, "half a page: %s page %u version %u, the other end is foreign",
                 head_ok ? "beginning as" : "ending as", (head_ok ? head : tail)->number,
                 (head_ok ? head : tail)->version);
    else
        snprintf(text, room, "a page that was never written here");
    return text;
}

static const char *explain_same(char *text, size_t room, uint64_t found, uint64_t seed)
{
    uint64_t wide = found ^ mix(~seed);
    uint32_t narrow = (uint32_t)wide;

    if (found == 0)
        snprintf(text, room, "zeroes");
    else if (found >> 32 == (uint32_t)found)
        snprintf(text, room, "page %u version %u", narrow >> 10, narrow & 0x3ff);
    else
        snprintf(text, room, "page %u version %u", (uint32_t)(wide >> 32), (uint32_t)wide);
    return text;
}

const char *fsw_pattern_explain(char *text, const void *page, void *scratch, uint64_t seed,
                                uint32_t number, uint32_t version)
{
    const unsigned char *found = page, *expected = scratch;
    char what[160];
    struct stamp head, tail;
    uint64_t first;
    size_t at = 0;

    fsw_pattern_fill(scratch, seed, number, version);
    while (at < PAGE - 1 && found[at] == expected[at])
        at++;
    memcpy(&head, found, sizeof(head));
    memcpy(&tail, found + BODY_END, sizeof(tail));
    memcpy(&first, found, sizeof(first));
    if (memcmp(found, found + 8, PAGE - 8) == 0)
        explain_same(what, sizeof(what), first, seed);
    else
        explain_stamps(what, sizeof(what), &head, &tail, seed);
    snprintf(text, FSW_PATTERN_TEXT,
             "expected page %u version %u, found %s; first wrong byte at %zu of the page "
             "(0x%02x, not 0x%02x)",
             number, version, what, at, found[at], expected[at]);
    return text;
}
