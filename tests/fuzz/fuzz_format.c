/*
 * Target: unpack and verify of every stored structure. Whatever the bytes are, they are refused or understood; what is understood packs to the same
 * bytes; a node that is accepted can be searched and changed.
 * Input: kind (1), mode (1), the structure's bytes; what is missing of it is zeros.
 */
#include <errno.h>
#include <stdlib.h>

#include "btree/node.h"
#include "format/acl_format.h"
#include "format/chunk_format.h"
#include "format/poison_format.h"
#include "format/record_format.h"
#include "format/root_format.h"
#include "journal/log.h"
#include "tests/fuzz/bytes.h"
#include "tests/fuzz/format.h"
#include "tests/fuzz/mutator.h"
#include "tests/fuzz/seal.h"
#include "tests/fuzz/target.h"

#define RING_BYTES (1ull << 20)

static uint8_t meta_uuid[FORMAT_UUID_BYTES];

/* In memory of its own and of exactly its length, so that a read past it is seen. */
static uint8_t *structure(struct bytes *bytes, size_t length)
{
	uint8_t *copy = malloc(length ? length : 1);

	if (!copy)
		abort();
	bytes_take(bytes, copy, length);
	return copy;
}

static void must_equal(const void *packed, const void *bytes, size_t length, const char *what)
{
	if (memcmp(packed, bytes, length))
		target_fail("what was understood packs to other bytes", what);
}

/* --- superblock, blocks --- */

static void try_super(struct bytes *bytes, uint8_t mode)
{
	uint8_t *raw = structure(bytes, BLOCK_BYTES);
	struct format_super packed;
	struct super super;
	struct why why;

	if (!(mode & FORMAT_RAW))
		seal_super(raw);
	if (!format_super_unpack(&super, (const struct format_super *)raw, &why)) {
		format_super_check_features(&super, &why);
		format_super_pack(&packed, &super);
		must_equal(&packed, raw, BLOCK_BYTES, "superblock");
	}
	free(raw);
}

static void try_entry(const struct format_chunk_entry *entry)
{
	struct format_chunk_entry packed;
	struct chunk_entry unpacked;
	const char *field;

	if (format_chunk_entry_unpack(&unpacked, entry, &field) || unpacked.state == FORMAT_CHUNK_FREE)
		return;
	format_chunk_entry_pack(&packed, &unpacked);
	must_equal(&packed, entry, sizeof(packed), "chunk entry");
}

static void search_node(const struct format_node *node, const struct btree_ops *ops)
{
	struct btree_key key;
	size_t length;
	bool found;

	node_aggregate(node, ops);
	for (unsigned i = 0; i < node_count(node); i++) {
		node_key(node, i, &key);
		node_value(node, i, &length);
		if (node_search(node, &key, &found) != i || !found)
			target_fail("a key of a node is not found in it", "");
		node_search_child(node, &key);
	}
}

/* Take one record out, put it in again, move half of the records to a new node. */
static void change_node(const struct format_node *node, const struct btree_ops *ops)
{
	uint8_t copy[BLOCK_BYTES], other[BLOCK_BYTES], value[NODE_VALUE_MAX];
	struct format_node *changed = (struct format_node *)copy, *split = (struct format_node *)other;
	unsigned index = node_count(node) / 2;
	struct btree_key key;
	const char *field;
	const void *from;
	size_t length;

	memcpy(copy, node, BLOCK_BYTES);
	memset(other, 0, BLOCK_BYTES);
	node_key(changed, index, &key);
	from = node_value(node, index, &length);
	memcpy(value, from, length);
	node_remove(changed, index);
	if (!node_fits(changed, length))
		target_fail("a record that was taken out does not fit again", "");
	node_insert(changed, index, &key, value, length);
	if (node_verify(changed, ops, &field))
		target_fail("a node is refused after a change", field);
	node_init(split, changed->level, changed->key_words);
	node_move_tail(changed, node_split_point(changed, index, 0) / 2, split);
}

static void try_node(const struct format_node *node)
{
	const struct btree_ops *ops = format_ops(node->header.tree);
	const char *field;

	if (!ops || node_verify(node, ops, &field))
		return;
	search_node(node, ops);
	change_node(node, ops);
}

static void try_block(struct bytes *bytes, uint8_t mode)
{
	uint8_t *raw = structure(bytes, BLOCK_BYTES);
	const struct format_block_header *header = (const struct format_block_header *)raw;
	const struct format_chunk_table_block *table = (const struct format_chunk_table_block *)raw;
	maddr_t address = mode & FORMAT_ELSEWHERE ? 5 : le64_get(header->address);
	const char *field = "";

	if (!(mode & FORMAT_RAW))
		seal_struct(raw, BLOCK_BYTES);
	format_block_header_verify(header, meta_uuid, address, &field);
	format_block_name(header->role, header->tree);
	if (!format_block_verify(raw, meta_uuid, address, &field)) {
		for (unsigned i = 0; header->role == FORMAT_ROLE_CHUNK_TABLE && i < CHUNK_ENTRIES_PER_BLOCK; i++)
			try_entry(&table->entries[i]);
		if (header->role == FORMAT_ROLE_NODE)
			try_node((const struct format_node *)raw);
	} else if (!field[0]) {
		target_fail("a block was refused without a field", "");
	}
	free(raw);
}

static void try_chunk_entry(struct bytes *bytes, uint8_t mode)
{
	uint8_t *raw = structure(bytes, sizeof(struct format_chunk_entry));

	try_entry((const struct format_chunk_entry *)raw);
	free(raw);
}

/* --- journal, poison log --- */

static void try_head(struct bytes *bytes, uint8_t mode)
{
	uint8_t *raw = structure(bytes, sizeof(struct format_journal_head));
	const struct format_journal_head *head = (const struct format_journal_head *)raw;
	struct super super = {0};
	struct log_ring ring = {.super = &super, .ring_bytes = RING_BYTES};
	struct format_journal_head packed;

	memcpy(super.meta_uuid, meta_uuid, sizeof(meta_uuid));
	if (!(mode & FORMAT_RAW))
		seal_struct(raw, sizeof(*head));
	if (!record_head_verify(head, &ring)) {
		ring.tail_sequence = le64_get(head->tail_sequence);
		ring.tail_offset = le64_get(head->tail_offset);
		ring.epoch = le32_get(head->epoch);
		ring.update = le64_get(head->update);
		record_head_pack(&packed, &ring, meta_uuid);
		must_equal(&packed, raw, sizeof(packed), "journal head");
	}
	free(raw);
}

static void try_record(struct bytes *bytes, uint8_t mode)
{
	struct format_record_header header;
	struct super super = {0};
	struct log_ring ring = {.super = &super, .ring_bytes = RING_BYTES};
	struct bytes all = *bytes;
	uint8_t *raw;

	memcpy(super.meta_uuid, meta_uuid, sizeof(meta_uuid));
	bytes_take(bytes, &header, sizeof(header));
	ring.epoch = le32_get(header.epoch);
	if (!record_header_is_ours(&header, &ring, mode & FORMAT_ELSEWHERE ? 64 : le64_get(header.offset)))
		return;
	raw = structure(&all, le32_get(header.length));
	if (!(mode & FORMAT_RAW))
		seal_struct(raw, le32_get(header.length));
	record_is_whole(raw, le32_get(header.length));
	free(raw);
}

static void try_poison(struct bytes *bytes, uint8_t mode)
{
	uint8_t *raw = structure(bytes, sizeof(struct format_poison_entry));
	struct format_poison_entry packed;
	struct poison_entry entry;

	if (!(mode & FORMAT_RAW))
		seal_struct(raw, sizeof(packed));
	if (!format_poison_entry_unpack(&entry, (const struct format_poison_entry *)raw, meta_uuid)) {
		format_poison_entry_pack(&packed, &entry, meta_uuid);
		must_equal(&packed, raw, sizeof(packed), "poison entry");
	}
	badblock_state_name(((const struct format_poison_entry *)raw)->state);
	failure_source_name(((const struct format_poison_entry *)raw)->source);
	free(raw);
}

/* --- values of trees: the length is that of the input --- */

struct value {
	const uint8_t *bytes;
	size_t length;
};

static void try_extent(const struct value *value)
{
	struct format_extent packed;
	struct extent extent;

	if (format_extent_unpack(&extent, value->bytes, value->length))
		return;
	format_extent_pack(&packed, &extent);
	must_equal(&packed, value->bytes, sizeof(packed), "extent");
}

static void try_rmap(const struct value *value)
{
	struct format_rmap packed;
	uint64_t count;
	uint8_t flags;

	if (format_rmap_unpack(&count, &flags, value->bytes, value->length))
		return;
	format_rmap_pack(&packed, count, flags);
	must_equal(&packed, value->bytes, sizeof(packed), "rmap");
}

static void try_free(const struct value *value)
{
	struct format_free packed;
	uint64_t count;

	if (format_free_unpack(&count, value->bytes, value->length))
		return;
	format_free_pack(&packed, count);
	must_equal(&packed, value->bytes, sizeof(packed), "free");
}

static void try_dirent(const struct value *value)
{
	uint8_t packed[sizeof(struct format_dirent) + NAME_BYTES_MAX];
	struct dirent_record record;

	if (format_dirent_unpack(&record, value->bytes, value->length))
		return;
	if (format_dirent_pack(packed, &record) != value->length)
		target_fail("a directory entry packs to another length", "");
	must_equal(packed, value->bytes, value->length, "directory entry");
}

static void try_inode(const struct value *value)
{
	struct format_inode packed;
	struct inode_record record;

	if (format_inode_unpack(&record, value->bytes, value->length))
		return;
	format_inode_pack(&packed, &record);
	must_equal(&packed, value->bytes, sizeof(packed), "inode");
}

static void try_badblock(const struct value *value)
{
	struct badblock_record record;
	struct format_badblock packed;

	if (format_badblock_unpack(&record, value->bytes, value->length))
		return;
	format_badblock_pack(&packed, &record);
	must_equal(&packed, value->bytes, sizeof(packed), "badblock");
}

static void try_lost(const struct value *value)
{
	struct format_lost packed;
	struct lost_record record;

	if (format_lost_unpack(&record, value->bytes, value->length))
		return;
	format_lost_pack(&packed, &record);
	must_equal(&packed, value->bytes, sizeof(packed), "lost");
}

static void try_damaged(const struct value *value)
{
	struct format_damaged packed;
	struct damaged_record record;

	if (format_damaged_unpack(&record, value->bytes, value->length))
		return;
	format_damaged_pack(&packed, &record);
	must_equal(&packed, value->bytes, sizeof(packed), "damaged");
}

static void try_intent(const struct value *value)
{
	struct intent_record record;
	struct format_intent packed;

	if (format_intent_unpack(&record, value->bytes, value->length))
		return;
	format_intent_pack(&packed, &record);
	must_equal(&packed, value->bytes, sizeof(packed), "intent");
}

/* What is not an ACL is not written as one. */
static void try_acl(const struct value *value)
{
	uint8_t packed[ACL_BLOB_MAX], again[ACL_BLOB_MAX];
	struct acl acl;
	size_t length;

	if (format_acl_unpack(&acl, value->bytes, value->length))
		return;
	length = format_acl_pack(packed, &acl);
	if (length != value->length || format_acl_unpack(&acl, packed, length))
		target_fail("an ACL packs to something else", "");
	format_acl_pack(again, &acl);
	must_equal(again, packed, length, "ACL");
}

static void try_xattr(const struct value *value)
{
	uint8_t packed[XATTR_PART_BYTES];
	struct xattr_record record;
	const uint8_t *first;

	try_acl(value);
	if (format_xattr_unpack(&record, value->bytes, value->length))
		return;
	first = value->bytes + record.first_at;
	if (record.count_parts != 1 || format_xattr_crc(&record, first) != record.crc)
		return;
	if (format_xattr_pack(packed, &record, first) != value->length)
		target_fail("an attribute packs to another length", "");
	must_equal(packed, value->bytes, value->length, "attribute");
}

static void try_value(unsigned kind, struct bytes *bytes)
{
	static void (*const tries[])(const struct value *value) = {
		[FORMAT_TREE_INODES] = try_inode, [FORMAT_TREE_DIRENTS] = try_dirent,	  [FORMAT_TREE_PARENTS] = try_dirent,
		[FORMAT_TREE_EXTENTS] = try_extent, [FORMAT_TREE_RMAP] = try_rmap,	  [FORMAT_TREE_FREE] = try_free,
		[FORMAT_TREE_BADBLOCKS] = try_badblock, [FORMAT_TREE_LOST] = try_lost,	  [FORMAT_TREE_DAMAGED] = try_damaged,
		[FORMAT_TREE_INTENTS] = try_intent,	  [FORMAT_TREE_XATTRS] = try_xattr,
	};
	unsigned tree = (kind - FORMAT_VALUE) % FORMAT_TREE_COUNT;
	const struct btree_ops *ops = format_ops(tree);
	size_t length = bytes->left;
	uint8_t *raw = structure(bytes, length);
	struct value value = {raw, length};

	format_tree_name(tree);
	if (tree < ARRAY_SIZE(tries) && tries[tree])
		tries[tree](&value);
	if (ops && ops->verify)
		ops->verify(&(struct btree_key){{1, 256, 1}}, raw, length);
	free(raw);
}

/* --- what libFuzzer calls --- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	target_begin();
	for (unsigned i = 0; i < FORMAT_UUID_BYTES; i++)
		meta_uuid[i] = (uint8_t)(0x10 + i); /* that of the base images */
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const tries[])(struct bytes *bytes, uint8_t mode) = {
		[FORMAT_SUPER] = try_super, [FORMAT_BLOCK] = try_block,	  [FORMAT_CHUNK_ENTRY] = try_chunk_entry,
		[FORMAT_HEAD] = try_head,   [FORMAT_RECORD] = try_record, [FORMAT_POISON] = try_poison,
	};
	struct bytes bytes = {data, size};
	unsigned kind = bytes_u8(&bytes) % FORMAT_KINDS;
	uint8_t mode = bytes_u8(&bytes);

	if (kind < FORMAT_VALUE)
		tries[kind](&bytes, mode);
	else
		try_value(kind, &bytes);
	return 0;
}
