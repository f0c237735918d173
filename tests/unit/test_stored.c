/* format/: what is packed comes back, and every field's bad value is refused. */
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "format/chunk_format.h"
#include "format/poison_format.h"
#include "format/record_format.h"
#include "format/super_format.h"
#include "tests/support/expect.h"
#include "tests/support/random.h"
#include "util/crc.h"

static const uint8_t uuid[FORMAT_UUID_BYTES] = "0123456789abcdef";

/* --- block headers -------------------------------------------------------------------------------------------------- */

static void block_make(uint8_t *block)
{
	memset(block, 0x5c, BLOCK_BYTES);
	format_block_header_init((void *)block, uuid, 77, FORMAT_ROLE_NODE, FORMAT_TREE_RMAP);
	format_block_seal(block, 9);
}

static const char *block_fault(const uint8_t *block, maddr_t address)
{
	const char *field = NULL;

	if (format_block_verify(block, uuid, address, &field) == 0)
		return NULL;
	ck_assert_ptr_nonnull(field);
	return field;
}

START_TEST(sealed_block_verifies)
{
	uint8_t block[BLOCK_BYTES];

	block_make(block);
	ck_assert_ptr_null(block_fault(block, 77));
}
END_TEST

START_TEST(block_elsewhere_is_not_ours)
{
	uint8_t block[BLOCK_BYTES];

	block_make(block);
	ck_assert_str_eq(block_fault(block, 78), "address");
	((struct format_block_header *)block)->meta_uuid[3] ^= 1;
	ck_assert_str_eq(block_fault(block, 77), "meta_uuid");
}
END_TEST

/* The reason is the field itself where it has a value of its own, else the checksum. */
START_TEST(every_bit_of_a_block_counts)
{
	static const struct {
		size_t offset;
		const char *field;
	} bits[] = {
		{0, "magic"},	  {4, "crc32c"},   {8, "meta_uuid"}, {24, "address"},
		{32, "owner"},	  {40, "crc32c"},  {48, "version"},  {50, "role"},
		{52, "reserved"}, {63, "reserved"}, {64, "crc32c"},   {4095, "crc32c"},
	};

	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		uint8_t block[BLOCK_BYTES];

		block_make(block);
		block[bits[i].offset] ^= 0x10;
		ck_assert_str_eq(block_fault(block, 77), bits[i].field);
	}
}
END_TEST

START_TEST(role_and_tree_must_fit_each_other)
{
	static const uint8_t bad[][2] = {
		{FORMAT_ROLE_NODE, FORMAT_TREE_NONE}, {FORMAT_ROLE_NODE, FORMAT_TREE_COUNT},
		{FORMAT_ROLE_ROOT, FORMAT_TREE_RMAP}, {0, FORMAT_TREE_NONE},
		{0xff, FORMAT_TREE_RMAP},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint8_t block[BLOCK_BYTES];
		struct format_block_header *header = (void *)block;

		block_make(block);
		header->role = bad[i][0];
		header->tree = bad[i][1];
		format_block_seal(block, 9);
		ck_assert_str_eq(block_fault(block, 77), "role");
	}
}
END_TEST

/* A block of this role, zeros but for its header and one byte. */
static const char *body_fault(enum format_block_role role, size_t offset, uint8_t value)
{
	uint8_t block[BLOCK_BYTES] = {0};

	format_block_header_init((void *)block, uuid, 5, role, FORMAT_TREE_NONE);
	block[offset] = value;
	format_block_seal(block, 1);
	return block_fault(block, 5);
}

START_TEST(reserved_bytes_of_root_and_chunk_blocks_are_zero)
{
	ck_assert_ptr_null(body_fault(FORMAT_ROLE_ROOT, 64 + 16, 1));
	ck_assert_ptr_null(body_fault(FORMAT_ROLE_ROOT, 831, 1));
	ck_assert_str_eq(body_fault(FORMAT_ROLE_ROOT, 64, 1), "reserved");
	ck_assert_str_eq(body_fault(FORMAT_ROLE_ROOT, 64 + 16 + 8, 1), "reserved");
	ck_assert_str_eq(body_fault(FORMAT_ROLE_ROOT, 64 + 16 + 9, 1), "reserved");
	ck_assert_str_eq(body_fault(FORMAT_ROLE_ROOT, 64 + 15 * 16, 1), "reserved");
	ck_assert_str_eq(body_fault(FORMAT_ROLE_ROOT, 832, 1), "reserved");
	ck_assert_str_eq(body_fault(FORMAT_ROLE_ROOT, 4095, 1), "reserved");
	ck_assert_ptr_null(body_fault(FORMAT_ROLE_CHUNK_TABLE, 64, 1));
	ck_assert_str_eq(body_fault(FORMAT_ROLE_CHUNK_TABLE, 4032, 1), "reserved");
	ck_assert_ptr_null(body_fault(FORMAT_ROLE_CHUNK_HEADER, 92, 1));
	ck_assert_str_eq(body_fault(FORMAT_ROLE_CHUNK_HEADER, 93, 1), "reserved");
}
END_TEST

START_TEST(names_of_blocks_are_those_of_events)
{
	ck_assert_str_eq(format_tree_name(FORMAT_TREE_EXTENTS), "extents");
	ck_assert_str_eq(format_tree_name(0), "unknown");
	ck_assert_str_eq(format_tree_name(1000), "unknown");
	ck_assert_str_eq(format_block_name(FORMAT_ROLE_ROOT, 0), "root");
	ck_assert_str_eq(format_block_name(FORMAT_ROLE_CHUNK_TABLE, 0), "chunks");
	ck_assert_str_eq(format_block_name(FORMAT_ROLE_NODE, FORMAT_TREE_FREE), "free");
	ck_assert_str_eq(format_block_name(0, 0), "unknown");
}
END_TEST

/* --- chunk entries ---------------------------------------------------------------------------------------------------- */

static struct chunk_entry entry_make(void)
{
	return (struct chunk_entry){
		.copy = {1 << 20, 8 << 20},
		.generation = 3,
		.shift = 18,
		.state = FORMAT_CHUNK_LIVE,
		.copy_state = {FORMAT_COPY_WHOLE, FORMAT_COPY_STALE},
		.free_blocks = 61,
		.map = {7},
	};
}

static const char *entry_fault_of(const struct chunk_entry *entry)
{
	struct format_chunk_entry raw;
	struct chunk_entry back;
	const char *field = NULL;

	format_chunk_entry_pack(&raw, entry);
	if (format_chunk_entry_unpack(&back, &raw, &field) == 0) {
		ck_assert_mem_eq(back.map, entry->map, sizeof(back.map));
		ck_assert_uint_eq(back.copy[1], entry->copy[1]);
		ck_assert_uint_eq(back.generation, entry->generation);
		return NULL;
	}
	ck_assert_ptr_nonnull(field);
	return field;
}

START_TEST(chunk_entry_comes_back)
{
	struct chunk_entry entry = entry_make();

	ck_assert_ptr_null(entry_fault_of(&entry));
	entry = (struct chunk_entry){.generation = 8};
	ck_assert_ptr_null(entry_fault_of(&entry));
	entry = entry_make();
	entry.shift = 21;
	memset(entry.map, 0xff, sizeof(entry.map));
	entry.free_blocks = 0;
	entry.state = FORMAT_CHUNK_FREEING;
	ck_assert_ptr_null(entry_fault_of(&entry));
}
END_TEST

#define REFUSES_ENTRY(change, name)                                                                \
	do {                                                                                       \
		struct chunk_entry entry = entry_make();                                           \
		change;                                                                            \
		ck_assert_str_eq(entry_fault_of(&entry), name);                                    \
	} while (0)

START_TEST(each_bad_field_of_a_chunk_entry_is_named)
{
	REFUSES_ENTRY(entry.state = 1, "state");
	REFUSES_ENTRY(entry.shift = 15, "shift");
	REFUSES_ENTRY(entry.shift = 22, "shift");
	REFUSES_ENTRY(entry.copy[0] = 0, "copy");
	REFUSES_ENTRY(entry.copy[0] += 512, "copy");
	REFUSES_ENTRY(entry.copy[0] |= 1ull << 56, "copy");
	REFUSES_ENTRY(entry.copy[1] = UINT64_MAX - 4095, "copy");
	REFUSES_ENTRY(entry.copy[1] = entry.copy[0] + 4096, "copy");
	REFUSES_ENTRY(entry.copy_state[0] = 1, "copy");
	REFUSES_ENTRY(entry.copy_state[1] = FORMAT_COPY_ABSENT, "copy");
	REFUSES_ENTRY(entry.copy_state[0] = FORMAT_COPY_STALE, "copy_state");
	REFUSES_ENTRY(entry.map[0] &= ~1ull, "map");
	REFUSES_ENTRY(entry.map[1] = 1, "map");
	REFUSES_ENTRY(entry.free_blocks = 60, "free_blocks");
}
END_TEST

START_TEST(reserved_bytes_of_a_chunk_entry_are_zero)
{
	struct chunk_entry entry = entry_make();
	struct format_chunk_entry raw;
	const char *field = NULL;

	format_chunk_entry_pack(&raw, &entry);
	raw.reserved1[3] = le64_make(1);
	ck_assert_int_eq(format_chunk_entry_unpack(&entry, &raw, &field), -EUCLEAN);
	ck_assert_str_eq(field, "reserved");
}
END_TEST

/* --- poison log --------------------------------------------------------------------------------------------------------- */

static struct poison_entry poison_make(void)
{
	return (struct poison_entry){
		.sequence = 12,
		.offset = 512 * 9,
		.length_bytes = 1024,
		.time_ns = 5,
		.cause_id = 6,
		.state = BADBLOCK_BAD,
		.source = FAILURE_KERNEL,
	};
}

static int poison_try(const struct poison_entry *entry)
{
	struct format_poison_entry raw;
	struct poison_entry back;
	int error;

	format_poison_entry_pack(&raw, entry, uuid);
	error = format_poison_entry_unpack(&back, &raw, uuid);
	if (!error)
		ck_assert_mem_eq(&back, entry, offsetof(struct poison_entry, source) + 1);
	return error;
}

START_TEST(poison_entry_comes_back)
{
	struct poison_entry entry = poison_make();

	ck_assert_int_eq(poison_try(&entry), 0);
}
END_TEST

#define REFUSES_POISON(change)                                                                     \
	do {                                                                                       \
		struct poison_entry entry = poison_make();                                         \
		change;                                                                            \
		ck_assert_int_eq(poison_try(&entry), -EUCLEAN);                                    \
	} while (0)

START_TEST(bad_poison_entries_are_refused)
{
	REFUSES_POISON(entry.offset += 1);
	REFUSES_POISON(entry.offset = 1ull << 56);
	REFUSES_POISON(entry.offset = UINT64_MAX - 511);
	REFUSES_POISON(entry.length_bytes = 0);
	REFUSES_POISON(entry.length_bytes = 513);
	REFUSES_POISON(entry.length_bytes = 1ull << 57);
	REFUSES_POISON(entry.state = 1);
	REFUSES_POISON(entry.source = 0);
	REFUSES_POISON(entry.source = 7);
}
END_TEST

START_TEST(every_bit_of_a_poison_entry_counts)
{
	struct poison_entry entry = poison_make(), back;
	struct format_poison_entry raw;

	for (size_t bit = 0; bit < sizeof(raw) * 8; bit++) {
		format_poison_entry_pack(&raw, &entry, uuid);
		((uint8_t *)&raw)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		ck_assert_int_eq(format_poison_entry_unpack(&back, &raw, uuid), -EUCLEAN);
	}
	memset(&raw, 0, sizeof(raw));
	ck_assert_int_eq(format_poison_entry_unpack(&back, &raw, uuid), -EUCLEAN);
}
END_TEST

/* --- records -------------------------------------------------------------------------------------------------------------- */

START_TEST(extent_and_rmap_come_back)
{
	struct extent extent = {.block = 55, .count_blocks = 1u << 20, .flags = EXTENT_UNWRITTEN}, back;
	struct format_extent raw;
	struct format_rmap rmap;
	uint64_t count;
	uint8_t flags;

	format_extent_pack(&raw, &extent);
	ck_assert_int_eq(format_extent_unpack(&back, &raw, sizeof(raw)), 0);
	ck_assert_uint_eq(back.block, 55);
	ck_assert_uint_eq(back.count_blocks, 1u << 20);
	ck_assert_uint_eq(back.flags, EXTENT_UNWRITTEN);
	format_rmap_pack(&rmap, 7, 0);
	ck_assert_int_eq(format_rmap_unpack(&count, &flags, &rmap, sizeof(rmap)), 0);
	ck_assert_uint_eq(count, 7);
	ck_assert_uint_eq(flags, 0);
}
END_TEST

static int extent_try(uint64_t block, uint64_t count, uint8_t flags)
{
	struct extent extent = {.block = block, .count_blocks = count, .flags = flags}, back;
	struct format_extent raw;

	format_extent_pack(&raw, &extent);
	return format_extent_unpack(&back, &raw, sizeof(raw));
}

START_TEST(extents_outside_a_device_are_refused)
{
	struct format_extent raw = {{1}, {1}};
	struct extent back;

	ck_assert_int_eq(extent_try(1, 0, 0), -EUCLEAN);
	ck_assert_int_eq(extent_try(1, 1, 2), -EUCLEAN);
	ck_assert_int_eq(extent_try(1ull << 44, 1, 0), -EUCLEAN);
	ck_assert_int_eq(extent_try((1ull << 44) - 1, 1, 0), 0);
	ck_assert_int_eq(extent_try((1ull << 44) - 1, 2, 0), -EUCLEAN);
	ck_assert_int_eq(extent_try(UINT64_MAX, 1, 0), -EUCLEAN);
	ck_assert_int_eq(format_extent_unpack(&back, &raw, 15), -EUCLEAN);
	ck_assert_int_eq(format_extent_unpack(&back, &raw, 17), -EUCLEAN);
}
END_TEST

START_TEST(bad_rmap_and_free_lengths_are_refused)
{
	struct format_rmap rmap;
	struct format_free space;
	uint64_t count = 0;
	uint8_t flags;

	format_rmap_pack(&rmap, 0, 0);
	ck_assert_int_eq(format_rmap_unpack(&count, &flags, &rmap, 8), -EUCLEAN);
	format_rmap_pack(&rmap, (1ull << 44) + 1, 0);
	ck_assert_int_eq(format_rmap_unpack(&count, &flags, &rmap, 8), -EUCLEAN);
	format_free_pack(&space, 0);
	ck_assert_int_eq(format_free_unpack(&count, &space, 8), -EUCLEAN);
	format_free_pack(&space, 1ull << 45);
	ck_assert_int_eq(format_free_unpack(&count, &space, 8), -EUCLEAN);
	format_free_pack(&space, 3);
	ck_assert_int_eq(format_free_unpack(&count, &space, 8), 0);
	ck_assert_uint_eq(count, 3);
	ck_assert_int_eq(format_free_unpack(&count, &space, 7), -EUCLEAN);
}
END_TEST

static int dirent_try(inum_t ino, uint8_t type, const char *name, size_t length)
{
	struct dirent_record record = {.ino = ino, .generation = 4, .type = type}, back;
	uint8_t raw[sizeof(struct format_dirent) + 255];
	size_t bytes;
	int error;

	record.name_length = (uint8_t)length;
	memcpy(record.name, name, length);
	bytes = format_dirent_pack(raw, &record);
	ck_assert_uint_eq(bytes, 14 + length);
	error = format_dirent_unpack(&back, raw, bytes);
	if (!error) {
		ck_assert_uint_eq(back.ino, ino);
		ck_assert_mem_eq(back.name, name, length);
		ck_assert_int_eq(back.name[length], 0);
		ck_assert_int_eq(format_dirent_unpack(&back, raw, bytes - 1), -EUCLEAN);
	}
	return error;
}

START_TEST(directory_entry_comes_back)
{
	char longest[255];

	memset(longest, 'x', sizeof(longest));
	ck_assert_int_eq(dirent_try(5, DT_REG, "a", 1), 0);
	ck_assert_int_eq(dirent_try(5, DT_DIR, "...", 3), 0);
	ck_assert_int_eq(dirent_try(5, DT_LNK, ".a", 2), 0);
	ck_assert_int_eq(dirent_try(5, DT_BLK, "\xff\xfe", 2), 0);
	ck_assert_int_eq(dirent_try(5, DT_REG, longest, 255), 0);
}
END_TEST

START_TEST(bad_directory_entries_are_refused)
{
	struct dirent_record back;
	uint8_t raw[14] = {0};

	ck_assert_int_eq(dirent_try(0, DT_REG, "a", 1), -EUCLEAN);
	ck_assert_int_eq(dirent_try(1ull << 63, DT_REG, "a", 1), -EUCLEAN);
	ck_assert_int_eq(dirent_try(5, DT_UNKNOWN, "a", 1), -EUCLEAN);
	ck_assert_int_eq(dirent_try(5, DT_WHT, "a", 1), -EUCLEAN);
	ck_assert_int_eq(dirent_try(5, DT_REG, "", 0), -EUCLEAN);
	ck_assert_int_eq(dirent_try(5, DT_REG, ".", 1), -EUCLEAN);
	ck_assert_int_eq(dirent_try(5, DT_REG, "..", 2), -EUCLEAN);
	ck_assert_int_eq(dirent_try(5, DT_REG, "a/b", 3), -EUCLEAN);
	ck_assert_int_eq(dirent_try(5, DT_REG, "a\0b", 3), -EUCLEAN);
	ck_assert_int_eq(format_dirent_unpack(&back, raw, 13), -EUCLEAN);
}
END_TEST

START_TEST(overflow_marker_is_an_entry_of_nothing)
{
	uint8_t raw[14] = {0};
	struct dirent_record back;

	ck_assert_int_eq(format_dirent_unpack(&back, raw, 14), 0);
	ck_assert_uint_eq(back.ino, 0);
	raw[8] = 1; /* with a generation it is none */
	ck_assert_int_eq(format_dirent_unpack(&back, raw, 14), -EUCLEAN);
}
END_TEST

static struct inode_record inode_make(void)
{
	return (struct inode_record){
		.mode = S_IFREG | 04755,
		.nlink = UINT32_MAX,
		.uid = 1,
		.gid = 2,
		.size_bytes = INT64_MAX,
		.count_blocks = 4,
		.atime = {-5, 1},
		.mtime = {6, 999999999},
		.ctime = {INT64_MAX, 3},
		.btime = {INT64_MIN, 4},
		.generation = 9,
		.project = 10,
		.change = 11,
		.flags = INODE_MAY_SHARE | 0x10,
		.rdev = 12,
		.parent = 13,
		.cause_id = 14,
		.entries = 15,
		.extent_hint = 16,
		.copies = 2,
	};
}

static int inode_try(const struct inode_record *record)
{
	struct inode_record back;
	struct format_inode raw;
	int error;

	memset(&back, 0, sizeof(back));
	format_inode_pack(&raw, record);
	error = format_inode_unpack(&back, &raw, sizeof(raw));
	if (error)
		return error;
	ck_assert_uint_eq(back.mode, record->mode);
	ck_assert_uint_eq(back.nlink, record->nlink);
	ck_assert_uint_eq(back.size_bytes, record->size_bytes);
	ck_assert_int_eq(back.atime.sec, record->atime.sec);
	ck_assert_int_eq(back.btime.sec, record->btime.sec);
	ck_assert_uint_eq(back.mtime.nsec, record->mtime.nsec);
	ck_assert_uint_eq(back.change, record->change);
	ck_assert_uint_eq(back.flags, record->flags);
	ck_assert_uint_eq(back.rdev, record->rdev);
	ck_assert_uint_eq(back.parent, record->parent);
	ck_assert_uint_eq(back.entries, record->entries);
	ck_assert_uint_eq(back.extent_hint, record->extent_hint);
	ck_assert_uint_eq(back.copies, record->copies);
	return 0;
}

START_TEST(inode_comes_back)
{
	struct inode_record record = inode_make();

	ck_assert_int_eq(inode_try(&record), 0);
}
END_TEST

#define REFUSES_INODE(change)                                                                      \
	do {                                                                                       \
		struct inode_record record = inode_make();                                         \
		change;                                                                            \
		ck_assert_int_eq(inode_try(&record), -EUCLEAN);                                    \
	} while (0)

START_TEST(bad_inodes_are_refused)
{
	REFUSES_INODE(record.mode = 0644);
	REFUSES_INODE(record.mode = 0xf000 | 0644);
	REFUSES_INODE(record.size_bytes = 1ull << 63);
	REFUSES_INODE(record.count_blocks = 1ull << 52);
	REFUSES_INODE(record.atime.nsec = 1000000000);
	REFUSES_INODE(record.mtime.nsec = 1000000000);
	REFUSES_INODE(record.ctime.nsec = 1000000000);
	REFUSES_INODE(record.btime.nsec = UINT32_MAX);
	REFUSES_INODE(record.flags |= INODE_CSUM);
	REFUSES_INODE(record.flags |= 1ull << 63);
	REFUSES_INODE(record.copies = 3);
	REFUSES_INODE(record.parent = 1ull << 63);
}
END_TEST

START_TEST(reserved_bytes_of_an_inode_are_zero)
{
	struct inode_record record = inode_make();
	struct format_inode raw;

	for (size_t at = 144; at < 256; at += 37) {
		format_inode_pack(&raw, &record);
		((uint8_t *)&raw)[at] = 1;
		ck_assert_int_eq(format_inode_unpack(&record, &raw, sizeof(raw)), -EUCLEAN);
	}
	format_inode_pack(&raw, &record);
	raw.version = le16_make(2);
	ck_assert_int_eq(format_inode_unpack(&record, &raw, sizeof(raw)), -EUCLEAN);
	ck_assert_int_eq(format_inode_unpack(&record, &raw, 255), -EUCLEAN);
}
END_TEST

static int badblock_try(const struct badblock_record *record)
{
	struct badblock_record back;
	struct format_badblock raw;

	format_badblock_pack(&raw, record);
	return format_badblock_unpack(&back, &raw, sizeof(raw));
}

#define REFUSES_BADBLOCK(change)                                                                   \
	do {                                                                                       \
		struct badblock_record record = good;                                              \
		change;                                                                            \
		ck_assert_int_eq(badblock_try(&record), -EUCLEAN);                                 \
	} while (0)

START_TEST(bad_ledger_records_are_refused)
{
	const struct badblock_record good = {
		.length_bytes = 512, .count = 1, .state = BADBLOCK_QUARANTINED, .source = FAILURE_SCRUB};
	struct lost_record lost = {.length_bytes = 100, .source = FAILURE_SIGBUS}, lost_back;
	struct format_lost raw;

	ck_assert_int_eq(badblock_try(&good), 0);
	REFUSES_BADBLOCK(record.length_bytes = 0);
	REFUSES_BADBLOCK(record.length_bytes = 511);
	REFUSES_BADBLOCK(record.length_bytes = 1ull << 57);
	REFUSES_BADBLOCK(record.state = 0);
	REFUSES_BADBLOCK(record.source = 0);
	format_lost_pack(&raw, &lost);
	ck_assert_int_eq(format_lost_unpack(&lost_back, &raw, sizeof(raw)), 0);
	raw.reserved[6] = 1;
	ck_assert_int_eq(format_lost_unpack(&lost_back, &raw, sizeof(raw)), -EUCLEAN);
	lost.source = 9;
	format_lost_pack(&raw, &lost);
	ck_assert_int_eq(format_lost_unpack(&lost_back, &raw, sizeof(raw)), -EUCLEAN);
}
END_TEST

static int intent_try(uint64_t op, uint64_t c, uint64_t f)
{
	struct intent_record record = {.op = op, .args = {1, 2, c, 0, 0, f}}, back;
	struct format_intent raw;

	format_intent_pack(&raw, &record);
	return format_intent_unpack(&back, &raw, sizeof(raw));
}

START_TEST(intents_have_the_arguments_of_their_operation)
{
	ck_assert_int_eq(intent_try(INTENT_TRUNCATE, 0, 0), 0);
	ck_assert_int_eq(intent_try(INTENT_TRUNCATE, 1, 0), -EUCLEAN);
	ck_assert_int_eq(intent_try(INTENT_PUNCH, 1, 0), 0);
	ck_assert_int_eq(intent_try(INTENT_PUNCH, 1, 1), -EUCLEAN);
	ck_assert_int_eq(intent_try(INTENT_CLONE, 1, 1), 0);
	ck_assert_int_eq(intent_try(1, 0, 0), -EUCLEAN);
}
END_TEST

/* Whatever the bytes are: an answer, no harm (under the sanitizers), nothing written beyond the twin. */
START_TEST(random_values_are_judged_without_harm)
{
	struct random random = random_start("random_values_are_judged_without_harm");
	uint64_t words[40], count;
	struct dirent_record dirent;
	struct badblock_record badblock;
	struct damaged_record damaged;
	struct intent_record intent;
	struct inode_record inode;
	struct extent extent;
	struct lost_record lost;
	uint8_t flags;

	for (unsigned round = 0; round < 100000; round++) {
		size_t length = random_below(&random, sizeof(words));
		uint8_t *value = (uint8_t *)words + sizeof(words) - length;

		for (size_t i = 0; i < 40; i++)
			words[i] = random_next(&random) >> random_below(&random, 64);
		format_extent_unpack(&extent, value, length);
		format_rmap_unpack(&count, &flags, value, length);
		format_free_unpack(&count, value, length);
		format_inode_unpack(&inode, value, length);
		format_badblock_unpack(&badblock, value, length);
		format_lost_unpack(&lost, value, length);
		format_damaged_unpack(&damaged, value, length);
		format_intent_unpack(&intent, value, length);
		if (format_dirent_unpack(&dirent, value, length) == 0)
			expect_equal(strlen(dirent.name), dirent.name_length);
	}
}
END_TEST

/* --- superblock ------------------------------------------------------------------------------------------------------------- */

static struct super super_make(void)
{
	struct super super = {
		.version = FORMAT_VERSION,
		.label = "home \xc3\xa4",
		.update = 3,
		.size_bytes = 64 << 20,
		.chunk_shift = 17,
		.copies = 2,
		.slots = 0x7f,
		.device_count = 1,
		.mkfs_time_ns = 1700000000000000000ull,
		.mkfs_version = "0.1.0",
		.areas = {
			[AREA_JOURNAL] = {{0x10000, 0x2010000}, JOURNAL_RING_MIN + BLOCK_BYTES},
			[AREA_POISON_LOG] = {{0x400000 + 4096, 0x2400000}, 65536},
			[AREA_FIXED] = {{0x600000 + 4096, 0x2600000}, 65536},
		},
	};

	memcpy(super.meta_uuid, uuid, sizeof(uuid));
	memcpy(super.uuid, uuid, sizeof(uuid));
	memcpy(super.hash_seed, uuid, sizeof(uuid));
	return super;
}

static int super_try(const struct super *super, struct why *why)
{
	struct format_super raw;
	struct super back;
	int error;

	format_super_pack(&raw, super);
	error = format_super_unpack(&back, &raw, why);
	if (!error)
		ck_assert_mem_eq(&back, super, sizeof(back));
	return error;
}

START_TEST(superblock_comes_back)
{
	struct super super, copy = super_make();
	struct why why = {0};

	memset(&super, 0, sizeof(super));
	super = copy;
	ck_assert_msg(super_try(&super, &why) == 0, "%s", why.text);
	super.copies = 1;
	super.areas[AREA_FIXED].copy[1] = 0;
	ck_assert_msg(super_try(&super, &why) == 0, "%s", why.text);
	memset(super.label, 'x', SUPER_LABEL_BYTES);
	super.label[SUPER_LABEL_BYTES] = 0;
	ck_assert_msg(super_try(&super, &why) == 0, "%s", why.text);
}
END_TEST

#define REFUSES_SUPER(change, name)                                                                \
	do {                                                                                       \
		struct super super = super_make();                                                 \
		struct why why = {0};                                                              \
		change;                                                                            \
		ck_assert_int_eq(super_try(&super, &why), -EUCLEAN);                               \
		ck_assert_msg(strstr(why.text, name) != NULL, "%s, not %s", why.text, name);       \
	} while (0)

START_TEST(each_bad_field_of_a_superblock_is_named)
{
	REFUSES_SUPER(memset(super.meta_uuid, 0, 16), "meta_uuid");
	REFUSES_SUPER(memset(super.uuid, 0, 16), "uuid");
	REFUSES_SUPER(super.label[2] = '\n', "label");
	REFUSES_SUPER(super.label[5] = '\xff', "label");
	REFUSES_SUPER(super.mkfs_version[0] = 1, "mkfs_version");
	REFUSES_SUPER(super.device_count = 2, "device_count");
	REFUSES_SUPER(super.device_index = 1, "device_index");
	REFUSES_SUPER(super.size_bytes = 8 << 20, "size_bytes");
	REFUSES_SUPER(super.size_bytes += 512, "size_bytes");
	REFUSES_SUPER(super.size_bytes = UINT64_MAX & ~4095ull, "size_bytes");
	REFUSES_SUPER(super.chunk_shift = 15, "chunk_shift");
	REFUSES_SUPER(super.copies = 3, "copies");
	REFUSES_SUPER(super.slots = 0, "slots");
	REFUSES_SUPER(super.slots = 0x100, "slots");
	REFUSES_SUPER(super.scrub_cursor = super.size_bytes + 1, "scrub_cursor");
}
END_TEST

START_TEST(each_bad_area_of_a_superblock_is_named)
{
	REFUSES_SUPER(super.areas[AREA_JOURNAL].length_bytes = 4096, "journal area");
	REFUSES_SUPER(super.areas[AREA_JOURNAL].length_bytes += 64, "journal area");
	REFUSES_SUPER(super.areas[AREA_JOURNAL].copy[1] = 0, "journal area");
	REFUSES_SUPER(super.areas[AREA_JOURNAL].copy[0] = 0, "journal area");
	REFUSES_SUPER(super.areas[AREA_JOURNAL].copy[0] = 0x180000, "journal area");
	REFUSES_SUPER(super.areas[AREA_JOURNAL].copy[1] = super.size_bytes - 4096, "journal area");
	REFUSES_SUPER(super.areas[AREA_JOURNAL].copy[1] = UINT64_MAX - 4095, "journal area");
	REFUSES_SUPER(super.areas[AREA_POISON_LOG].length_bytes = 4096, "poison log area");
	REFUSES_SUPER(super.areas[AREA_POISON_LOG].copy[0] += 64, "poison log area");
	REFUSES_SUPER(super.areas[AREA_POISON_LOG].copy[1] = 0x600000, "poison log area");
	REFUSES_SUPER(super.areas[AREA_FIXED].length_bytes = 4096, "fixed metadata area");
	REFUSES_SUPER(super.areas[AREA_FIXED].copy[1] = 0, "fixed metadata area");
	REFUSES_SUPER(super.copies = 1, "fixed metadata area");
	REFUSES_SUPER(super.areas[AREA_SCRUB].length_bytes = 4096, "scrub area");
	REFUSES_SUPER(super.areas[AREA_MIRROR_INTENT].copy[1] = 4096, "mirror intent area");
}
END_TEST

START_TEST(copies_of_an_area_must_not_overlap)
{
	REFUSES_SUPER(super.areas[AREA_FIXED].copy[1] = super.areas[AREA_FIXED].copy[0] + 4096,
		      "fixed metadata area");
	REFUSES_SUPER(super.areas[AREA_FIXED].copy[1] = super.areas[AREA_POISON_LOG].copy[1],
		      "area");
}
END_TEST

static void super_reseal(struct format_super *raw)
{
	raw->crc32c = le32_make(0);
	raw->crc32c = le32_make(crc32c(0, raw, sizeof(*raw)));
}

START_TEST(every_bit_of_a_superblock_counts)
{
	struct super super = super_make(), back;
	struct format_super raw;
	struct why why;

	for (size_t bit = 0; bit < sizeof(raw) * 8; bit += 5) {
		format_super_pack(&raw, &super);
		((uint8_t *)&raw)[bit / 8] ^= (uint8_t)(1u << bit % 8);
		ck_assert_int_eq(format_super_unpack(&back, &raw, &why), -EUCLEAN);
	}
}
END_TEST

START_TEST(reserved_bytes_of_a_superblock_are_zero)
{
	struct super super = super_make(), back;
	struct format_super raw;
	struct why why;

	format_super_pack(&raw, &super);
	raw.reserved[3000] = 1;
	super_reseal(&raw);
	ck_assert_int_eq(format_super_unpack(&back, &raw, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "reserved"));
	format_super_pack(&raw, &super);
	raw.areas[AREA_FIXED].reserved = le64_make(1);
	super_reseal(&raw);
	ck_assert_int_eq(format_super_unpack(&back, &raw, &why), -EUCLEAN);
	format_super_pack(&raw, &super);
	raw.label[63] = 'x';
	super_reseal(&raw);
	ck_assert_int_eq(format_super_unpack(&back, &raw, &why), -EUCLEAN);
	format_super_pack(&raw, &super);
	raw.block_shift = 13;
	super_reseal(&raw);
	ck_assert_int_eq(format_super_unpack(&back, &raw, &why), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(why.text, "block_shift"));
}
END_TEST

START_TEST(newer_format_version_is_said)
{
	struct super super = super_make(), back;
	struct format_super raw;
	struct why why;
	char said[32];

	format_super_pack(&raw, &super);
	raw.version = le32_make(FORMAT_VERSION + 1);
	super_reseal(&raw);
	ck_assert_int_eq(format_super_unpack(&back, &raw, &why), -ENOTSUP);
	snprintf(said, sizeof(said), "version %u;", FORMAT_VERSION + 1);
	ck_assert_ptr_nonnull(strstr(why.text, said));
	raw.version = le32_make(0);
	super_reseal(&raw);
	ck_assert_int_eq(format_super_unpack(&back, &raw, &why), -ENOTSUP);
	raw.version = le32_make(FORMAT_VERSION_MIN);
	super_reseal(&raw);
	ck_assert_int_eq(format_super_unpack(&back, &raw, &why), 0);
	ck_assert_uint_eq(back.version, FORMAT_VERSION_MIN);
}
END_TEST

START_TEST(unknown_features_are_refused_by_name)
{
	struct super super = super_make();
	struct why why;

	super.compat = UINT64_MAX;
	ck_assert_int_eq(format_super_check_features(&super, &why), 0);
	super.ro_compat = 1 | 1ull << 63;
	ck_assert_int_eq(format_super_check_features(&super, &why), 1);
	ck_assert_ptr_nonnull(strstr(why.text, "ro_compat csums, ro_compat bit 63"));
	super.incompat = 1 | 1 << 7;
	ck_assert_int_eq(format_super_check_features(&super, &why), -ENOTSUP);
	ck_assert_ptr_nonnull(strstr(why.text, "incompat devices, incompat bit 7"));
	super.incompat = UINT64_MAX;
	ck_assert_int_eq(format_super_check_features(&super, &why), -ENOTSUP);
}
END_TEST

START_TEST(labels_are_text)
{
	static const char *const good[] = {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};
	static const char *const bad[] = {
		"\t",		"\x7f",		"\x80",	       "\xc3",	       "\xc0\xaf",
		"\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe0\x80\x80", "\xc2\x85", "a\xff",
	};
	char longest[66];

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		ck_assert(format_label_is_valid(good[i], strlen(good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		ck_assert_msg(!format_label_is_valid(bad[i], strlen(bad[i])), "%zu", i);
	memset(longest, 'x', sizeof(longest));
	ck_assert(format_label_is_valid(longest, 64));
	ck_assert(!format_label_is_valid(longest, 65));
}
END_TEST

static TCase *blocks_case(void)
{
	TCase *tcase = tcase_create("blocks");

	tcase_add_test(tcase, sealed_block_verifies);
	tcase_add_test(tcase, block_elsewhere_is_not_ours);
	tcase_add_test(tcase, every_bit_of_a_block_counts);
	tcase_add_test(tcase, role_and_tree_must_fit_each_other);
	tcase_add_test(tcase, reserved_bytes_of_root_and_chunk_blocks_are_zero);
	tcase_add_test(tcase, names_of_blocks_are_those_of_events);
	tcase_add_test(tcase, chunk_entry_comes_back);
	tcase_add_test(tcase, each_bad_field_of_a_chunk_entry_is_named);
	tcase_add_test(tcase, reserved_bytes_of_a_chunk_entry_are_zero);
	tcase_add_test(tcase, poison_entry_comes_back);
	tcase_add_test(tcase, bad_poison_entries_are_refused);
	tcase_add_test(tcase, every_bit_of_a_poison_entry_counts);
	return tcase;
}

static TCase *records_case(void)
{
	TCase *tcase = tcase_create("records");

	tcase_add_test(tcase, extent_and_rmap_come_back);
	tcase_add_test(tcase, extents_outside_a_device_are_refused);
	tcase_add_test(tcase, bad_rmap_and_free_lengths_are_refused);
	tcase_add_test(tcase, directory_entry_comes_back);
	tcase_add_test(tcase, bad_directory_entries_are_refused);
	tcase_add_test(tcase, overflow_marker_is_an_entry_of_nothing);
	tcase_add_test(tcase, inode_comes_back);
	tcase_add_test(tcase, bad_inodes_are_refused);
	tcase_add_test(tcase, reserved_bytes_of_an_inode_are_zero);
	tcase_add_test(tcase, bad_ledger_records_are_refused);
	tcase_add_test(tcase, random_values_are_judged_without_harm);
	tcase_add_test(tcase, intents_have_the_arguments_of_their_operation);
	return tcase;
}

static TCase *super_case(void)
{
	TCase *tcase = tcase_create("super");

	tcase_add_test(tcase, superblock_comes_back);
	tcase_add_test(tcase, each_bad_field_of_a_superblock_is_named);
	tcase_add_test(tcase, each_bad_area_of_a_superblock_is_named);
	tcase_add_test(tcase, copies_of_an_area_must_not_overlap);
	tcase_add_test(tcase, every_bit_of_a_superblock_counts);
	tcase_add_test(tcase, reserved_bytes_of_a_superblock_are_zero);
	tcase_add_test(tcase, newer_format_version_is_said);
	tcase_add_test(tcase, unknown_features_are_refused_by_name);
	tcase_add_test(tcase, labels_are_text);
	return tcase;
}

int main(void)
{
	Suite *suite = suite_create("stored");
	SRunner *runner;
	int failed;

	suite_add_tcase(suite, blocks_case());
	suite_add_tcase(suite, records_case());
	suite_add_tcase(suite, super_case());
	runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed != 0;
}
