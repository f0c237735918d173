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

uint64_t root_get(struct journal *journal, enum root_counter counter)
{
	uint64_t value = le64_get(root_of(journal)->counters[counter]);

	return counter == ROOT_CHUNKS ? min_u64(value, chunks_possible(journal)) : value;
}

int root_set(struct tx *tx, enum root_counter counter, uint64_t value)
{
	struct journal *journal = tx_journal(tx);
	int error = tx_join(tx, &journal->root->mine);

	if (error)
		return error;
	root_of(journal)->counters[counter] = le64_make(value);
	return 0;
}

int root_add(struct tx *tx, enum root_counter counter, int64_t delta)
{
	uint64_t value = root_get(tx_journal(tx), counter);

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
	int error = tx_join(tx, &journal->root->mine);

	if (error)
		return error;
	root = &root_of(journal)->trees[tree];
	root->address = le64_make(address);
	root->level = (uint8_t)level;
	return 0;
}
