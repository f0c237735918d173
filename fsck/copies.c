/* Both copies of every block in use: read whole, verified, compared; what is bad is written anew from the other. */
#include <errno.h>
#include <string.h>

#include "fsck/internal.h"
#include "journal/chunk.h"
#include "journal/root.h"
#include "journal/salvage.h"

typedef int block_fn(struct repair *repair, struct journal *journal, maddr_t address);

static int chunk_walk(struct repair *repair, struct journal *journal, uint64_t chunk, block_fn *visit)
{
	struct chunk_entry entry;
	int error = 0;

	if (salvage_entry(journal, chunk, &entry) || entry.state != FORMAT_CHUNK_LIVE)
		return 0;
	for (unsigned i = 0; i < chunk_blocks(entry.shift) && !error; i++)
		if (entry.map[i / 64] >> i % 64 & 1)
			error = visit(repair, journal, maddr_of_chunk(chunk, i));
	return error;
}

static int blocks_walk(struct repair *repair, struct journal *journal, block_fn *visit)
{
	uint64_t chunks = root_get(journal, ROOT_CHUNKS);
	uint64_t tables = (chunks + CHUNK_ENTRIES_PER_BLOCK - 1) / CHUNK_ENTRIES_PER_BLOCK;
	int error = visit(repair, journal, MADDR_ROOT);

	for (uint64_t i = 0; i < tables && !error; i++)
		error = visit(repair, journal, MADDR_TABLE + i);
	for (uint64_t c = 0; c < chunks && !error; c++) {
		repair_progress(repair, "copies", c, chunks);
		error = chunk_walk(repair, journal, c, visit);
	}
	return error;
}

struct copies {
	devoff_t offset[2];
	const char *fault[2]; /* NULL: whole */
	uint8_t block[2][BLOCK_BYTES] __attribute__((aligned(64)));
};

static uint64_t block_sequence(const uint8_t *block)
{
	return le64_get(((const struct format_block_header *)block)->sequence);
}

static void copy_read(struct repair *repair, maddr_t address, struct copies *copies, unsigned k)
{
	const char *field;

	copies->fault[k] = NULL;
	if (media_read(repair->media, copies->offset[k], copies->block[k], BLOCK_BYTES, NULL))
		copies->fault[k] = "cannot be read";
	else if (format_block_verify(copies->block[k], repair->super.meta_uuid, address, &field))
		copies->fault[k] = "is damaged";
}

/* Which copies are bad: bit k. Both: somebody else's matter. */
static unsigned copies_compare(struct repair *repair, struct journal *journal, maddr_t address, struct copies *copies)
{
	if (chunk_map(journal, address, copies->offset) || !copies->offset[1])
		return 0;
	copy_read(repair, address, copies, 0);
	copy_read(repair, address, copies, 1);
	if (copies->fault[0] || copies->fault[1])
		return (copies->fault[0] ? 1u : 0) | (copies->fault[1] ? 2u : 0);
	if (!memcmp(copies->block[0], copies->block[1], BLOCK_BYTES))
		return 0;
	if (block_sequence(copies->block[0]) < block_sequence(copies->block[1])) {
		copies->fault[0] = "is older than the other";
		return 1;
	}
	copies->fault[1] = "is older than the other";
	return 2;
}

static int copies_tell(struct repair *repair, struct journal *journal, maddr_t address)
{
	struct copies copies;
	unsigned bad = copies_compare(repair, journal, address, &copies);

	if (!bad || bad == 3)
		return 0;
	if (repair_is_recorded(repair, copies.offset[bad - 1], BLOCK_BYTES)) {
		repair_tell(repair, FSCK_NOTE, "metadata block %#llx: its %s at %llu %s: memory that is known to be bad, the other copy serves",
			    (unsigned long long)address, bad == 1 ? "primary" : "replica", (unsigned long long)copies.offset[bad - 1], copies.fault[bad - 1]);
		return 0;
	}
	repair_tell(repair, FSCK_ERROR, "metadata block %#llx: its %s at %llu %s", (unsigned long long)address,
		    bad == 1 ? "primary" : "replica", (unsigned long long)copies.offset[bad - 1], copies.fault[bad - 1]);
	repair->bad_copies++;
	return 0;
}

/* Before anything is written: a block with changes in the journal may have one torn copy, which is no error. */
int repair_tell_copies(struct repair *repair)
{
	if (journal_recovery(repair->journal)->records)
		return 0;
	repair->copies_are_told = true;
	return blocks_walk(repair, repair->journal, copies_tell);
}

static int copies_mend(struct repair *repair, struct journal *journal, maddr_t address)
{
	struct copies copies;
	unsigned bad, repaired;
	int error;

	journal_read_begin(journal);
	bad = copies_compare(repair, journal, address, &copies);
	journal_read_end(journal);
	if (!bad)
		return 0;
	if (!repair->copies_are_told)
		copies_tell(repair, journal, address);
	error = journal_repair(journal, address, &repaired);
	if (!error)
		return 0;
	repair->count_unmended++;
	repair_tell(repair, FSCK_NOTE, "metadata block %#llx: its bad copy cannot be written anew: %s", (unsigned long long)address,
		    error == -ENOTSUP ? "the medium cannot clear poison" : strerror(-error));
	return error == -EIO || error == -ENOTSUP || error == -EUCLEAN ? 0 : error;
}

int repair_copies(struct repair *repair, struct why *why)
{
	struct journal *journal = repair->fs->journal;
	int error;

	if (journal_is_readonly(journal) || (repair->bad_copies && !repair_ask_safe(repair, "Write bad copies of metadata blocks anew")))
		return 0;
	error = journal_checkpoint(journal);
	if (!error)
		error = blocks_walk(repair, journal, copies_mend);
	if (error)
		return why_set(why, error, "%s: the copies of metadata cannot be written: %s", media_path(repair->media), strerror(-error));
	if (repair->bad_copies > repair->count_unmended)
		repair_tell(repair, FSCK_FIXED, "metadata blocks with a bad copy that have two good ones again: %llu",
			    (unsigned long long)(repair->bad_copies - repair->count_unmended));
	return 0;
}
