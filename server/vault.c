/*
 * vault.c: a bit a slot for what is taken, a stack of slots that are free and still touched.
 *
 * The lowest cold slot is taken first, so that descriptors stay close together.
 */
#include "server/vault.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/shm.h"

#define ALL_TAKEN 0xffffu
#define WORDS_MIN 64u
/* Superblock and contacts. */
#define HEAD_FRAMES(image) ((uint64_t)(image)->super->descriptors_at / FSW_DONOR_PAGE)

/* ---- what it costs ---- */

uint64_t fsw_vault_used(const struct fsw_vault *vault)
{
    uint64_t own = vault->charged + fsw_value_cost_of_all();

    return vault->frames * FSW_DONOR_PAGE + (own > vault->measured ? own : vault->measured);
}

void fsw_vault_charge(struct fsw_vault *vault, uint64_t bytes)
{
    vault->charged += bytes;
}

void fsw_vault_uncharge(struct fsw_vault *vault, uint64_t bytes)
{
    vault->charged -= bytes;
}

void fsw_vault_measured(struct fsw_vault *vault, uint64_t bytes)
{
    vault->measured = bytes;
}

/* ---- descriptors and their pages ---- */

static uint32_t word_of(uint32_t slot)
{
    return slot / FSW_DESCRIPTORS_A_PAGE;
}

static uint16_t bit_of(uint32_t slot)
{
    return (uint16_t)(1u << slot % FSW_DESCRIPTORS_A_PAGE);
}

static uint32_t words(const struct fsw_vault *vault)
{
    return vault->image->super->top / FSW_DESCRIPTORS_A_PAGE;
}

static struct fsw_descriptor *descriptor_at(const struct fsw_vault *vault, uint32_t slot)
{
    return fsw_donor_descriptor(vault->image, slot);
}

static int reserve_words(struct fsw_vault *vault, uint32_t count)
{
    uint32_t room = vault->taken_words > 0 ? vault->taken_words : WORDS_MIN;

    while (room < count)
        room *= 2;
    if (room == vault->taken_words)
        return 0;
    uint16_t *grown = realloc(vault->taken, room * sizeof *grown);
    if (grown == NULL)
        return -ENOMEM;
    memset(grown + vault->taken_words, 0, (room - vault->taken_words) * sizeof *grown);
    vault->charged += (room - vault->taken_words) * sizeof *grown;
    vault->taken = grown;
    vault->taken_words = room;
    return 0;
}

/* One more page of descriptors. Top is advanced when the page is there. */
static int grow(struct fsw_vault *vault)
{
    struct fsw_donor_super *super = vault->image->super;

    if (super->top + FSW_DESCRIPTORS_A_PAGE > super->slots)
        return -ENOSPC;
    int r = reserve_words(vault, words(vault) + 1);
    if (r < 0)
        return r;
    super->top += FSW_DESCRIPTORS_A_PAGE;
    return 0;
}

/* The slot's pages beyond the first `keep` go back to the system. */
static void trim(struct fsw_vault *vault, uint32_t slot, unsigned keep)
{
    struct fsw_descriptor *descriptor = descriptor_at(vault, slot);

    if (descriptor->frames <= keep)
        return;
    fsw_shm_give_back(fsw_donor_slot(vault->image, slot) + keep * FSW_DONOR_PAGE,
                      (descriptor->frames - keep) * FSW_DONOR_PAGE);
    vault->frames -= descriptor->frames - keep;
    descriptor->frames = (uint8_t)keep;
}

/* From warm, popped, to cold. */
static void chill(struct fsw_vault *vault, uint32_t slot)
{
    uint32_t word = word_of(slot);

    trim(vault, slot, 0);
    vault->taken[word] &= (uint16_t)~bit_of(slot);
    if (word < vault->hint)
        vault->hint = word;
    if (vault->taken[word] == 0) {
        fsw_shm_give_back(descriptor_at(vault, word * FSW_DESCRIPTORS_A_PAGE), FSW_DONOR_PAGE);
        vault->frames--;
    }
}

/* ---- warm ---- */

static void push_warm(struct fsw_vault *vault, uint32_t slot)
{
    struct fsw_descriptor *descriptor = descriptor_at(vault, slot);

    descriptor->next = vault->warm;
    vault->warm = slot;
    vault->warm_slots++;
    vault->warm_frames += descriptor->frames;
}

static uint32_t pop_warm(struct fsw_vault *vault)
{
    uint32_t slot = vault->warm;
    struct fsw_descriptor *descriptor = descriptor_at(vault, slot);

    if (slot == 0)
        return 0;
    vault->warm = descriptor->next;
    vault->warm_slots--;
    vault->warm_frames -= descriptor->frames;
    return slot;
}

bool fsw_vault_tidy(struct fsw_vault *vault, unsigned most)
{
    uint64_t frames = vault->limit / FSW_DONOR_PAGE / 16;

    if (frames > FSW_WARM_FRAMES)
        frames = FSW_WARM_FRAMES;
    if (vault->shut)
        frames = 0;
    while (vault->warm_frames > frames || vault->warm_slots > FSW_WARM_SLOTS) {
        if (most-- == 0)
            return true;
        chill(vault, pop_warm(vault));
    }
    return false;
}

bool fsw_vault_room(struct fsw_vault *vault, uint64_t bytes)
{
    while (fsw_vault_used(vault) + bytes > vault->limit && vault->warm != 0)
        chill(vault, pop_warm(vault));
    return fsw_vault_used(vault) + bytes <= vault->limit;
}

static bool make_room(struct fsw_vault *vault, unsigned frames)
{
    return fsw_vault_room(vault, frames * (uint64_t)FSW_DONOR_PAGE);
}

/* ---- taking ---- */

/* A page of descriptors that nothing was in until now. */
static int warm_page(struct fsw_vault *vault, uint32_t word)
{
    if (!make_room(vault, 1))
        return -ENOMEM;
    int r = fsw_shm_touch(descriptor_at(vault, word * FSW_DESCRIPTORS_A_PAGE), FSW_DONOR_PAGE);
    if (r == 0)
        vault->frames++;
    return r;
}

/* The lowest cold slot, or 0. Nothing is warm. */
static uint32_t take_cold(struct fsw_vault *vault)
{
    uint32_t word = vault->hint;

    while (word < words(vault) && vault->taken[word] == ALL_TAKEN)
        word++;
    vault->hint = word;
    if (word == words(vault) && grow(vault) < 0)
        return 0;
    if (vault->taken[word] == 0 && warm_page(vault, word) < 0)
        return 0;
    unsigned bit = (unsigned)__builtin_ctz(~(unsigned)vault->taken[word]);
    vault->taken[word] |= (uint16_t)(1u << bit);
    return word * FSW_DESCRIPTORS_A_PAGE + bit;
}

/* Makes the slot have `need` pages. */
static int fit(struct fsw_vault *vault, uint32_t slot, unsigned need)
{
    struct fsw_descriptor *descriptor = descriptor_at(vault, slot);
    unsigned have = descriptor->frames;

    trim(vault, slot, need);
    if (have >= need)
        return 0;
    if (!make_room(vault, need - have))
        return -ENOMEM;
    int r = fsw_shm_touch(fsw_donor_slot(vault->image, slot) + have * FSW_DONOR_PAGE,
                          (need - have) * FSW_DONOR_PAGE);
    /* Also when it failed: some of them may be there now. */
    vault->frames += need - have;
    descriptor->frames = (uint8_t)need;
    return r;
}

struct fsw_value *fsw_vault_take(struct fsw_vault *vault, size_t length, bool within)
{
    uint32_t slot;

    if (vault->shut || length > FSW_SLOT_BYTES)
        return NULL;
    slot = pop_warm(vault);
    if (slot == 0)
        slot = take_cold(vault);
    if (slot == 0)
        return NULL;
    if (fit(vault, slot, within ? 0 : fsw_frames_of(length)) < 0) {
        push_warm(vault, slot);
        return NULL;
    }
    struct fsw_descriptor *descriptor = descriptor_at(vault, slot);
    descriptor->value = (struct fsw_value){
        .bytes = fsw_donor_slot(vault->image, slot),
        .vault = vault,
        .holders = 1,
        .length = (uint32_t)length,
    };
    return &descriptor->value;
}

void fsw_vault_give(struct fsw_value *value)
{
    push_warm(value->vault, fsw_vault_slot(value->vault, fsw_vault_descriptor(value)));
}

/* ---- rebuilding ---- */

int fsw_vault_init(struct fsw_vault *vault, struct fsw_donor_image *image, uint64_t limit)
{
    *vault = (struct fsw_vault){.image = image, .limit = limit};
    int r = reserve_words(vault, words(vault));
    if (r < 0)
        return r;
    vault->taken[0] = 1; /* slot 0 is none, and its page of descriptors stays */
    vault->frames = HEAD_FRAMES(image) + 1;
    return fsw_shm_touch(image->super, vault->frames * FSW_DONOR_PAGE);
}

void fsw_vault_deinit(struct fsw_vault *vault)
{
    free(vault->taken);
    vault->taken = NULL;
}

struct fsw_value *fsw_vault_claim(struct fsw_vault *vault, uint32_t slot)
{
    struct fsw_descriptor *descriptor = descriptor_at(vault, slot);
    uint32_t word = word_of(slot);

    vault->frames += vault->taken[word] == 0;
    vault->taken[word] |= bit_of(slot);
    descriptor->frames = (uint8_t)(descriptor->within ? 0 : fsw_frames_of(descriptor->length));
    vault->frames += descriptor->frames;
    descriptor->value = (struct fsw_value){
        .bytes = descriptor->within ? descriptor->text + descriptor->key_length
                                    : fsw_donor_slot(vault->image, slot),
        .vault = vault,
        .holders = 1,
        .length = descriptor->length,
    };
    return &descriptor->value;
}

/* From `from` on, up to `to`, nothing is named any more. */
static void forget_range(char *from, char *to)
{
    if (to > from)
        fsw_shm_give_back(from, (size_t)(to - from));
}

/* Pages of descriptors: reading them touched them. What nothing is in goes back. */
static void forget_descriptors(struct fsw_vault *vault, uint32_t word)
{
    struct fsw_descriptor *first = descriptor_at(vault, word * FSW_DESCRIPTORS_A_PAGE);

    if (vault->taken[word] == 0)
        fsw_shm_give_back(first, FSW_DONOR_PAGE);
    else
        for (unsigned i = 0; i < FSW_DESCRIPTORS_A_PAGE; i++)
            if (!(vault->taken[word] & 1u << i))
                memset(&first[i], 0, sizeof first[i]);
}

/* What is behind each claimed value, up to the next one, goes back: it was warm, or half written,
 * when the last process ended. */
void fsw_vault_rebuilt(struct fsw_vault *vault)
{
    struct fsw_donor_image *image = vault->image;
    char *begin = fsw_donor_slot(image, 0);

    for (uint32_t slot = 1; slot < image->super->top; slot++) {
        if (!(vault->taken[word_of(slot)] & bit_of(slot)))
            continue;
        forget_range(begin, fsw_donor_slot(image, slot));
        begin = fsw_donor_slot(image, slot) +
                (size_t)descriptor_at(vault, slot)->frames * FSW_DONOR_PAGE;
    }
    forget_range(begin, fsw_donor_slot(image, image->super->top));
    for (uint32_t word = 0; word < words(vault); word++)
        forget_descriptors(vault, word);
}

/* ---- proof ---- */

int fsw_vault_check(const struct fsw_vault *vault, struct fsw_error *err)
{
    uint64_t frames = HEAD_FRAMES(vault->image), warm_frames = 0;
    uint32_t warm_slots = 0;

    for (uint32_t word = 0; word < words(vault); word++) {
        frames += vault->taken[word] != 0;
        if (word < vault->hint && vault->taken[word] != ALL_TAKEN)
            return fsw_error(err, -EUCLEAN, "vault: a cold slot below the hint");
        for (uint32_t bit = word == 0; bit < FSW_DESCRIPTORS_A_PAGE; bit++)
            if (vault->taken[word] & 1u << bit)
                frames += descriptor_at(vault, word * FSW_DESCRIPTORS_A_PAGE + bit)->frames;
    }
    for (uint32_t slot = vault->warm; slot != 0; slot = descriptor_at(vault, slot)->next) {
        if (slot >= vault->image->super->top || !(vault->taken[word_of(slot)] & bit_of(slot)) ||
            descriptor_at(vault, slot)->state != FSW_DESCRIPTOR_FREE ||
            warm_slots++ > vault->warm_slots)
            return fsw_error(err, -EUCLEAN, "vault: slot %u is warm and should not be", slot);
        warm_frames += descriptor_at(vault, slot)->frames;
    }
    if (warm_slots != vault->warm_slots || warm_frames != vault->warm_frames)
        return fsw_error(err, -EUCLEAN, "vault: what is warm is counted wrong");
    if (frames != vault->frames)
        return fsw_error(err, -EUCLEAN, "vault: %llu pages are touched, %llu are counted",
                         (unsigned long long)frames, (unsigned long long)vault->frames);
    return 0;
}
