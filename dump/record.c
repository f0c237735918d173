/* The records of all trees as JSON. A value that does not verify is shown in hex and called damaged. */
#include "dump/internal.h"

#include <errno.h>
#include <string.h>

#include "fs/dir.h"
#include "format/poison_format.h"

/* --- values -------------------------------------------------------------------------------------------------------------------- */

/* Seconds of a damaged record may be any number: what 64 bits of nanoseconds do not hold is shown as their limit. */
static void add_time(struct json_object *element, const char *key, int64_t sec, uint32_t nsec)
{
	int64_t ns;

	if (__builtin_mul_overflow(sec, INT64_C(1000000000), &ns) || __builtin_add_overflow(ns, (int64_t)nsec, &ns))
		ns = sec < 0 ? INT64_MIN : INT64_MAX;
	json_add(element, key, json_object_new_int64(ns));
}

static int add_inode(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	struct inode_record record;

	if (format_inode_unpack(&record, value, length))
		return -EUCLEAN;
	json_add_u64(element, "mode", record.mode);
	json_add_u64(element, "nlink", record.nlink);
	json_add_u64(element, "uid", record.uid);
	json_add_u64(element, "gid", record.gid);
	json_add_u64(element, "size_bytes", record.size_bytes);
	json_add_u64(element, "blocks", record.count_blocks);
	add_time(element, "atime_ns", record.atime.sec, record.atime.nsec);
	add_time(element, "mtime_ns", record.mtime.sec, record.mtime.nsec);
	add_time(element, "ctime_ns", record.ctime.sec, record.ctime.nsec);
	add_time(element, "btime_ns", record.btime.sec, record.btime.nsec);
	json_add_u64(element, "generation", record.generation);
	json_add_u64(element, "change", record.change);
	json_add_bool(element, "may_share", record.flags & INODE_MAY_SHARE);
	json_add_u64(element, "flags", record.flags);
	json_add_u64(element, "rdev", record.rdev);
	json_add_u64(element, "parent", record.parent);
	json_add_u64(element, "cause_id", record.cause_id);
	json_add_u64(element, "entries", record.entries);
	return 0;
}

static int add_dirent(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	struct dirent_record record;

	if (format_dirent_unpack(&record, value, length))
		return -EUCLEAN;
	if (dir_entry_is_marker(&record)) {
		json_add_bool(element, "marker", true);
		return 0;
	}
	json_add_u64(element, "inumber", record.ino);
	json_add_u64(element, "generation", record.generation);
	json_add_u64(element, "dtype", record.type);
	element_bytes(element, "name", record.name, record.name_length);
	return 0;
}

/* Version 1 has no bytes here. */
static int add_parent(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	struct dirent_record record;

	if (length && format_dirent_unpack(&record, value, length))
		return -EUCLEAN;
	if (length)
		element_bytes(element, "name", record.name, record.name_length);
	return 0;
}

static int add_extent(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	struct extent extent;

	if (format_extent_unpack(&extent, value, length))
		return -EUCLEAN;
	json_add_u64(element, "block", extent.block);
	json_add_u64(element, "blocks", extent.count_blocks);
	json_add_bool(element, "written", !(extent.flags & EXTENT_UNWRITTEN));
	return 0;
}

static int add_xattr(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	const char *what = key->word[1] ? "value" : "target";
	struct xattr_record record = {.first_at = 0};

	if (key->word[1] && !key->word[2]) {
		if (format_xattr_unpack(&record, value, length))
			return -EUCLEAN;
		element_bytes(element, "name", record.name, record.name_length);
		json_add_u64(element, "value_length", record.value_length);
	}
	element_bytes(element, what, (const char *)value + record.first_at, length - record.first_at);
	return 0;
}

static int add_rmap(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	static const char *const kinds[] = {"none", "superblock", "journal", "poison_log", "fixed", "chunk", "quarantine"};
	uint64_t kind = key->word[1] & ~OWNER_SPECIAL;
	uint64_t count;
	uint8_t flags;

	if (format_rmap_unpack(&count, &flags, value, length))
		return -EUCLEAN;
	json_add_u64(element, "blocks", count);
	if (owner_is_inode(key->word[1]))
		json_add_u64(element, "inumber", key->word[1]);
	else
		json_add_text(element, "owner", kind < ARRAY_SIZE(kinds) ? kinds[kind] : "unknown");
	json_add_bool(element, "written", !(flags & EXTENT_UNWRITTEN));
	return 0;
}

static int add_free(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	uint64_t count;

	if (format_free_unpack(&count, value, length))
		return -EUCLEAN;
	json_add_u64(element, "blocks", count);
	return 0;
}

static int add_badblock(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	struct badblock_record record;

	if (format_badblock_unpack(&record, value, length))
		return -EUCLEAN;
	json_add_u64(element, "len", record.length_bytes);
	json_add_text(element, "state", badblock_state_name(record.state));
	json_add_text(element, "source", failure_source_name(record.source));
	json_add_u64(element, "since_ns", record.since_ns);
	json_add_u64(element, "cause_id", record.cause_id);
	json_add_u64(element, "reports", record.count);
	return 0;
}

static int add_lost(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	struct lost_record record;

	if (format_lost_unpack(&record, value, length))
		return -EUCLEAN;
	json_add_u64(element, "len", record.length_bytes);
	json_add_text(element, "source", failure_source_name(record.source));
	json_add_u64(element, "cause_id", record.cause_id);
	return 0;
}

static int add_damaged(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	struct damaged_record record;

	if (format_damaged_unpack(&record, value, length))
		return -EUCLEAN;
	json_add_u64(element, "len", record.length_bytes);
	json_add_u64(element, "cause_id", record.cause_id);
	return 0;
}

static int add_empty(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	return length ? -EUCLEAN : 0;
}

static int add_ledger_copy(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	json_add_text(element, "tree", format_tree_name((unsigned)min_u64(key->word[0], FORMAT_TREE_COUNT)));
	switch (key->word[0]) {
	case FORMAT_TREE_BADBLOCKS:
		return add_badblock(element, key, value, length);
	case FORMAT_TREE_LOST:
		return add_lost(element, key, value, length);
	case FORMAT_TREE_DAMAGED:
		return add_damaged(element, key, value, length);
	}
	return -EUCLEAN;
}

static int add_intent(struct json_object *element, const struct btree_key *key, const void *value, size_t length)
{
	struct intent_record record;

	if (format_intent_unpack(&record, value, length))
		return -EUCLEAN;
	json_add_text(element, "op", record.op == INTENT_TRUNCATE ? "truncate" : record.op == INTENT_PUNCH ? "punch" : "clone");
	for (unsigned i = 0; i < ARRAY_SIZE(record.args); i++)
		element_list(element, "args", json_object_new_uint64(record.args[i]));
	return 0;
}

/* --- keys ---------------------------------------------------------------------------------------------------------------------- */

struct record_kind {
	const char *type;
	const char *words[3];
	unsigned key_words;
	int (*add)(struct json_object *element, const struct btree_key *key, const void *value, size_t length);
};

static const struct record_kind kinds[FORMAT_TREE_COUNT] = {
	[FORMAT_TREE_INODES] = {"inode", {"inumber"}, 1, add_inode},
	[FORMAT_TREE_DIRENTS] = {"dirent", {"directory", "cookie"}, 2, add_dirent},
	[FORMAT_TREE_PARENTS] = {"parent", {"inumber", "directory", "cookie"}, 3, add_parent},
	[FORMAT_TREE_EXTENTS] = {"extent", {"inumber", "file_block"}, 2, add_extent},
	[FORMAT_TREE_XATTRS] = {"xattr", {"inumber", "hash", "part"}, 3, add_xattr},
	[FORMAT_TREE_RMAP] = {"rmap", {"block", "owner_key", "offset"}, 3, add_rmap},
	[FORMAT_TREE_FREE] = {"free", {"block"}, 1, add_free},
	[FORMAT_TREE_BADBLOCKS] = {"badblock", {"device_offset"}, 1, add_badblock},
	[FORMAT_TREE_LOST] = {"lost", {"device_offset"}, 1, add_lost},
	[FORMAT_TREE_DAMAGED] = {"damaged", {"inumber", "pos"}, 2, add_damaged},
	[FORMAT_TREE_ORPHANS] = {"orphan", {"inumber"}, 1, add_empty},
	[FORMAT_TREE_INTENTS] = {"intent", {"id"}, 1, add_intent},
	[FORMAT_TREE_LEDGER_COPY] = {"ledger_copy", {"tree_number", "key", "second_key"}, 3, add_ledger_copy},
};

unsigned dump_key_words(unsigned tree)
{
	return tree < FORMAT_TREE_COUNT ? kinds[tree].key_words : 0;
}

int dump_tree_parse(const char *name)
{
	for (unsigned tree = 1; tree < FORMAT_TREE_COUNT; tree++)
		if (kinds[tree].key_words && !strcmp(format_tree_name(tree), name))
			return (int)tree;
	return -1;
}

static void add_child(struct json_object *element, const void *value)
{
	struct le64 words[2];

	memcpy(words, value, sizeof(words));
	json_add_u64(element, "child", le64_get(words[0]));
	json_add_u64(element, "aggregate", le64_get(words[1]));
}

struct json_object *dump_render_record(unsigned tree, unsigned level, const struct btree_key *key, const void *value, size_t length,
				       bool raw)
{
	const struct record_kind *kind = &kinds[tree];
	struct json_object *element = element_make(level ? "child" : kind->type);

	if (!element)
		return NULL;
	for (unsigned i = 0; i < kind->key_words; i++)
		json_add_u64(element, kind->words[i], key->word[i]);
	if (level && length == sizeof(struct le64) * 2)
		add_child(element, value);
	else if (!level && kind->add(element, key, value, length))
		json_add_text(element, "wrong", "value");
	if (raw || json_object_object_get(element, "wrong"))
		element_hex(element, "raw", value, length);
	return element;
}
