/* What lies at fixed places, and the chunk table. */
#include "fs/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "format/poison_format.h"
#include "journal/chunk.h"
#include "journal/home.h"
#include "journal/root.h"

/* --- superblocks -------------------------------------------------------------------------------------------------------------- */

static bool range_is_known_bad(struct check *check, devoff_t offset, uint64_t length)
{
	struct media *media = check->fs->media;
	uint64_t bad_length;
	devoff_t bad;

	return media_bad_any(media) && media_bad_find(media, offset, length, &bad, &bad_length);
}

/* What a crash in the middle of an update leaves; the next writable mount completes it. */
static bool super_is_older(const struct super *found, const struct super *now)
{
	return !memcmp(found->meta_uuid, now->meta_uuid, FORMAT_UUID_BYTES) && found->update < now->update;
}

static void check_slot(struct check *check, unsigned slot, const struct format_super *wanted)
{
	devoff_t offset = super_slot_offset(slot);
	struct format_super raw;
	struct super found;
	struct why why;

	if (range_is_known_bad(check, offset, sizeof(raw)))
		return;
	if (media_read(check->fs->media, offset, &raw, sizeof(raw), NULL))
		check_finding(check, "superblock copy in slot %u: cannot be read", slot);
	else if (!memcmp(&raw, wanted, sizeof(raw)))
		return;
	else if (format_super_unpack(&found, &raw, &why))
		check_finding(check, "superblock copy in slot %u: %.300s", slot, why.text);
	else if (!check->fs->options.readonly || !super_is_older(&found, fs_super(check->fs)))
		check_finding(check, "superblock copy in slot %u: is not the one in use", slot);
}

void check_supers(struct check *check)
{
	struct fs *fs = check->fs;
	struct format_super wanted;

	pthread_mutex_lock(&fs->super_lock); /* no update is half done */
	format_super_pack(&wanted, fs_super(fs));
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		if ((fs_super(fs)->slots >> slot & 1) && super_slot_offset(slot) + BLOCK_BYTES <= media_size(fs->media))
			check_slot(check, slot, &wanted);
	pthread_mutex_unlock(&fs->super_lock);
}

/* --- journal heads, poison log ------------------------------------------------------------------------------------------------ */

/* A read-only mount leaves what a crash left: only a log with nothing to replay must have both heads as they should be. */
static void check_heads(struct check *check)
{
	struct journal *journal = check->fs->journal;
	const struct journal_recovery *recovery = journal_recovery(journal);
	struct home heads;

	if (journal_is_readonly(journal) && (recovery->records || recovery->discarded || recovery->hole || recovery->lost))
		return;
	journal_heads_check(journal, &heads);
	for (unsigned k = 0; k < 2; k++)
		if (check_copy_fault(&heads.copy[k]))
			check_finding(check, "journal: head of copy %u: %s", k, check_copy_fault(&heads.copy[k]));
}

static void check_poison_log(struct check *check)
{
	const struct area *area = &check->fs->super.areas[AREA_POISON_LOG];
	uint8_t block[BLOCK_BYTES];

	for (unsigned k = 0; k < 2; k++)
		for (uint64_t at = 0; area->copy[k] && at < area->length_bytes; at += BLOCK_BYTES)
			if (!range_is_known_bad(check, area->copy[k] + at, BLOCK_BYTES) &&
			    media_read(check->fs->media, area->copy[k] + at, block, BLOCK_BYTES, NULL))
				check_finding(check, "poison log: copy %u cannot be read at %llu", k, (unsigned long long)at);
}

/* --- root block --------------------------------------------------------------------------------------------------------------- */

static void check_root(struct check *check)
{
	struct journal *journal = check->fs->journal;
	unsigned from = check->fs->super.version < 2 ? FORMAT_TREE_LEDGER_COPY : FORMAT_TREE_COUNT;
	maddr_t address;
	unsigned level;

	check_home(check, MADDR_ROOT, "root");
	for (unsigned tree = 0; tree < 16; tree++) {
		if (tree != FORMAT_TREE_NONE && tree != FORMAT_TREE_CSUMS && tree < from)
			continue;
		root_tree_get(journal, tree, &address, &level);
		if (address || level)
			check_finding(check, "root block: names a tree %u, which this format does not have", tree);
	}
}

/* --- chunks ------------------------------------------------------------------------------------------------------------------- */

struct check_chunks {
	struct check *check;
	uint64_t changes; /* when counting began */
	uint64_t chunks, blocks, free_blocks, freeing;
};

static void check_chunk_header(struct check *check, uint64_t number, const struct chunk_entry *entry)
{
	const struct format_chunk_header *header;
	struct buf *buf;
	int error = buf_get(check->fs->journal, maddr_of_chunk(number, 0), FORMAT_ROLE_CHUNK_HEADER, FORMAT_TREE_NONE, &buf);

	check_home(check, maddr_of_chunk(number, 0), "chunks");
	if (error) {
		check_finding(check, "metadata chunk %llu: its header cannot be read: %s", (unsigned long long)number,
			      strerror(-error));
		return;
	}
	header = (const struct format_chunk_header *)buf->data;
	if (le64_get(header->chunk) != number || header->shift != entry->shift ||
	    le32_get(header->generation) != entry->generation || le64_get(header->copy[0]) != entry->copy[0] ||
	    le64_get(header->copy[1]) != entry->copy[1])
		check_finding(check, "metadata chunk %llu: its header and the chunk table differ", (unsigned long long)number);
	buf_put(buf);
}

static void check_chunk(struct check_chunks *chunks, uint64_t number, const struct chunk_entry *entry)
{
	struct check *check = chunks->check;
	char what[64];

	chunks->chunks++;
	chunks->blocks += chunk_blocks(entry->shift);
	chunks->free_blocks += entry->free_blocks;
	if ((check->fs->super.copies == 2) != (entry->copy[1] != 0))
		check_finding(check, "metadata chunk %llu: has %u copies, metadata %u", (unsigned long long)number,
			      entry->copy[1] ? 2 : 1, check->fs->super.copies);
	for (unsigned copy = 0; copy < 2; copy++) {
		if (!entry->copy[copy])
			continue;
		snprintf(what, sizeof(what), "metadata chunk %llu, copy %u", (unsigned long long)number, copy);
		check_owned(check, OWNER(OWNER_CHUNK), (number * 2 + copy) * CHUNK_SLOTS, entry->copy[copy],
			    1ull << entry->shift, what);
	}
	check_chunk_header(check, number, entry);
}

static void check_chunk_entry(struct check_chunks *chunks, uint64_t number)
{
	struct journal *journal = chunks->check->fs->journal;
	struct chunk_entry entry;
	uint64_t freeing = number;
	int error = chunk_entry(journal, number, &entry);

	check_spend(chunks->check, 4 * CHECK_NODE_UNITS);
	if (number % CHUNK_ENTRIES_PER_BLOCK == 0)
		check_home(chunks->check, MADDR_TABLE + number / CHUNK_ENTRIES_PER_BLOCK, "chunks");
	if (!error)
		check_chunk(chunks, number, &entry);
	else if (error != -ENOENT)
		check_finding(chunks->check, "chunk table: entry %llu cannot be had: %s", (unsigned long long)number,
			      strerror(-error));
	else if (root_get(journal, ROOT_CHUNKS_FREEING) && !chunk_next_freeing(journal, &freeing, &entry) && freeing == number)
		chunks->freeing++;
}

/* How many blocks trees use is compared when those have been met, by check_leaks(). */
static void check_chunks(struct check *check)
{
	struct journal *journal = check->fs->journal;
	struct check_chunks chunks = {.check = check, .changes = check_changes(check)};
	uint64_t number;

	for (number = 0; number < root_get(journal, ROOT_CHUNKS) && !check_is_over(check); number++) {
		check_chunk_entry(&chunks, number);
		if (check_is_due(check))
			check_pause(check);
	}
	check_counter(check, "metadata blocks", root_get(journal, ROOT_META_BLOCKS), chunks.blocks, chunks.changes);
	check_counter(check, "free metadata blocks", root_get(journal, ROOT_META_FREE), chunks.free_blocks, chunks.changes);
	check_counter(check, "chunks being freed", root_get(journal, ROOT_CHUNKS_FREEING), chunks.freeing, chunks.changes);
	check->totals.metadata_blocks += chunks.chunks;
}

/* --- ranges of the device that must have their owner -------------------------------------------------------------------------- */

static void check_areas(struct check *check)
{
	static const struct { enum super_area area; enum special_owner_kind kind; } areas[] = {
		{AREA_JOURNAL, OWNER_JOURNAL}, {AREA_POISON_LOG, OWNER_POISON_LOG}, {AREA_FIXED, OWNER_FIXED}};
	const struct super *super = &check->fs->super;

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		if (super_slot_offset(slot) + BLOCK_BYTES <= super->size_bytes)
			check_owned(check, OWNER(OWNER_SUPERBLOCK), slot, super_slot_offset(slot), BLOCK_BYTES, "superblock slot");
	for (unsigned i = 0; i < ARRAY_SIZE(areas); i++) {
		const struct area *area = &super->areas[areas[i].area];

		for (uint64_t k = 0; k < 2; k++)
			if (area->copy[k])
				check_owned(check, OWNER(areas[i].kind), k << 32, area->copy[k], area->length_bytes,
					    format_area_name(areas[i].area));
	}
}

void check_fixed(struct check *check)
{
	check_heads(check);
	check_poison_log(check);
	check_root(check);
	check_areas(check);
	check_chunks(check);
}
