/*
 * The journal: a ring of records, two copies written alike. Each copy starts with a 4 KiB head block, the ring follows.
 * All offsets are from the start of the ring and multiples of 64; a record never wraps.
 */
#ifndef FORMAT_JOURNAL_FORMAT_H
#define FORMAT_JOURNAL_FORMAT_H

#include "format/block_format.h"

#define FORMAT_JOURNAL_HEAD_MAGIC 0x4448524au /* "JRHD" */
#define FORMAT_RECORD_MAGIC 0x4345524au	      /* "JREC" */
/* No count of the journal gets here by counting; one that is not below would soon begin anew at 0. */
#define FORMAT_JOURNAL_COUNT_END (1ull << 63)
/* Nor here. From here on nothing more is counted, so that what was acknowledged below stays readable: read-only. */
#define FORMAT_JOURNAL_COUNT_WORN (1ull << 62)

/* Where recovery starts. Written to one copy, drained, then to the other, each time the tail moves. */
struct format_journal_head {
	struct le32 magic;
	struct le32 crc32c; /* of the 64 bytes with this field zero */
	uint8_t meta_uuid[FORMAT_UUID_BYTES];
	struct le64 tail_sequence; /* of the first record that recovery must see; none yet there means: clean */
	struct le64 tail_offset;
	struct le32 epoch; /* raised at each writable mount; records of another epoch are not ours to replay */
	struct le32 reserved;
	struct le64 update; /* raised by one at each write; the valid head with the higher one wins */
	struct le64 ring_bytes;
};
static_assert(sizeof(struct format_journal_head) == 64, "one line");

enum format_record_type {
	FORMAT_RECORD_TX = 0x33,   /* items, zeros up to a multiple of 64, then their lines */
	FORMAT_RECORD_JUMP = 0x5a, /* header only: the next record is at jump_to */
	FORMAT_RECORD_MARK = 0xa5, /* header only: states durable_up_to (PAGE media) */
};

struct format_record_header {
	struct le32 magic;
	struct le32 crc32c; /* of all `length` bytes with this field zero */
	uint8_t meta_uuid[FORMAT_UUID_BYTES];
	struct le64 sequence; /* one more than the record before; jumps and marks count too */
	struct le32 length;   /* bytes, this header included, a multiple of 64 */
	struct le16 type;
	struct le16 items;
	struct le64 durable_up_to; /* every record up to this sequence was durable when this one was written */
	struct le32 epoch;
	struct le32 boot;   /* hash of the host's boot_id: the same boot means that page cache survived (PAGE media); 0: durable when written */
	struct le64 offset; /* own place in the ring; for a jump: the place of the next record */
};
static_assert(sizeof(struct format_record_header) == 64, "one line");

#define FORMAT_ITEM_INIT 1u /* the block starts as zeros, not as what is at home */
#define FORMAT_ITEM_ADD 2u  /* each 64-bit word of the lines is added to what is there, modulo 2^64; root block and chunk table only, since version 3 */

struct format_record_item {
	struct le64 address;
	struct le64 lines; /* bit i: line i (64 bytes) of the block follows; lines are stored in the order of items and bits */
	struct le32 flags;
	struct le32 reserved;
};
static_assert(sizeof(struct format_record_item) == 24, "stored layout");

#endif
