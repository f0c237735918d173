/*
 * The journal: replayed; what cannot be is dropped, saying so. It is opened without writing first, so that everything is known before
 * anybody is asked.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fsck/internal.h"
#include "fsck/table.h"

struct opening {
	struct table_state table;
	struct journal_salvage salvage;
};

static int open_journal(struct repair *repair, struct opening *opening, bool readonly, struct why *why)
{
	struct journal_options options = {.readonly = readonly, .salvage = &opening->salvage};

	free(opening->salvage.dropped_blocks);
	*opening = (struct opening){
		.table = {.repair = repair, .quiet = !readonly},
		.salvage = {.mend = table_mend, .arg = &opening->table},
	};
	return journal_open(repair->media, &repair->super, &options, why, &repair->journal);
}

static void tell_heads(struct repair *repair, const struct journal_salvage *salvage)
{
	if (salvage->heads_lost)
		repair_tell(repair, FSCK_ERROR, "the journal's head is lost or out of date in both copies: its records say where it begins");
	else if (salvage->heads_bad)
		repair_tell(repair, FSCK_ERROR, "the journal's head is damaged in copy %u", salvage->heads_bad >> 1);
}

static bool may_write(struct repair *repair, const struct opening *opening)
{
	const struct journal_salvage *salvage = &opening->salvage;
	const struct table_state *table = &opening->table;

	if (salvage->hole || salvage->heads_lost)
		return repair_ask(repair, "Replay what the journal still has, and drop the rest");
	if (table->root_lost || table->root_stale || table->blocks_lost || table->entries_lost || table->found)
		return repair_ask(repair, "Make root block and chunk table anew");
	if (salvage->heads_bad)
		return repair_ask_safe(repair, "Write the journal's head anew");
	repair->report->changed = true;
	return true;
}

static int compare_addresses(const void *a, const void *b)
{
	const maddr_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static const char *block_name(struct repair *repair, maddr_t address)
{
	const struct format_block_header *header;
	const char *name = "no longer known";
	struct buf *buf;

	if (salvage_get(repair->journal, address, &buf))
		return name;
	header = (const struct format_block_header *)buf->data;
	name = format_block_name(header->role, header->tree);
	buf_put(buf);
	return name;
}

/* By kind of block; names are static strings. */
static void tell_dropped(struct repair *repair, const struct journal_salvage *salvage)
{
	maddr_t *blocks = salvage->dropped_blocks;
	struct {
		const char *name;
		uint64_t count;
	} kinds[32] = {{0}};

	if (salvage->count_dropped_blocks)
		qsort(blocks, salvage->count_dropped_blocks, sizeof(*blocks), compare_addresses);
	for (size_t i = 0; i < salvage->count_dropped_blocks; i++) {
		const char *name = block_name(repair, blocks[i]);
		unsigned k = 0;

		if (i && blocks[i] == blocks[i - 1])
			continue;
		while (kinds[k].name && strcmp(kinds[k].name, name) && k + 1 < ARRAY_SIZE(kinds))
			k++;
		kinds[k].name = name;
		kinds[k].count++;
	}
	for (unsigned k = 0; kinds[k].name && k < ARRAY_SIZE(kinds); k++)
		repair_tell(repair, FSCK_NOTE, "behind the hole, changed: %llu blocks, %s", (unsigned long long)kinds[k].count,
			    kinds[k].name);
}

static void tell_found(struct repair *repair, const struct opening *opening)
{
	const struct journal_salvage *salvage = &opening->salvage;
	const struct journal_recovery *recovery = journal_recovery(repair->journal);

	tell_heads(repair, salvage);
	if (recovery->records)
		repair_tell(repair, FSCK_NOTE, "the journal has %llu transactions to replay", (unsigned long long)recovery->records);
	if (salvage->hole)
		repair_tell(repair, FSCK_ERROR, "the journal has a hole: %llu transactions behind it cannot be replayed",
			    (unsigned long long)salvage->dropped);
	tell_dropped(repair, salvage);
	if (recovery->lost)
		repair_tell(repair, FSCK_ERROR, "the journal has changes to %llu metadata blocks of which no copy is whole",
			    (unsigned long long)recovery->lost);
}

static void tell_fixed(struct repair *repair, const struct opening *opening)
{
	const struct journal_salvage *salvage = &opening->salvage;

	if (salvage->heads_bad || salvage->heads_lost)
		repair_tell(repair, FSCK_FIXED, "the journal's heads are written anew");
	if (!salvage->hole)
		return;
	repair_tell(repair, FSCK_FIXED, "the journal ends before its hole now");
	repair_tell(repair, FSCK_LOSS, "what %llu transactions behind the journal's hole had changed",
		    (unsigned long long)salvage->dropped);
}

/* The first time, without writing: everything is told. */
static int journal_look(struct repair *repair, struct opening *opening, struct why *why)
{
	int error = open_journal(repair, opening, true, why);

	if (error)
		return error;
	tell_found(repair, opening);
	repair->root_was_lost = opening->table.root_lost || opening->table.root_stale;
	repair->is_suspect = repair->root_was_lost;
	repair->table_was_lost = opening->table.blocks_lost || opening->table.entries_lost || opening->table.found;
	return opening->table.found ? 0 : repair_tell_copies(repair);
}

static int journal_write(struct repair *repair, struct opening *opening, struct why *why)
{
	int error;

	journal_close(repair->journal);
	repair->journal = NULL;
	error = open_journal(repair, opening, false, why);
	if (error)
		return error;
	tell_fixed(repair, opening);
	if (repair->root_was_lost || repair->table_was_lost)
		repair_tell(repair, FSCK_FIXED, "root block and chunk table are made anew");
	return 0;
}

int repair_journal(struct repair *repair, struct why *why)
{
	struct opening opening = {.salvage = {.dropped_blocks = NULL}};
	int error = journal_look(repair, &opening, why);

	if (!error && repair->options->write && may_write(repair, &opening))
		error = journal_write(repair, &opening, why);
	free(opening.salvage.dropped_blocks);
	return error;
}
