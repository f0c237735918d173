/*
 * For fsck: opening a journal that journal_open() refuses or would open read-only, and access to blocks whatever the chunk table says of
 * them. With journal_options.salvage set:
 *   heads    gone or older than the ring's records: tail and epoch are taken from the records themselves
 *   hole     what comes before it is replayed, the rest is dropped
 *   lost     a block whose changes have no whole copy to go to stays lost, the others are replayed
 *   fixed    root block and chunk table go through `mend` before anything that they place is read
 * Written home and with a new epoch unless read-only; until then a run that is killed finds everything as it was.
 */
#ifndef JOURNAL_SALVAGE_H
#define JOURNAL_SALVAGE_H

#include "journal/chunk.h"
#include "journal/journal.h"

/* Root block (0) and chunk table blocks (1 ..) with the journal's changes applied. Held during the call only. */
struct salvage_fixed {
	size_t count;
	void **blocks;
	bool *lost; /* no whole copy, or never used: zeros behind its header */
};

struct journal_salvage {
	/* Mend them in place. 0 or an error that ends the opening. */
	int (*mend)(void *arg, struct journal *journal, struct salvage_fixed *fixed, struct why *why);
	void *arg;
	/* What was found: */
	unsigned heads_bad; /* bit k: head of copy k is not whole or behind */
	bool heads_lost;    /* no head to go by */
	bool hole;
	uint64_t dropped;   /* transactions behind the hole */
	maddr_t *dropped_blocks; /* that they had changed, each as often as it was; the caller frees it */
	size_t count_dropped_blocks;
	bool root_lost;
};

/* Root block, table entry and block whatever its bit in the map. The block is verified but for role and tree. 0; -ENOENT: no such place; -EIO, -EUCLEAN. */
int salvage_get(struct journal *journal, maddr_t address, struct buf **out);
/* Of the last record that the block contains: a logical time, by which it can be told which of two blocks is out of date. */
uint64_t salvage_sequence(struct buf *buf);
/* Any state. -ENOENT beyond ROOT_CHUNKS. */
int salvage_entry(struct journal *journal, uint64_t chunk, struct chunk_entry *out);
uint64_t salvage_entry_sequence(struct journal *journal, uint64_t chunk);
/* The entry anew, free_blocks from its map; the root's counters do not follow. */
int salvage_put_entry(struct tx *tx, uint64_t chunk, struct chunk_entry *entry);
/* Make the chunk's header say what the table says. *changed: it did not. */
int salvage_mend_header(struct tx *tx, uint64_t chunk, bool *changed);
/* Counters of metadata space from the chunk table. */
int salvage_count_chunks(struct tx *tx);

#endif
