#include "tests/crash/enumerate.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNITS_WHOLE 10 /* so many are tried in every combination */
#define COMBINATIONS_WHOLE 1024
#define RANDOM_SHARE 4 /* one in so many is random */

/* --- names ------------------------------------------------------------------------------------------------------------------ */

void image_name(const struct image *image, char name[IMAGE_NAME_BYTES])
{
	if (image_is_none(image))
		strcpy(name, "none");
	else if (image_is_all(image))
		strcpy(name, "all");
	else
		snprintf(name, IMAGE_NAME_BYTES, "%c%c%llx", image->level == LEVEL_LINES ? 'u' : 'w', image->kind,
			 (unsigned long long)image->number);
}

const char *image_parse(const char *name, struct image *image)
{
	char *end;

	*image = (struct image){LEVEL_LINES, '<', 0};
	if (!strncmp(name, "none", 4))
		return name + 4;
	image->number = CUT_ALL;
	if (!strncmp(name, "all", 3))
		return name + 3;
	if ((name[0] != 'u' && name[0] != 'w') || !name[1] || !strchr("=#<+-%~", name[1]))
		return NULL;
	image->level = name[0] == 'u' ? LEVEL_LINES : LEVEL_WORDS;
	image->kind = name[1];
	image->number = strtoull(name + 2, &end, 16);
	return end == name + 2 ? NULL : end;
}

/* --- what an image is --------------------------------------------------------------------------------------------------------- */

static void choose_version(struct pending *pending, enum level level, size_t i, uint64_t version, uint64_t seed)
{
	const struct unit *unit = &pending->units[level][i];
	size_t words;

	pending->choices[i] = (struct choice){version ? CUT_ALL : 0, UINT32_MAX};
	if (!version)
		return;
	if (!unit->is_payload) {
		pending->choices[i].cut = pending_cut(pending, unit, (uint32_t)version);
		return;
	}
	words = pending_unit_words(pending, unit);
	if (version == 2 && words > 1) /* torn */
		pending->choices[i].words = (uint32_t)(1 + hash_mix(seed ^ pending->lines[unit->first_line].offset) % (words - 1));
}

static void choose_combination(struct pending *pending, enum level level, uint64_t number)
{
	for (size_t i = 0; i < pending->count_units[level]; i++) {
		uint32_t versions = pending->units[level][i].versions;

		choose_version(pending, level, i, number % versions, 0);
		number /= versions;
	}
}

/* Of the versions, either any at all, or what was there at one moment, or the latest; dense or sparse. */
static void choose_random(struct pending *pending, enum level level, uint64_t seed)
{
	static const unsigned odds[] = {32, 128, 224};
	unsigned odd = odds[hash_mix(seed) % 3], mode = (unsigned)(hash_mix(seed + 1) % 3);
	uint32_t moment = (uint32_t)(1 + hash_mix(seed + 2) % (pending->count_stores + 1));

	for (size_t i = 0; i < pending->count_units[level]; i++) {
		const struct unit *unit = &pending->units[level][i];
		uint64_t draw = hash_mix(seed ^ hash_mix(i + 3));
		bool is_there = draw % 256 < odd;

		if (mode == 0)
			choose_version(pending, level, i, (draw >> 8) % unit->versions, draw);
		else
			choose_version(pending, level, i, !is_there ? 0 : unit->is_payload ? 1 : unit->versions - 1, draw);
		if (mode == 1 && is_there && !unit->is_payload)
			pending->choices[i].cut = moment;
	}
}

static void choose_all(struct pending *pending, enum level level, uint32_t cut)
{
	for (size_t i = 0; i < pending->count_units[level]; i++)
		pending->choices[i] = (struct choice){cut, UINT32_MAX};
}

static int choose_one(struct pending *pending, const struct image *image)
{
	if (image->number >= pending->count_units[image->level])
		return -ENOENT;
	choose_all(pending, image->level, image->kind == '+' ? 0 : CUT_ALL);
	if (image->kind == '%')
		choose_version(pending, image->level, image->number, 2, 0);
	else
		pending->choices[image->number].cut = image->kind == '+' ? CUT_ALL : 0;
	return 0;
}

int image_choose(const struct image *image, struct pending *pending)
{
	switch (image->kind) {
	case '=':
		choose_combination(pending, image->level, image->number);
		return 0;
	case '#':
		for (size_t i = 0; i < pending->count_units[image->level]; i++)
			choose_version(pending, image->level, i, i < 64 && image->number >> i & 1, 0);
		return 0;
	case '~':
		choose_random(pending, image->level, image->number);
		return 0;
	case '<':
		choose_all(pending, image->level, (uint32_t)image->number);
		return 0;
	default:
		return choose_one(pending, image);
	}
}

/* --- which are tried ---------------------------------------------------------------------------------------------------------- */

static int images_add(struct images *images, enum level level, char kind, uint64_t number)
{
	if (grow(&images->list, &images->capacity, images->count, sizeof(*images->list)))
		return -ENOMEM;
	images->list[images->count++] = (struct image){level, kind, number};
	return 0;
}

/* A run of `total` numbers of one kind; where it is longer than `limit`, that many of it, spread over all. */
static int images_add_run(struct images *images, enum level level, char kind, uint64_t total, uint64_t limit, uint64_t seed)
{
	uint64_t count = min_u64(total, limit);
	int error = 0;

	for (uint64_t i = 0; i < count && !error; i++) {
		uint64_t from = total * i / count, to = total * (i + 1) / count;

		error = images_add(images, level, kind, from + hash_mix(seed + i) % (to - from));
	}
	return error;
}

static double space_log2(const struct pending *pending, enum level level)
{
	double sum = 0;

	for (size_t i = 0; i < pending->count_units[level]; i++)
		sum += log2(pending->units[level][i].versions);
	return sum;
}

static bool has_payload(const struct pending *pending)
{
	for (size_t i = 0; i < pending->count_units[LEVEL_LINES]; i++)
		if (pending->units[LEVEL_LINES][i].is_payload)
			return true;
	return false;
}

/* Payload units are the few: found by walking, spread where there are too many. */
static int images_add_torn(const struct pending *pending, struct images *images, uint64_t limit, uint64_t seed)
{
	size_t first = images->count, payload = 0, kept = 0;
	int error = 0;

	for (size_t i = 0; i < pending->count_units[LEVEL_LINES] && !error; i++)
		if (pending->units[LEVEL_LINES][i].is_payload) {
			error = images_add(images, LEVEL_LINES, '%', i);
			payload++;
		}
	for (uint64_t i = 0; i < min_u64(payload, limit); i++) {
		size_t from = payload * i / min_u64(payload, limit), to = payload * (i + 1) / min_u64(payload, limit);

		images->list[first + kept++] = images->list[first + from + hash_mix(seed + i) % (to - from)];
	}
	images->count = first + kept;
	return error;
}

static int images_add_level(const struct pending *pending, enum level level, struct images *images, uint64_t limit, uint64_t seed)
{
	size_t units = pending->count_units[level];
	int error = 0;

	if (units <= UNITS_WHOLE)
		error = images_add_run(images, level, '#', 1ull << units, limit, seed);
	if (!error && units > UNITS_WHOLE)
		error = images_add_run(images, level, '+', units, limit / 2, seed + 1);
	if (!error && units > UNITS_WHOLE)
		error = images_add_run(images, level, '-', units, limit / 2, seed + 2);
	for (uint64_t i = 0; i < limit / RANDOM_SHARE && !error; i++)
		error = images_add(images, level, '~', hash_mix(seed + level) + i);
	return error;
}

static int images_add_most(const struct pending *pending, struct images *images, uint64_t limit, uint64_t seed)
{
	uint64_t share = max_u64(limit / (pending->paged ? 2 : 4), 1);
	int error = images_add_run(images, LEVEL_LINES, '<', pending->count_stores, share, seed);

	if (!error && has_payload(pending))
		error = images_add_torn(pending, images, max_u64(share / 2, 1), seed);
	if (!error)
		error = images_add_level(pending, LEVEL_LINES, images, share, seed);
	if (!error && !pending->paged)
		error = images_add_level(pending, LEVEL_WORDS, images, share, seed);
	return error;
}

int images_make(const struct pending *pending, uint64_t limit, uint64_t seed, struct images *images)
{
	enum level level = pending->paged ? LEVEL_LINES : LEVEL_WORDS;
	uint64_t all;
	int error;

	*images = (struct images){.space_log2 = space_log2(pending, level)};
	error = images_add(images, LEVEL_LINES, '<', 0);
	if (!error && pending->count_lines)
		error = images_add(images, LEVEL_LINES, '<', CUT_ALL);
	images->is_whole = images->space_log2 <= log2(COMBINATIONS_WHOLE) + 1e-9;
	if (error || !pending->count_lines)
		return error;
	if (!images->is_whole)
		return images_add_most(pending, images, limit, seed);
	all = (uint64_t)llround(exp2(images->space_log2));
	images->is_whole = all <= limit;
	return images_add_run(images, level, '=', all, limit, seed);
}
