/*
 * The journal's API (buf, tx, root) over plain memory, for tests of the layers above it: fast, with
 * faults on demand. It is linked instead of journal/.
 */
#ifndef TESTS_SUPPORT_FAKE_JOURNAL_H
#define TESTS_SUPPORT_FAKE_JOURNAL_H

#include "journal/root.h"
#include "journal/tx.h"

struct journal *fake_create(uint64_t size_bytes);
void fake_destroy(struct journal *journal);

/* The n-th of the following calls fails with `error`, then none (n = 0: never). Counts tx_join,
 * buf_create, buf_destroy, root_*. */
void fake_fail_change(struct journal *journal, unsigned n, int error);
/* buf_get of this address fails with `error` (0: no more). */
void fake_fail_get(struct journal *journal, maddr_t address, int error);
/* All blocks count as just read from media. */
void fake_forget_verified(struct journal *journal);
/* Do all references that were taken have been put? */
unsigned fake_references(const struct journal *journal);
/* Blocks in use; the i-th of them, to be damaged in place. */
unsigned fake_blocks(const struct journal *journal);
struct buf *fake_block(struct journal *journal, unsigned i);
/* Commits are durable at once, or only after fake_make_durable(). */
void fake_set_lazy(struct journal *journal, bool lazy);
void fake_make_durable(struct journal *journal);
/* Blocks that the last transaction joined or created. */
unsigned fake_last_joined(const struct journal *journal);
/* Calls of buf_get() and buf_get_any() so far. */
uint64_t fake_gets(const struct journal *journal);

#endif
