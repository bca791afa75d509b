/*
 * model.h: what the device must hold, in memory that outlives the process that writes to it.
 *
 * Each page has two contents: the one that was acknowledged, and, while a request is under way, the
 * one that it will have. Which is which is one byte, so a process may die anywhere here as well.
 * After a crash a page must be one of the two, whole; the model then takes the one it is.
 *
 * A page belongs to one worker: nobody else writes it.
 */
#ifndef MODEL_H
#define MODEL_H

#include <stdatomic.h>
#include <stdint.h>

#include "farswap/device.h"

#define MODEL_PAGES 2144u /* four leaves and a part of a fifth */
#define MODEL_SIZE ((uint64_t)MODEL_PAGES * FSW_PAGE_SIZE)

struct model {
    _Atomic uint8_t state[MODEL_PAGES]; /* bit 0: which content is acknowledged; 1: under way */
    _Atomic uint8_t used[MODEL_PAGES];  /* a content was ever written here */
    unsigned char content[MODEL_PAGES][2][FSW_PAGE_SIZE];
};

/* A new device: all zeroes. */
void model_reset(struct model *model);

/* What the page will be when a request that begins now has been answered: the acknowledged content,
 * for the caller to change. */
unsigned char *model_begin(struct model *model, unsigned page);
/* Under way: a crash from here on leaves old or new. */
void model_submitted(struct model *model, unsigned page);
/* Answered: a crash from here on leaves new. */
void model_acknowledged(struct model *model, unsigned page);

const unsigned char *model_content(const struct model *model, unsigned page);

/* After a crash, or a request that failed: reads pages and settles what was under way. 0, or the number
 * of those that are neither old nor new, for each of which a line is printed. */
unsigned model_settle(struct model *model, struct fsw_device *device, unsigned first, unsigned end);

#endif
