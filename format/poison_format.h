/*
 * The poison log: a fixed area in two copies, of 64-byte entries, each appended with one line store and a drain, outside
 * transactions. Slot = sequence % slots. Entries below the root block's ROOT_POISON_LOG_TAIL are in the trees already.
 */
#ifndef FORMAT_POISON_FORMAT_H
#define FORMAT_POISON_FORMAT_H

#include "format/block_format.h"

#define FORMAT_POISON_MAGIC 0x4e53504du /* "MPSN" */
#define POISON_LOG_BYTES (64u << 10)	/* each copy */
#define POISON_LOG_SLOTS (POISON_LOG_BYTES / 64)

enum badblock_state {
	BADBLOCK_SUSPECT = 0x0f,
	BADBLOCK_BAD = 0x33,
	BADBLOCK_CLEARED = 0x55,
	BADBLOCK_QUARANTINED = 0x69,
	BADBLOCK_RETIRED = 0xaa,
};

enum failure_source {
	FAILURE_SIGBUS = 1,
	FAILURE_KERNEL = 2,
	FAILURE_INJECTED = 3,
	FAILURE_SCRUB = 4,
	FAILURE_CHECKSUM = 5,
	FAILURE_CONTROL = 6,
};

struct format_poison_entry {
	struct le32 magic;
	struct le32 crc32c; /* of the 64 bytes with this field zero */
	struct le64 sequence;
	struct le64 offset; /* device byte, multiple of 512 */
	struct le64 length; /* bytes, multiple of 512 */
	struct le64 time_ns;
	struct le64 cause_id;
	uint8_t state;	/* enum badblock_state; CLEARED takes the range out again */
	uint8_t source; /* enum failure_source */
	uint8_t reserved[6];
	uint8_t meta_uuid[8]; /* its first half */
};
static_assert(sizeof(struct format_poison_entry) == 64, "one line");

struct poison_entry {
	uint64_t sequence;
	devoff_t offset;
	uint64_t length_bytes;
	uint64_t time_ns;
	uint64_t cause_id;
	uint8_t state;
	uint8_t source;
};

void format_poison_entry_pack(struct format_poison_entry *to, const struct poison_entry *from, const uint8_t *meta_uuid);
int format_poison_entry_unpack(struct poison_entry *to, const struct format_poison_entry *from, const uint8_t *meta_uuid);

bool badblock_state_is_known(unsigned state);
bool failure_source_is_known(unsigned source);
const char *badblock_state_name(unsigned state);   /* "suspect", "bad", "cleared", "quarantined", "retired" */
const char *failure_source_name(unsigned source);  /* "sigbus", "kernel", "injected", "scrub", "checksum", "control" */

#endif
