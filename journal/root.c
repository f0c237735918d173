#include "journal/internal.h"

#include <errno.h>

#include "util/log.h"

static struct format_root *root_of(struct journal *journal)
{
	const struct buf *root = journal_is_writing(journal) ? &journal->root->mine : &journal->root->buf;

	return (struct format_root *)root->data;
}

/* Whoever goes through the chunks relies on their number: it is believed as far as the table can hold it. */
static uint64_t chunks_possible(const struct journal *journal)
{
	return (journal->super.areas[AREA_FIXED].length_bytes / BLOCK_BYTES - MADDR_TABLE) * CHUNK_ENTRIES_PER_BLOCK;
}

/* A counter that transactions beside this thread may be changing. */
static uint64_t counter_load(struct format_root *root, unsigned counter)
{
	return le64_get((struct le64){ __atomic_load_n(&root->counters[counter].raw, __ATOMIC_RELAXED) });
}

void root_count(struct format_root *root, unsigned counter, int64_t delta)
{
	uint64_t old = __atomic_load_n(&root->counters[counter].raw, __ATOMIC_RELAXED), new;

	do
		new = le64_make(le64_get((struct le64){ old }) + (uint64_t)delta).raw;
	while (!__atomic_compare_exchange_n(&root->counters[counter].raw, &old, new, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
}

uint64_t root_get(struct journal *journal, enum root_counter counter)
{
	const struct tx *tx = journal_beside(journal);
	uint64_t value = counter_load(root_of(journal), counter) + (tx ? (uint64_t)tx->deltas[counter] : 0);

	return counter == ROOT_CHUNKS ? min_u64(value, chunks_possible(journal)) : value;
}

int root_set(struct tx *tx, enum root_counter counter, uint64_t value)
{
	struct journal *journal = tx_journal(tx);
	int error = tx->beside ? -EAGAIN : tx_join(tx, &journal->root->mine);

	if (error)
		return error;
	root_of(journal)->counters[counter] = le64_make(value);
	return 0;
}

int root_add(struct tx *tx, enum root_counter counter, int64_t delta)
{
	uint64_t value = root_get(tx_journal(tx), counter);

	if (tx->beside) {
		tx->deltas[counter] += delta;
		tx->deltas_mask |= 1ull << counter;
		return 0;
	}
	if (delta < 0 && value < 0 - (uint64_t)delta) {
		log_error("root counter %d is %llu, cannot add %lld", counter, (unsigned long long)value, (long long)delta);
		return -EUCLEAN;
	}
	return root_set(tx, counter, value + (uint64_t)delta);
}

void root_tree_get(struct journal *journal, unsigned tree, maddr_t *address, unsigned *level)
{
	const struct format_tree_root *root = &root_of(journal)->trees[tree];

	*address = le64_get(root->address);
	*level = root->level;
}

int root_tree_set(struct tx *tx, unsigned tree, maddr_t address, unsigned level)
{
	struct journal *journal = tx_journal(tx);
	struct format_tree_root *root;
	int error = tx->beside ? -EAGAIN : tx_join(tx, &journal->root->mine);

	if (error)
		return error;
	root = &root_of(journal)->trees[tree];
	root->address = le64_make(address);
	root->level = (uint8_t)level;
	return 0;
}
