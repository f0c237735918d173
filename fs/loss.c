#include "fs/loss.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/inode.h"
#include "journal/chunk.h"
#include "journal/root.h"
#include "util/log.h"

#define SCANS_MAX 32u	   /* of the inner nodes, in one mount: a storm must not look for ever */
#define NODES_PER_HOLD 64u /* of the metadata lock */
#define LOOKUPS_PER_HOLD 64u
#define LOOKUPS_MAX 16384u /* for the files of one block */
#define FILES_COUNTED_MAX 4096u
#define PATHS_MAX 4u /* of one file */
#define PATHS_LOGGED 3u

/* --- finding them --------------------------------------------------------------------------------------------------------- */

struct loss_scan {
	struct fs *fs;
	maddr_t wanted; /* lost, whatever is known of its copies */
	unsigned tree;
	struct lost_blocks *found;
};

/* Is all of it known to be bad? */
static bool block_is_lost(struct fs *fs, const devoff_t offset[2])
{
	devoff_t bad;
	uint64_t length;

	return media_bad_find(fs->media, offset[0], BLOCK_BYTES, &bad, &length) &&
	       (!offset[1] || media_bad_find(fs->media, offset[1], BLOCK_BYTES, &bad, &length));
}

static const struct lost_block *lost_find(const struct lost_blocks *lost, maddr_t address)
{
	for (size_t i = 0; i < lost->count; i++)
		if (lost->list[i].address == address)
			return &lost->list[i];
	return NULL;
}

static void lost_add(struct lost_blocks *lost, const struct lost_block *block)
{
	if (lost->count < LOST_BLOCKS_MAX && !lost_find(lost, block->address))
		lost->list[lost->count++] = *block;
}

static int scan_visit(void *arg, const struct btree_child *child)
{
	const struct loss_scan *scan = arg;
	devoff_t offset[2] = {0};
	const bool is_placed = chunk_map(scan->fs->journal, child->address, offset) == 0;
	const struct lost_block block = {
	    .address = child->address,
	    .device_offset = offset[0],
	    .tree = scan->tree,
	    .level = child->level,
	    .from = child->from,
	    .end = child->end,
	    .is_bounded = child->is_bounded,
	};

	if (child->address == scan->wanted || (is_placed && block_is_lost(scan->fs, offset)))
		lost_add(scan->found, &block);
	return 0;
}

static void scan_tree(struct loss_scan *scan, const struct btree *tree)
{
	struct btree_key from = {{0}};
	bool ended = false;

	scan->tree = tree->ops->tree;
	while (!ended) {
		journal_read_begin(scan->fs->journal);
		if (btree_walk_children(tree, &from, NODES_PER_HOLD, &ended, scan_visit, scan))
			ended = true; /* no memory: what was found is told */
		journal_read_end(scan->fs->journal);
	}
}

/* May one more look be taken? What is known stays known. */
static bool loss_may_scan(struct fs *fs, maddr_t wanted)
{
	struct lost_blocks *lost = &fs->lost;
	bool may;

	pthread_mutex_lock(&lost->lock);
	may = lost->scans < SCANS_MAX && !lost_find(lost, wanted) && (wanted || !lost->scans);
	lost->scans += may;
	pthread_mutex_unlock(&lost->lock);
	return may;
}

static void loss_scan(struct fs *fs, maddr_t wanted)
{
	const struct btree *trees[FS_TREES_MAX];
	struct lost_blocks found = {.count = 0};
	struct loss_scan scan = {.fs = fs, .wanted = wanted, .found = &found};
	struct btree copy;
	const unsigned count = fs_all_trees(fs, &copy, trees);

	if (!loss_may_scan(fs, wanted))
		return;
	for (unsigned i = 0; i < count; i++)
		scan_tree(&scan, trees[i]);
	pthread_mutex_lock(&fs->lost.lock);
	for (size_t i = 0; i < found.count; i++)
		lost_add(&fs->lost, &found.list[i]);
	pthread_mutex_unlock(&fs->lost.lock);
}

static bool loss_get(struct fs *fs, maddr_t address, struct lost_block *out)
{
	const struct lost_block *block;

	pthread_mutex_lock(&fs->lost.lock);
	block = lost_find(&fs->lost, address);
	if (block)
		*out = *block;
	pthread_mutex_unlock(&fs->lost.lock);
	return block;
}

const char *loss_tree(struct fs *fs, maddr_t address)
{
	struct lost_block block;

	return loss_get(fs, address, &block) ? format_tree_name(block.tree) : "unknown";
}

/* --- what they had -------------------------------------------------------------------------------------------------------- */

/* What fsck.mendfs will do about it (docs/RELIABILITY.md). */
static const char *loss_advice(const struct lost_block *block)
{
	switch (block->level ? (unsigned)FORMAT_TREE_NONE : block->tree) {
	case FORMAT_TREE_INODES:
		return "unmount and run fsck.mendfs -y: names and data come back, owners, modes and times do not";
	case FORMAT_TREE_XATTRS:
		return "unmount and run fsck.mendfs -y: symlink targets and attributes that were in it do not come back";
	case FORMAT_TREE_INTENTS:
		return "unmount and run fsck.mendfs -y: operations that a crash cut stay as far as they had come";
	default:
		return "unmount and run fsck.mendfs -y: all of it comes back from other places";
	}
}

static bool loss_is_of_inodes(unsigned tree)
{
	return tree == FORMAT_TREE_INODES || tree == FORMAT_TREE_DIRENTS || tree == FORMAT_TREE_PARENTS || tree == FORMAT_TREE_EXTENTS ||
	       tree == FORMAT_TREE_XATTRS || tree == FORMAT_TREE_DAMAGED || tree == FORMAT_TREE_ORPHANS;
}

/* The first of the first words of which nothing lies below the end. */
static uint64_t loss_end_word(const struct lost_block *block)
{
	const bool is_cut = (block->end.word[1] || block->end.word[2]) && block->end.word[0] < UINT64_MAX;

	return block->end.word[0] + is_cut;
}

static void loss_fill_inodes(struct fs *fs, const struct lost_block *block, struct meta_loss *loss)
{
	uint64_t end = block->is_bounded ? loss_end_word(block) : UINT64_MAX;

	journal_read_begin(fs->journal);
	end = min_u64(end, max_u64(root_get(fs->journal, ROOT_NEXT_INO), 1));
	journal_read_end(fs->journal);
	loss->has_inodes = true;
	loss->first_ino = max_u64(block->from.word[0], 1);
	loss->last_ino = max_u64(loss->first_ino, max_u64(end, 1) - 1);
}

static void loss_fill_device(struct fs *fs, const struct lost_block *block, unsigned shift, struct meta_loss *loss)
{
	const uint64_t size = media_size(fs->media) >> shift;
	const uint64_t end = block->is_bounded ? min_u64(size, loss_end_word(block)) : size;

	if (block->from.word[0] >= end)
		return;
	loss->covers_offset = block->from.word[0] << shift;
	loss->covers_bytes = (end - block->from.word[0]) << shift;
}

static void loss_fill(struct fs *fs, const struct lost_block *block, struct meta_loss *loss)
{
	*loss = (struct meta_loss){
	    .address = block->address,
	    .device_offset = block->device_offset,
	    .tree = format_tree_name(block->tree),
	    .advice = loss_advice(block),
	    .is_node = true,
	    .level = block->level,
	};
	if (loss_is_of_inodes(block->tree))
		loss_fill_inodes(fs, block, loss);
	else if (block->tree == FORMAT_TREE_RMAP || block->tree == FORMAT_TREE_FREE)
		loss_fill_device(fs, block, BLOCK_SHIFT, loss);
	else if (block->tree == FORMAT_TREE_BADBLOCKS || block->tree == FORMAT_TREE_LOST)
		loss_fill_device(fs, block, 0, loss);
}

/* --- whose that was ------------------------------------------------------------------------------------------------------- */

struct file_search {
	struct fs *fs;
	unsigned tree; /* of the lost block */
	inum_t next;
	unsigned lookups;
	struct loss_report *report;
};

/* Whether attributes are missing cannot be told: every inode may have some. */
static bool search_concerns(const struct file_search *search, const struct btree_record *record)
{
	struct inode_record inode;

	if (search->tree != FORMAT_TREE_DIRENTS && search->tree != FORMAT_TREE_EXTENTS)
		return true;
	if (format_inode_unpack(&inode, record->value, record->length))
		return true;
	return search->tree == FORMAT_TREE_DIRENTS ? S_ISDIR(inode.mode) && inode.entries : S_ISREG(inode.mode) && inode.count_blocks;
}

static void search_add(struct file_search *search, inum_t ino)
{
	struct loss_report *report = search->report;

	report->loss.count_files++;
	if (report->count_files < LOSS_FILES_MAX)
		report->files[report->count_files++].ino = ino;
}

/* The next inode in the range, by the tree that knows of it beside the lost one. -ENOENT: none. Under the metadata lock. */
static int search_step(struct file_search *search)
{
	const bool by_names = search->tree == FORMAT_TREE_INODES;
	const struct btree_key key = {{search->next}};
	struct btree_record record;
	int error = btree_lookup_ge(by_names ? &search->fs->parents : &search->fs->inodes, &key, &record);

	if (error)
		return error;
	if (record.key.word[0] > search->report->loss.last_ino)
		return -ENOENT;
	search->next = record.key.word[0] + 1;
	if (by_names || search_concerns(search, &record))
		search_add(search, record.key.word[0]);
	return 0;
}

static int search_hold(struct file_search *search)
{
	int error = 0;

	journal_read_begin(search->fs->journal);
	for (unsigned i = 0; i < LOOKUPS_PER_HOLD && !error; i++)
		error = search_step(search);
	journal_read_end(search->fs->journal);
	search->lookups += LOOKUPS_PER_HOLD;
	return error;
}

/* How many, and the numbers of the first ones. Nobody else knows whose orphans and damage of files without a map were. */
static void loss_find_files(struct fs *fs, unsigned tree, struct loss_report *report)
{
	struct file_search search = {.fs = fs, .tree = tree, .next = report->loss.first_ino, .report = report};
	int error = 0;

	if (!report->loss.has_inodes || tree == FORMAT_TREE_DAMAGED || tree == FORMAT_TREE_ORPHANS)
		return;
	report->loss.has_files = true;
	if (tree == FORMAT_TREE_INODES && report->loss.first_ino <= FS_ROOT_INO)
		search_add(&search, FS_ROOT_INO); /* it has no name that would tell of it */
	while (!error && search.lookups < LOOKUPS_MAX && report->loss.count_files < FILES_COUNTED_MAX)
		error = search_hold(&search);
	report->loss.has_more_files = error != -ENOENT;
}

static void loss_name_files(struct fs *fs, struct loss_report *report)
{
	for (size_t i = 0; i < report->count_files; i++) {
		struct loss_file *file = &report->files[i];

		if (fs_names(fs, file->ino, PATHS_MAX, &file->paths, &file->count_paths))
			file->count_paths = 0;
	}
}

size_t loss_list(struct fs *fs, struct meta_loss *out, size_t max, size_t *total)
{
	struct lost_block blocks[LOST_BLOCKS_MAX];
	struct loss_report *report = calloc(1, sizeof(*report));
	size_t count;

	loss_scan(fs, 0);
	pthread_mutex_lock(&fs->lost.lock);
	*total = fs->lost.count;
	memcpy(blocks, fs->lost.list, *total * sizeof(blocks[0]));
	pthread_mutex_unlock(&fs->lost.lock);
	for (count = 0; report && count < min_u64(max, *total); count++) {
		*report = (struct loss_report){.count_files = 0};
		loss_fill(fs, &blocks[count], &report->loss);
		loss_find_files(fs, blocks[count].tree, report);
		out[count] = report->loss;
	}
	free(report);
	return count;
}

/* --- telling -------------------------------------------------------------------------------------------------------------- */

/* Names may have any bytes, lines of a log may not. */
static void text_add_path(char *text, size_t size, const char *path)
{
	size_t length = strlen(text);

	for (; *path && length + 5 < size; path++) {
		const unsigned char byte = (unsigned char)*path;

		length += (size_t)sprintf(text + length, byte < 0x20 || byte > 0x7e ? "\\x%02x" : "%c", byte);
	}
}

static void loss_text_files(const struct loss_report *report, char *text, size_t size)
{
	const struct meta_loss *loss = &report->loss;
	unsigned told = 0;
	int length = 0;

	text[0] = '\0';
	if (loss->has_inodes)
		length = snprintf(text, size, ", of inodes %llu to %llu", (unsigned long long)loss->first_ino, (unsigned long long)loss->last_ino);
	if (loss->covers_bytes)
		length = snprintf(text, size, ", of the device's bytes %llu+%llu", (unsigned long long)loss->covers_offset,
				  (unsigned long long)loss->covers_bytes);
	if (loss->has_files)
		snprintf(text + length, size - (size_t)length, ", %s %llu files", loss->has_more_files ? "more than" : "at most",
			 (unsigned long long)loss->count_files);
	for (size_t i = 0; i < report->count_files && told < PATHS_LOGGED; i++) {
		if (!report->files[i].count_paths)
			continue;
		text_add_path(text, size, told++ ? ", " : ": ");
		text_add_path(text, size, report->files[i].paths[0]);
	}
	if (told && loss->count_files > told)
		text_add_path(text, size, ", ...");
}

static void loss_log(struct fs *fs, const struct loss_report *report)
{
	const struct meta_loss *loss = &report->loss;
	char files[1024], level[32] = "";

	loss_text_files(report, files, sizeof(files));
	if (loss->is_node && loss->level)
		snprintf(level, sizeof(level), "node of level %u", loss->level);
	log_error("%s: no copy of metadata block %#llx can be read (%s%s%s%s): %s", media_path(fs->media), (unsigned long long)loss->address, loss->tree,
		  loss->is_node ? ", " : "", !loss->is_node || loss->level ? level : "leaf", files, loss->advice);
}

void loss_tell(struct fs *fs, maddr_t address, struct event *event)
{
	struct loss_report *report = calloc(1, sizeof(*report));
	struct lost_block block;

	event->tree = address == MADDR_ROOT ? "root" : maddr_is_fixed(address) || maddr_index(address) == 0 ? "chunks" : "unknown";
	if (!report)
		return;
	report->loss = (struct meta_loss){.address = address, .tree = event->tree, .advice = "unmount and run fsck.mendfs -y"};
	if (strcmp(event->tree, "unknown") == 0)
		loss_scan(fs, address);
	if (loss_get(fs, address, &block)) {
		loss_fill(fs, &block, &report->loss);
		loss_find_files(fs, block.tree, report);
		loss_name_files(fs, report);
	}
	event->tree = report->loss.tree;
	event->report = report;
	loss_log(fs, report);
}
