/* Records of one tree that other trees tell of. */
#include "fsck/records.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "journal/root.h"
#include "notify/ledger_copy.h"
#include "notify/span.h"

/* What is left in a transaction when it is committed: one more step of any kind fits. */
#define STEP_ROOM 32

static const struct {
	enum fsck_grade grade;
	const char *label;
} kinds[RECORD_KINDS] = {
	[RECORD_MAP_RESTORED] = {FSCK_FIXED, "files with mappings put back"},
	[RECORD_MAP_DROPPED] = {FSCK_FIXED, "mappings that are out of date removed"},
	[RECORD_OWNER] = {FSCK_FIXED, "owners of metadata areas corrected"},
	[RECORD_FREE] = {FSCK_FIXED, "runs of free space corrected"},
	[RECORD_NAME_RESTORED] = {FSCK_FIXED, "names put back"},
	[RECORD_NAME_DROPPED] = {FSCK_FIXED, "names that are out of date removed"},
	[RECORD_MARKER] = {FSCK_FIXED, "places of names corrected"},
	[RECORD_INODE_LOST] = {FSCK_LOSS, "inodes made anew"},
	[RECORD_INODE_DROPPED] = {FSCK_FIXED, "inodes of deleted files removed"},
	[RECORD_INODE] = {FSCK_FIXED, "inodes corrected"},
	[RECORD_ORPHAN] = {FSCK_FIXED, "orphans corrected"},
	[RECORD_LOST_FOUND] = {FSCK_FIXED, "inodes put into /lost+found"},
	[RECORD_XATTR] = {FSCK_FIXED, "records without an inode removed"},
	[RECORD_ATTRIBUTE] = {FSCK_LOSS, "attributes lost"},
	[RECORD_ACL] = {FSCK_FIXED, "ACLs corrected"},
	[RECORD_TARGET_LOST] = {FSCK_LOSS, "targets of symlinks lost"},
	[RECORD_LEDGER] = {FSCK_FIXED, "records of the ledger corrected"},
	[RECORD_QUARANTINE] = {FSCK_FIXED, "quarantined ranges corrected"},
	[RECORD_INTENT] = {FSCK_FIXED, "unfinished operations that make no sense removed"},
	[RECORD_INTENT_LOST] = {FSCK_LOSS, "unfinished operations lost"},
};

void records_tell(struct records *records, enum record_kind kind, const char *format, ...)
{
	char line[400];
	va_list list;

	if (records->told[kind]++ >= RECORDS_TOLD_MAX)
		return;
	va_start(list, format);
	vsnprintf(line, sizeof(line), format, list);
	va_end(list);
	repair_tell(records->repair, kinds[kind].grade, "%s", line);
}

/* The sum of those that were not told one by one; the counts of the report are those of all. */
static void records_tell_rest(struct records *records)
{
	for (unsigned kind = 0; kind < RECORD_KINDS; kind++) {
		struct fsck_report *report = records->repair->report;
		uint64_t more;

		if (records->told[kind] <= RECORDS_TOLD_MAX)
			continue;
		more = records->told[kind] - RECORDS_TOLD_MAX;
		repair_tell(records->repair, kinds[kind].grade, "%s: %llu more", kinds[kind].label, (unsigned long long)more);
		if (kinds[kind].grade == FSCK_LOSS)
			report->losses += more - 1;
		else
			report->fixed += more - 1;
	}
}

void *records_grow(void **list, size_t *count, size_t *capacity, size_t size)
{
	if (*count == *capacity) {
		size_t wanted = *capacity ? *capacity + *capacity / 2 : 64;
		void *grown = reallocarray(*list, wanted, size);

		if (!grown)
			return NULL;
		*list = grown;
		*capacity = wanted;
	}
	return (uint8_t *)*list + size * (*count)++;
}

/* --- changing ---------------------------------------------------------------------------------------------------------------------- */

static int records_may_change(struct records *records)
{
	if (!records->may_change)
		records->may_change = repair_ask(records->repair, "put back and correct records from what other trees say");
	return records->may_change ? 0 : -ECANCELED;
}

int records_commit(struct records *records)
{
	struct tx *tx = records->tx;

	records->tx = NULL;
	return tx ? tx_commit(tx, NULL) : 0;
}

int records_change(struct records *records)
{
	int error = records_may_change(records);

	if (!error && records->tx && tx_room(records->tx) < STEP_ROOM)
		error = records_commit(records);
	if (error || records->tx)
		return error;
	/* As long as free space may be wrong nothing is taken out of it. */
	if (records->is_free_true)
		return fs_tx_begin(records->fs, TX_RESERVE, &records->tx);
	return tx_begin(records->fs->journal, TX_RESERVE, &records->tx);
}

int records_insert(struct records *records, const struct btree *tree, const struct btree_key *key, const void *value, size_t length)
{
	int error = records_change(records);

	return error ? error : btree_insert(tree, records->tx, key, value, length);
}

int records_put(struct records *records, const struct btree *tree, const struct btree_key *key, const void *value, size_t length)
{
	int error = records_change(records);

	if (!error)
		error = btree_update(tree, records->tx, key, value, length);
	return error == -ENOENT ? btree_insert(tree, records->tx, key, value, length) : error;
}

int records_remove(struct records *records, const struct btree *tree, const struct btree_key *key)
{
	int error = records_change(records);

	if (!error)
		error = btree_remove(tree, records->tx, key);
	return error == -ENOENT ? 0 : error;
}

int records_put_inode(struct records *records, inum_t ino, const struct inode_record *record)
{
	const struct btree_key key = {{ino}};
	struct format_inode packed;

	format_inode_pack(&packed, record);
	return records_put(records, &records->fs->inodes, &key, &packed, sizeof(packed));
}

int records_set_counter(struct records *records, unsigned counter, uint64_t value)
{
	uint64_t stored;
	int error;

	records_read_begin(records);
	stored = root_get(records->fs->journal, counter);
	records_read_end(records);
	if (stored == value)
		return 0;
	error = records_change(records);
	return error ? error : root_set(records->tx, counter, value);
}

/* --- the phase ---------------------------------------------------------------------------------------------------------------------- */

struct plans {
	struct map_plan maps;
	struct name_plan names;
	struct ledger_plan ledger;
};

static int records_plan(struct records *records, struct plans *plans)
{
	int error = space_judge_free(records);

	if (!error)
		error = maps_plan(records, &plans->maps);
	if (!error)
		error = names_plan(records, &plans->names);
	return error ? error : ledger_plan(records, &plans->ledger);
}

/* Free space first, so that metadata may grow; and once more when everything that was out of date is gone. */
static int records_apply(struct records *records, struct plans *plans)
{
	int error = space_settle_free(records, &plans->maps.rmap_in);

	records->is_free_true = !error;
	if (!error)
		error = maps_apply(records, &plans->maps);
	if (!error)
		error = names_apply(records, &plans->names);
	if (!error)
		error = ledger_apply(records, &plans->ledger);
	if (!error)
		error = inodes_settle(records, &plans->names);
	if (!error)
		error = names_settle_markers(records);
	if (!error)
		error = dirs_connect(records);
	if (!error)
		error = intents_settle(records);
	if (!error)
		error = counts_settle(records);
	if (!error)
		error = xattrs_settle(records);
	if (!error)
		error = space_settle_quarantine(records);
	/* What has changed nothing cannot have freed anything. */
	return error || !records->may_change ? error : space_settle_free(records, NULL);
}

static int records_run(struct records *records)
{
	struct plans plans = {0};
	int error = journal_checkpoint(records->fs->journal);

	if (!error)
		error = records_plan(records, &plans);
	if (!error)
		error = records_apply(records, &plans);
	if (!error)
		error = records_commit(records);
	if (records->tx)
		tx_abort(records->tx);
	records->tx = NULL;
	map_plan_fini(&plans.maps);
	name_plan_fini(&plans.names);
	ledger_plan_fini(&plans.ledger);
	free(records->intents);
	return error;
}

int repair_records(struct repair *repair, struct why *why)
{
	struct fs *fs = repair->fs;
	struct records records = {.repair = repair, .fs = fs, .blocks = fs->super.size_bytes / BLOCK_BYTES};
	int error;

	/* The names of version 1 have no second witness. */
	if (!repair->options->write || fs->super.version < FORMAT_VERSION_TWICE_TOLD)
		return 0;
	journal_read_begin(fs->journal);
	repair_note_counters(repair);
	journal_read_end(fs->journal);
	btree_init(&records.badblocks, fs->journal, &badblocks_ops);
	btree_init(&records.lost, fs->journal, &lost_ops);
	btree_init(&records.ledger_copy, fs->journal, &ledger_copy_ops);
	error = records_run(&records);
	records_tell_rest(&records);
	if (error == -ECANCELED)
		return 0;
	return error ? why_set(why, error, "%s: records cannot be repaired: %s", media_path(repair->media), strerror(-error)) : 0;
}
