#include "journal/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/crc.h"
#include "util/lock.h"
#include "util/log.h"
#include "util/spin.h"

#define LOG_ATTEMPTS 8
#define LOG_TURNS 4
#define LOG_RING_MIN_BYTES (64u << 10)
#define LOG_SLACK_MAX_BYTES (32u << 10)

uint32_t log_boot_id(void)
{
	char text[128] = "";
	const char *id = getenv("MENDFS_BOOT_ID");
	FILE *file;
	uint32_t hash;

	if (!id) {
		file = fopen("/proc/sys/kernel/random/boot_id", "re");
		if (file) {
			if (!fgets(text, sizeof(text), file))
				text[0] = 0;
			fclose(file);
		}
		id = text;
	}
	hash = crc32c(0, id, strlen(id));
	return hash ? hash : 1;
}

static uint32_t log_boot_of(const struct media *media)
{
	struct le64 attachment = le64_make(media_attachment(media));
	uint32_t hash = log_boot_id();

	if (le64_get(attachment))
		hash = crc32c(hash, &attachment, sizeof(attachment));
	return hash ? hash : 1;
}

int log_init(struct log_ring *ring, struct media *media, const struct super *super)
{
	const struct area *area = &super->areas[AREA_JOURNAL];

	memset(ring, 0, sizeof(*ring));
	if (area->length_bytes < LOG_HEAD_BYTES + LOG_RING_MIN_BYTES || area->length_bytes > LOG_HEAD_BYTES + LOG_RING_MAX_BYTES)
		return -EUCLEAN;
	ring->media = media;
	ring->super = super;
	ring->copies = area->copy[1] ? 2 : 1;
	for (unsigned k = 0; k < ring->copies; k++) {
		ring->head[k] = area->copy[k];
		ring->ring[k] = area->copy[k] + LOG_HEAD_BYTES;
	}
	ring->ring_bytes = area->length_bytes - LOG_HEAD_BYTES;
	ring->record_limit = round_down_u64(min_u64(ring->ring_bytes / 4, LOG_RECORD_MAX_BYTES), LINE_BYTES);
	ring->slack_bytes = round_down_u64(min_u64(ring->ring_bytes / 8, LOG_SLACK_MAX_BYTES), LINE_BYTES);
	ring->paged = media_granularity(media) == MEDIA_PAGE;
	ring->boot = log_boot_of(media);
	pthread_mutex_init(&ring->mutex, NULL);
	ring->record = ring->own_record = aligned_alloc(LINE_BYTES, LOG_RECORD_MAX_BYTES);
	return ring->record ? 0 : -ENOMEM;
}

void log_fini(struct log_ring *ring)
{
	free(ring->own_record);
	pthread_mutex_destroy(&ring->mutex);
	ring->record = ring->own_record = NULL;
}

int log_barrier(struct log_ring *ring)
{
	if (ring->paged)
		return media_sync(ring->media);
	media_drain(ring->media);
	return 0;
}

int log_write_block(struct media *media, devoff_t offset, const void *block, bool *cleared)
{
	int error = media_write(media, offset, block, BLOCK_BYTES, NULL);

	if (error != -EIO)
		return error;
	if (media_clear(media, offset, BLOCK_BYTES))
		return -EIO;
	if (cleared)
		*cleared = true;
	return media_write(media, offset, block, BLOCK_BYTES, NULL);
}

/* --- heads ------------------------------------------------------------------------------------------------------ */

int log_read_heads(struct log_ring *ring, struct why *why)
{
	struct format_journal_head head;
	int error = -EUCLEAN, poisoned = 0, found = 0;

	for (unsigned k = 0; k < ring->copies; k++) {
		error = media_read(ring->media, ring->head[k], &head, sizeof(head), NULL);
		poisoned += error == -EIO;
		if (error || record_head_verify(&head, ring) || (found && le64_get(head.update) <= ring->update))
			continue;
		found = 1;
		ring->update = le64_get(head.update);
		ring->epoch = le32_get(head.epoch);
		ring->tail_sequence = le64_get(head.tail_sequence);
		ring->tail_offset = le64_get(head.tail_offset);
	}
	if (found)
		return 0;
	if (poisoned)
		return why_set(why, -EIO, "the journal's head cannot be read: %d of %u copies poisoned, none whole", poisoned,
			       ring->copies);
	return why_set(why, -EUCLEAN, "the journal's head is damaged in every copy");
}

/* A head that was stored in one copy only is enough: the other one then has the lower update. */
static int log_write_heads(struct log_ring *ring)
{
	uint8_t *block = ring->record; /* nothing is staged while the tail moves */
	unsigned stored = 0;
	int error = 0, last = 0;

	memset(block, 0, LOG_HEAD_BYTES);
	record_head_pack((struct format_journal_head *)block, ring, ring->super->meta_uuid);
	for (unsigned k = 0; k < ring->copies; k++) {
		error = log_write_block(ring->media, ring->head[k], block, NULL);
		if (error) {
			last = error;
			continue;
		}
		error = log_barrier(ring); /* durable: the new tail, in this copy, before the other one is touched */
		if (error)
			return error;
		stored++;
	}
	return stored ? 0 : last;
}

int log_format(struct media *media, const struct super *super)
{
	struct log_ring ring;
	int error = log_init(&ring, media, super);

	if (error)
		return error;
	ring.tail_sequence = 1;
	ring.epoch = 1;
	ring.update = 1;
	ring.paged = false; /* mkfs syncs once, at its end */
	error = log_write_heads(&ring);
	log_fini(&ring);
	return error;
}

/* --- places ----------------------------------------------------------------------------------------------------- */

#define PLACE_NUMBER(place) ((place) >> LOG_LINE_BITS)

static uint64_t place_pack(uint64_t sequence, uint64_t offset)
{
	return sequence << LOG_LINE_BITS | offset / LINE_BYTES;
}

/* A number and the one that was set last differ by far less than what `place` has no room for: the checkpoints in between are made alone. */
static struct log_place place_unpack(const struct log_ring *ring, uint64_t place)
{
	uint64_t near = ring->near_sequence;
	int64_t beyond = (int64_t)((PLACE_NUMBER(place) - near) << LOG_LINE_BITS) >> LOG_LINE_BITS;

	return (struct log_place){ near + (uint64_t)beyond, (place & ((1ull << LOG_LINE_BITS) - 1)) * LINE_BYTES };
}

struct log_place log_next(const struct log_ring *ring)
{
	return place_unpack(ring, ring->place);
}

/* What `done` is when no record up to this one is under way: what is turned over in even rounds of 64 is turned back in odd ones. */
static uint64_t done_up_to(uint64_t last)
{
	uint64_t these = UINT64_MAX >> (LOG_CLAIMS_MAX - 1 - last % LOG_CLAIMS_MAX);

	return last / LOG_CLAIMS_MAX % 2 ? ~these : these;
}

void log_set_next(struct log_ring *ring, uint64_t sequence, uint64_t offset)
{
	ring->near_sequence = sequence;
	ring->place = place_pack(sequence, offset);
	ring->done = done_up_to(sequence - 1);
}

bool log_is_empty(const struct log_ring *ring)
{
	return ring->tail_sequence == log_next_sequence(ring);
}

/* Skip [place, place + length) beyond the known bad range in it; `place` itself when it is good in `need` copies. */
static uint64_t log_next_good(const struct log_ring *ring, uint64_t place, uint64_t length, unsigned need)
{
	uint64_t beyond = place, bad_length;
	unsigned good = 0;
	devoff_t bad;

	for (unsigned k = 0; k < ring->copies; k++) {
		if (!media_bad_find(ring->media, ring->ring[k] + place, length, &bad, &bad_length)) {
			good++;
			continue;
		}
		beyond = max_u64(beyond, round_up_u64(bad + bad_length - ring->ring[k], LINE_BYTES));
	}
	return good >= need ? place : beyond;
}

static bool log_find_between(const struct log_ring *ring, uint64_t from, uint64_t to, uint64_t length, unsigned need,
			     uint64_t *place)
{
	uint64_t next;

	while (from + length <= to) {
		next = log_next_good(ring, from, length, need);
		if (next == from) {
			*place = from;
			return true;
		}
		from = next;
	}
	return false;
}

/* The free part of the ring: from the next record on, and from the start where it goes around. */
struct log_free {
	uint64_t from[2], to[2];
};

static struct log_free log_free_from(const struct log_ring *ring, const struct log_place *next)
{
	uint64_t tail = ring->tail_sequence == next->sequence ? next->offset : ring->tail_offset;

	if (next->offset < tail)
		return (struct log_free){ { next->offset, 0 }, { tail, 0 } };
	return (struct log_free){ { next->offset, 0 }, { ring->ring_bytes, tail } };
}

static struct log_free log_free_part(const struct log_ring *ring)
{
	struct log_place next = log_next(ring);

	return log_free_from(ring, &next);
}

/*
 * Room for the record and for the jump that may have to follow it, good in both copies if there is such a place; not in the first
 * `skip` bytes of what is free.
 */
static bool log_find_place(const struct log_ring *ring, uint64_t length, uint64_t skip, uint64_t *place)
{
	struct log_free part = log_free_part(ring);

	for (unsigned need = ring->copies; need; need--)
		if (log_find_between(ring, part.from[0] + skip, part.to[0], length + LINE_BYTES, need, place) ||
		    log_find_between(ring, part.from[1], part.to[1], length + LINE_BYTES, need, place))
			return true;
	return false;
}

bool log_has_room(struct log_ring *ring, uint64_t length_bytes)
{
	uint64_t place;

	return log_find_place(ring, length_bytes, 0, &place);
}

/* Can the line be stored in at least one copy? What is poisoned there and was not known is afterwards. */
static bool log_probe(struct log_ring *ring, uint64_t place)
{
	static const uint8_t zeros[LINE_BYTES] __attribute__((aligned(64)));
	bool stored = false;

	for (unsigned k = 0; k < ring->copies; k++)
		stored |= !media_write(ring->media, ring->ring[k] + place, zeros, LINE_BYTES, NULL);
	return stored;
}

/* Where an empty log goes on: on from where it is, in ever longer strides over what turns out to be bad. Live records are not touched. */
static void log_choose_start(struct log_ring *ring)
{
	struct log_free part = log_free_part(ring);
	uint64_t place, stride = BLOCK_BYTES;

	for (unsigned i = 0; i < 2; i++)
		for (uint64_t from = part.from[i]; log_find_between(ring, from, part.to[i], 2 * LINE_BYTES, 1, &place);
		     from = place + stride, stride *= 2)
			if (log_probe(ring, place)) {
				log_set_next(ring, log_next_sequence(ring), place);
				return;
			}
}

uint64_t log_used(const struct log_ring *ring)
{
	uint64_t next = log_next(ring).offset, tail = ring->tail_offset;

	return next < tail ? next - tail + ring->ring_bytes : next - tail;
}

int log_move_tail(struct log_ring *ring, uint32_t epoch)
{
	struct log_ring old = { .tail_sequence = ring->tail_sequence, .tail_offset = ring->tail_offset,
				.epoch = ring->epoch };
	struct log_place next = log_next(ring);
	int error;

	log_choose_start(ring);
	ring->tail_sequence = next.sequence;
	ring->tail_offset = log_next(ring).offset;
	ring->epoch = epoch;
	ring->update++;
	error = log_write_heads(ring);
	if (error) {
		ring->tail_sequence = old.tail_sequence;
		ring->tail_offset = old.tail_offset;
		ring->epoch = old.epoch;
		log_set_next(ring, next.sequence, next.offset);
	} else {
		ring->stuck = false;
		ring->missing = 0;
	}
	return error;
}

/* --- records ---------------------------------------------------------------------------------------------------- */

/* Make sure that a record which is not to count is not found whole in a copy. */
static int log_scrub(struct log_ring *ring, uint64_t offset, unsigned stored)
{
	static const uint8_t zeros[LINE_BYTES] __attribute__((aligned(64)));
	int error = 0;

	for (unsigned k = 0; k < ring->copies; k++)
		if (stored & 1u << k && media_write(ring->media, ring->ring[k] + offset, zeros, LINE_BYTES, NULL))
			error = -ENOTRECOVERABLE;
	media_drain(ring->media);
	return error;
}

static int log_store(struct log_ring *ring, const uint8_t *record, uint64_t offset, size_t length_bytes)
{
	unsigned stored = 0;
	int error, refused = 0;

	for (unsigned k = 0; k < ring->copies; k++) {
		error = media_write(ring->media, ring->ring[k] + offset, record, length_bytes, NULL);
		if (!error)
			stored |= 1u << k;
		else if (error != -EIO)
			refused = error;
	}
	/* The commit point: with this drain, either copy proves the record (PAGE: to this boot of the host; log says when to all). */
	media_drain(ring->media);
	if (refused) {
		error = stored ? log_scrub(ring, offset, stored) : 0;
		return error ? error : refused;
	}
	return stored ? 0 : -EIO;
}

/* Of who runs alone: nobody else's record is under way. */
static uint64_t log_durable(const struct log_ring *ring)
{
	uint64_t durable = ring->paged ? ring->synced : log_next_sequence(ring) - 1, missing = ring->missing;

	return missing ? min_u64(durable, missing - 1) : durable;
}

static int log_put(struct log_ring *ring, unsigned type, size_t length_bytes, unsigned items, uint64_t stated, uint64_t next)
{
	struct log_place place = log_next(ring);
	struct log_claim claim = { .sequence = place.sequence, .offset = stated, .durable = log_durable(ring) };
	int error;

	record_seal(ring, ring->record, type, length_bytes, items, &claim);
	error = log_store(ring, ring->record, place.offset, length_bytes);
	if (error)
		return error;
	if (type == FORMAT_RECORD_TX)
		ring->last_tx = place.sequence;
	log_set_next(ring, place.sequence + 1, next);
	ring->records++;
	ring->record_bytes += length_bytes;
	return 0;
}

/* The staged record's first line is the jump's for a moment; record_seal() makes it anew. */
static int log_put_jump(struct log_ring *ring, uint64_t place)
{
	return log_put(ring, FORMAT_RECORD_JUMP, LINE_BYTES, 0, place, place);
}

int log_append(struct log_ring *ring, unsigned type, size_t length_bytes, unsigned items, uint64_t *sequence)
{
	uint64_t place, skip = 0;
	int error = -EIO;

	for (unsigned i = 0; i < LOG_ATTEMPTS && error == -EIO; i++, skip = BLOCK_BYTES << i) {
		if (!log_find_place(ring, length_bytes, skip, &place))
			break;
		if (place != log_next(ring).offset) {
			error = log_put_jump(ring, place);
			if (error)
				break;
		}
		error = log_put(ring, type, length_bytes, items, place, place + length_bytes);
	}
	ring->stuck = error == -EIO;
	if (error)
		return error;
	*sequence = log_next_sequence(ring) - 1;
	return 0;
}

/* --- records beside each other ------------------------------------------------------------------------------------ */

/*
 * When all that are under way come after all that are not, whatever anybody has seen is durable up to the first of them: that is what a record states, and
 * recovery lets it count without those under way. Else the record would not say of all that it was built on that it must be there.
 */
static bool claim_may_state(uint64_t done, uint64_t last, unsigned numbers, uint64_t *durable)
{
	uint64_t pending = done ^ done_up_to(last), newest_first;
	unsigned shift = (unsigned)(LOG_CLAIMS_MAX - 1 - last % LOG_CLAIMS_MAX), count;

	newest_first = pending << shift | pending >> (-shift % LOG_CLAIMS_MAX);
	if (newest_first == UINT64_MAX)
		return false;
	count = newest_first ? (unsigned)__builtin_clzll(~newest_first) : 0;
	*durable = last - count;
	return newest_first << count == 0 && count + numbers <= LOG_CLAIMS_MAX;
}

/* On from the last record, or from the start of the ring: nothing in it is known bad, else nobody runs beside others. */
static bool claim_find_place(const struct log_ring *ring, const struct log_place *next, size_t length_bytes, struct log_claim *claim)
{
	struct log_free part = log_free_from(ring, next);
	uint64_t needed = length_bytes + LINE_BYTES + ring->slack_bytes;

	claim->jumps = part.from[0] + needed > part.to[0];
	claim->jumps_from = part.from[0];
	claim->offset = part.from[claim->jumps];
	claim->sequence = next->sequence + claim->jumps;
	return !ring->stuck && !ring->missing && claim->offset + needed <= part.to[claim->jumps];
}

static uint64_t claim_bits(const struct log_claim *claim)
{
	return 1ull << claim->sequence % LOG_CLAIMS_MAX | (claim->jumps ? 1ull << (claim->sequence - 1) % LOG_CLAIMS_MAX : 0);
}

/*
 * What this thread's transaction was built on was done before it looks at `done`; so was everything up to what the record then states. A number that another takes
 * meanwhile makes it look once more; one that is done meanwhile does not matter, as this was not built on it.
 */
static int claim_try(struct log_ring *ring, size_t length_bytes, struct log_claim *claim, bool *contended)
{
	uint64_t place = atomic_load(&ring->place);

	for (;; *contended = true) {
		struct log_place next = place_unpack(ring, place);
		uint64_t done = atomic_load(&ring->done), now;

		if (!claim_find_place(ring, &next, length_bytes, claim))
			return -EAGAIN;
		if (claim_may_state(done, next.sequence - 1, claim->jumps ? 2 : 1, &claim->durable)) {
			if (atomic_compare_exchange_strong(&ring->place, &place, place_pack(claim->sequence + 1, claim->offset + length_bytes)))
				return 0;
			continue;
		}
		now = atomic_load(&ring->place);
		if (now == place)
			return -EBUSY;
		place = now;
	}
}

static void claim_wait(struct log_ring *ring)
{
	uint64_t done = ring->done;

	for (unsigned spent = 0; spent < SPIN_TRIES && ring->done == done; spent += SPIN_PAUSES_MAX)
		for (unsigned i = 0; i < SPIN_PAUSES_MAX; i++)
			spin_pause();
}

/* Who is late may sleep for long: then whoever needs him runs alone, which waits as long as it takes. Counted as a lock that all take. */
int log_claim(struct log_ring *ring, size_t length_bytes, struct log_claim *claim)
{
	bool contended = false;
	int error = -EBUSY;

	for (unsigned i = 0; i < LOG_TURNS && error == -EBUSY; i++) {
		if (i) {
			contended = true;
			claim_wait(ring);
		}
		error = claim_try(ring, length_bytes, claim, &contended);
	}
	lock_count_taken(LOCK_LOG, contended);
	return error == -EBUSY ? -EAGAIN : error;
}

static void claim_give_up(struct log_ring *ring, const struct log_claim *claim)
{
	uint64_t first = claim->sequence - claim->jumps, missing = ring->missing;

	while ((!missing || first < missing) && !atomic_compare_exchange_weak(&ring->missing, &missing, first))
		;
}

static int claim_store_jump(struct log_ring *ring, const struct log_claim *claim)
{
	struct log_claim jump = { .sequence = claim->sequence - 1, .offset = claim->offset, .durable = claim->durable };
	uint8_t line[LINE_BYTES] __attribute__((aligned(64)));

	record_seal(ring, line, FORMAT_RECORD_JUMP, LINE_BYTES, 0, &jump);
	return log_store(ring, line, claim->jumps_from, LINE_BYTES);
}

int log_store_claimed(struct log_ring *ring, uint8_t *record, size_t length_bytes, unsigned items, const struct log_claim *claim)
{
	int error = claim->jumps ? claim_store_jump(ring, claim) : 0;

	if (!error) {
		record_seal(ring, record, FORMAT_RECORD_TX, length_bytes, items, claim);
		error = log_store(ring, record, claim->offset, length_bytes);
	}
	if (error)
		claim_give_up(ring, claim);
	atomic_fetch_xor(&ring->done, claim_bits(claim));
	return error && error != -ENOTRECOVERABLE ? -EAGAIN : error;
}
