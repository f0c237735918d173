/*
 * Metadata blocks of which no copy can be read. Such a block says nothing itself, but the node above it says which keys it has, and other trees know who has
 * something under these keys. So the inner nodes are read, about one in a hundred of all nodes, and of the others only those that names are in. Found once and
 * remembered: nothing changes any more. Internal to fs/. No lock is held by the caller unless said.
 */
#ifndef FS_LOSS_H
#define FS_LOSS_H

#include <pthread.h>

#include "btree/btree.h"
#include "notify/loss.h"

struct event;
struct fs;

#define LOST_BLOCKS_MAX 64u /* remembered */

struct lost_block {
	maddr_t address;
	devoff_t device_offset;
	unsigned tree, level;
	struct btree_key from, end;
	bool is_bounded;
};

struct lost_blocks {
	pthread_mutex_t lock; /* a leaf */
	struct lost_block list[LOST_BLOCKS_MAX];
	size_t count;
	unsigned scans;
};

/* A block was found to be lost, and the filesystem changes nothing any more: the event is told its tree and gets a report; a line goes to the log. */
void loss_tell(struct fs *fs, maddr_t address, struct event *event);
/* All that are known by now, at most `max`; looked for at the first call. *total: how many are known. */
size_t loss_list(struct fs *fs, struct meta_loss *out, size_t max, size_t *total);
/* Whose node was it? "unknown": not known to be lost, or what named it is lost too. The metadata lock may be held. */
const char *loss_tree(struct fs *fs, maddr_t address);

#endif
