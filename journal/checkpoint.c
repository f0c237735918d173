/*
 * Write-back: every dirty block to its primary, barrier, to its replica, barrier, heads; only then the tail has moved. So at any
 * moment one copy of a block is whole, and what is not is in the log.
 */
#include "journal/internal.h"

#include <errno.h>
#include <string.h>

#include "util/log.h"

static int sync_or_stick(struct journal *journal)
{
	int error = media_sync(journal->media);

	if (error) {
		journal->sync_error = error;
		log_error("syncing %s failed: nothing more is acknowledged", media_path(journal->media));
	}
	return error;
}

int checkpoint_make_durable(struct journal *journal)
{
	struct log_ring *ring = &journal->log;
	uint64_t mark;
	int error;

	if (!ring->paged || ring->last_tx <= ring->durable)
		return 0;
	error = sync_or_stick(journal); /* durable: every record so far, but no record says so */
	if (error)
		return error;
	ring->synced = log_next_sequence(ring) - 1;
	error = log_append(ring, FORMAT_RECORD_MARK, sizeof(struct format_record_header), 0, &mark);
	if (error)
		return error;
	error = sync_or_stick(journal); /* durable: the mark, which makes them count on any boot */
	if (!error)
		ring->durable = mark;
	return error;
}

static int block_write(struct journal *journal, struct cache_buf *cb, unsigned copy, devoff_t offset)
{
	bool cleared = false;
	int error;

	error = log_write_block(journal->media, offset, cb->block, &cleared);
	if (error)
		return error;
	cb->written |= 1u << copy;
	if (cleared) {
		cb->cleared |= 1u << copy;
		cb->told &= (uint8_t)~(1u << copy);
	}
	return 0;
}

/* Poison is one copy's own matter; any other error stops the write-back. */
static int write_copies(struct journal *journal, unsigned copy)
{
	struct cache_buf *cb;
	devoff_t offset[2];
	int error;

	TAILQ_FOREACH(cb, &journal->dirty, dirty_link) {
		error = chunk_locate(journal, cb->buf.address, offset);
		if (error)
			return error == -ENOENT ? -EUCLEAN : error;
		if (copy == 0) /* where it lies, for both: nobody else is inside */
			format_block_seal(cb->block, cb->sequence);
		if (!offset[copy])
			continue;
		error = block_write(journal, cb, copy, offset[copy]);
		if (error && error != -EIO)
			return error;
	}
	return 0;
}

/* The primary could not be stored: the replica becomes the only copy, so the log gets all of the block before it is overwritten. */
static int log_lone_blocks(struct journal *journal)
{
	struct cache_buf *cb;
	struct tx_item item;
	uint64_t sequence;
	int error;

	TAILQ_FOREACH(cb, &journal->dirty, dirty_link) {
		if (cb->written)
			continue;
		item = (struct tx_item){ .address = cb->buf.address, .bytes = cb->block };
		error = tx_log_items(&journal->log, &item, 1, &sequence);
		if (error)
			return error;
		cb->half = true;
	}
	return checkpoint_make_durable(journal);
}

static void block_settle(struct journal *journal, struct cache_buf *cb)
{
	devoff_t offset[2] = { 0 };
	unsigned wanted = 1;

	if (!chunk_locate(journal, cb->buf.address, offset) && offset[1])
		wanted = 3;
	cb->half = wanted == 3 && cb->written != 3;
	for (unsigned k = 0; k < 2; k++)
		if (wanted & ~cb->written & 1u << k)
			load_report(journal, cb->buf.address, k, offset[k], "could not be written");
	cache_set_clean(cb);
	journal->written_back++;
}

/* Blocks of which no copy could be stored stay dirty. */
static unsigned settle_written(struct journal *journal)
{
	struct cache_buf *cb, *next;
	unsigned failed = 0;

	for (cb = TAILQ_FIRST(&journal->dirty); cb; cb = next) {
		next = TAILQ_NEXT(cb, dirty_link);
		cb->refs++; /* once clean, buf_drop_clean() may take it at any time */
		if (cb->written)
			block_settle(journal, cb);
		else
			failed++;
		cb->written = 0;
		cache_put(cb);
	}
	return failed;
}

static void forget_written(struct journal *journal)
{
	struct cache_buf *cb;

	TAILQ_FOREACH(cb, &journal->dirty, dirty_link)
		cb->written = 0;
}

static void tell_cleared(struct journal *journal)
{
	struct cache_buf *cb;

	TAILQ_FOREACH(cb, &journal->dirty, dirty_link) {
		unsigned fresh = cb->cleared & cb->written & ~cb->told;
		devoff_t offset[2];

		if (!fresh || !journal->on_cleared || chunk_locate(journal, cb->buf.address, offset))
			continue;
		for (unsigned k = 0; k < 2; k++)
			if (fresh & 1u << k)
				journal_tell_cleared(journal, offset[k]);
		cb->told |= (uint8_t)fresh;
	}
}

static int write_back(struct journal *journal)
{
	int error = write_copies(journal, 0);

	if (!error)
		error = log_barrier(&journal->log); /* durable: the primaries; replicas may be torn from now on */
	if (!error && journal->super.copies == 2)
		error = log_lone_blocks(journal);
	if (!error && journal->super.copies == 2)
		error = write_copies(journal, 1);
	if (!error)
		error = log_barrier(&journal->log); /* durable: both copies; the log is not needed for them */
	if (error) {
		forget_written(journal);
		return error;
	}
	tell_cleared(journal);
	return settle_written(journal) ? -EIO : 0;
}

static int checkpoint_steps(struct journal *journal, uint32_t epoch)
{
	int error = checkpoint_make_durable(journal);

	if (!error)
		error = write_back(journal);
	if (!error)
		error = log_move_tail(&journal->log, epoch);
	return error;
}

int checkpoint_run(struct journal *journal, uint32_t epoch)
{
	int error;

	if (epoch == journal->log.epoch && log_is_empty(&journal->log) && !journal->dirty_blocks &&
	    !journal->log.stuck && !journal->log.missing)
		return 0;
	error = checkpoint_steps(journal, epoch);
	if (error) {
		if (!atomic_exchange(&journal->write_error_told, true))
			log_error("metadata cannot be written back: %s; it stays in the journal", strerror(-error));
		return error;
	}
	journal->write_error_told = false;
	journal->checkpoints++;
	return 0;
}
