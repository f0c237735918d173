#include "mkfs/layout.h"

#include <errno.h>
#include <string.h>

#include "format/chunk_format.h"
#include "format/poison_format.h"

#define TABLE_ENTRIES_MIN 1024u
#define FIXED_BYTES_MAX (64ull << 20)
#define METADATA_SHARE 8   /* the chunk table can describe metadata of 1/8 of the device */
#define JOURNAL_SHARE 64   /* the ring is 1/64 of the device, within its bounds */

enum { TAKEN_BAD = 1, TAKEN_USED = 2 };

struct planning {
	struct layout *layout;
	struct iset taken;
	struct why *why;
};

/* --- sizes ---------------------------------------------------------------------------------------------------------- */

static uint64_t layout_journal_bytes(uint64_t size_bytes)
{
	uint64_t ring = max_u64(size_bytes / JOURNAL_SHARE, JOURNAL_RING_MIN);

	return round_up_u64(min_u64(ring, JOURNAL_RING_MAX), BLOCK_BYTES) + BLOCK_BYTES;
}

static uint64_t layout_fixed_bytes(uint64_t size_bytes, unsigned chunk_shift)
{
	uint64_t entries = max_u64(size_bytes / METADATA_SHARE >> chunk_shift, TABLE_ENTRIES_MIN);
	uint64_t blocks = 1 + (entries + CHUNK_ENTRIES_PER_BLOCK - 1) / CHUNK_ENTRIES_PER_BLOCK;

	return min_u64(blocks * BLOCK_BYTES, FIXED_BYTES_MAX);
}

/* --- places --------------------------------------------------------------------------------------------------------- */

struct placement {
	const char *name;
	uint64_t length_bytes;
	uint64_t align;
	devoff_t from; /* preferred: the first place at or after it, then the first at all */
};

/* The first free place in [start, end). *in_the_way: the first bad range that was met, if any. */
static bool place_search(const struct iset *taken, const struct placement *what, devoff_t start,
			 devoff_t end, struct iset_range *in_the_way, devoff_t *out)
{
	devoff_t at = round_up_u64(start, what->align);

	while (at < end && what->length_bytes <= end - at) {
		const struct iset_range *hit = iset_find(taken, at, at + what->length_bytes);

		if (!hit) {
			*out = at;
			return true;
		}
		if (hit->tag == TAKEN_BAD && in_the_way->start == in_the_way->end)
			*in_the_way = *hit;
		at = round_up_u64(hit->end, what->align);
	}
	return false;
}

static int place_refuse(const struct planning *planning, const struct placement *what,
			const struct iset_range *in_the_way)
{
	if (in_the_way->start == in_the_way->end)
		return why_set(planning->why, -ENOSPC, "no room for the %s (%llu bytes)", what->name,
			       (unsigned long long)what->length_bytes);
	return why_set(planning->why, -ENOSPC,
		       "no place is left for the %s (%llu bytes): known poison at %llu, %llu bytes long, is in the way",
		       what->name, (unsigned long long)what->length_bytes,
		       (unsigned long long)in_the_way->start,
		       (unsigned long long)(in_the_way->end - in_the_way->start));
}

static int place_find(struct planning *planning, const struct iset *taken,
		      const struct placement *what, devoff_t *out)
{
	struct iset_range in_the_way = {0};
	uint64_t size = planning->layout->size_bytes;

	if (!place_search(taken, what, what->from, size, &in_the_way, out) &&
	    !place_search(taken, what, 0, size, &in_the_way, out))
		return place_refuse(planning, what, &in_the_way);
	return iset_add(&planning->taken, *out, *out + what->length_bytes, TAKEN_USED);
}

/* The replica: outside every 2 MiB page of the primary, as one failed page of a device-dax mapping must not take both. */
static int place_replica(struct planning *planning, const struct placement *what, devoff_t primary,
			 devoff_t *out)
{
	struct iset taken;
	int error = iset_copy(&taken, &planning->taken);

	if (!error)
		error = iset_add(&taken, round_down_u64(primary, HUGE_BYTES),
				 round_up_u64(primary + what->length_bytes, HUGE_BYTES), TAKEN_USED);
	if (!error)
		error = place_find(planning, &taken, what, out);
	iset_fini(&taken);
	return error;
}

static int place_pair(struct planning *planning, const char *name, uint64_t length_bytes,
		      unsigned copies, devoff_t out[2])
{
	struct placement what = {
		.name = name,
		.length_bytes = length_bytes,
		.align = length_bytes >= HUGE_BYTES ? HUGE_BYTES : BLOCK_BYTES,
	};
	int error = place_find(planning, &planning->taken, &what, &out[0]);

	out[1] = 0;
	if (error || copies < 2)
		return error;
	what.from = planning->layout->size_bytes / 2;
	return place_replica(planning, &what, out[0], &out[1]);
}

/* --- the plan ------------------------------------------------------------------------------------------------------- */

static int plan_bad(struct planning *planning, const struct iset *bad)
{
	int error = 0;

	for (size_t i = 0; i < bad->count && !error; i++)
		error = iset_add(&planning->taken, bad->ranges[i].start, bad->ranges[i].end,
				 TAKEN_BAD);
	return error;
}

/* All slots are taken, those under poison too: they may carry a copy once they are clear. */
static int plan_slots(struct planning *planning, const struct iset *bad)
{
	struct layout *layout = planning->layout;
	const struct iset_range *hit = NULL;
	unsigned healthy = 0;
	int error = 0;

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		devoff_t at = super_slot_offset(slot);

		if (iset_overlaps(bad, at, at + BLOCK_BYTES)) {
			hit = hit ? hit : iset_find(bad, at, at + BLOCK_BYTES);
			continue;
		}
		layout->slots |= 1u << slot;
		healthy++;
	}
	if (healthy < layout->copies)
		return why_set(planning->why, -ENOSPC,
			       "no place is left for the superblock (%u of its %u slots are good, %u are needed): "
			       "known poison at %llu, %llu bytes long, is in the way",
			       healthy, SUPER_SLOTS, layout->copies, (unsigned long long)hit->start,
			       (unsigned long long)(hit->end - hit->start));
	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++)
		error = iset_add(&planning->taken, super_slot_offset(slot),
				 super_slot_offset(slot) + BLOCK_BYTES, TAKEN_USED);
	return error;
}

static int plan_area(struct planning *planning, enum super_area index, const char *name,
		     uint64_t length_bytes, unsigned copies)
{
	struct area *area = &planning->layout->areas[index];

	area->length_bytes = length_bytes;
	return place_pair(planning, name, length_bytes, copies, area->copy);
}

static int plan_all(struct planning *planning, const struct iset *bad)
{
	struct layout *layout = planning->layout;
	uint64_t size = layout->size_bytes;
	int error = plan_bad(planning, bad);

	if (!error)
		error = plan_slots(planning, bad);
	if (!error)
		error = plan_area(planning, AREA_POISON_LOG, "poison log", POISON_LOG_BYTES, 2);
	if (!error)
		error = plan_area(planning, AREA_FIXED, "root block and chunk table",
				  layout_fixed_bytes(size, layout->chunk_shift), layout->copies);
	if (!error)
		error = place_pair(planning, "first metadata chunk", 1ull << layout->chunk_shift,
				   layout->copies, layout->chunk);
	if (!error)
		error = plan_area(planning, AREA_JOURNAL, "journal", layout_journal_bytes(size), 2);
	return error;
}

int layout_check_size(uint64_t size_bytes, struct why *why)
{
	if (size_bytes < SUPER_MIN_BYTES)
		return why_set(why, -EINVAL,
			       "too small: %llu bytes; the minimum is %llu bytes (%llu MiB)",
			       (unsigned long long)size_bytes, SUPER_MIN_BYTES,
			       SUPER_MIN_BYTES >> 20);
	if (size_bytes > DEVICE_BYTES_MAX)
		return why_set(why, -EINVAL, "too large: a filesystem has at most 64 PiB");
	return 0;
}

int layout_plan(const struct layout_request *request, struct layout *out, struct why *why)
{
	struct layout layout = {
		.size_bytes = round_down_u64(request->size_bytes, BLOCK_BYTES),
		.copies = request->copies,
	};
	struct planning planning = {.layout = &layout, .why = why};
	int error = layout_check_size(request->size_bytes, why);

	if (error)
		return error;
	layout.chunk_shift = (uint8_t)format_chunk_shift(layout.size_bytes);
	iset_init(&planning.taken);
	error = plan_all(&planning, request->bad);
	iset_fini(&planning.taken);
	if (error == -ENOMEM)
		return why_set(why, error, "out of memory");
	if (!error)
		*out = layout;
	return error;
}

static unsigned range_add(struct layout_range *ranges, unsigned count, devoff_t offset,
			  uint64_t length_bytes)
{
	ranges[count] = (struct layout_range){offset, length_bytes};
	return count + 1;
}

unsigned layout_ranges(const struct layout *layout, struct layout_range ranges[LAYOUT_RANGES_MAX])
{
	unsigned count = 0;

	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		if (layout->slots >> slot & 1)
			count = range_add(ranges, count, super_slot_offset(slot), BLOCK_BYTES);
	for (unsigned i = 0; i < AREA_COUNT; i++)
		for (unsigned copy = 0; copy < 2; copy++)
			if (layout->areas[i].copy[copy])
				count = range_add(ranges, count, layout->areas[i].copy[copy],
						  layout->areas[i].length_bytes);
	for (unsigned copy = 0; copy < 2; copy++)
		if (layout->chunk[copy])
			count = range_add(ranges, count, layout->chunk[copy],
					  1ull << layout->chunk_shift);
	return count;
}
