#include "notify/poison_log.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "util/iset.h"
#include "util/log.h"

/* Kept free of new failures, so that what was healed can always be said to be: a slot in four. */
#define CLEARED_SHARE 4
#define SLOTS_PER_SECTOR (SECTOR_BYTES / sizeof(struct format_poison_entry))

struct poison_log {
	struct media *media;
	pthread_mutex_t lock;
	uint8_t meta_uuid[FORMAT_UUID_BYTES];
	struct area area;
	uint64_t slots;
	uint64_t next;                /* sequence of the next append */
	uint64_t tail;                /* entries below are in the trees durably */
	struct poison_entry *entries; /* by slot; length_bytes 0: none */
};

static _Thread_local bool appending;

bool poison_log_is_appending(void)
{
	return appending;
}

static unsigned log_copies(const struct poison_log *log)
{
	return log->area.copy[1] ? 2 : 1;
}

static devoff_t slot_offset(const struct poison_log *log, unsigned copy, uint64_t slot)
{
	return log->area.copy[copy] + slot * sizeof(struct format_poison_entry);
}

/* An entry counts when it is whole, ours, and where its sequence says; the newer of what the two
 * copies have in a slot wins. */
static void log_take_entry(struct poison_log *log, const struct format_poison_entry *raw,
			   uint64_t slot)
{
	struct poison_entry entry;

	if (format_poison_entry_unpack(&entry, raw, log->meta_uuid))
		return;
	if (entry.sequence % log->slots != slot || entry.sequence == UINT64_MAX)
		return;
	if (entry.offset >= media_size(log->media) ||
	    entry.length_bytes > media_size(log->media) - entry.offset)
		return;
	if (log->entries[slot].length_bytes == 0 || entry.sequence > log->entries[slot].sequence)
		log->entries[slot] = entry;
	log->next = max_u64(log->next, entry.sequence + 1);
}

/* Read one block of slots; where it is poisoned, what can be had around the bad sectors. */
static void log_read_block(struct poison_log *log, unsigned copy, uint64_t first, uint64_t count)
{
	struct format_poison_entry raw[BLOCK_BYTES / sizeof(struct format_poison_entry)];
	const devoff_t offset = slot_offset(log, copy, first);

	if (media_read(log->media, offset, raw, count * sizeof(raw[0]), NULL) == 0) {
		for (uint64_t i = 0; i < count; i++)
			log_take_entry(log, &raw[i], first + i);
		return;
	}
	for (uint64_t i = 0; i < count; i += SLOTS_PER_SECTOR) {
		const uint64_t part = min_u64(SLOTS_PER_SECTOR, count - i);

		if (media_read(log->media, slot_offset(log, copy, first + i), raw,
			       part * sizeof(raw[0]), NULL))
			continue;
		for (uint64_t k = 0; k < part; k++)
			log_take_entry(log, &raw[k], first + i + k);
	}
}

static void log_read_copies(struct poison_log *log)
{
	const uint64_t per_block = BLOCK_BYTES / sizeof(struct format_poison_entry);

	for (unsigned copy = 0; copy < log_copies(log); copy++)
		for (uint64_t slot = 0; slot < log->slots; slot += per_block)
			log_read_block(log, copy, slot, min_u64(per_block, log->slots - slot));
}

static int compare_sequence(const void *a, const void *b)
{
	const struct poison_entry *x = a, *y = b;

	return x->sequence < y->sequence ? -1 : x->sequence > y->sequence;
}

/* The valid entries from `least` on, oldest first; free() it. */
static int log_sorted(struct poison_log *log, uint64_t least, struct poison_entry **out,
		      size_t *count)
{
	struct poison_entry *list = malloc(log->slots * sizeof(*list));
	size_t n = 0;

	if (!list)
		return -ENOMEM;
	for (uint64_t slot = 0; slot < log->slots; slot++)
		if (log->entries[slot].length_bytes && log->entries[slot].sequence >= least)
			list[n++] = log->entries[slot];
	qsort(list, n, sizeof(*list), compare_sequence);
	*out = list;
	*count = n;
	return 0;
}

static int log_replay(const struct poison_entry *list, size_t count, struct iset *set)
{
	int rc = 0;

	for (size_t i = 0; i < count && rc == 0; i++) {
		const uint64_t end = list[i].offset + list[i].length_bytes;

		if (list[i].state == BADBLOCK_CLEARED)
			rc = iset_remove(set, list[i].offset, end);
		else
			rc = iset_add(set, list[i].offset, end, 0);
	}
	return rc;
}

/*
 * The entries are played into a set of their own first: a CLEARED entry of yesterday must not take
 * out of the known set what the kernel says today.
 */
static int log_enter_known(struct poison_log *log)
{
	struct poison_entry *list;
	struct iset set;
	size_t count;
	int rc = log_sorted(log, 0, &list, &count);

	if (rc)
		return rc;
	iset_init(&set);
	rc = log_replay(list, count, &set);
	for (size_t i = 0; i < set.count && rc == 0; i++)
		rc = media_bad_add(log->media, set.ranges[i].start,
				   set.ranges[i].end - set.ranges[i].start);
	iset_fini(&set);
	free(list);
	return rc;
}

static int log_check_area(const struct media *media, const struct area *area)
{
	const uint64_t size = media_size(media);

	if (area->length_bytes < BLOCK_BYTES || area->length_bytes % BLOCK_BYTES ||
	    area->length_bytes > size)
		return -EUCLEAN;
	for (unsigned copy = 0; copy < 2; copy++)
		if (area->copy[copy] > size - area->length_bytes)
			return -EUCLEAN;
	return 0;
}

int poison_log_open(struct media *media, const struct super *super, struct poison_log **out)
{
	struct poison_log *log;
	int rc = log_check_area(media, &super->areas[AREA_POISON_LOG]);

	if (rc)
		return rc;
	log = calloc(1, sizeof(*log));
	if (!log)
		return -ENOMEM;
	log->media = media;
	log->area = super->areas[AREA_POISON_LOG];
	log->slots = log->area.length_bytes / sizeof(struct format_poison_entry);
	memcpy(log->meta_uuid, super->meta_uuid, sizeof(log->meta_uuid));
	pthread_mutex_init(&log->lock, NULL);
	log->entries = calloc(log->slots, sizeof(*log->entries));
	rc = -ENOMEM;
	if (!log->entries)
		goto err;
	log_read_copies(log);
	log->tail = log->next > log->slots ? log->next - log->slots : 0;
	rc = log_enter_known(log);
	if (rc)
		goto err;
	*out = log;
	return 0;
err:
	poison_log_close(log);
	return rc;
}

void poison_log_close(struct poison_log *log)
{
	if (!log)
		return;
	pthread_mutex_destroy(&log->lock);
	free(log->entries);
	free(log);
}

int poison_log_format(struct media *media, const struct super *super)
{
	const struct area *area = &super->areas[AREA_POISON_LOG];
	int rc = log_check_area(media, area);

	for (unsigned copy = 0; copy < (area->copy[1] ? 2u : 1u) && rc == 0; copy++)
		rc = media_zero(media, area->copy[copy], area->length_bytes, NULL);
	return rc;
}

/* Store the line in each copy; one is enough. */
static int log_store(struct poison_log *log, uint64_t slot, const struct format_poison_entry *raw)
{
	int result = -EIO;

	for (unsigned copy = 0; copy < log_copies(log); copy++) {
		int rc = media_write_line(log->media, slot_offset(log, copy, slot), raw, NULL);

		if (rc == 0)
			result = 0;
		else if (result && rc != -EIO)
			result = rc;
	}
	return result;
}

/* Numbers whose slots are bad in both copies are left out: readers do not need them to follow each
 * other. */
static int log_append_locked(struct poison_log *log, struct poison_entry *entry)
{
	const uint64_t keep = entry->state == BADBLOCK_CLEARED ? 0 : log->slots / CLEARED_SHARE;
	struct format_poison_entry raw;

	while (log->next - log->tail < log->slots - keep) {
		const uint64_t slot = log->next % log->slots;
		int rc;

		entry->sequence = log->next;
		format_poison_entry_pack(&raw, entry, log->meta_uuid);
		rc = log_store(log, slot, &raw);
		if (rc && rc != -EIO)
			return rc;
		log->next++;
		if (rc)
			continue;
		/* Durable now: the range is known at the next mount before anything in it is read.
		 */
		media_drain(log->media);
		log->entries[slot] = *entry;
		return 0;
	}
	return -ENOSPC;
}

int poison_log_append(struct poison_log *log, struct poison_entry *entry)
{
	int rc;

	if (media_is_readonly(log->media) || media_is_stopped(log->media))
		return -EROFS;
	pthread_mutex_lock(&log->lock);
	appending = true;
	rc = log_append_locked(log, entry);
	appending = false;
	pthread_mutex_unlock(&log->lock);
	return rc;
}

/* --- copies that lag behind --- */

/* What the sector that begins with this slot has to hold. */
static void log_pack_sector(const struct poison_log *log, uint64_t first,
			    struct format_poison_entry *raw)
{
	memset(raw, 0, SECTOR_BYTES);
	for (uint64_t i = 0; i < SLOTS_PER_SECTOR; i++)
		if (log->entries[first + i].length_bytes)
			format_poison_entry_pack(&raw[i], &log->entries[first + i], log->meta_uuid);
}

static int log_mend_sector(struct poison_log *log, unsigned copy, uint64_t first, bool clears)
{
	struct format_poison_entry wanted[SLOTS_PER_SECTOR], found[SLOTS_PER_SECTOR];
	const devoff_t offset = slot_offset(log, copy, first);
	int rc = media_read(log->media, offset, found, sizeof(found), NULL);

	if (rc && !clears)
		return 0;
	log_pack_sector(log, first, wanted);
	if (rc)
		rc = media_clear(log->media, offset, SECTOR_BYTES);
	else if (memcmp(found, wanted, sizeof(wanted)) == 0)
		return 0;
	return rc ? rc : media_write(log->media, offset, wanted, sizeof(wanted), NULL);
}

/* The sectors of a copy that overlap the range. A sector that fails does not keep the others. */
static int log_mend_copy(struct poison_log *log, unsigned copy, devoff_t start, devoff_t end,
			 bool clears)
{
	const devoff_t area = log->area.copy[copy];
	const devoff_t first = max_u64(start, area), last = min_u64(end, area + log->area.length_bytes);
	int result = 0;

	for (devoff_t at = round_down_u64(first, SECTOR_BYTES); at < last; at += SECTOR_BYTES) {
		int rc = log_mend_sector(
		    log, copy, (at - area) / sizeof(struct format_poison_entry), clears);

		result = result ? result : rc;
	}
	return result;
}

static int log_mend(struct poison_log *log, devoff_t start, devoff_t end, bool clears)
{
	int result = 0;

	if (media_is_readonly(log->media) || media_is_stopped(log->media))
		return -EROFS;
	pthread_mutex_lock(&log->lock);
	appending = true;
	for (unsigned copy = 0; copy < log_copies(log); copy++) {
		int rc = log_mend_copy(log, copy, start, end, clears);

		result = result ? result : rc;
	}
	appending = false;
	pthread_mutex_unlock(&log->lock);
	return result;
}

int poison_log_rewrite(struct poison_log *log, devoff_t start, devoff_t end)
{
	return log_mend(log, start, end, true);
}

void poison_log_catch_up(struct poison_log *log)
{
	log_mend(log, 0, media_size(log->media), false);
}

int poison_log_walk(struct poison_log *log,
		    int (*visit)(void *arg, const struct poison_entry *entry), void *arg)
{
	struct poison_entry *list;
	size_t count;
	int rc;

	pthread_mutex_lock(&log->lock);
	rc = log_sorted(log, log->tail, &list, &count);
	pthread_mutex_unlock(&log->lock);
	if (rc)
		return rc;
	for (size_t i = 0; i < count && rc == 0; i++)
		rc = visit(arg, &list[i]);
	free(list);
	return rc;
}

void poison_log_trim(struct poison_log *log, uint64_t sequence)
{
	pthread_mutex_lock(&log->lock);
	log->tail = max_u64(log->tail, sequence);
	/* Both copies may have been lost: numbers below the tail would be taken for entries that
	 * are in the trees. */
	log->next = max_u64(log->next, log->tail);
	pthread_mutex_unlock(&log->lock);
}

uint64_t poison_log_next_sequence(struct poison_log *log)
{
	uint64_t next;

	pthread_mutex_lock(&log->lock);
	next = log->next;
	pthread_mutex_unlock(&log->lock);
	return next;
}

bool poison_log_wants_trim(struct poison_log *log)
{
	bool wants;

	pthread_mutex_lock(&log->lock);
	wants = log->next - log->tail > log->slots / 2;
	pthread_mutex_unlock(&log->lock);
	return wants;
}
