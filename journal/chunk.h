/* Chunks of metadata space: where the copies of a logical block lie, and which blocks are in use. Caller holds the metadata lock. */
#ifndef JOURNAL_CHUNK_H
#define JOURNAL_CHUNK_H

#include "format/chunk_format.h"
#include "journal/tx.h"

/* Device bytes of both copies of the block (offset[1] = 0 with a single copy). 0; -EUCLEAN: no such chunk or index beyond it; -EIO. */
int chunk_map(struct journal *journal, maddr_t address, devoff_t offset[2]);
/* Entry of the table. -ENOENT beyond ROOT_CHUNKS or not live. */
int chunk_entry(struct journal *journal, uint64_t chunk, struct chunk_entry *out);
/* Is this block of this chunk allocated? Fixed addresses: the root and table blocks in use are. */
bool chunk_block_is_live(struct journal *journal, maddr_t address);
/* Free metadata blocks that a TX_NORMAL transaction may still take; fs/ grows metadata space before this gets below METADATA_LOW_BLOCKS. */
uint64_t chunk_free_blocks(struct journal *journal);
#define METADATA_RESERVE_BLOCKS 64 /* only TX_RESERVE may take these */
#define METADATA_LOW_BLOCKS 128

/*
 * Add a chunk whose space (1 << shift bytes at copy[0], copy[1]) the same transaction has taken from the free tree. Writes the chunk header
 * to both copies, durably, first. *chunk: its number.
 */
int chunk_add(struct tx *tx, const devoff_t copy[2], unsigned shift, uint64_t *chunk);
/* A chunk number whose blocks are all free but its header, or -ENOENT; never the last reserve. */
int chunk_find_empty(struct journal *journal, uint64_t *chunk);
/* Mark it FREEING; its space may be given back only by chunk_remove(), after a checkpoint that came later. */
int chunk_retire(struct tx *tx, uint64_t chunk);
/* Next entry in state FREEING at or after *chunk: 0 or -ENOENT. */
int chunk_next_freeing(struct journal *journal, uint64_t *chunk, struct chunk_entry *out);
/* The entry becomes free; the caller frees its space in the same transaction. */
int chunk_remove(struct tx *tx, uint64_t chunk);
/* Point one copy of a chunk elsewhere (relocation); the caller has written the copy there. */
int chunk_move_copy(struct tx *tx, uint64_t chunk, unsigned copy, devoff_t offset);

#endif
