/* Metadata blocks in DRAM, verified. */
#ifndef JOURNAL_BUF_H
#define JOURNAL_BUF_H

#include "format/chunk_format.h"
#include "journal/journal.h"

struct cache_buf;

struct buf {
	maddr_t address;
	struct cache_buf *cache; /* private to journal/ */
	uint8_t *data; /* BLOCK_BYTES, aligned to 64; change only after tx_join() */
	/* Owned by the layer above (what it has verified of the content); zero whenever the block was loaded or created. */
	uint32_t verified;
};

/*
 * A reference to the verified block at `address`, which must have this role and tree. On a cache miss both copies' headers are
 * read: one bad copy is answered from the other at once and reported for repair. Caller holds the metadata lock, shared or exclusive.
 * Held shared, the block is good until journal_read_end() and no longer, whenever it is put.
 * 0; -EIO: both copies are poisoned; -EUCLEAN: no whole copy, or not this role and tree, or an address that is not in use.
 */
int buf_get(struct journal *journal, maddr_t address, enum format_block_role role, unsigned tree, struct buf **out);
/* As buf_get, whatever role and tree it has (owners query, fsck); role and tree are in its header. */
int buf_get_any(struct journal *journal, maddr_t address, struct buf **out);
void buf_put(struct buf *buf);
/*
 * Within a transaction beside others (elsewhere all is certain): is this a copy, which may be out of date, so that what is wrong with it is not to be told but
 * answered by -EDEADLK? Is it still as the block is? The transaction counts only if the block stays the same until its commit.
 */
bool buf_is_tentative(const struct buf *buf);
bool buf_is_current(const struct buf *buf);
void buf_rely(struct buf *buf);
/* Sequence of the last record it contains: of two blocks that contradict each other the one with the higher is the younger. */
uint64_t buf_sequence(const struct buf *buf);

/*
 * A new zeroed block with its header filled, already joined to the transaction. -ENOSPC: no free metadata block (beyond the reserve,
 * unless the transaction may use it).
 */
int buf_create(struct tx *tx, enum format_block_role role, unsigned tree, struct buf **out);
/* Give the block back to its chunk and drop the reference. */
int buf_destroy(struct tx *tx, struct buf *buf);

/* Drop every clean buffer that nobody holds (tests, `drop caches`). With or without the metadata lock. */
void buf_drop_clean(struct journal *journal);

#endif
