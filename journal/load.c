/* Reading a metadata block from its two copies. */
#include "journal/internal.h"

#include <errno.h>
#include <string.h>

#include "util/log.h"

void load_report(struct journal *journal, maddr_t address, unsigned copy, devoff_t offset, const char *reason)
{
	if (journal->bad_copy)
		journal->bad_copy(journal->bad_copy_arg, address, copy, offset, reason);
}

/* No block at home can be ahead of the log, once that has been read to its end. */
static bool sequence_is_possible(struct journal *journal, uint64_t sequence)
{
	return !journal->log_is_known || sequence < log_next_sequence(&journal->log);
}

static uint64_t block_sequence(const void *block)
{
	return le64_get(((const struct format_block_header *)block)->sequence);
}

int load_copy(struct journal *journal, maddr_t address, devoff_t offset, void *block, const char **field)
{
	int error = media_read(journal->media, offset, block, BLOCK_BYTES, NULL);

	if (error)
		return error;
	error = format_block_verify(block, journal->super.meta_uuid, address, field);
	if (error)
		return error;
	if (!sequence_is_possible(journal, block_sequence(block))) {
		*field = "sequence from the future";
		return -EUCLEAN;
	}
	return 0;
}

/* Cheap look at the other copy: 0 with its sequence, or why not. */
static int load_header(struct journal *journal, maddr_t address, devoff_t offset, uint64_t *sequence, const char **field)
{
	struct format_block_header header;
	int error = media_read(journal->media, offset, &header, sizeof(header), NULL);

	if (error)
		return error;
	error = format_block_header_verify(&header, journal->super.meta_uuid, address, field);
	if (error)
		return error;
	*sequence = le64_get(header.sequence);
	if (!sequence_is_possible(journal, *sequence)) {
		*field = "sequence from the future";
		return -EUCLEAN;
	}
	return 0;
}

struct load {
	maddr_t address;
	devoff_t offset[2];
	int error[2];
	uint64_t sequence[2];
	const char *field[2];
};

static void load_tell_lost(struct journal *journal, const struct load *load)
{
	if (atomic_exchange(&journal->lost_told, load->address + 1) == load->address + 1)
		return;
	log_error("metadata block %#llx: no whole copy: primary at %llu: %s; replica at %llu: %s",
		  (unsigned long long)load->address, (unsigned long long)load->offset[0],
		  load->error[0] == -EUCLEAN ? load->field[0] : "cannot be read", (unsigned long long)load->offset[1],
		  load->error[1] == -EUCLEAN ? load->field[1] : "cannot be read");
}

static void load_whole(struct journal *journal, struct load *load, unsigned copy, void *block)
{
	load->field[copy] = "checksum";
	load->error[copy] = load->offset[copy] ? load_copy(journal, load->address, load->offset[copy], block, &load->field[copy])
					       : -EIO;
	if (!load->error[copy])
		load->sequence[copy] = block_sequence(block);
}

/* What to say of a copy that is not the one used. Poison has been reported by media/ already. */
static void load_tell_bad(struct journal *journal, const struct load *load, unsigned used)
{
	unsigned other = !used;

	if (!load->offset[other])
		return;
	if (load->error[other] == -EUCLEAN)
		load_report(journal, load->address, other, load->offset[other], load->field[other]);
	else if (!load->error[other] && load->sequence[other] < load->sequence[used])
		load_report(journal, load->address, other, load->offset[other], "older sequence");
}

static bool load_is_half(const struct load *load)
{
	return load->error[0] || load->error[1] || load->sequence[0] != load->sequence[1];
}

/*
 * The primary is whole; is the replica newer? If it only says so, its header lies. What is in the log may have been interrupted while its replica was
 * stored: of that the header is not enough, for the next write-back of the primary relies on a replica that is not torn.
 */
static unsigned load_choose(struct journal *journal, struct load *load, struct cache_buf *cb)
{
	uint8_t other[BLOCK_BYTES] __attribute__((aligned(64)));

	load->error[1] = -EIO;
	if (load->offset[1])
		load->error[1] = load_header(journal, load->address, load->offset[1], &load->sequence[1], &load->field[1]);
	if (load->error[1] || (load->sequence[1] <= load->sequence[0] && !journal->recovers))
		return 0;
	load_whole(journal, load, 1, other);
	if (load->error[1] || load->sequence[1] <= load->sequence[0])
		return 0;
	memcpy(cb->block, other, BLOCK_BYTES);
	return 1;
}

int load_block(struct journal *journal, struct cache_buf *cb)
{
	struct load load = { .address = cb->buf.address };
	unsigned used;
	int error = chunk_locate(journal, cb->buf.address, load.offset);

	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	load_whole(journal, &load, 0, cb->block);
	if (load.error[0]) {
		load_whole(journal, &load, 1, cb->block);
		used = 1;
	} else {
		used = load_choose(journal, &load, cb);
	}
	if (load.error[used]) {
		load_tell_lost(journal, &load);
		if (load.error[0] == -EUCLEAN) /* of poison media/ tells by itself */
			load_report(journal, cb->buf.address, 0, load.offset[0], load.field[0]);
		return load.error[0] == -EUCLEAN || (load.error[1] == -EUCLEAN && load.offset[1]) ? -EUCLEAN : -EIO;
	}
	load_tell_bad(journal, &load, used);
	cb->half = load.offset[1] && load_is_half(&load);
	cb->sequence = load.sequence[used];
	if (cb->half && journal->recovers) /* nobody hears the report yet: the checkpoint that follows makes it whole */
		cache_set_dirty(cb);
	return 0;
}
