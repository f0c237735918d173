#include "journal/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "journal/salvage_internal.h"
#include "util/log.h"

/* --- mkfs ----------------------------------------------------------------------------------------------------------- */

static int format_block_store(struct media *media, const devoff_t copy[2], void *block)
{
	unsigned stored = 0;
	int error = 0, last = 0;

	format_block_seal(block, 0);
	for (unsigned k = 0; k < 2; k++) {
		if (k && !copy[k])
			break;
		error = log_write_block(media, copy[k], block, NULL);
		if (error)
			last = error;
		else
			stored++;
	}
	return stored && (!last || last == -EIO) ? 0 : last;
}

static void format_first_entry(struct chunk_entry *entry, const struct super *super, const devoff_t first[2])
{
	memset(entry, 0, sizeof(*entry));
	entry->copy[0] = first[0];
	entry->copy[1] = first[1];
	entry->generation = 1;
	entry->shift = super->chunk_shift;
	entry->state = FORMAT_CHUNK_LIVE;
	entry->copy_state[0] = FORMAT_COPY_WHOLE;
	entry->copy_state[1] = first[1] ? FORMAT_COPY_WHOLE : FORMAT_COPY_ABSENT;
	entry->map[0] = 1;
	entry->free_blocks = chunk_blocks(entry->shift) - 1;
}

static int format_root_store(struct media *media, const struct super *super, struct format_root *root)
{
	memset(root, 0, sizeof(*root));
	format_block_header_init(&root->header, super->meta_uuid, MADDR_ROOT, FORMAT_ROLE_ROOT, FORMAT_TREE_NONE);
	root->counters[ROOT_CHUNKS] = le64_make(1);
	root->counters[ROOT_META_BLOCKS] = le64_make(chunk_blocks(super->chunk_shift));
	root->counters[ROOT_META_FREE] = le64_make(chunk_blocks(super->chunk_shift) - 1);
	return format_block_store(media, super->areas[AREA_FIXED].copy, root);
}

static int format_table_store(struct media *media, const struct super *super, const struct chunk_entry *entry,
			      struct format_chunk_table_block *table)
{
	const struct area *area = &super->areas[AREA_FIXED];
	devoff_t copy[2] = { area->copy[0] + BLOCK_BYTES, area->copy[1] ? area->copy[1] + BLOCK_BYTES : 0 };

	memset(table, 0, sizeof(*table));
	format_block_header_init(&table->header, super->meta_uuid, MADDR_TABLE, FORMAT_ROLE_CHUNK_TABLE, FORMAT_TREE_NONE);
	format_chunk_entry_pack(&table->entries[0], entry);
	return format_block_store(media, copy, table);
}

int journal_format(struct media *media, const struct super *super, const devoff_t first[2])
{
	struct chunk_entry entry;
	void *block;
	int error;

	if (super->areas[AREA_FIXED].length_bytes < 2 * BLOCK_BYTES || super->chunk_shift < CHUNK_SHIFT_MIN ||
	    super->chunk_shift > CHUNK_SHIFT_MAX)
		return -EINVAL;
	block = aligned_alloc(LINE_BYTES, BLOCK_BYTES);
	if (!block)
		return -ENOMEM;
	format_first_entry(&entry, super, first);
	error = format_root_store(media, super, block);
	if (!error)
		error = format_table_store(media, super, &entry, block);
	if (!error) {
		chunk_fill_header(block, super, 0, &entry);
		error = format_block_store(media, first, block);
	}
	if (!error)
		error = log_format(media, super);
	free(block);
	return error;
}

/* --- open and close ------------------------------------------------------------------------------------------------- */

static int journal_init_locks(struct journal *journal)
{
	int error = gate_init(&journal->gate);

	if (error)
		return error;
	error = gate_init(&journal->beside);
	if (error) {
		gate_fini(&journal->gate);
		return error;
	}
	pthread_mutex_init(&journal->dirty_mutex, NULL);
	pthread_mutex_init(&journal->sync_mutex, NULL);
	pthread_cond_init(&journal->sync_cond, NULL);
	return 0;
}

static void journal_free(struct journal *journal)
{
	if (journal->root)
		cache_put(journal->root);
	cache_fini(journal);
	tx_fini(journal);
	log_fini(&journal->log);
	free(journal->bounce);
	pthread_cond_destroy(&journal->sync_cond);
	pthread_mutex_destroy(&journal->sync_mutex);
	pthread_mutex_destroy(&journal->dirty_mutex);
	gate_fini(&journal->beside);
	gate_fini(&journal->gate);
	free(journal);
}

static int journal_init(struct journal *journal, struct media *media, const struct super *super,
			const struct journal_options *options, struct why *why)
{
	int error;

	journal->media = media;
	journal->super = *super;
	journal->salvage = options->salvage;
	journal->is_new = options->is_new;
	journal->readonly = options->readonly || media_is_readonly(media);
	error = cache_init(journal, options->cache_bytes);
	if (!error)
		error = log_init(&journal->log, media, &journal->super);
	if (!error)
		error = tx_init(journal);
	journal->dirty_limit = max_u64(journal->cache_blocks / 2, 2ull * journal->tx_limit);
	journal->bounce = aligned_alloc(LINE_BYTES, BLOCK_BYTES);
	if (!error && !journal->bounce)
		error = -ENOMEM;
	return error ? why_set(why, error, "the journal cannot be opened: %s", strerror(-error)) : 0;
}

/* Only a head that lies gets that far: what would be committed now could be out of reach after the next count. */
static bool journal_is_worn(const struct journal *journal)
{
	const struct log_ring *ring = &journal->log;

	return ring->update >= FORMAT_JOURNAL_COUNT_WORN || log_next_sequence(ring) >= FORMAT_JOURNAL_COUNT_WORN;
}

/* After replay: home is made current and a new epoch begins, so that nothing of the old log can be taken for new. */
static int journal_start(struct journal *journal, struct why *why)
{
	int error;

	if (!journal->salvage && (journal->recovery.hole || journal->recovery.lost))
		journal->readonly = true;
	if (!journal->salvage && !journal->readonly && journal_is_worn(journal)) {
		log_error("the journal's counts are at their end: read-only");
		journal->readonly = true;
	}
	journal->log_is_known = journal->salvage || !journal->recovery.hole;
	if (journal->readonly)
		return 0;
	error = checkpoint_run(journal, journal->log.epoch + 1);
	if (error)
		return why_set(why, error, "recovered metadata cannot be written back: %s", strerror(-error));
	return 0;
}

static int journal_recover(struct journal *journal, struct why *why)
{
	int error;

	journal->recovers = true;
	error = recover_run(journal, why);
	journal->recovers = false;
	return error;
}

static int journal_find_tail(struct journal *journal, struct why *why)
{
	int error = log_read_heads(&journal->log, why);

	if (!journal->salvage || (error && error != -EIO && error != -EUCLEAN))
		return error;
	return salvage_find_tail(journal, error);
}

static struct journal *journal_alloc(void)
{
	struct journal *journal = aligned_alloc(_Alignof(struct journal), sizeof(*journal));

	if (journal)
		memset(journal, 0, sizeof(*journal));
	return journal;
}

int journal_open(struct media *media, const struct super *super, const struct journal_options *options, struct why *why,
		 struct journal **out)
{
	struct journal *journal = journal_alloc();
	int error;

	if (!journal)
		return why_set(why, -ENOMEM, "out of memory");
	error = journal_init_locks(journal);
	if (error) {
		free(journal);
		return why_set(why, error, "out of resources");
	}
	error = journal_init(journal, media, super, options, why);
	if (!error)
		error = journal_find_tail(journal, why);
	if (!error)
		error = journal_recover(journal, why);
	if (!error)
		error = journal_start(journal, why);
	if (error) {
		journal_free(journal);
		return error;
	}
	journal->salvage = NULL;
	*out = journal;
	return 0;
}

int journal_close(struct journal *journal)
{
	int error = 0;

	if (!journal_is_readonly(journal))
		error = journal_checkpoint(journal);
	journal_free(journal);
	return error;
}

/* --- state ---------------------------------------------------------------------------------------------------------- */

const struct journal_recovery *journal_recovery(const struct journal *journal)
{
	return &journal->recovery;
}

struct media *journal_media(const struct journal *journal)
{
	return journal->media;
}

const struct super *journal_super(const struct journal *journal)
{
	return &journal->super;
}

void journal_set_version(struct journal *journal, uint32_t version)
{
	journal->super.version = version;
}

void journal_set_bad_copy_handler(struct journal *journal, journal_bad_copy_fn *handler, void *arg)
{
	journal->bad_copy_arg = arg;
	journal->bad_copy = handler;
}

void journal_set_cleared_handler(struct journal *journal, journal_cleared_fn *handler, void *arg)
{
	journal->on_cleared_arg = arg;
	journal->on_cleared = handler;
}

void journal_tell_cleared(struct journal *journal, devoff_t offset)
{
	if (journal->on_cleared)
		journal->on_cleared(journal->on_cleared_arg, offset);
}

/* A second hold by one thread waits for ever once a writer waits in between: a mistake of ours, found at once instead. */
static _Thread_local const struct journal *thread_reads, *thread_writes;
static _Thread_local bool thread_excludes; /* readers too */
static _Thread_local struct tx *thread_beside;

#define LIMBO_MAX_BLOCKS 256u

void journal_read_begin(struct journal *journal)
{
	assert(!thread_reads);
	assert(thread_writes != journal && !journal_beside(journal));
	gate_enter(&journal->gate);
	thread_reads = journal;
}

void journal_reserve(struct journal *journal)
{
	assert(!thread_reads);
	assert(!thread_writes);
	assert(!thread_beside);
	gate_reserve(&journal->gate);
	gate_close(&journal->beside);
	thread_writes = journal;
}

void journal_exclude(struct journal *journal)
{
	if (thread_excludes)
		return;
	gate_close(&journal->gate);
	thread_excludes = true;
	if (journal->limbo_count)
		cache_empty_limbo(journal);
}

void journal_lock(struct journal *journal)
{
	journal_reserve(journal);
	journal_exclude(journal);
}

void journal_unlock(struct journal *journal)
{
	bool excludes = thread_excludes;

	thread_writes = NULL;
	thread_excludes = false;
	if (excludes)
		gate_open(&journal->gate);
	gate_open(&journal->beside);
	gate_vacate(&journal->gate);
}

struct tx *journal_beside(const struct journal *journal)
{
	return thread_beside && thread_beside->journal == journal ? thread_beside : NULL;
}

void journal_beside_enter(struct tx *tx)
{
	assert(!thread_reads);
	assert(!thread_writes);
	assert(!thread_beside);
	gate_enter(&tx->journal->beside);
	thread_beside = tx;
}

void journal_beside_leave(struct tx *tx)
{
	thread_beside = NULL;
	gate_leave(&tx->journal->beside);
}

void journal_read_end(struct journal *journal)
{
	thread_reads = NULL;
	gate_leave(&journal->gate);
	if (journal->limbo_count < LIMBO_MAX_BLOCKS)
		return;
	journal_lock(journal); /* readers alone: nobody else would do it */
	journal_unlock(journal);
}

bool journal_is_reading(const struct journal *journal)
{
	return thread_reads == journal;
}

bool journal_is_writing(const struct journal *journal)
{
	return thread_writes == journal;
}

bool journal_is_locked(const struct journal *journal)
{
	return thread_writes == journal && thread_excludes;
}

void journal_shutdown(struct journal *journal)
{
	journal->is_shut_down = true;
}

void journal_stop(struct journal *journal)
{
	journal_lock(journal);
	journal_shutdown(journal);
	journal_unlock(journal);
}

bool journal_is_readonly(const struct journal *journal)
{
	return journal->readonly || journal->is_shut_down;
}

bool journal_wants_checkpoint(const struct journal *journal)
{
	return log_used(&journal->log) > journal->log.ring_bytes / 2 || journal->dirty_blocks > journal->dirty_limit / 2;
}

uint64_t journal_changes(const struct journal *journal)
{
	uint64_t changes = journal->log.transactions;

	for (unsigned i = 0, end = atomic_load(&slot_end); i < end; i++)
		changes += atomic_load(&journal->txs[i].logged) + atomic_load(&journal->txs[i].shown);
	return changes;
}

void journal_counts(const struct journal *journal, struct journal_counts *out)
{
	memset(out, 0, sizeof(*out));
	out->transactions = journal->log.transactions;
	out->records = journal->log.records;
	out->record_bytes = journal->log.record_bytes;
	out->checkpoints = journal->checkpoints;
	out->written_back_blocks = journal->written_back;
	out->ring_bytes = journal->log.ring_bytes;
	out->ring_used = log_used(&journal->log);
	for (unsigned i = 0; i < SLOT_COUNT; i++) {
		out->transactions += atomic_load(&journal->txs[i].shown);
		out->records += atomic_load(&journal->txs[i].records);
		out->record_bytes += atomic_load(&journal->txs[i].record_bytes);
	}
	for (unsigned i = 0; i < CACHE_SHARDS; i++) {
		struct cache_shard *shard = (struct cache_shard *)&journal->shards[i];

		pthread_mutex_lock(&shard->mutex);
		out->cache_bytes += shard->count * BLOCK_BYTES;
		pthread_mutex_unlock(&shard->mutex);
	}
	for (unsigned i = 0; i < SLOT_COUNT; i++) {
		out->cache_hits += atomic_load_explicit(&journal->finds[i].hits, memory_order_relaxed);
		out->cache_misses += atomic_load_explicit(&journal->finds[i].misses, memory_order_relaxed);
	}
}

/* --- durability ----------------------------------------------------------------------------------------------------- */

int journal_checkpoint(struct journal *journal)
{
	int error;

	if (journal_is_readonly(journal))
		return -EROFS;
	journal_lock(journal);
	error = journal->sync_error ? journal->sync_error : checkpoint_run(journal, journal->log.epoch);
	journal_unlock(journal);
	return error;
}

static int sync_media(struct journal *journal)
{
	int error = media_sync(journal->media);

	if (error)
		journal->sync_error = error;
	return error;
}

/* Say in the log that everything up to `covered` is on the host's disk. */
static int sync_mark(struct journal *journal, uint64_t covered)
{
	struct log_ring *ring = &journal->log;
	uint64_t mark = 0;
	int error;

	journal_lock(journal);
	if (!log_has_room(ring, ring->slack_bytes / 2)) {
		error = checkpoint_run(journal, ring->epoch);
		journal_unlock(journal);
		return error;
	}
	ring->synced = max_u64(ring->synced, covered);
	error = log_append(ring, FORMAT_RECORD_MARK, sizeof(struct format_record_header), 0, &mark);
	if (error == -ENOTRECOVERABLE) {
		log_error("a mark that failed may be found in the journal: no more changes");
		journal_shutdown(journal);
		error = -EIO;
	}
	journal_unlock(journal);
	if (!error)
		error = sync_media(journal); /* durable: the mark, and with it every record up to `covered` on any boot */
	return error;
}

static void raise_durable(struct journal *journal, uint64_t covered)
{
	uint64_t seen = journal->log.durable;

	while (seen < covered && !atomic_compare_exchange_weak(&journal->log.durable, &seen, covered))
		;
}

/* One round for everybody who asked before it began. Runs without the metadata lock but for the mark. */
static int sync_round(struct journal *journal)
{
	uint64_t covered = log_next_sequence(&journal->log) - 1;
	bool needs_mark = journal->log.last_tx > journal->log.durable;
	int error = sync_media(journal); /* durable: data and records, but no record says so yet */

	if (error || !needs_mark)
		return error;
	error = sync_mark(journal, covered);
	if (!error)
		raise_durable(journal, covered);
	return error;
}

int journal_sync(struct journal *journal)
{
	uint64_t needed, round;
	int error = 0;

	if (journal->sync_error || !journal->log.paged || journal->readonly)
		return journal->sync_error;
	pthread_mutex_lock(&journal->sync_mutex);
	needed = journal->sync_started + 1; /* a round that is under way may have begun too early for us */
	while (journal->sync_done < needed && !error) {
		if (journal->sync_runs) {
			pthread_cond_wait(&journal->sync_cond, &journal->sync_mutex);
			error = journal->sync_error;
			continue;
		}
		journal->sync_runs = true;
		round = ++journal->sync_started;
		pthread_mutex_unlock(&journal->sync_mutex);
		error = sync_round(journal);
		pthread_mutex_lock(&journal->sync_mutex);
		journal->sync_runs = false;
		if (!error)
			journal->sync_done = round;
		pthread_cond_broadcast(&journal->sync_cond);
	}
	pthread_mutex_unlock(&journal->sync_mutex);
	return error;
}
