/* Make both copies of one metadata block whole and equal again. */
#include "journal/internal.h"

#include <errno.h>
#include <string.h>

struct repair {
	maddr_t address;
	devoff_t offset[2];
	unsigned copies; /* bit k: there is a copy k */
	unsigned bad;	 /* bit k: not whole, or behind the other */
};

/* Which copies differ from what the clean buffer says must be at home (journal->bounce)? */
static unsigned repair_compare(struct journal *journal, const struct repair *repair)
{
	uint8_t block[BLOCK_BYTES] __attribute__((aligned(64)));
	unsigned bad = 0;

	for (unsigned k = 0; k < 2; k++)
		if (repair->copies & 1u << k &&
		    (media_read(journal->media, repair->offset[k], block, BLOCK_BYTES, NULL) ||
		     memcmp(block, journal->bounce, BLOCK_BYTES)))
			bad |= 1u << k;
	return bad;
}

/* Before a write-back: copies that cannot be used as they lie. One merely older than the buffer is not bad. */
static unsigned repair_inspect(struct journal *journal, const struct repair *repair)
{
	uint8_t block[BLOCK_BYTES] __attribute__((aligned(64)));
	uint64_t sequence[2] = { 0, 0 };
	const char *field;
	unsigned bad = 0;

	for (unsigned k = 0; k < 2; k++) {
		if (!(repair->copies & 1u << k))
			continue;
		if (load_copy(journal, repair->address, repair->offset[k], block, &field))
			bad |= 1u << k;
		else
			sequence[k] = le64_get(((struct format_block_header *)block)->sequence);
	}
	if (repair->copies == 3 && !bad && sequence[0] != sequence[1])
		bad = sequence[0] < sequence[1] ? 1 : 2;
	return bad;
}

/* What clears poison says so once the copy is durable: until then the poison log calls it bad, and whoever reads that log next would not touch a good copy. */
static int repair_write_copy(struct journal *journal, devoff_t offset)
{
	int error = media_write(journal->media, offset, journal->bounce, BLOCK_BYTES, NULL);
	const bool clears = error == -EIO;

	if (clears)
		error = media_clear(journal->media, offset, BLOCK_BYTES);
	if (clears && !error)
		error = media_write(journal->media, offset, journal->bounce, BLOCK_BYTES, NULL);
	if (!error)
		error = log_barrier(&journal->log); /* durable: this copy, before the other one may be touched */
	if (!error && clears)
		journal_tell_cleared(journal, offset);
	return error;
}

static int repair_write(struct journal *journal, const struct repair *repair, unsigned bad)
{
	int error = 0;

	for (unsigned k = 0; k < 2 && !error; k++)
		if (bad & 1u << k)
			error = repair_write_copy(journal, repair->offset[k]);
	return error;
}

static int repair_buffer(struct journal *journal, struct repair *repair, struct cache_buf *cb)
{
	unsigned rest;
	int error;

	repair->bad = repair_inspect(journal, repair) | cb->cleared;
	if (cb->dirty) { /* the log has to be durable before home is overwritten: that is a checkpoint */
		error = checkpoint_run(journal, journal->log.epoch);
		if (cb->dirty)
			return error ? error : -EIO;
	}
	memcpy(journal->bounce, cb->block, BLOCK_BYTES);
	format_block_seal(journal->bounce, cb->sequence);
	rest = repair_compare(journal, repair);
	repair->bad |= rest;
	error = repair_write(journal, repair, rest);
	if (error)
		return error;
	if (repair_compare(journal, repair))
		return -EIO;
	cb->half = false;
	cb->cleared = 0;
	return 0;
}

/* A chunk's header says nothing that the table does not: with both copies gone it is made anew. */
static int repair_rebuild_header(struct journal *journal, maddr_t address, struct buf **out)
{
	struct chunk_entry entry;
	struct cache_buf *cb;
	int error;

	if (maddr_is_fixed(address) || maddr_index(address))
		return -EIO;
	error = chunk_entry(journal, maddr_chunk(address), &entry);
	if (error)
		return error;
	cb = cache_alloc(journal, address);
	if (!cb)
		return -ENOMEM;
	chunk_fill_header(cb->block, &journal->super, maddr_chunk(address), &entry);
	cb->sequence = log_next_sequence(&journal->log) - 1;
	*out = cache_view(cache_insert(cb));
	return 0;
}

static int repair_locked(struct journal *journal, maddr_t address, unsigned *repaired)
{
	struct repair repair = { .address = address };
	struct buf *buf;
	int error = chunk_check_live(journal, address);

	if (error == -ENOENT)
		return 0;
	if (!error)
		error = buf_get_any(journal, address, &buf);
	if (error == -EIO || error == -EUCLEAN)
		error = repair_rebuild_header(journal, address, &buf);
	if (error)
		return error;
	error = chunk_locate(journal, address, repair.offset);
	repair.copies = repair.offset[1] ? 3 : 1;
	if (!error)
		error = repair_buffer(journal, &repair, cache_of(buf));
	buf_put(buf);
	if (!error)
		*repaired = repair.bad;
	return error;
}

int journal_repair(struct journal *journal, maddr_t address, unsigned *repaired)
{
	int error;

	*repaired = 0;
	if (journal->readonly)
		return -EROFS;
	journal_lock(journal);
	error = repair_locked(journal, address, repaired);
	journal_unlock(journal);
	return error;
}
