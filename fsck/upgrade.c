/*
 * Older formats become this one. Version 1 had no values in parents and no ledger_copy: both are written from what is there, then the superblock says
 * so. Cut in between it is version 1 still, with some of the work done; run again, it does the rest. Version 2 had no records that count without the one before:
 * what lies in its journal is at home by now. Version 3 had exact aggregates in all trees: they are rounded. Cut in between, the next run finds them wrong, and makes inner nodes
 * anew before it comes here.
 */
#include "fsck/internal.h"

#include <errno.h>
#include <string.h>

#include "notify/ledger_copy.h"
#include "notify/span.h"

#define UPGRADE_BATCH 32
#define UPGRADE_ROOM 24 /* blocks that one record may join */

struct upgrade_batch {
	struct btree_record records[UPGRADE_BATCH];
	unsigned count;
};

static int batch_take(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct upgrade_batch *batch = arg;
	struct btree_record *record = &batch->records[batch->count++];

	record->key = *key;
	record->length = (uint16_t)length;
	memcpy(record->value, value, length);
	return batch->count == UPGRADE_BATCH;
}

/* Writes one record's second place. */
typedef int upgrade_fn(struct fs *fs, const struct btree *from, struct tx *tx, const struct btree_record *record);

static int upgrade_parent(struct fs *fs, const struct btree *from, struct tx *tx, const struct btree_record *record)
{
	struct dirent_record entry;
	struct btree_key key;
	int error = format_dirent_unpack(&entry, record->value, record->length);

	if (error || !entry.ino) /* a marker of collisions is nobody's name */
		return error;
	key = (struct btree_key){{entry.ino, record->key.word[0], record->key.word[1]}};
	error = btree_update(&fs->parents, tx, &key, record->value, record->length);
	return error == -ENOENT ? btree_insert(&fs->parents, tx, &key, record->value, record->length) : error;
}

static int upgrade_ledger(struct fs *fs, const struct btree *from, struct tx *tx, const struct btree_record *record)
{
	return ledger_copy_put(from, tx, &record->key, record->value, record->length);
}

/* As many as one transaction takes; at least one. *done: how many. */
static int upgrade_some(struct fs *fs, const struct btree *from, upgrade_fn *write, const struct upgrade_batch *batch, unsigned *done)
{
	unsigned first = *done;
	struct tx *tx;
	int error = fs_tx_begin(fs, TX_RESERVE, &tx);

	if (error)
		return error;
	while (!error && *done < batch->count && (*done == first || tx_room(tx) >= UPGRADE_ROOM)) {
		error = write(fs, from, tx, &batch->records[*done]);
		(*done)++;
	}
	return tx_end(tx, error, NULL);
}

static struct btree_key key_after(struct btree_key key, unsigned words)
{
	for (unsigned i = words; i-- > 0;)
		if (++key.word[i])
			break;
	return key;
}

static int upgrade_tree(struct fs *fs, const struct btree *from, upgrade_fn *write)
{
	struct btree_key at = {{0}}, last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	struct upgrade_batch batch;
	int error = 0;

	for (unsigned i = from->ops->key_words; i < 3; i++)
		last.word[i] = 0;
	do {
		unsigned done = 0;

		batch.count = 0;
		journal_read_begin(fs->journal);
		error = btree_walk(from, &at, &last, batch_take, &batch);
		journal_read_end(fs->journal);
		error = error < 0 ? error : 0;
		while (!error && done < batch.count)
			error = upgrade_some(fs, from, write, &batch, &done);
		if (batch.count)
			at = key_after(batch.records[batch.count - 1].key, from->ops->key_words);
	} while (!error && batch.count == UPGRADE_BATCH);
	return error;
}

static int upgrade_trees(struct fs *fs)
{
	struct btree badblocks, lost;
	int error = upgrade_tree(fs, &fs->dirents, upgrade_parent);

	btree_init(&badblocks, fs->journal, &badblocks_ops);
	btree_init(&lost, fs->journal, &lost_ops);
	if (!error)
		error = upgrade_tree(fs, &badblocks, upgrade_ledger);
	if (!error)
		error = upgrade_tree(fs, &lost, upgrade_ledger);
	if (!error)
		error = upgrade_tree(fs, &fs->damaged, upgrade_ledger);
	return error ? error : journal_sync(fs->journal);
}

/* As many leaves as one transaction takes; at least one. */
static int settle_some(struct fs *fs, const struct btree *tree, struct btree_key *from, bool *ended)
{
	struct tx *tx;
	int error = fs_tx_begin(fs, TX_RESERVE, &tx);

	if (error)
		return error;
	do
		error = btree_settle_leaf(tree, tx, from, ended);
	while (!error && !*ended && tx_room(tx) >= UPGRADE_ROOM);
	return tx_end(tx, error, NULL);
}

static int settle_tree(struct fs *fs, const struct btree *tree)
{
	struct btree_key from = {{0}};
	bool ended = false;
	int error = 0;

	while (!error && !ended)
		error = settle_some(fs, tree, &from, &ended);
	return error;
}

static int upgrade_aggregates(struct fs *fs)
{
	int error;

	journal_set_version(fs->journal, FORMAT_VERSION);
	error = settle_tree(fs, &fs->rmap.tree);
	if (!error)
		error = settle_tree(fs, alloc_tree(fs->alloc));
	return error ? error : journal_sync(fs->journal);
}

static int upgrade_super(struct fs *fs, struct why *why)
{
	struct super super = *fs_super(fs);
	int error;

	super.version = FORMAT_VERSION;
	error = super_update(fs, &super, why);
	if (!error)
		fs->super.version = FORMAT_VERSION; /* nobody else has it mounted */
	return error;
}

int repair_upgrade(struct repair *repair, struct why *why)
{
	struct fs *fs = repair->fs;
	uint32_t version = fs_super(fs)->version;
	int error;

	if (version == FORMAT_VERSION)
		return 0;
	if (!repair_ask(repair, "make it the newest format version"))
		return 0;
	error = version < FORMAT_VERSION_TWICE_TOLD ? upgrade_trees(fs) : 0;
	if (!error)
		error = upgrade_aggregates(fs);
	if (error)
		return why_set(why, error, "%s: cannot be made format version %u: %s", media_path(repair->media), FORMAT_VERSION,
			       strerror(-error));
	error = upgrade_super(fs, why);
	if (!error)
		repair_tell(repair, FSCK_FIXED, "format version %u has become version %u", version, FORMAT_VERSION);
	return error;
}
