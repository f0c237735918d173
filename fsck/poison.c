/* The poison log: both copies alike, slot by slot, the newer entry in both. */
#include <errno.h>
#include <string.h>

#include "format/poison_format.h"
#include "fsck/internal.h"
#include "notify/poison_log.h"

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
			log->bad[k]++;
			if (write)
				error = slot_repair(repair, area, number, &slot, k, log);
		}
	}
	return error;
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

	for (unsigned k = 0; k < 2; k++)
		if (found.bad[k])
			repair_tell(repair, FSCK_ERROR, "poison log, copy %u: %llu entries are unreadable, damaged or older than the other copy's",
				    k, (unsigned long long)found.bad[k]);
	if ((!found.bad[0] && !found.bad[1]) || !repair_ask_safe(repair, "Write the bad entries of the poison log anew"))
		return 0;
	/* Durable with the next barrier: the phases that follow begin with one. */
	error = log_pass(repair, true, &left);
	if (error)
		return why_set(why, error, "%s: the poison log cannot be written: %s", media_path(repair->media), strerror(-error));
	log_tell_repaired(repair, &left);
	return 0;
}

/* The kernel may have forgotten it, and the trees that have it are read last. A log that cannot be used says nothing. */
int repair_know(struct repair *repair, struct why *why)
{
	struct poison_log *log;
	int error = poison_log_open(repair->media, &repair->super, &log);

	if (!error)
		poison_log_close(log);
	return error == -ENOMEM ? why_set(why, error, "%s: no memory for the poison log", media_path(repair->media)) : 0;
}
