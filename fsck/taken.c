#include "fsck/taken.h"

int taken_begin(struct iset *taken, const struct super *super)
{
	int error = 0;

	iset_init(taken);
	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		error = iset_add(taken, super_slot_offset(slot), super_slot_offset(slot) + BLOCK_BYTES, TAKEN_FIXED);
	for (unsigned area = 0; area < AREA_COUNT; area++)
		for (unsigned copy = 0; copy < format_area_copies(super, area) && !error; copy++)
			if (super->areas[area].length_bytes)
				error = iset_add(taken, super->areas[area].copy[copy],
						 super->areas[area].copy[copy] + super->areas[area].length_bytes, TAKEN_FIXED);
	return error;
}

int taken_add(struct iset *taken, uint64_t chunk, const struct chunk_entry *entry)
{
	int error = 0;

	for (unsigned k = 0; k < 2 && !error; k++)
		if (entry->copy[k])
			error = iset_add(taken, entry->copy[k], entry->copy[k] + (1ull << entry->shift), (uint32_t)chunk);
	return error;
}

int taken_remove(struct iset *taken, const struct chunk_entry *entry)
{
	int error = 0;

	for (unsigned k = 0; k < 2 && !error; k++)
		if (entry->copy[k])
			error = iset_remove(taken, entry->copy[k], entry->copy[k] + (1ull << entry->shift));
	return error;
}

const struct iset_range *taken_meets(const struct iset *taken, const struct chunk_entry *entry)
{
	const struct iset_range *range = NULL;

	for (unsigned k = 0; k < 2 && !range; k++)
		if (entry->copy[k])
			range = iset_find(taken, entry->copy[k], entry->copy[k] + (1ull << entry->shift));
	return range;
}
