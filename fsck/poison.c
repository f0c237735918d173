/* The poison log: both copies alike, slot by slot, the newer entry in both. */
#include <errno.h>
#include <string.h>

#include "format/poison_format.h"
#include "fsck/internal.h"
#include "notify/poison_log.h"
#include "notify/span.h"

struct log_slot {
	struct format_poison_entry raw[2];
	bool readable[2];
	struct format_poison_entry wanted;
};

static void slot_read(struct repair *repair, const struct area *area, uint64_t number, struct log_slot *slot)
{
	for (unsigned k = 0; k < 2; k++)
		slot->readable[k] = !media_read(repair->media, area->copy[k] + number * sizeof(slot->raw[k]), &slot->raw[k],
						sizeof(slot->raw[k]), NULL);
}

/* What both copies must hold: the newer of two entries that are whole, or nothing. */
static void slot_choose(const struct repair *repair, uint64_t number, uint64_t slots, struct log_slot *slot)
{
	uint64_t best = 0;

	memset(&slot->wanted, 0, sizeof(slot->wanted));
	for (unsigned k = 0; k < 2; k++) {
		struct poison_entry entry;

		if (!slot->readable[k] || format_poison_entry_unpack(&entry, &slot->raw[k], repair->super.meta_uuid) ||
		    entry.sequence % slots != number || entry.sequence + 1 <= best)
			continue;
		best = entry.sequence + 1;
		slot->wanted = slot->raw[k];
	}
}

struct log_repair {
	uint64_t bad[2]; /* slots of each copy */
	uint64_t refused[2];
	uint64_t recorded[2]; /* in memory that is known to be bad */
};

static int slot_repair(struct repair *repair, const struct area *area, uint64_t number, const struct log_slot *slot, unsigned k,
		       struct log_repair *log)
{
	devoff_t place = area->copy[k] + number * sizeof(slot->wanted);
	int error = repair_write(repair, place, &slot->wanted, sizeof(slot->wanted));

	if (error != -EIO && error != -ENOTSUP)
		return error;
	log->refused[k]++; /* a slot that is bad for good is passed over by the log itself */
	return 0;
}

static int log_pass(struct repair *repair, bool write, struct log_repair *log)
{
	const struct area *area = &repair->super.areas[AREA_POISON_LOG];
	uint64_t slots = area->length_bytes / sizeof(struct format_poison_entry);
	int error = 0;

	for (uint64_t number = 0; number < slots && !error; number++) {
		struct log_slot slot;

		slot_read(repair, area, number, &slot);
		slot_choose(repair, number, slots, &slot);
		for (unsigned k = 0; k < 2 && !error; k++) {
			if (slot.readable[k] && !memcmp(&slot.raw[k], &slot.wanted, sizeof(slot.wanted)))
				continue;
			if (!slot.readable[k] && repair_is_recorded(repair, area->copy[k] + number * sizeof(slot.wanted), sizeof(slot.wanted)))
				log->recorded[k]++;
			else
				log->bad[k]++;
			if (write)
				error = slot_repair(repair, area, number, &slot, k, log);
		}
	}
	return error;
}

static void log_tell_found(struct repair *repair, const struct log_repair *log)
{
	for (unsigned k = 0; k < 2; k++) {
		if (log->recorded[k])
			repair_tell(repair, FSCK_NOTE, "poison log, copy %u: %llu entries cannot be read: memory that is known to be bad, the other copy serves", k,
				    (unsigned long long)log->recorded[k]);
		if (log->bad[k])
			repair_tell(repair, FSCK_ERROR, "poison log, copy %u: %llu entries are unreadable, damaged or older than the other copy's", k,
				    (unsigned long long)log->bad[k]);
	}
}

static void log_tell_repaired(struct repair *repair, const struct log_repair *log)
{
	for (unsigned k = 0; k < 2; k++)
		if (log->refused[k])
			repair_tell(repair, FSCK_NOTE, "poison log, copy %u: %llu entries cannot be written anew: the other copy serves", k,
				    (unsigned long long)log->refused[k]);
	if (!log->refused[0] && !log->refused[1])
		repair_tell(repair, FSCK_FIXED, "poison log: both copies alike");
	else if (log->bad[0] + log->bad[1] > log->refused[0] + log->refused[1])
		repair_tell(repair, FSCK_FIXED, "poison log: the other entries are alike");
}

int repair_poison_log(struct repair *repair, struct why *why)
{
	struct log_repair found = {.bad = {0}}, left = {.bad = {0}};
	int error = log_pass(repair, false, &found);

	log_tell_found(repair, &found);
	if ((!found.bad[0] && !found.bad[1]) || !repair_ask_safe(repair, "Write the bad entries of the poison log anew"))
		return 0;
	/* Durable with the next barrier: the phases that follow begin with one. */
	error = log_pass(repair, true, &left);
	if (error)
		return why_set(why, error, "%s: the poison log cannot be written: %s", media_path(repair->media), strerror(-error));
	log_tell_repaired(repair, &left);
	return 0;
}

static int know_entry(void *arg, const struct poison_entry *entry)
{
	struct repair *repair = arg;

	if (entry->state == BADBLOCK_CLEARED)
		return iset_remove(&repair->recorded, entry->offset, entry->offset + entry->length_bytes);
	return iset_add(&repair->recorded, entry->offset, entry->offset + entry->length_bytes, 0);
}

bool repair_is_recorded(const struct repair *repair, devoff_t offset, uint64_t length)
{
	return !repair->options->write && iset_overlaps(&repair->recorded, offset, offset + length);
}

static int know_span(void *arg, const struct btree_key *key, const void *value, size_t length)
{
	struct badblock_record record;
	struct repair *repair = arg;

	if (format_badblock_unpack(&record, value, length) || record.state == BADBLOCK_CLEARED)
		return 0;
	return iset_add(&repair->recorded, key->word[0], key->word[0] + record.length_bytes, 0);
}

/* The log forgets what the trees have, and never had what it met in itself. What they cannot say, the journal not being whole, is judged as if nobody had recorded it. */
static int know_ledger(struct repair *repair)
{
	const struct btree_key from = {{0}}, to = {{UINT64_MAX, UINT64_MAX, UINT64_MAX}};
	struct journal_options options = {.readonly = true};
	struct journal *journal;
	struct btree badblocks;
	struct why ignored;
	int error;

	if (repair->options->write || journal_open(repair->media, &repair->super, &options, &ignored, &journal))
		return 0;
	btree_init(&badblocks, journal, &badblocks_ops);
	journal_read_begin(journal);
	error = btree_walk(&badblocks, &from, &to, know_span, repair);
	journal_read_end(journal);
	journal_close(journal);
	return error == -ENOMEM ? error : 0;
}

/* The kernel may have forgotten it, and the trees that have it are read last. A log that cannot be used says nothing. */
int repair_know(struct repair *repair, struct why *why)
{
	struct poison_log *log;
	int error = poison_log_open(repair->media, &repair->super, &log);

	if (!error) {
		error = know_ledger(repair);
		if (!error)
			error = poison_log_walk(log, know_entry, repair);
		poison_log_close(log);
	}
	return error == -ENOMEM ? why_set(why, error, "%s: no memory for the poison log", media_path(repair->media)) : 0;
}

static int log_say_cleared(struct repair *repair, struct poison_log *log)
{
	struct poison_entry entry = {.state = BADBLOCK_CLEARED, .source = FAILURE_CONTROL};
	int error = 0;

	for (size_t i = 0; i < repair->cleared.count && !error; i++) {
		entry.offset = repair->cleared.ranges[i].start;
		entry.length_bytes = repair->cleared.ranges[i].end - entry.offset;
		error = poison_log_append(log, &entry);
	}
	return error;
}

/*
 * Superblocks were made durable one by one; an entry of the log that a crash tears is told by its checksum, and the other copy serves: so nothing has to be waited for. A
 * full log keeps the old word, and the next mount mends it once more.
 */
int repair_say_cleared(struct repair *repair, struct why *why)
{
	struct poison_log *log;
	int error;

	if (!repair->cleared.count || poison_log_open(repair->media, &repair->super, &log))
		return 0;
	error = log_say_cleared(repair, log);
	poison_log_close(log);
	return error && error != -ENOSPC ? why_set(why, error, "%s: the poison log cannot be written: %s", media_path(repair->media), strerror(-error)) : 0;
}
