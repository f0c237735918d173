/*
 * The ring of records, in two copies written alike. Used by this folder only; every function that changes it is called with
 * the metadata lock held exclusively (or before anyone else knows the journal).
 *
 * Invariant: the 64 bytes where the next record goes lie within the ring and were good in a copy when the record before was placed, so that a
 * jump can always be written there.
 */
#ifndef JOURNAL_LOG_H
#define JOURNAL_LOG_H

#include <pthread.h>
#include <stdatomic.h>

#include "format/chunk_format.h"
#include "format/journal_format.h"
#include "format/super_format.h"
#include "media/media.h"

#define LOG_RECORD_MAX_BYTES (256u << 10)
#define LOG_HEAD_BYTES BLOCK_BYTES

#define LOG_CLAIMS_MAX 64u
#define LOG_RING_MAX_BYTES ((uint64_t)LINE_BYTES << LOG_LINE_BITS)
#define LOG_LINE_BITS 28u /* of a place in the ring; those of its record's number have the rest of a word */

/* What each record changes lies together, apart from what everybody reads. */
struct log_ring {
	struct media *media;
	const struct super *super;
	unsigned copies;
	devoff_t head[2], ring[2]; /* device bytes */
	uint64_t ring_bytes;
	uint64_t record_limit; /* bytes of the longest record */
	uint64_t slack_bytes;  /* kept for what a checkpoint logs when a transaction is let in */
	uint8_t *own_record;
	uint64_t tail_sequence;
	_Atomic uint64_t tail_offset; /* who asks how full the log is has no lock */
	uint64_t update; /* of the newest head */
	uint32_t epoch, boot;
	bool stuck;	  /* no place takes a record: the tail must move first */
	bool paged;	  /* stores are durable after media_sync() only */
	_Atomic uint64_t missing; /* the first record that will never be whole; 0: none. No record may state that it was durable: the tail must move first */
	uint8_t *record;  /* staging, LOG_RECORD_MAX_BYTES: own_record, or what the open transaction brought */
	uint64_t synced;  /* PAGE: what new records state as durable_up_to */
	_Atomic uint64_t last_tx; /* PAGE: sequence of the last TX record */
	_Atomic uint64_t durable; /* PAGE: acknowledged, would survive a crash of the host */
	_Atomic uint64_t records, record_bytes, transactions; /* of those that ran alone */
	_Atomic uint64_t near_sequence; /* the last that whoever ran alone has set: tells the bits of a number that `place` has no room for */
	/* In one line, of transactions beside each other; elsewhere it is whoever runs alone that changes it. */
	_Alignas(64) _Atomic uint64_t place; /* where the next record goes, and its number: log_next() */
	_Atomic uint64_t done; /* bit sequence % 64, turned over when the record of this number is durable, or will never be */
	pthread_mutex_t mutex; /* PAGE: records in turn */
};

struct log_place {
	uint64_t sequence, offset;
};

/* Of a record: its number, its place, and up to which one all were durable when it got them. */
struct log_claim {
	uint64_t sequence, offset, durable;
	bool jumps; /* the number before is a jump's, from the end of the ring to here */
	uint64_t jumps_from;
};

int log_init(struct log_ring *ring, struct media *media, const struct super *super);
void log_fini(struct log_ring *ring);

/* Take tail, epoch and update from the better head. 0; -EIO, -EUCLEAN: none is whole. */
int log_read_heads(struct log_ring *ring, struct why *why);
/*
 * Everything before the next record is home: move the tail there. One head, barrier, the other, barrier; the place of the next record
 * is chosen anew where that went bad. 0 when at least one head was stored.
 */
int log_move_tail(struct log_ring *ring, uint32_t epoch);
/* mkfs: both head blocks, for an empty log. */
int log_format(struct media *media, const struct super *super);

/* Where the next record goes, and its number. Anybody may ask. */
struct log_place log_next(const struct log_ring *ring);
static inline uint64_t log_next_sequence(const struct log_ring *ring)
{
	return log_next(ring).sequence;
}
/* By who runs alone, or has the mutex: no record is under way. */
void log_set_next(struct log_ring *ring, uint64_t sequence, uint64_t offset);
bool log_is_empty(const struct log_ring *ring);
/* Could a record of this length be placed now, with its 64 bytes for a following jump? */
bool log_has_room(struct log_ring *ring, uint64_t length_bytes);
/*
 * Append the record staged in ring->record (its header is filled here), after a jump where one is needed; drained. 0; -EIO, -ENOSPC
 * and others: nothing of it will be replayed; -ENOTRECOVERABLE: a copy may still hold it, the log must be given up.
 */
int log_append(struct log_ring *ring, unsigned type, size_t length_bytes, unsigned items, uint64_t *sequence);
/*
 * The same for records beside each other, in two steps: a number and a place, which nobody waits for another to get, then the stores. All that anybody has
 * seen by then is durable up to claim->durable. -EAGAIN: nothing was claimed, only who runs alone finds a place. What was claimed must be stored.
 */
int log_claim(struct log_ring *ring, size_t length_bytes, struct log_claim *claim);
/* Durable on return. -EAGAIN: it is not, and the number stays without a record; -ENOTRECOVERABLE as above. */
int log_store_claimed(struct log_ring *ring, uint8_t *record, size_t length_bytes, unsigned items, const struct log_claim *claim);
/* Bytes from the tail to the next record. */
uint64_t log_used(const struct log_ring *ring);
/* Order and durability between two steps of a write-back: drain, or media_sync() on PAGE media. */
int log_barrier(struct log_ring *ring);
/* Write one 4 KiB block to its home; where it is poisoned, clear and try again. *cleared (may be NULL) says that it was. */
int log_write_block(struct media *media, devoff_t offset, const void *block, bool *cleared);
/* Hash of the host's boot id, never 0. MENDFS_BOOT_ID in the environment overrides it (tests). */
uint32_t log_boot_id(void);

/* --- record.c: bytes of heads and records ----------------------------------------------------------------------- */

void record_head_pack(struct format_journal_head *to, const struct log_ring *ring, const uint8_t *meta_uuid);
/* 0 or -EUCLEAN, against the ring's own geometry. */
int record_head_verify(const struct format_journal_head *head, const struct log_ring *ring);
/* Fill the header and set the checksum. Of a jump, claim->offset is where it leads. */
void record_seal(const struct log_ring *ring, uint8_t *record, unsigned type, size_t length_bytes, unsigned items, const struct log_claim *claim);
/* Plausible header of this filesystem and epoch at this place, whatever its sequence; not the checksum. */
bool record_header_is_ours(const struct format_record_header *header, const struct log_ring *ring, uint64_t offset);
/* Checksum and inner structure of a whole record whose header is ours. */
bool record_is_whole(const void *record, size_t length_bytes);
/* Bytes before the first line of a TX record. */
static inline size_t record_lines_offset(unsigned items)
{
	return round_up_u64(sizeof(struct format_record_header) + items * sizeof(struct format_record_item), LINE_BYTES);
}

#endif
