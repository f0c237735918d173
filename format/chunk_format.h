/*
 * Metadata space. Logical addresses (maddr_t, in blocks):
 *   0                      the root block
 *   1 .. table blocks      the chunk table
 *   MADDR_CHUNK_BASE + c * CHUNK_SLOTS + i    block i of chunk c
 * The first two kinds are "fixed": their copies lie at area.primary + maddr * 4 KiB and area.replica + maddr * 4 KiB of
 * the superblock's fixed-metadata area. The others go through the chunk table: copy k of block i of chunk c lies at
 * entry.copy[k] + i * 4 KiB. Block 0 of each chunk is its header, from which the table can be rebuilt.
 */
#ifndef FORMAT_CHUNK_FORMAT_H
#define FORMAT_CHUNK_FORMAT_H

#include "format/block_format.h"

#define MADDR_ROOT 0
#define MADDR_TABLE 1
#define MADDR_CHUNK_BASE (1ull << 32)
#define CHUNK_SLOTS 512
#define CHUNK_SHIFT_MIN 16 /* 64 KiB */
#define CHUNK_SHIFT_MAX 21 /* 2 MiB */

enum format_chunk_state {
	FORMAT_CHUNK_FREE = 0,
	FORMAT_CHUNK_LIVE = 0x35,
	FORMAT_CHUNK_FREEING = 0xca, /* empty; its space goes back once the journal's tail has passed the change to this */
};

enum format_copy_state {
	FORMAT_COPY_ABSENT = 0,
	FORMAT_COPY_WHOLE = 0x56,
	FORMAT_COPY_STALE = 0xa9, /* reserved: nothing writes it; a stale copy shows by its sequence or by the known set */
};

struct format_chunk_entry {
	struct le64 copy[2];	/* device byte of primary and replica; replica 0 with -m single */
	struct le32 generation; /* raised whenever the entry is allocated anew */
	uint8_t shift;		/* log2 of the chunk's bytes */
	uint8_t state;		/* enum format_chunk_state */
	uint8_t copy_state[2];	/* enum format_copy_state */
	struct le32 free_blocks; /* zero bits of the map, within the chunk's size */
	struct le32 reserved0;
	struct le64 map[8]; /* bit i of word i / 64: block i is in use; block 0 always is */
	struct le64 reserved1[4];
};
static_assert(sizeof(struct format_chunk_entry) == 128, "stored layout");
static_assert(offsetof(struct format_chunk_entry, map) == 32, "stored layout");

#define CHUNK_ENTRIES_PER_BLOCK 31

struct format_chunk_table_block {
	struct format_block_header header;
	struct format_chunk_entry entries[CHUNK_ENTRIES_PER_BLOCK];
	uint8_t reserved[64];
};
static_assert(sizeof(struct format_chunk_table_block) == BLOCK_BYTES, "one block");

struct format_chunk_header {
	struct format_block_header header;
	struct le64 chunk; /* number */
	struct le64 copy[2];
	struct le32 generation;
	uint8_t shift;
	uint8_t reserved[4096 - 64 - 29];
};
static_assert(sizeof(struct format_chunk_header) == BLOCK_BYTES, "one block");

struct chunk_entry { /* the twin in memory */
	devoff_t copy[2];
	uint32_t generation;
	uint8_t shift;
	uint8_t state;
	uint8_t copy_state[2];
	uint32_t free_blocks;
	uint64_t map[8];
};

void format_chunk_entry_pack(struct format_chunk_entry *to, const struct chunk_entry *from);
/* 0, or -EUCLEAN with the field named: state, shift, count against map, bits beyond the size, reserved, alignment. */
int format_chunk_entry_unpack(struct chunk_entry *to, const struct format_chunk_entry *from, const char **field);

static inline unsigned chunk_blocks(unsigned shift)
{
	return 1u << (shift - BLOCK_SHIFT);
}

static inline bool maddr_is_fixed(maddr_t address)
{
	return address < MADDR_CHUNK_BASE;
}

static inline maddr_t maddr_of_chunk(uint64_t chunk, unsigned index)
{
	return MADDR_CHUNK_BASE + chunk * CHUNK_SLOTS + index;
}

static inline uint64_t maddr_chunk(maddr_t address)
{
	return (address - MADDR_CHUNK_BASE) / CHUNK_SLOTS;
}

static inline unsigned maddr_index(maddr_t address)
{
	return (unsigned)((address - MADDR_CHUNK_BASE) % CHUNK_SLOTS);
}

#endif
