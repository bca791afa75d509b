/*
 * tree.h: the mount as a folder: names, attributes, listing. All of it is fixed, so nothing is
 * looked up anew when a server replaces another.
 *
 *      node 1     the folder
 *      node 2     disk
 *      node 3...  the knobs, in order of fsw_knobs
 */
#ifndef FSW_FUSE_TREE_H
#define FSW_FUSE_TREE_H

#include "client/fuse/exchange.h"

#define FSW_NODE_ROOT 1u
#define FSW_NODE_DISK 2u
#define FSW_NODE_KNOBS 3u

void fsw_tree_lookup(struct fsw_exchange *exchange);
void fsw_tree_getattr(struct fsw_exchange *exchange);
/* Cutting a file to nothing, as the shell does before it writes to one, does nothing. */
void fsw_tree_setattr(struct fsw_exchange *exchange);
void fsw_tree_open(struct fsw_exchange *exchange);
void fsw_tree_readdir(struct fsw_exchange *exchange);
void fsw_tree_statfs(struct fsw_exchange *exchange);

#endif
