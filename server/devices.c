/*
 * devices.c: a small array, looked through; the next key is mostly the last one's neighbour.
 */
#include "server/devices.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define ID_BYTES sizeof((struct fsw_contact *)0)->device

static int64_t now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return now.tv_sec > 0 ? now.tv_sec : 1;
}

void fsw_devices_init(struct fsw_devices *devices, struct fsw_contact *contacts)
{
    *devices = (struct fsw_devices){.contacts = contacts};
    for (unsigned i = 0; i < FSW_MAX_DEVICES; i++) {
        char *peer = contacts[i].peer;
        peer[sizeof contacts[i].peer - 1] = '\0';
        for (; *peer != '\0'; peer++)
            if (!isprint((unsigned char)*peer) || *peer == ' ')
                *peer = '?';
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

static bool parse_id(const char *digits, uint8_t id[ID_BYTES])
{
    for (size_t i = 0; i < ID_BYTES; i++) {
        int high = hex_value(digits[2 * i]), low = hex_value(digits[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        id[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static unsigned find(const struct fsw_devices *devices, const uint8_t id[ID_BYTES])
{
    for (unsigned i = 1; i < FSW_MAX_DEVICES; i++)
        if (devices->contacts[i].last != 0 &&
            memcmp(devices->contacts[i].device, id, ID_BYTES) == 0)
            return i;
    return 0;
}

/* A free place, or that of the device without values that was silent for longest; or 0. */
static unsigned find_place(const struct fsw_devices *devices)
{
    unsigned place = 0;

    for (unsigned i = 1; i < FSW_MAX_DEVICES; i++)
        if (devices->use[i].keys == 0 &&
            (place == 0 || devices->contacts[i].last < devices->contacts[place].last))
            place = i;
    return place;
}

static unsigned enter(struct fsw_devices *devices, const uint8_t id[ID_BYTES])
{
    unsigned place = find_place(devices);

    if (place == 0) {
        devices->unnoticed++;
        return 0;
    }
    struct fsw_contact *contact = &devices->contacts[place];
    devices->last = devices->last == place ? 0 : devices->last;
    memset(contact, 0, sizeof *contact);
    memcpy(contact->device, id, ID_BYTES);
    contact->last = now_s();
    return place;
}

unsigned fsw_devices_of_key(struct fsw_devices *devices, const char *key, size_t length, bool make)
{
    static const char prefix[] = "farswap:";
    const size_t begin = sizeof prefix - 1, end = begin + 2 * ID_BYTES;
    uint8_t id[ID_BYTES];

    if (length <= end || memcmp(key, prefix, begin) != 0 || key[end] != ':')
        return 0;
    if (fsw_devices_there(devices, devices->last) &&
        memcmp(devices->last_digits, key + begin, sizeof devices->last_digits) == 0)
        return devices->last;
    if (!parse_id(key + begin, id))
        return 0;
    unsigned device = find(devices, id);
    if (device == 0 && make)
        device = enter(devices, id);
    if (device != 0) {
        devices->last = device;
        memcpy(devices->last_digits, key + begin, sizeof devices->last_digits);
    }
    return device;
}

unsigned fsw_devices_find(const struct fsw_devices *devices, const char *digits, size_t length)
{
    uint8_t id[ID_BYTES];

    return length == 2 * ID_BYTES && parse_id(digits, id) ? find(devices, id) : 0;
}

void fsw_devices_contact(struct fsw_devices *devices, unsigned device, const char *peer)
{
    struct fsw_contact *contact = &devices->contacts[device];
    int64_t now = now_s();

    if (device == 0 || (contact->last == now && contact->peer[0] != '\0'))
        return;
    contact->last = now;
    snprintf(contact->peer, sizeof contact->peer, "%s", peer);
}

void fsw_devices_forget(struct fsw_devices *devices, unsigned device)
{
    if (device != 0 && devices->use[device].keys == 0)
        memset(&devices->contacts[device], 0, sizeof devices->contacts[device]);
}

void fsw_devices_text(const struct fsw_devices *devices, unsigned device,
                      char text[FSW_DEVICE_TEXT])
{
    for (size_t i = 0; i < ID_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", devices->contacts[device].device[i]);
}

uint64_t fsw_devices_idle(const struct fsw_devices *devices, unsigned device)
{
    int64_t now = now_s(), last = devices->contacts[device].last;

    return now > last ? (uint64_t)(now - last) : 0;
}
