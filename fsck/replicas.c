/* A chunk of metadata whose replica nobody could say the place of gets another one. */
#include <errno.h>
#include <string.h>

#include "fsck/internal.h"
#include "journal/chunk.h"
#include "journal/root.h"
#include "journal/salvage.h"

/* In the other half of the device, if there is room. */
static int replica_place(struct fs *fs, struct tx *tx, struct chunk_entry *entry)
{
	uint64_t half = fs_super(fs)->size_bytes / 2, blocks = chunk_blocks(entry->shift), count;
	const struct alloc_request request = {
		.want_blocks = blocks, .least_blocks = blocks, .align_blocks = 1, .use_reserve = true,
		.not_before = entry->copy[0] < half ? half / BLOCK_BYTES : 1,
	};
	blkno_t start;
	int error = alloc_take(fs->alloc, tx, &request, &start, &count);

	if (error)
		return error;
	entry->copy[1] = start * BLOCK_BYTES;
	entry->copy_state[1] = FORMAT_COPY_WHOLE;
	return 0;
}

static int replica_enter(struct fs *fs, struct tx *tx, uint64_t chunk, struct chunk_entry *entry)
{
	const struct rmap_record record = {
		.start = entry->copy[1] / BLOCK_BYTES, .count = chunk_blocks(entry->shift), .owner = OWNER(OWNER_CHUNK),
		.offset = (chunk * 2 + 1) * CHUNK_SLOTS,
	};
	bool changed;
	int error = salvage_put_entry(tx, chunk, entry);

	if (!error)
		error = rmap_insert(&fs->rmap, tx, &record);
	return error ? error : salvage_mend_header(tx, chunk, &changed);
}

/* Its blocks are copied by the phase after this; until then the primary is the only whole copy, as it was before. */
static int replica_make(struct repair *repair, uint64_t chunk, struct chunk_entry *entry)
{
	struct tx *tx;
	int error = fs_tx_begin(repair->fs, TX_RESERVE, &tx);

	if (error)
		return error;
	error = replica_place(repair->fs, tx, entry);
	if (!error)
		error = replica_enter(repair->fs, tx, chunk, entry);
	return tx_end(tx, error, NULL);
}

static int replica_mend(struct repair *repair, uint64_t chunk, struct chunk_entry *entry)
{
	int error;

	repair_tell(repair, FSCK_ERROR, "metadata chunk %llu: nothing says where its replica lies", (unsigned long long)chunk);
	if (!repair_ask(repair, "Make new replicas of metadata"))
		return 0;
	error = replica_make(repair, chunk, entry);
	if (error == -ENOSPC) {
		repair_tell(repair, FSCK_NOTE, "metadata chunk %llu: no space for a replica", (unsigned long long)chunk);
		return 0;
	}
	if (!error)
		repair_tell(repair, FSCK_FIXED, "metadata chunk %llu: has a new replica at byte %llu", (unsigned long long)chunk,
			    (unsigned long long)entry->copy[1]);
	return error;
}

int repair_replicas(struct repair *repair, struct why *why)
{
	struct journal *journal = repair->fs->journal;
	uint64_t chunks = root_get(journal, ROOT_CHUNKS);
	int error = 0;

	if (!repair->options->write || repair->super.copies < 2)
		return 0;
	for (uint64_t chunk = 0; chunk < chunks && !error; chunk++) {
		struct chunk_entry entry;

		journal_read_begin(journal);
		error = salvage_entry(journal, chunk, &entry);
		journal_read_end(journal);
		if (!error && entry.state == FORMAT_CHUNK_LIVE && !entry.copy[1])
			error = replica_mend(repair, chunk, &entry);
	}
	return error ? why_set(why, error, "%s: replicas of metadata cannot be made: %s", media_path(repair->media), strerror(-error)) : 0;
}
