/* The counters of the root block from the trees. Numbers that are given out once stay above every one that is seen anywhere. */
#include <errno.h>
#include <string.h>

#include "fsck/internal.h"
#include "journal/root.h"
#include "journal/salvage.h"
#include "notify/ledger.h"
#include "rmap/mapping.h"

struct counters {
	uint64_t value[ROOT_COUNTERS];
	bool is_set[ROOT_COUNTERS];
};

static void raise_above(struct counters *counters, enum root_counter counter, uint64_t seen)
{
	counters->value[counter] = max_u64(counters->value[counter], seen + 1);
}

static void see_inode(struct counters *counters, inum_t ino)
{
	if (owner_is_inode(ino))
		raise_above(counters, ROOT_NEXT_INO, ino);
}

static int count_inode(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct counters *counters = arg;
	struct inode_record record;

	counters->value[ROOT_INODES]++;
	see_inode(counters, key->word[0]);
	if (!format_inode_unpack(&record, value, length))
		raise_above(counters, ROOT_NEXT_CAUSE, record.cause_id);
	return 0;
}

static int count_dirent(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct dirent_record record;

	see_inode(arg, key->word[0]);
	if (!format_dirent_unpack(&record, value, length))
		see_inode(arg, record.ino);
	return 0;
}

static int count_parent(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	see_inode(arg, key->word[0]);
	see_inode(arg, key->word[1]);
	return 0;
}

static int count_owner(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	see_inode(arg, key->word[0]);
	return 0;
}

static int count_rmap(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct counters *counters = arg;
	struct rmap_record record;

	if (rmap_unpack(&record, key, value, length))
		return 0;
	see_inode(counters, record.owner);
	if (record.owner == OWNER(OWNER_QUARANTINE))
		counters->value[ROOT_QUARANTINED_BLOCKS] += record.count;
	return 0;
}

static int count_free(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct counters *counters = arg;
	uint64_t count;

	if (!format_free_unpack(&count, value, length))
		counters->value[ROOT_FREE_BLOCKS] += count;
	return 0;
}

static int count_orphan(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct counters *counters = arg;

	counters->value[ROOT_ORPHANS]++;
	see_inode(counters, key->word[0]);
	return 0;
}

static int count_intent(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct counters *counters = arg;

	counters->value[ROOT_INTENTS]++;
	raise_above(counters, ROOT_NEXT_INTENT, key->word[0]);
	return 0;
}

static int count_badblock(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct counters *counters = arg;
	struct badblock_record record;

	if (format_badblock_unpack(&record, value, length))
		return 0;
	counters->value[ROOT_BADBLOCK_BYTES] += record.length_bytes;
	raise_above(counters, ROOT_NEXT_CAUSE, record.cause_id);
	return 0;
}

static int count_lost(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct counters *counters = arg;
	struct lost_record record;

	if (format_lost_unpack(&record, value, length))
		return 0;
	counters->value[ROOT_LOST_BYTES] += record.length_bytes;
	raise_above(counters, ROOT_NEXT_CAUSE, record.cause_id);
	return 0;
}

static int count_damaged(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct damaged_record record;

	see_inode(arg, key->word[0]);
	if (!format_damaged_unpack(&record, value, length))
		raise_above(arg, ROOT_NEXT_CAUSE, record.cause_id);
	return 0;
}

static int count_trees(struct fs *fs, struct counters *counters)
{
	const struct btree_key first = {{0}}, last = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	const struct {
		const struct btree *tree;
		btree_visit_fn *visit;
	} walks[] = {
		{&fs->inodes, count_inode},	 {&fs->dirents, count_dirent},	  {&fs->parents, count_parent},
		{&fs->extents, count_owner},	 {&fs->xattrs, count_owner},	  {&fs->rmap.tree, count_rmap},
		{alloc_tree(fs->alloc), count_free}, {&fs->orphans, count_orphan}, {&fs->intents, count_intent},
		{ledger_badblocks_tree(fs->notify), count_badblock}, {ledger_lost_tree(fs->notify), count_lost},
		{&fs->damaged, count_damaged},
	};
	int error = 0;

	for (size_t i = 0; i < ARRAY_SIZE(walks) && !error; i++)
		error = btree_walk(walks[i].tree, &first, &last, walks[i].visit, counters);
	return error;
}

/* Numbers are never given out twice, even where what had the last one is gone. */
static void counters_begin(struct fs *fs, struct counters *counters)
{
	static const enum root_counter counted[] = {
		ROOT_INODES,  ROOT_FREE_BLOCKS,	   ROOT_QUARANTINED_BLOCKS, ROOT_ORPHANS,
		ROOT_INTENTS, ROOT_BADBLOCK_BYTES, ROOT_LOST_BYTES,
	};
	static const enum root_counter raised[] = {ROOT_NEXT_INO, ROOT_NEXT_INTENT, ROOT_NEXT_CAUSE};

	memset(counters, 0, sizeof(*counters));
	for (size_t i = 0; i < ARRAY_SIZE(counted); i++)
		counters->is_set[counted[i]] = true;
	for (size_t i = 0; i < ARRAY_SIZE(raised); i++) {
		counters->is_set[raised[i]] = true;
		counters->value[raised[i]] = max_u64(1, root_get(fs->journal, raised[i]));
	}
	/* The records phase makes free space of all that nobody owns: a resize that was cut ends here. */
	if (root_get(fs->journal, ROOT_SIZE_BLOCKS)) {
		counters->is_set[ROOT_SIZE_BLOCKS] = true;
		counters->value[ROOT_SIZE_BLOCKS] = fs_super(fs)->size_bytes / BLOCK_BYTES;
	}
	counters->is_set[ROOT_FLAGS] = true;
	counters->value[ROOT_FLAGS] = root_get(fs->journal, ROOT_FLAGS) & ~(uint64_t)ROOT_FLAG_METADATA_LOST;
}

static unsigned counters_wrong(struct fs *fs, const struct counters *counters)
{
	unsigned wrong = 0;

	for (unsigned i = 0; i < ROOT_COUNTERS; i++)
		wrong += counters->is_set[i] && root_get(fs->journal, i) != counters->value[i];
	return wrong;
}

static int counters_store(struct fs *fs, const struct counters *counters)
{
	struct tx *tx;
	int error = tx_begin(fs->journal, TX_RESERVE, &tx);

	if (error)
		return error;
	for (unsigned i = 0; i < ROOT_COUNTERS && !error; i++)
		if (counters->is_set[i])
			error = root_set(tx, i, counters->value[i]);
	if (!error)
		error = salvage_count_chunks(tx);
	return tx_end(tx, error, NULL);
}

/* The first time: later, what was corrected is no evidence any more. */
void repair_note_counters(struct repair *repair)
{
	if (repair->has_said)
		return;
	repair->has_said = true;
	for (unsigned i = 0; i < ROOT_COUNTERS && !repair->root_was_lost; i++)
		repair->said[i] = root_get(repair->fs->journal, i);
}

static int counters_run(struct repair *repair)
{
	struct fs *fs = repair->fs;
	struct counters counters;
	unsigned wrong;
	int error;

	journal_read_begin(fs->journal);
	repair_note_counters(repair);
	counters_begin(fs, &counters);
	error = count_trees(fs, &counters);
	wrong = counters_wrong(fs, &counters);
	journal_read_end(fs->journal);
	if (error || (!wrong && !repair->is_suspect))
		return error;
	if (wrong && !repair->is_suspect)
		repair_tell(repair, FSCK_ERROR, "%u counters of the root block are wrong", wrong);
	if (!repair_ask(repair, "Correct the counters of the root block"))
		return 0;
	error = counters_store(fs, &counters);
	if (!error && wrong)
		repair_tell(repair, FSCK_FIXED, "%u counters of the root block are corrected", wrong);
	return error;
}

int repair_counters(struct repair *repair, struct why *why)
{
	int error;

	if (journal_is_readonly(repair->fs->journal))
		return 0;
	error = counters_run(repair);
	return error ? why_set(why, error, "%s: the counters cannot be set right: %s", media_path(repair->media), strerror(-error)) : 0;
}
