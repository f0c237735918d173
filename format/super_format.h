/*
 * The superblock: identity, geometry, features, fixed areas. Static after mkfs but for label, uuid and feature flags. Its
 * copies are equal and lie in SUPER_SLOTS places, one per 2 MiB page from the device's start, so that they are found
 * without knowing the size; slots that were bad at mkfs carry none.
 */
#ifndef FORMAT_SUPER_FORMAT_H
#define FORMAT_SUPER_FORMAT_H

#include "format/block_format.h"
#include "util/why.h"

#define FORMAT_SUPER_MAGIC 0x31305346444e454dull /* "MENDFS01" */
#define FORMAT_VERSION 4
#define FORMAT_VERSION_MIN 1 /* read, checked and upgraded by fsck.mendfs; mounted read-only */
#define FORMAT_VERSION_TWICE_TOLD 2 /* from here on what stands in names and in the ledger has a second place; written as it is */
#define FORMAT_VERSION_BESIDE 3	    /* from here on a record needs none before it but those that were durable when it was written */
#define FORMAT_VERSION_ROUNDED 4    /* from here on inner nodes of free and rmap say rounded aggregates */
#define SUPER_SLOTS 8
#define SUPER_LABEL_BYTES 64
#define SUPER_MIN_BYTES (16ull << 20)
/*
 * Bytes of the ring in one journal copy, its 4 KiB head not counted. The longest record is a quarter of it: with less, the steps of long
 * operations (100 blocks) would not fit one. With more, it would not fit between two superblock slots.
 */
#define JOURNAL_RING_MIN (1792ull << 10)
#define JOURNAL_RING_MAX (32ull << 20)

static inline devoff_t super_slot_offset(unsigned slot)
{
	return (devoff_t)slot * HUGE_BYTES;
}

struct format_area {
	struct le64 copy[2]; /* device bytes, 4 KiB aligned; copy[1] = 0 where there is one copy only */
	struct le64 length;  /* bytes of each copy */
	struct le64 reserved;
};

enum super_area { AREA_JOURNAL, AREA_POISON_LOG, AREA_FIXED, AREA_MIRROR_INTENT, AREA_SCRUB, AREA_COUNT = 8 };

/* Feature bits with a name already, so that a program without them can say which it lacks. */
#define INCOMPAT_DEVICES (1ull << 0) /* more than one device */
#define RO_COMPAT_CSUMS (1ull << 0)  /* checksums of file data in the csums tree */
#define INCOMPAT_KNOWN 0ull
#define RO_COMPAT_KNOWN 0ull
#define COMPAT_KNOWN 0ull
#define CHECKSUM_CRC32C 1

/* "journal area", "poison log area", "fixed metadata area", ... */
const char *format_area_name(unsigned area);

struct format_super {
	struct le64 magic;
	struct le32 crc32c; /* of the 4096 bytes with this field zero */
	struct le32 version;
	uint8_t meta_uuid[FORMAT_UUID_BYTES];
	uint8_t uuid[FORMAT_UUID_BYTES]; /* the visible one */
	uint8_t label[SUPER_LABEL_BYTES]; /* UTF-8, zero padded */
	struct le64 compat, ro_compat, incompat;
	struct le64 update; /* raised at each update; the valid copy with the highest wins */
	struct le64 size_bytes;
	uint8_t block_shift; /* 12 */
	uint8_t chunk_shift; /* preferred size of a chunk */
	uint8_t checksum;    /* CHECKSUM_ */
	uint8_t copies;	     /* of metadata: 1 or 2 */
	struct le32 slots;   /* bit i: slot i carries a copy */
	uint8_t hash_seed[16];
	struct le16 device_count, device_index;
	struct le32 reserved0;
	uint8_t device_uuid[FORMAT_UUID_BYTES];
	struct le64 device_events;
	struct le64 mkfs_time_ns;
	uint8_t mkfs_version[32];
	struct format_area areas[AREA_COUNT]; /* enum super_area */
	struct le64 scrub_cursor;
	uint8_t reserved[4096 - 512];
};
static_assert(offsetof(struct format_super, compat) == 112, "stored layout");
static_assert(offsetof(struct format_super, areas) == 248, "stored layout");
static_assert(sizeof(struct format_super) == BLOCK_BYTES, "one block");

struct area {
	devoff_t copy[2];
	uint64_t length_bytes;
};
struct super {
	uint32_t version; /* FORMAT_VERSION_MIN .. FORMAT_VERSION */
	uint8_t meta_uuid[FORMAT_UUID_BYTES];
	uint8_t uuid[FORMAT_UUID_BYTES];
	char label[SUPER_LABEL_BYTES + 1];
	uint64_t compat, ro_compat, incompat, update, size_bytes;
	uint8_t chunk_shift, copies;
	uint32_t slots;
	uint8_t hash_seed[16];
	uint16_t device_count, device_index;
	uint8_t device_uuid[FORMAT_UUID_BYTES];
	uint64_t device_events, mkfs_time_ns;
	char mkfs_version[33];
	struct area areas[AREA_COUNT];
	uint64_t scrub_cursor;
};

/* The preferred size of a metadata chunk on a device of this size, as log2 of bytes. */
unsigned format_chunk_shift(uint64_t size_bytes);
/* How many copies of this area there are: journal and poison log always 2, fixed metadata as of all metadata, later ones 0. */
unsigned format_area_copies(const struct super *super, unsigned area);
/* UTF-8 of at most SUPER_LABEL_BYTES bytes without control characters. */
bool format_label_is_valid(const char *label, size_t length);

void format_super_pack(struct format_super *to, const struct super *from);
/*
 * 0; -EUCLEAN: not a whole superblock (the line says which field); -ENOTSUP: a version that this program does not know.
 * Areas are verified to be aligned, inside size_bytes and disjoint. Feature flags are unpacked, not judged.
 */
int format_super_unpack(struct super *to, const struct format_super *from, struct why *why);
/* Unknown flags, by name where they have one, else as bit numbers: "incompat bit 7". 0, -ENOTSUP (incompat), 1: read-only. */
int format_super_check_features(const struct super *super, struct why *why);

#endif
