#include "journal/home.h"

#include <errno.h>
#include <string.h>

#include "journal/internal.h"

struct home_blocks {
	uint8_t bytes[2][BLOCK_BYTES] __attribute__((aligned(64)));
};

static bool home_is_readable(const struct home_copy *copy)
{
	return copy->state == HOME_WHOLE || copy->state == HOME_DAMAGED;
}

static void home_read(struct journal *journal, struct home_copy *copy, uint8_t *block, size_t length)
{
	uint64_t bad_length;
	devoff_t bad;

	if (media_bad_any(journal->media) && media_bad_find(journal->media, copy->offset, length, &bad, &bad_length))
		copy->state = HOME_KNOWN_BAD;
	else if (media_read(journal->media, copy->offset, block, length, NULL))
		copy->state = HOME_UNREADABLE;
}

static void home_verify(struct journal *journal, maddr_t address, struct home_copy *copy, const uint8_t *block)
{
	if (copy->state == HOME_WHOLE && format_block_verify(block, journal->super.meta_uuid, address, &copy->field))
		copy->state = HOME_DAMAGED;
}

static uint64_t block_sequence(const uint8_t *block)
{
	return le64_get(((const struct format_block_header *)block)->sequence);
}

/* Most often they are equal, and one checksum is enough for both. */
static void home_compare(struct journal *journal, maddr_t address, struct home *home, const struct home_blocks *blocks)
{
	struct home_copy *first = &home->copy[0], *second = &home->copy[1];
	uint64_t sequence[2];

	home_verify(journal, address, first, blocks->bytes[0]);
	if (!home_is_readable(first) || !home_is_readable(second) || memcmp(blocks->bytes[0], blocks->bytes[1], BLOCK_BYTES)) {
		home_verify(journal, address, second, blocks->bytes[1]);
	} else {
		second->state = first->state;
		second->field = first->field;
		return;
	}
	if (first->state != HOME_WHOLE || second->state != HOME_WHOLE)
		return;
	sequence[0] = block_sequence(blocks->bytes[0]);
	sequence[1] = block_sequence(blocks->bytes[1]);
	if (sequence[0] == sequence[1])
		second->state = HOME_DIFFERS;
	else
		home->copy[sequence[0] > sequence[1]].state = HOME_OLDER;
}

/* Checksum and sequence are set on the way home only. */
static bool home_is_as_cached(const uint8_t *block, const uint8_t *cached)
{
	const size_t crc = offsetof(struct format_block_header, crc32c), uuid = offsetof(struct format_block_header, meta_uuid);
	const size_t sequence = offsetof(struct format_block_header, sequence), version = offsetof(struct format_block_header, version);

	return !memcmp(block, cached, crc) && !memcmp(block + uuid, cached + uuid, sequence - uuid) &&
	       !memcmp(block + version, cached + version, BLOCK_BYTES - version);
}

static void home_compare_memory(struct home *home, const struct home_blocks *blocks, const struct cache_buf *cb)
{
	for (unsigned k = 0; k < 2; k++)
		if (home->copy[k].state == HOME_WHOLE && !home_is_as_cached(blocks->bytes[k], cb->block))
			home->differs_from_memory = true;
}

int journal_home_check(struct journal *journal, maddr_t address, struct home *out)
{
	struct cache_buf *cb = cache_find(journal, address);
	struct home_blocks blocks;
	struct home home = {0};
	devoff_t offset[2];
	int error = cb && cb->dirty ? -EBUSY : chunk_map(journal, address, offset);

	for (unsigned k = 0; k < 2 && !error; k++) {
		home.copy[k] = (struct home_copy){.state = offset[k] ? HOME_WHOLE : HOME_ABSENT, .offset = offset[k]};
		if (offset[k])
			home_read(journal, &home.copy[k], blocks.bytes[k], BLOCK_BYTES);
	}
	if (!error) {
		home_compare(journal, address, &home, &blocks);
		if (cb && !cb->error)
			home_compare_memory(&home, &blocks, cb);
		*out = home;
	}
	if (cb)
		cache_put(cb);
	return error;
}

/* What a death between the stores of both leaves; the next opening that writes makes them equal. */
static bool heads_follow(const struct format_journal_head *a, const struct format_journal_head *b)
{
	return le64_get(a->update) + 1 == le64_get(b->update) || le64_get(b->update) + 1 == le64_get(a->update);
}

void journal_heads_check(struct journal *journal, struct home *out)
{
	struct log_ring *ring = &journal->log;
	struct format_journal_head head[2];

	*out = (struct home){0};
	for (unsigned k = 0; k < 2; k++) {
		struct home_copy *copy = &out->copy[k];

		*copy = (struct home_copy){.state = k < ring->copies ? HOME_WHOLE : HOME_ABSENT, .offset = ring->head[k]};
		if (copy->state == HOME_WHOLE)
			home_read(journal, copy, (uint8_t *)&head[k], sizeof(head[k]));
		if (copy->state == HOME_WHOLE && record_head_verify(&head[k], ring)) {
			copy->state = HOME_DAMAGED;
			copy->field = "head";
		}
	}
	if (out->copy[0].state == HOME_WHOLE && out->copy[1].state == HOME_WHOLE && memcmp(&head[0], &head[1], sizeof(head[0])) &&
	    !(journal->readonly && heads_follow(&head[0], &head[1])))
		out->copy[le64_get(head[0].update) > le64_get(head[1].update)].state = HOME_OLDER;
}
