#include "mkfs/report.h"

#include <errno.h>
#include <inttypes.h>
#include <json.h>
#include <stdio.h>
#include <uuid.h>

/* "1.5 GiB" */
static const char *size_text(uint64_t bytes, char text[32])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 1024 && unit + 1 < ARRAY_SIZE(units)) {
		value /= 1024;
		unit++;
	}
	snprintf(text, 32, value == (double)(uint64_t)value ? "%.0f %s" : "%.1f %s", value,
		 units[unit]);
	return text;
}

static void report_area(const struct build *build, const char *name, enum super_area index)
{
	const struct area *area = &build->layout.areas[index];
	char text[32];

	printf("  %-14s %s at %" PRIu64, name, size_text(area->length_bytes, text), area->copy[0]);
	if (format_area_copies(&build->super, index) > 1)
		printf(" and %" PRIu64, area->copy[1]);
	printf("\n");
}

static void report_slots(const struct build *build)
{
	printf("  %-14s", "superblock");
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++)
		if (build->layout.slots >> slot & 1)
			printf(" %" PRIu64, super_slot_offset(slot));
	printf("\n");
}

static void report_poison(const struct build *build)
{
	const struct poisoned *poisoned = &build->poisoned;
	uint64_t met = iset_bytes(&poisoned->bad) - poisoned->bytes_told;

	if (poisoned->is_unknown)
		printf("  %-14s unknown: %s\n", "known poison", poisoned->why.text);
	if (poisoned->bad.count == 0)
		return;
	printf("  %-14s %" PRIu64 " bytes in %zu ranges set aside (%" PRIu64 " bytes of blocks)\n",
	       "known poison", iset_bytes(&poisoned->bad), poisoned->bad.count,
	       build_quarantined_bytes(build));
	if (met)
		printf("  %-14s %" PRIu64 " bytes of it were met while writing\n", "", met);
}

void report_text(const struct build *build)
{
	const struct layout *layout = &build->layout;
	char uuid[UUID_STR_LEN], text[32];

	uuid_unparse_lower(build->super.uuid, uuid);
	printf("%s: mendfs%s\n", build->options->target,
	       build->options->dry_run ? " would be made, nothing is written" : "");
	if (build->super.label[0])
		printf("  %-14s %s\n", "label", build->super.label);
	printf("  %-14s %s\n", "uuid", uuid);
	printf("  %-14s %s, %" PRIu64 " blocks of %u bytes\n", "size",
	       size_text(layout->size_bytes, text), layout->size_bytes / BLOCK_BYTES, BLOCK_BYTES);
	printf("  %-14s %s, chunks of %s\n", "metadata", layout->copies > 1 ? "dup" : "single",
	       size_text(1ull << layout->chunk_shift, text));
	report_slots(build);
	report_area(build, "poison log", AREA_POISON_LOG);
	report_area(build, "chunk table", AREA_FIXED);
	report_area(build, "journal", AREA_JOURNAL);
	printf("  %-14s %s\n", "data", size_text(build_data_bytes(build), text));
	report_poison(build);
}

static void add_uint(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

static void add_text(struct json_object *object, const char *key, const char *value)
{
	json_object_object_add(object, key, json_object_new_string(value));
}

static void add_geometry(struct json_object *object, const struct build *build)
{
	add_uint(object, "size_bytes", build->layout.size_bytes);
	add_uint(object, "block_size", BLOCK_BYTES);
	add_text(object, "metadata_mode", build->layout.copies > 1 ? "dup" : "single");
	add_uint(object, "journal_bytes", build->layout.areas[AREA_JOURNAL].length_bytes);
	add_uint(object, "data_bytes", build_data_bytes(build));
	add_uint(object, "format_version", FORMAT_VERSION);
}

static void add_poison(struct json_object *object, const struct build *build)
{
	if (build->poisoned.bad.count == 0)
		return;
	add_uint(object, "known_poison_bytes", iset_bytes(&build->poisoned.bad));
	add_uint(object, "known_poison_ranges", build->poisoned.bad.count);
	add_uint(object, "quarantined_bytes", build_quarantined_bytes(build));
}

int report_json(const struct build *build)
{
	struct json_object *object = json_object_new_object();
	char uuid[UUID_STR_LEN];

	if (!object)
		return -ENOMEM;
	uuid_unparse_lower(build->super.uuid, uuid);
	json_object_object_add(object, "version", json_object_new_int(1));
	add_text(object, "uuid", uuid);
	if (build->super.label[0])
		add_text(object, "label", build->super.label);
	add_text(object, "device", build->options->target);
	add_geometry(object, build);
	add_poison(object, build);
	if (build->options->dry_run)
		json_object_object_add(object, "dry_run", json_object_new_boolean(1));
	puts(json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN |
							    JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(object);
	return 0;
}
