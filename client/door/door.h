/*
 * door.h: what every front door does before it can serve: parameters, store, device, rights.
 *
 *      set ... check ─> probe ─> open ─(fork)─> serve ... close
 *
 * A door that forks calls serve in the child. Errors leave one line in err and the door closed but
 * for its parameters; only the program prints.
 *
 * A new device needs its store: a person who starts one reads why it is refused. A device that was
 * there before must come up without, since a host may live on its pages: its store is tried while
 * it is served already, and what is wrong with it is a warning. The store itself goes on trying.
 */
#ifndef FSW_DOOR_H
#define FSW_DOOR_H

#include <pthread.h>

#include "client/door/leftover.h"
#include "farswap/device.h"

struct fsw_door {
    struct fsw_params params;
    int exists;                /* from check on: the device was there before */
    struct fsw_store *store;   /* opened, and of a new device probed, until the device owns it */
    struct fsw_device *device; /* from open on */
    struct fsw_error warning;  /* what the store's probe has to say; "" */

    /* Beside a device that is served: its store is tried, and others are told to forget. */
    struct fsw_store *unproved; /* the device's; NULL: there is nothing to try */
    struct fsw_leftover leftover;
    void (*warn)(const char *line);
    pthread_t beside;
    int working; /* 1: that thread is to be joined, since a plugin's code goes with the plugin */
};

void fsw_door_init(struct fsw_door *door);

/* One parameter, as people type it. As fsw_params_set. */
int fsw_door_set(struct fsw_door *door, const char *key, const char *value, struct fsw_error *err);

/* All are set. What an image that is there knows need not be said again; for a new one, nothing may
 * be missing. May read files. */
int fsw_door_check(struct fsw_door *door, struct fsw_error *err);

/* Opens the store. For a device that is new, tries it: blocks up to a few seconds. Starts no thread. */
int fsw_door_probe(struct fsw_door *door, struct fsw_error *err);

/* Makes the image, or goes on with the one that is there; wait as for fsw_device_open. Wipes the
 * store's password. Starts no thread. */
int fsw_door_open(struct fsw_door *door, int wait, struct fsw_error *err);

/* Calls warn with a line for each right that is missing, and what that risks. After open. */
void fsw_door_warn(const struct fsw_door *door, void (*warn)(const char *line));

/* Locks memory, takes the other rights, starts the device's threads. After any fork. On failure the
 * device is closed, and an image that was made for it is gone. A store that was not tried yet is tried
 * from now on, and stores of earlier devices are made to forget (leftover.h); warn gets a line if one
 * fails, from a thread of the door's. */
int fsw_door_serve(struct fsw_door *door, void (*warn)(const char *line), struct fsw_error *err);

/* Closes the device; its image stays. No verb may be running. Blocks for as long as a store that is
 * being tried, or told to forget, does not answer: a few seconds. */
void fsw_door_close(struct fsw_door *door);

/* For a program that ends as it stands: waits for nothing, closes nothing. */
void fsw_door_leave(struct fsw_door *door);

/* A start that failed after open, or between open and serve: as above. Harmless before. */
void fsw_door_abandon(struct fsw_door *door);

#endif
