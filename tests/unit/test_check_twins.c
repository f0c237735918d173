#include "fs/check.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/data.h"
#include "fs/acl.h"
#include "fs/dir.h"
#include "format/poison_format.h"
#include "journal/chunk.h"
#include "journal/root.h"
#include "notify/ledger_copy.h"
#include "tests/support/expect.h"
#include "tests/support/fsfix.h"
#include "util/log.h"

/*
 * Broken twins: one damage each, made behind the filesystem's back, and what the check must say of it. The same filesystem without the damage
 * is clean. No thread is at work, so that whatever is said is said of the damage.
 */

#define SPREAD_BLOCKS 600

static struct fsfix fix;
static struct fs *fs;
static inum_t dir, sub, file, copied_file, spread, symlinked;
static struct tx *tx;

static void write_at(inum_t ino, uint64_t pos, size_t size)
{
	static char data[40000];
	size_t done;

	expect_equal(fs_write(fs, ino, pos, data, size, &done), 0);
}

static void make_symlink(void)
{
	const struct fs_who who = {.uid = 1000, .gid = 1000};
	struct fs_attr attr;

	expect_equal(fs_symlink(fs, &who, dir, "symlink", "where/it/leads", &attr), 0);
	symlinked = attr.ino;
	fs_forget(fs, symlinked, 1);
}

static void setup(void)
{
	struct fs_attr attr;
	uint64_t copied;

	log_set_level(LOG_LEVEL_SILENT);
	expect_equal(fsfix_create(&fix, 64u << 20), 0);
	fix.options.tools = true;
	expect_equal(fsfix_mount(&fix), 0);
	fs = fix.fs;
	expect_equal(fsfix_mkdir(&fix, FS_ROOT_INO, "dir", &dir), 0);
	expect_equal(fsfix_mkdir(&fix, dir, "sub", &sub), 0);
	expect_equal(fsfix_mkfile(&fix, dir, "file", &file), 0);
	expect_equal(fsfix_mkfile(&fix, dir, "clone", &copied_file), 0);
	expect_equal(fsfix_mkfile(&fix, sub, "spread", &spread), 0);
	write_at(file, 0, 40000);
	for (uint64_t i = 0; i < SPREAD_BLOCKS; i++)
		write_at(spread, 2 * i * BLOCK_BYTES, 1);
	expect_equal(fs_copy_range(fs, file, 0, copied_file, 0, 40000, &copied), 0);
	expect_equal(fs_link(fs, file, FS_ROOT_INO, "link", &attr), 0);
	fs_forget(fs, file, 1);
	make_symlink();
	expect_equal(journal_checkpoint(fs->journal), 0);
	expect_equal(fsfix_check(&fix), 0);
}

static void teardown(void)
{
	fsfix_destroy(&fix);
}

static struct tx *begin(void)
{
	expect_equal(fs_tx_begin(fs, TX_RESERVE, &tx), 0);
	return tx;
}

static void commit(void)
{
	expect_equal(tx_commit(tx, NULL), 0);
}

static struct extent first_extent(inum_t ino)
{
	struct extent extent;

	expect_equal(extent_lookup(fs, ino, 0, &extent), 0);
	return extent;
}

static void change_inode(inum_t ino, void (*change)(struct inode_record *record))
{
	struct inode_record record;
	struct inode *inode;

	begin();
	expect_equal(inode_get_tx(fs, tx, ino, &inode), 0);
	record = inode->record;
	change(&record);
	expect_equal(inode_update(inode, tx, &record), 0);
	commit();
	inode_put(inode);
}

/* --- copies of metadata blocks -------------------------------------------------------------------------------------------------- */

static maddr_t root_of_tree(unsigned tree)
{
	maddr_t address;
	unsigned level;

	root_tree_get(fs->journal, tree, &address, &level);
	return address;
}

/* Change one copy of a block at home: a byte of it, and what is to be said of its sequence. */
static void change_home(maddr_t address, unsigned copy, bool seal, int64_t sequence_by, unsigned at, unsigned bit)
{
	uint8_t block[BLOCK_BYTES] __attribute__((aligned(64)));
	const struct format_block_header *header = (const struct format_block_header *)block;
	devoff_t offset[2];

	expect_equal(chunk_map(fs->journal, address, offset), 0);
	expect_equal(media_read(fs->media, offset[copy], block, sizeof(block), NULL), 0);
	block[at] ^= (uint8_t)bit;
	if (seal)
		format_block_seal(block, le64_get(header->sequence) + (uint64_t)sequence_by);
	expect_equal(media_write(fs->media, offset[copy], block, sizeof(block), NULL), 0);
	media_drain(fs->media);
}

static void damage_primary(void)
{
	change_home(root_of_tree(FORMAT_TREE_INODES), 0, false, 0, 3000, 1);
}

static void damage_replica(void)
{
	change_home(root_of_tree(FORMAT_TREE_DIRENTS), 1, false, 0, 3000, 1);
}

static void age_replica(void)
{
	change_home(root_of_tree(FORMAT_TREE_FREE), 1, true, -1, 0, 0);
}

static void fork_replica(void)
{
	change_home(root_of_tree(FORMAT_TREE_FREE), 1, true, 0, 4090, 1);
}

static void change_both(void)
{
	for (unsigned k = 0; k < 2; k++)
		change_home(root_of_tree(FORMAT_TREE_FREE), k, true, 0, 4090, 1);
}

static void damage_root_replica(void)
{
	change_home(MADDR_ROOT, 1, false, 0, 500, 1);
}

static void damage_table_replica(void)
{
	change_home(MADDR_TABLE, 1, false, 0, 500, 1);
}

static void damage_header_replica(void)
{
	change_home(maddr_of_chunk(0, 0), 1, false, 0, 500, 1);
}

static void change_header(void)
{
	for (unsigned k = 0; k < 2; k++)
		change_home(maddr_of_chunk(0, 0), k, true, 0, offsetof(struct format_chunk_header, generation), 1);
	fs_drop_caches(fs);
}

static void change_raw(devoff_t offset, unsigned at)
{
	uint8_t line[LINE_BYTES];

	expect_equal(media_read(fs->media, offset + at, line, sizeof(line), NULL), 0);
	line[0] ^= 1;
	expect_equal(media_write(fs->media, offset + at, line, sizeof(line), NULL), 0);
	media_drain(fs->media);
}

static void damage_super(void)
{
	unsigned slot = SUPER_SLOTS - 1;

	while (!(fs->super.slots >> slot & 1))
		slot--;
	change_raw(super_slot_offset(slot), 1024);
}

static void change_super(void)
{
	struct format_super raw;
	struct super super = fs->super;
	unsigned slot = SUPER_SLOTS - 1;

	while (!(fs->super.slots >> slot & 1))
		slot--;
	super.update++;
	format_super_pack(&raw, &super);
	expect_equal(media_write(fs->media, super_slot_offset(slot), &raw, sizeof(raw), NULL), 0);
	media_drain(fs->media);
}

static void damage_head(void)
{
	change_raw(fs->super.areas[AREA_JOURNAL].copy[1], 0);
}

/* --- blocks in use ---------------------------------------------------------------------------------------------------------------- */

static void leak_block(void)
{
	struct buf *buf;

	begin();
	expect_equal(buf_create(tx, FORMAT_ROLE_NODE, FORMAT_TREE_INODES, &buf), 0);
	buf_put(buf);
	commit();
}

static void mark_node_free(void)
{
	maddr_t address = root_of_tree(FORMAT_TREE_PARENTS);
	struct format_chunk_table_block *table;
	struct chunk_entry entry;
	struct buf *buf;

	begin();
	expect_equal(chunk_entry(fs->journal, maddr_chunk(address), &entry), 0);
	entry.map[maddr_index(address) / 64] &= ~(1ull << maddr_index(address) % 64);
	entry.free_blocks++;
	expect_equal(buf_get(fs->journal, MADDR_TABLE, FORMAT_ROLE_CHUNK_TABLE, FORMAT_TREE_NONE, &buf), 0);
	expect_equal(tx_join(tx, buf), 0);
	table = (struct format_chunk_table_block *)buf->data;
	format_chunk_entry_pack(&table->entries[maddr_chunk(address)], &entry);
	buf_put(buf);
	expect_equal(root_add(tx, ROOT_META_FREE, 1), 0);
	commit();
}

static void change_aggregate(void)
{
	struct node_child child;
	struct buf *buf;

	begin();
	expect_equal(buf_get(fs->journal, root_of_tree(FORMAT_TREE_RMAP), FORMAT_ROLE_NODE, FORMAT_TREE_RMAP, &buf), 0);
	expect(((struct format_node *)buf->data)->level > 0);
	expect_equal(tx_join(tx, buf), 0);
	node_child((struct format_node *)buf->data, 0, &child);
	node_set_aggregate((struct format_node *)buf->data, 0, child.aggregate + 1);
	buf_put(buf);
	commit();
}

static void name_unknown_tree(void)
{
	begin();
	expect_equal(root_tree_set(tx, FORMAT_TREE_CSUMS, root_of_tree(FORMAT_TREE_RMAP), 0), 0);
	commit();
}

/* --- space ------------------------------------------------------------------------------------------------------------------------ */

static void disown_area(void)
{
	struct rmap_record record = {
		.start = fs->super.areas[AREA_POISON_LOG].copy[1] / BLOCK_BYTES, .count = 1, .owner = OWNER(OWNER_POISON_LOG), .offset = 1ull << 32};

	begin();
	expect_equal(rmap_remove(&fs->rmap, tx, &record), 0);
	expect_equal(alloc_give(fs->alloc, tx, record.start, 1), 0);
	commit();
}

static void disown_chunk(void)
{
	struct rmap_record record = {.count = 1, .owner = OWNER(OWNER_CHUNK), .offset = CHUNK_SLOTS};
	struct chunk_entry entry;

	begin();
	expect_equal(chunk_entry(fs->journal, 0, &entry), 0);
	record.start = entry.copy[1] / BLOCK_BYTES;
	expect_equal(rmap_remove(&fs->rmap, tx, &record), 0);
	expect_equal(alloc_give(fs->alloc, tx, record.start, 1), 0);
	commit();
}

static void map_area(void)
{
	struct extent extent = {
		.file_block = 10000, .count_blocks = 1, .block = fs->super.areas[AREA_JOURNAL].copy[0] / BLOCK_BYTES + 4};

	begin();
	expect_equal(extent_insert(fs, tx, file, &extent), 0);
	commit();
}

static void own_foreign_area(void)
{
	struct rmap_record record = {.count = 1, .owner = OWNER(OWNER_CHUNK), .offset = 40000ull * CHUNK_SLOTS};
	struct alloc_request request = {.want_blocks = 1, .least_blocks = 1, .align_blocks = 1};

	begin();
	expect_equal(alloc_take(fs->alloc, tx, &request, &record.start, &record.count), 0);
	expect_equal(rmap_insert(&fs->rmap, tx, &record), 0);
	commit();
}

static void put_free(blkno_t start, uint64_t count)
{
	struct btree_key key = {{start}};
	struct format_free value;

	begin();
	format_free_pack(&value, count);
	expect_equal(btree_insert(alloc_tree(fs->alloc), tx, &key, &value, sizeof(value)), 0);
	expect_equal(root_add(tx, ROOT_FREE_BLOCKS, (int64_t)count), 0);
	commit();
}

static void free_twice(void)
{
	struct btree_key key = {{0}};
	struct btree_record found;
	uint64_t count;

	expect_equal(btree_find_aggregate(alloc_tree(fs->alloc), &key, 8, &found), 0);
	expect_equal(format_free_unpack(&count, found.value, found.length), 0);
	put_free(found.key.word[0] + 1, 2);
}

static void free_beyond_the_end(void)
{
	put_free(fs->super.size_bytes / BLOCK_BYTES + 8, 2);
}

static void free_owned(void)
{
	put_free(first_extent(file).block + 2, 1);
}

static void put_extent(inum_t ino, uint64_t file_block, const struct extent *extent)
{
	struct btree_key key = {{ino, file_block}};
	struct format_extent value;

	begin();
	format_extent_pack(&value, extent);
	expect_equal(btree_insert(&fs->extents, tx, &key, &value, sizeof(value)), 0);
	commit();
}

static void overlap_extents(void)
{
	struct extent extent = first_extent(file);

	extent.block += 2;
	extent.count_blocks = 1;
	put_extent(file, 2, &extent);
}

static void extent_beyond_the_end(void)
{
	struct extent extent = {.block = fs->super.size_bytes / BLOCK_BYTES, .count_blocks = 1};

	put_extent(file, 5000, &extent);
}

static void extent_of_directory(void)
{
	struct extent extent = {.block = first_extent(file).block, .count_blocks = 1};

	put_extent(dir, 0, &extent);
}

static void unwritten_in_rmap_only(void)
{
	struct extent extent = first_extent(spread);
	struct rmap_record record = {.start = extent.block, .count = 1, .owner = spread};

	begin();
	expect_equal(rmap_remove(&fs->rmap, tx, &record), 0);
	record.flags = EXTENT_UNWRITTEN;
	expect_equal(rmap_insert(&fs->rmap, tx, &record), 0);
	commit();
}

/* One block missing, another twice: the lengths add up. */
static void overlap_in_rmap(void)
{
	struct extent extent = first_extent(file);
	struct rmap_record record = {.start = extent.block + 9, .count = 1, .owner = file, .offset = 9};
	struct btree_key key = {{extent.block + 3, file, 3}};
	struct format_rmap value;

	begin();
	expect_equal(rmap_remove(&fs->rmap, tx, &record), 0);
	format_rmap_pack(&value, 1, 0);
	expect_equal(btree_insert(&fs->rmap.tree, tx, &key, &value, sizeof(value)), 0);
	commit();
}

static void cut_size(struct inode_record *record)
{
	record->size_bytes = BLOCK_BYTES;
}

static void write_beyond_size(void)
{
	change_inode(spread, cut_size);
}

static void count_a_block(struct inode_record *record)
{
	record->count_blocks++;
}

static void count_blocks_of_nothing(void)
{
	change_inode(symlinked, count_a_block);
}

/* --- names ------------------------------------------------------------------------------------------------------------------------ */

static void age_inode(struct inode_record *record)
{
	record->generation++;
}

static void change_generation(void)
{
	change_inode(file, age_inode);
}

static void change_parent_value(void)
{
	struct btree_key key = {{copied_file}};
	struct btree_record found;

	begin();
	expect_equal(btree_lookup_ge(&fs->parents, &key, &found), 0);
	found.value[found.length - 1] ^= 1;
	expect_equal(btree_update(&fs->parents, tx, &found.key, found.value, found.length), 0);
	commit();
}

static void move_names(inum_t ino, inum_t from, inum_t to, const char *name)
{
	struct dir_entry entry;

	expect_equal(dir_lookup_entry(fs, from, name, &entry), 0);
	expect_equal(entry.record.ino, ino);
	expect_equal(dir_remove_entry(fs, tx, from, &entry), 0);
	expect_equal(dir_insert_entry(fs, tx, to, &entry), 0);
}

static void put_record(inum_t ino, int subdirs, inum_t parent)
{
	struct inode_record record;
	struct inode *inode;

	expect_equal(inode_get_tx(fs, tx, ino, &inode), 0);
	record = inode->record;
	record.nlink += (unsigned)subdirs;
	record.entries += (uint64_t)subdirs;
	record.parent = parent;
	expect_equal(inode_update(inode, tx, &record), 0);
	inode_put(inode);
}

/* dir below sub, which is below dir: every name and count is as it should be. */
static void cut_off_a_ring(void)
{
	begin();
	move_names(dir, FS_ROOT_INO, sub, "dir");
	put_record(FS_ROOT_INO, -1, FS_ROOT_INO);
	put_record(sub, 1, dir);
	put_record(dir, 0, sub);
	commit();
}

static void put_xattr(inum_t ino, uint64_t hash, uint64_t part, const char *text, size_t length)
{
	struct btree_key key = {{ino, hash, part}};

	begin();
	expect_equal(btree_insert(&fs->xattrs, tx, &key, text, length), 0);
	commit();
}

static void lengthen_target(void)
{
	put_xattr(symlinked, 0, 1, "more", 4);
}

static void target_of_a_file(void)
{
	put_xattr(file, 0, 0, "more", 4);
}

static void xattr_of_nobody(void)
{
	put_xattr(99, 0, 0, "more", 4);
}

/* Behind fs/xattr.c's back: whatever name in whatever slot. */
static void put_attribute(inum_t ino, const char *name, unsigned number, const void *value, size_t size)
{
	struct xattr_record record = {.value_length = (uint32_t)size, .name_length = (uint8_t)strlen(name)};
	struct btree_key key = {{ino, xattr_hash(fs, name, strlen(name)) + number, 0}};
	uint8_t part[XATTR_PART_BYTES];
	size_t length;

	strcpy(record.name, name);
	length = format_xattr_pack(part, &record, value);
	begin();
	expect_equal(btree_insert(&fs->xattrs, tx, &key, part, length), 0);
	commit();
}

static void set_long_attribute(void)
{
	static const char value[5000];
	const struct fs_who who = {.uid = 0};

	expect_equal(fs_setxattr(fs, &who, file, "user.long", value, sizeof(value), 0), 0);
}

static void attribute_without_first_part(void)
{
	struct btree_key key = {{file, xattr_hash(fs, "user.long", 9), 0}};

	set_long_attribute();
	begin();
	expect_equal(btree_remove(&fs->xattrs, tx, &key), 0);
	commit();
}

static void attribute_without_last_part(void)
{
	struct btree_key key = {{file, xattr_hash(fs, "user.long", 9), 5}};

	set_long_attribute();
	begin();
	expect_equal(btree_remove(&fs->xattrs, tx, &key), 0);
	commit();
}

static void attribute_with_another_byte(void)
{
	struct btree_key key = {{file, xattr_hash(fs, "user.long", 9), 2}};
	uint8_t part[XATTR_PART_BYTES] = {[500] = 1};

	set_long_attribute();
	begin();
	expect_equal(btree_update(&fs->xattrs, tx, &key, part, sizeof(part)), 0);
	commit();
}

static void attribute_under_another_hash(void)
{
	put_attribute(file, "user.a", XATTR_NUMBERS + 7, "x", 1);
}

static void attribute_twice(void)
{
	put_attribute(file, "user.a", 0, "x", 1);
	put_attribute(file, "user.a", 7, "y", 1);
}

static void user_attribute_of_symlink(void)
{
	put_attribute(symlinked, "user.a", 0, "x", 1);
}

static size_t make_acl(uint8_t *blob)
{
	static const struct acl acl = {
		.count = 5,
		.entries = {{ACL_TAG_USER_OBJ, 7, 0}, {ACL_TAG_USER, 7, 5}, {ACL_TAG_GROUP_OBJ, 7, 0}, {ACL_TAG_MASK, 1, 0}, {ACL_TAG_OTHER, 7, 0}},
	};

	return format_acl_pack(blob, &acl);
}

static void acl_beside_mode(void)
{
	uint8_t blob[ACL_BLOB_MAX];
	size_t length = make_acl(blob);

	put_attribute(file, XATTR_NAME_ACCESS, 0, blob, length);
}

static void default_acl_of_file(void)
{
	uint8_t blob[ACL_BLOB_MAX];
	size_t length = make_acl(blob);

	put_attribute(file, XATTR_NAME_DEFAULT, 0, blob, length);
}

static void acl_that_is_none(void)
{
	uint8_t blob[ACL_BLOB_MAX];
	size_t length = make_acl(blob);

	put_attribute(dir, XATTR_NAME_DEFAULT, 0, blob, length - sizeof(struct format_acl_entry));
}

static void put_nul_in_target(void)
{
	struct btree_key key = {{symlinked}};

	begin();
	expect_equal(btree_update(&fs->xattrs, tx, &key, "where\0it/leads", 14), 0);
	commit();
}

static void drop_target(void)
{
	struct btree_key key = {{symlinked}};

	begin();
	expect_equal(btree_remove(&fs->xattrs, tx, &key), 0);
	commit();
}

static void orphan_without_inode(void)
{
	struct btree_key key = {{99}};

	begin();
	expect_equal(btree_insert(&fs->orphans, tx, &key, NULL, 0), 0);
	expect_equal(root_add(tx, ROOT_ORPHANS, 1), 0);
	commit();
}

/* --- ledger, intents -------------------------------------------------------------------------------------------------------------- */

static void put_badblock(devoff_t at, uint64_t length, uint64_t cause_id, bool with_copy)
{
	struct badblock_record record = {
		.length_bytes = length, .cause_id = cause_id, .count = 1, .state = BADBLOCK_BAD, .source = FAILURE_INJECTED};
	const struct btree *tree = ledger_badblocks_tree(fs->notify);
	struct btree_key key = {{at}};
	struct format_badblock value;

	begin();
	format_badblock_pack(&value, &record);
	expect_equal(btree_insert(tree, tx, &key, &value, sizeof(value)), 0);
	if (with_copy)
		expect_equal(ledger_copy_put(tree, tx, &key, &value, sizeof(value)), 0);
	expect_equal(root_add(tx, ROOT_BADBLOCK_BYTES, (int64_t)length), 0);
	expect_equal(root_set(tx, ROOT_NEXT_CAUSE, 8), 0);
	commit();
}

static void overlap_badblocks(void)
{
	put_badblock(8u << 20, 4096, 1, true);
	put_badblock((8u << 20) + 512, 512, 1, true);
}

static void badblock_outside(void)
{
	put_badblock(fs->super.size_bytes, 512, 1, true);
}

static void badblock_of_the_future(void)
{
	put_badblock(8u << 20, 512, 8, true);
}

static void badblock_without_copy(void)
{
	put_badblock(8u << 20, 512, 1, false);
}

static void badblock_with_another_copy(void)
{
	struct btree_key key = {{FORMAT_TREE_BADBLOCKS, 8u << 20}};
	struct btree_record found;
	struct btree copy;

	put_badblock(8u << 20, 512, 1, true);
	btree_init(&copy, fs->journal, &ledger_copy_ops);
	begin();
	expect_equal(btree_lookup(&copy, &key, &found), 0);
	found.value[offsetof(struct format_badblock, cause_id)] ^= 2;
	expect_equal(btree_update(&copy, tx, &key, found.value, found.length), 0);
	commit();
}

static void copy_without_badblock(void)
{
	const struct btree *tree = ledger_badblocks_tree(fs->notify);
	struct btree_key key = {{8u << 20}};

	put_badblock(8u << 20, 512, 1, true);
	begin();
	expect_equal(btree_remove(tree, tx, &key), 0);
	expect_equal(root_add(tx, ROOT_BADBLOCK_BYTES, -512), 0);
	commit();
}

static void put_damaged(inum_t ino, uint64_t pos, uint64_t length)
{
	struct damaged_record record = {.length_bytes = length};
	struct btree_key key = {{ino, pos}};
	struct format_damaged value;

	begin();
	format_damaged_pack(&value, &record);
	expect_equal(btree_insert(&fs->damaged, tx, &key, &value, sizeof(value)), 0);
	expect_equal(ledger_copy_put(&fs->damaged, tx, &key, &value, sizeof(value)), 0);
	commit();
}

static void overlap_damaged(void)
{
	put_damaged(file, 0, 4096);
	put_damaged(file, 512, 512);
}

static void damage_of_nobody(void)
{
	put_damaged(99, 0, 4096);
}

static void put_intent(const struct intent_record *intent, uint64_t id)
{
	struct btree_key key = {{id}};
	struct format_intent value;

	begin();
	format_intent_pack(&value, intent);
	expect_equal(btree_insert(&fs->intents, tx, &key, &value, sizeof(value)), 0);
	expect_equal(root_add(tx, ROOT_INTENTS, 1), 0);
	expect_equal(root_set(tx, ROOT_NEXT_INTENT, 8), 0);
	commit();
}

static void intent_of_nothing(void)
{
	put_intent(&(struct intent_record){.op = INTENT_TRUNCATE, .args = {file, UINT64_MAX}}, 7);
}

static void intent_of_the_future(void)
{
	put_intent(&(struct intent_record){.op = INTENT_TRUNCATE, .args = {file, 0}}, 8);
}

static void intent_onto_itself(void)
{
	put_intent(&(struct intent_record){.op = INTENT_CLONE, .args = {file, 0, file, 0, 1, 1}}, 7);
}

/* --- counters ---------------------------------------------------------------------------------------------------------------------- */

static void raise_counter(enum root_counter counter)
{
	begin();
	expect_equal(root_add(tx, counter, 1), 0);
	commit();
}

#define RAISE(name, counter) \
	static void raise_##name(void) \
	{ \
		raise_counter(counter); \
	}
RAISE(meta_blocks, ROOT_META_BLOCKS)
RAISE(meta_free, ROOT_META_FREE)
RAISE(chunks_freeing, ROOT_CHUNKS_FREEING)
RAISE(badblock_bytes, ROOT_BADBLOCK_BYTES)
RAISE(lost_bytes, ROOT_LOST_BYTES)
RAISE(inodes, ROOT_INODES)
RAISE(free_blocks, ROOT_FREE_BLOCKS)
RAISE(quarantined, ROOT_QUARANTINED_BLOCKS)
RAISE(orphans, ROOT_ORPHANS)
RAISE(intents, ROOT_INTENTS)

static void lower_next_ino(void)
{
	begin();
	expect_equal(root_set(tx, ROOT_NEXT_INO, 2), 0);
	commit();
}

/* --- all of them ------------------------------------------------------------------------------------------------------------------ */

static const struct twin {
	void (*damage)(void);
	const char *said;
} twins[] = {
	{damage_primary, "(inodes): copy 0"},
	{damage_replica, "(dirents): copy 1"},
	{age_replica, "(free): copy 1 at device byte"},
	{fork_replica, "differs from the other one"},
	{change_both, "home is not what memory has"},
	{damage_root_replica, "(root): copy 1"},
	{damage_table_replica, "metadata block 1 (chunks): copy 1"},
	{damage_header_replica, "(chunks): copy 1"},
	{change_header, "its header and the chunk table differ"},
	{damage_super, "superblock copy"},
	{change_super, "is not the one in use"},
	{damage_head, "journal: head of copy 1"},
	{leak_block, "no tree has it"},
	{mark_node_free, "in use but marked free"},
	{change_aggregate, "wrong aggregate"},
	{name_unknown_tree, "names a tree 13"},
	{disown_area, "poison log area: is not in the reverse map"},
	{disown_chunk, "metadata chunk 0, copy 1: is not in the reverse map"},
	{map_area, "and an area"},
	{own_foreign_area, "which is not there"},
	{free_twice, "free twice"},
	{free_beyond_the_end, "its record as free is damaged"},
	{free_owned, "free, but owned"},
	{overlap_extents, "its extents overlap"},
	{extent_beyond_the_end, "its extent at block 5000 is damaged"},
	{extent_of_directory, "is no regular file"},
	{unwritten_in_rmap_only, "the reverse map confirms 0 of them"},
	{overlap_in_rmap, "the reverse map confirms"},
	{write_beyond_size, "written blocks go on"},
	{count_blocks_of_nothing, "says 1 blocks, has 0"},
	{change_generation, "in type or generation"},
	{change_parent_value, "is another name in the parents"},
	{cut_off_a_ring, "is not below the root"},
	{lengthen_target, "its target is no text"},
	{target_of_a_file, "has a target, but is no symlink"},
	{xattr_of_nobody, "has attributes, but cannot be had"},
	{attribute_without_first_part, "1 of its attributes are not whole"},
	{attribute_without_last_part, "1 of its attributes are not whole"},
	{attribute_with_another_byte, "1 of its attributes are not whole"},
	{attribute_under_another_hash, "1 of its attributes are not whole"},
	{attribute_twice, "two attributes of the same name"},
	{user_attribute_of_symlink, "is neither file nor directory"},
	{acl_beside_mode, "its ACL and its mode disagree"},
	{default_acl_of_file, "has a default ACL, but is no directory"},
	{acl_that_is_none, "1 of its attributes are not whole"},
	{put_nul_in_target, "its target is no text"},
	{drop_target, "its target has 0 bytes"},
	{orphan_without_inode, "has a record as an orphan, but cannot be had"},
	{overlap_badblocks, "tree badblocks: ranges overlap"},
	{badblock_outside, "not within the device"},
	{badblock_of_the_future, "a cause has a number that was never given"},
	{badblock_without_copy, "ledger_copy does not have it"},
	{badblock_with_another_copy, "ledger_copy says something else"},
	{copy_without_badblock, "tree ledger_copy: record"},
	{overlap_damaged, "its damaged ranges overlap"},
	{damage_of_nobody, "has damaged ranges, but cannot be had"},
	{intent_of_nothing, "is about no part of a file"},
	{intent_of_the_future, "has a number that was never given"},
	{intent_onto_itself, "copies from or to no part"},
	{raise_meta_blocks, "counter of metadata blocks"},
	{raise_meta_free, "counter of free metadata blocks"},
	{raise_chunks_freeing, "counter of chunks being freed"},
	{raise_badblock_bytes, "counter of bytes in badblocks"},
	{raise_lost_bytes, "counter of bytes in lost"},
	{raise_inodes, "counter of inodes"},
	{raise_free_blocks, "counter of free blocks"},
	{raise_quarantined, "counter of quarantined blocks"},
	{raise_orphans, "counter of orphans"},
	{raise_intents, "counter of intents"},
	{lower_next_ino, "beyond the numbers handed out"},
};

struct answer {
	const char *wanted;
	bool found;
	unsigned count;
	char lines[2048];
};

static void listen(void *arg, const char *line)
{
	struct answer *answer = arg;
	size_t used = strlen(answer->lines);

	answer->found |= strstr(line, answer->wanted) != NULL;
	answer->count++;
	snprintf(answer->lines + used, sizeof(answer->lines) - used, "  %s\n", line);
}

START_TEST(a_broken_twin_is_found)
{
	struct answer answer = {.wanted = twins[_i].said};
	struct fs_check_totals totals;

	twins[_i].damage();
	expect_equal(fs_check(fs, listen, &answer, &totals), 0);
	expect_equal(totals.findings, answer.count);
	ck_assert_msg(answer.found, "wanted \"%s\", heard:\n%s", answer.wanted, answer.lines);
}
END_TEST

/* Nothing of it is known to be bad any more; a read-only mount heals nothing, so the check may say so. */
START_TEST(a_bad_range_that_is_not_known_is_found)
{
	struct answer answer = {.wanted = "is not known to be bad"};
	struct fs_check_totals totals;

	put_badblock(8u << 20, 4096, 1, true);
	expect_equal(fsfix_unmount(&fix), 0);
	fix.options.readonly = true;
	expect_equal(fsfix_mount(&fix), 0);
	expect_equal(fsfix_check(&fix), 0);
	expect_equal(media_bad_remove(fix.fs->media, (8u << 20) + 512, 512), 0);
	expect_equal(fs_check(fix.fs, listen, &answer, &totals), 0);
	ck_assert_msg(answer.found, "heard:\n%s", answer.lines);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("check_twins");
	TCase *t = tcase_create("twins");
	SRunner *runner;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, a_broken_twin_is_found, 0, (int)ARRAY_SIZE(twins));
	tcase_add_test(t, a_bad_range_that_is_not_known_is_found);
	suite_add_tcase(suite, t);
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	printf("sample: broken twins of the check caught: %d of %d\n", (int)ARRAY_SIZE(twins) + 1 - failed, (int)ARRAY_SIZE(twins) + 1);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
