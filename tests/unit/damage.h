/*
 * damage.h: a device with known pages of every kind, whose image is damaged bit by bit.
 *
 * What must hold whatever falls over: attach, check and read end; a page reads as what was written,
 * or not at all (-EIO); what check calls whole can be read. Not among the damage: the lock bit of
 * an entry, which nobody can tell from one that is held (who recovers an image clears it).
 */
#ifndef DAMAGE_H
#define DAMAGE_H

#include <stddef.h>
#include <stdint.h>

enum damage_part {
    DAMAGE_SUPER,  /* what its checksum covers, and the magic */
    DAMAGE_TOPS,   /* the rest of the superblock */
    DAMAGE_LEAVES, /* directory words */
    DAMAGE_ROWS,
    DAMAGE_CLASSES,
    DAMAGE_FRAMES, /* frame slots of zspages */
    DAMAGE_ENTRIES,
    DAMAGE_OBJECTS, /* all that zspages' frames hold */
    DAMAGE_PARTS,
};

/* Makes the device, once; it lives as long as the process. Ends the program if it can't. */
void damage_open(void);

/* Bytes of a part. */
size_t damage_size(enum damage_part part);

/* Does what `input` says, 6 bytes a flip: part, place in it (32 bits, modulo its size), bits; then
 * attaches, checks, reads every page, and repairs. Returns how many pages did not read; ends the
 * program with a line where a promise is broken. */
unsigned damage_try(const uint8_t *input, size_t length);

/* One flip. */
unsigned damage_one(enum damage_part part, uint32_t at, uint8_t bits);

/* What attach said in the last try, "" if it took the image. */
const char *damage_attach_said(void);

#endif
