/*
 * model.c: two contents a page, and which of them counts.
 */
#include "model.h"

#include <stdio.h>
#include <string.h>

#define CURRENT 1u
#define UNDER_WAY 2u

/* What pages hold that were never written: most of them, and no memory is touched to compare them. */
static const unsigned char zeroes[FSW_PAGE_SIZE];

static unsigned char *under_way(struct model *model, unsigned page)
{
    return model->content[page][(atomic_load(&model->state[page]) & CURRENT) ^ 1];
}

const unsigned char *model_content(const struct model *model, unsigned page)
{
    return atomic_load(&model->used[page])
               ? model->content[page][atomic_load(&model->state[page]) & CURRENT]
               : zeroes;
}

void model_reset(struct model *model)
{
    for (unsigned page = 0; page < MODEL_PAGES; page++) {
        if (atomic_load(&model->used[page]))
            memset(model->content[page], 0, sizeof model->content[page]);
        atomic_store(&model->used[page], 0);
        atomic_store(&model->state[page], 0);
    }
}

unsigned char *model_begin(struct model *model, unsigned page)
{
    unsigned char *next = under_way(model, page);

    memcpy(next, model_content(model, page), FSW_PAGE_SIZE);
    atomic_store(&model->used[page], 1);
    return next;
}

void model_submitted(struct model *model, unsigned page)
{
    atomic_fetch_or(&model->state[page], UNDER_WAY);
}

void model_acknowledged(struct model *model, unsigned page)
{
    atomic_store(&model->state[page],
                 (uint8_t)((atomic_load(&model->state[page]) ^ CURRENT) & CURRENT));
}

/* What a page that is neither old nor new looks like. */
static void complain(struct model *model, unsigned page, const unsigned char *found)
{
    const unsigned char *wanted = model_content(model, page);
    unsigned first = 0, wrong = 0;

    for (unsigned i = FSW_PAGE_SIZE; i-- > 0;)
        if (found[i] != wanted[i]) {
            wrong++;
            first = i;
        }
    fprintf(stderr,
            "page %u: %u bytes from byte %u on are not what was acknowledged%s: %02x %02x %02x "
            "%02x, not "
            "%02x %02x %02x %02x\n",
            page, wrong, first,
            atomic_load(&model->state[page]) & UNDER_WAY ? ", nor what was under way" : "",
            found[first], found[(first + 1) % FSW_PAGE_SIZE], found[(first + 2) % FSW_PAGE_SIZE],
            found[(first + 3) % FSW_PAGE_SIZE], wanted[first], wanted[(first + 1) % FSW_PAGE_SIZE],
            wanted[(first + 2) % FSW_PAGE_SIZE], wanted[(first + 3) % FSW_PAGE_SIZE]);
}

static int settle_page(struct model *model, unsigned page, const unsigned char *found)
{
    unsigned state = atomic_load(&model->state[page]);
    int is_old = memcmp(found, model_content(model, page), FSW_PAGE_SIZE) == 0;
    int is_new =
        !is_old && state & UNDER_WAY && memcmp(found, under_way(model, page), FSW_PAGE_SIZE) == 0;

    if (!is_old && !is_new) {
        complain(model, page, found);
        return -1;
    }
    atomic_store(&model->state[page], (uint8_t)((state ^ (is_new ? CURRENT : 0)) & CURRENT));
    return 0;
}

unsigned model_settle(struct model *model, struct fsw_device *device, unsigned first, unsigned end)
{
    unsigned char bytes[8 * FSW_PAGE_SIZE];
    unsigned wrong = 0;

    for (unsigned page = first; page < end;) {
        unsigned count = end - page < 8 ? end - page : 8;
        int r = fsw_device_read(device, bytes, (uint64_t)page * FSW_PAGE_SIZE,
                                (uint64_t)count * FSW_PAGE_SIZE);
        if (r < 0) {
            fprintf(stderr, "pages %u to %u can't be read: %s\n", page, page + count - 1,
                    strerror(-r));
            wrong += count;
        }
        for (unsigned i = 0; r == 0 && i < count; i++)
            wrong += settle_page(model, page + i, bytes + i * FSW_PAGE_SIZE) < 0;
        page += count;
    }
    return wrong;
}
