#include "tests/crash/pending.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

uint64_t hash_mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

uint64_t hash_word(devoff_t offset, uint64_t word)
{
	return hash_mix(hash_mix(offset + 0x9e3779b97f4a7c15u) + word);
}

int grow(void *array, size_t *capacity, size_t count, size_t size)
{
	size_t wanted = *capacity ? *capacity : 64;
	void *grown;

	if (count < *capacity)
		return 0;
	while (wanted <= count)
		wanted *= 2;
	grown = realloc(*(void **)array, wanted * size);
	if (!grown)
		return -ENOMEM;
	*(void **)array = grown;
	*capacity = wanted;
	return 0;
}

int pending_init(struct pending *pending, uint8_t *bytes, uint64_t size, bool paged)
{
	memset(pending, 0, sizeof(*pending));
	pending->bytes = bytes;
	pending->size = size;
	pending->paged = paged;
	pending->line_at = calloc(size / LINE_BYTES, sizeof(*pending->line_at));
	return pending->line_at ? 0 : -ENOMEM;
}

void pending_fini(struct pending *pending)
{
	free(pending->stores);
	free(pending->line_at);
	free(pending->lines);
	free(pending->touches);
	free(pending->units[LEVEL_LINES]);
	free(pending->units[LEVEL_WORDS]);
	free(pending->choices);
	free(pending->applied);
	free(pending->settled);
}

/* --- the stores ------------------------------------------------------------------------------------------------------------- */

int pending_add(struct pending *pending, const struct store *store)
{
	int error = grow(&pending->stores, &pending->capacity_stores, pending->count_stores, sizeof(*store));

	if (!error && store->length)
		pending->stores[pending->count_stores++] = *store;
	return error;
}

static uint64_t word_load(const uint8_t *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof(word));
	return word;
}

static int word_keep(struct pending *pending, devoff_t offset)
{
	if (grow(&pending->settled, &pending->capacity_settled, pending->count_settled, sizeof(struct settled)))
		return -ENOMEM;
	pending->settled[pending->count_settled++] = (struct settled){offset, word_load(pending->bytes + offset)};
	return 0;
}

/* The durable bytes change. */
static int store_settle(struct pending *pending, const struct store *store, uint64_t *hash)
{
	devoff_t start = round_down_u64(store->offset, 8), end = round_up_u64(store->offset + store->length, 8);

	for (devoff_t at = start; at < end; at += 8) {
		if (pending->keeps_settled && word_keep(pending, at))
			return -ENOMEM;
		*hash ^= hash_word(at, word_load(pending->bytes + at));
	}
	memcpy(pending->bytes + store->offset, store->bytes, store->length);
	for (devoff_t at = start; at < end; at += 8)
		*hash ^= hash_word(at, word_load(pending->bytes + at));
	return 0;
}

void pending_unsettle(struct pending *pending)
{
	for (size_t i = pending->count_settled; i-- > 0;)
		memcpy(pending->bytes + pending->settled[i].offset, &pending->settled[i].word, 8);
	pending->count_settled = 0;
}

static struct store store_part(const struct store *store, devoff_t start, devoff_t end)
{
	struct store part = *store;

	part.offset = max_u64(store->offset, start);
	end = min_u64(store->offset + store->length, end);
	part.length = end > part.offset ? end - part.offset : 0;
	part.bytes = store->bytes + (part.offset - store->offset);
	return part;
}

int pending_settle(struct pending *pending, uint32_t thread, devoff_t start, devoff_t end, uint64_t *hash)
{
	struct store *old = pending->stores, part;
	size_t count = pending->count_stores;
	int error = 0;

	pending->stores = NULL;
	pending->count_stores = pending->capacity_stores = 0;
	for (size_t i = 0; i < count && !error; i++) {
		if (thread && old[i].thread != thread) {
			error = pending_add(pending, &old[i]);
			continue;
		}
		part = store_part(&old[i], start, end);
		if (part.length)
			error = store_settle(pending, &part, hash);
		part = store_part(&old[i], 0, start);
		if (!error)
			error = pending_add(pending, &part);
		part = store_part(&old[i], end, UINT64_MAX);
		if (!error)
			error = pending_add(pending, &part);
	}
	free(old);
	return error;
}

/* --- lines ------------------------------------------------------------------------------------------------------------------ */

static struct line *line_get(struct pending *pending, devoff_t offset)
{
	uint32_t *at = &pending->line_at[offset / LINE_BYTES];
	struct line *line;

	if (*at)
		return &pending->lines[*at - 1];
	if (grow(&pending->lines, &pending->capacity_lines, pending->count_lines, sizeof(*line)))
		return NULL;
	line = &pending->lines[pending->count_lines++];
	*at = (uint32_t)pending->count_lines;
	*line = (struct line){.offset = offset};
	memcpy(line->durable, pending->bytes + offset, LINE_BYTES);
	memcpy(line->latest, line->durable, LINE_BYTES);
	return line;
}

static uint8_t line_compare(const uint8_t *a, const uint8_t *b)
{
	uint8_t differs = 0;

	for (unsigned i = 0; i < LINE_WORDS; i++)
		if (memcmp(a + 8 * i, b + 8 * i, 8))
			differs |= (uint8_t)(1u << i);
	return differs;
}

static void line_put(uint8_t *to, devoff_t offset, const struct store *store)
{
	struct store part = store_part(store, offset, offset + LINE_BYTES);

	if (part.length)
		memcpy(to + (part.offset - offset), part.bytes, part.length);
}

static int line_touch(struct pending *pending, devoff_t offset, uint32_t store)
{
	struct line *line = line_get(pending, offset);
	uint32_t touch = (uint32_t)pending->count_touches;

	if (!line || grow(&pending->touches, &pending->capacity_touches, touch, sizeof(struct touch)))
		return -ENOMEM;
	line_put(line->latest, offset, &pending->stores[store]);
	line->differs |= line_compare(line->latest, line->durable);
	pending->touches[pending->count_touches++] = (struct touch){store, UINT32_MAX};
	if (line->count_touches++)
		pending->touches[line->last_touch].next = touch;
	else
		line->first_touch = touch;
	line->last_touch = touch;
	return 0;
}

static int line_order(const void *a, const void *b)
{
	const struct line *one = a, *other = b;

	return one->offset < other->offset ? -1 : one->offset > other->offset;
}

/* Those that are as they were in every version are none. */
static void lines_settle(struct pending *pending)
{
	size_t kept = 0;

	for (size_t i = 0; i < pending->count_lines; i++) {
		pending->line_at[pending->lines[i].offset / LINE_BYTES] = 0;
		if (pending->lines[i].differs)
			pending->lines[kept++] = pending->lines[i];
	}
	pending->count_lines = kept;
	if (kept)
		qsort(pending->lines, kept, sizeof(*pending->lines), line_order);
}

int pending_find_lines(struct pending *pending)
{
	int error = 0;

	pending->count_lines = pending->count_touches = 0;
	for (uint32_t i = 0; i < pending->count_stores && !error; i++) {
		const struct store *store = &pending->stores[i];

		for (devoff_t at = round_down_u64(store->offset, LINE_BYTES); at < store->offset + store->length && !error;
		     at += LINE_BYTES)
			error = line_touch(pending, at, i);
	}
	lines_settle(pending);
	return error;
}

/* Its bytes with the stores before the cut. */
static void line_at_cut(const struct pending *pending, const struct line *line, uint32_t cut, uint8_t *out)
{
	if (cut > pending->touches[line->last_touch].store) {
		memcpy(out, line->latest, LINE_BYTES);
		return;
	}
	memcpy(out, line->durable, LINE_BYTES);
	for (uint32_t i = line->first_touch; pending->touches[i].store < cut; i = pending->touches[i].next)
		line_put(out, line->offset, &pending->stores[pending->touches[i].store]);
}

/* --- units ------------------------------------------------------------------------------------------------------------------ */

static devoff_t unit_start(const struct pending *pending, const struct unit *unit)
{
	devoff_t offset = pending->lines[unit->first_line].offset;

	return unit->words ? offset + 8 * (unsigned)__builtin_ctz(unit->words) : offset;
}

static devoff_t unit_end(const struct pending *pending, const struct unit *unit)
{
	devoff_t offset = pending->lines[unit->first_line + unit->count_lines - 1].offset;

	return unit->words ? offset + 8 * (32 - (unsigned)__builtin_clz(unit->words)) : offset + LINE_BYTES;
}

static bool store_touches(const struct store *store, devoff_t start, devoff_t end)
{
	return store->offset < end && start < store->offset + store->length;
}

static uint32_t unit_count_versions(const struct pending *pending, const struct unit *unit)
{
	devoff_t start = unit_start(pending, unit), end = unit_end(pending, unit);
	uint32_t versions = 1;

	if (unit->is_payload)
		return 3;
	if (unit->count_lines == 1 && pending->lines[unit->first_line].count_touches == 1)
		return 2;
	for (size_t i = 0; i < pending->count_stores; i++)
		versions += store_touches(&pending->stores[i], start, end);
	return versions;
}

uint32_t pending_cut(const struct pending *pending, const struct unit *unit, uint32_t version)
{
	devoff_t start = unit_start(pending, unit), end = unit_end(pending, unit);

	if (version >= unit->versions - 1)
		return CUT_ALL;
	for (uint32_t i = 0; i < pending->count_stores; i++)
		if (store_touches(&pending->stores[i], start, end) && --version == 0)
			return i + 1;
	return CUT_ALL;
}

size_t pending_unit_words(const struct pending *pending, const struct unit *unit)
{
	size_t words = 0;

	for (uint32_t i = 0; i < unit->count_lines; i++)
		words += (size_t)__builtin_popcount(pending->lines[unit->first_line + i].differs);
	return words;
}

static int unit_add(struct pending *pending, enum level level, const struct unit *unit)
{
	size_t *count = &pending->count_units[level];
	struct unit *added;

	if (grow(&pending->units[level], &pending->capacity_units[level], *count, sizeof(*unit)))
		return -ENOMEM;
	added = &pending->units[level][(*count)++];
	*added = *unit;
	added->versions = unit_count_versions(pending, added);
	return 0;
}

static bool block_is_free(const uint8_t *free_map, devoff_t offset)
{
	blkno_t block = offset / BLOCK_BYTES;

	return free_map && free_map[block / 8] & 1u << block % 8;
}

/* Lines of one block from this one on. */
static uint32_t lines_of_block(const struct pending *pending, size_t first)
{
	blkno_t block = pending->lines[first].offset / BLOCK_BYTES;
	uint32_t count = 1;

	while (first + count < pending->count_lines && pending->lines[first + count].offset / BLOCK_BYTES == block)
		count++;
	return count;
}

static int line_add_units(struct pending *pending, uint32_t first)
{
	struct unit unit = {.first_line = first, .count_lines = 1};
	int error = unit_add(pending, LEVEL_LINES, &unit);

	for (unsigned i = 0; i < LINE_WORDS && !error; i++) {
		unit.words = (uint8_t)(pending->lines[first].differs & 1u << i);
		if (unit.words)
			error = unit_add(pending, LEVEL_WORDS, &unit);
	}
	return error;
}

int pending_make_units(struct pending *pending, const uint8_t *free_map)
{
	struct unit unit;
	int error = 0;

	pending->count_units[LEVEL_LINES] = pending->count_units[LEVEL_WORDS] = 0;
	for (uint32_t i = 0; i < pending->count_lines && !error; i += unit.count_lines) {
		unit = (struct unit){.first_line = i, .count_lines = 1};
		unit.is_payload = !pending->paged && block_is_free(free_map, pending->lines[i].offset);
		if (pending->paged || unit.is_payload) {
			unit.count_lines = lines_of_block(pending, i);
			error = unit_add(pending, LEVEL_LINES, &unit);
			if (!error && unit.is_payload)
				error = unit_add(pending, LEVEL_WORDS, &unit);
		} else {
			error = line_add_units(pending, i);
		}
	}
	while (!error && pending->capacity_choices < max_u64(pending->count_units[0], pending->count_units[1]))
		error = grow(&pending->choices, &pending->capacity_choices, pending->capacity_choices, sizeof(struct choice));
	return error;
}

/* --- an image --------------------------------------------------------------------------------------------------------------- */

static int word_apply(struct pending *pending, devoff_t offset, const uint8_t *bytes, uint64_t *hash)
{
	if (grow(&pending->applied, &pending->capacity_applied, pending->count_applied, sizeof(*pending->applied)))
		return -ENOMEM;
	pending->applied[pending->count_applied++] = offset;
	*hash ^= hash_word(offset, word_load(pending->bytes + offset)) ^ hash_word(offset, word_load(bytes));
	memcpy(pending->bytes + offset, bytes, 8);
	return 0;
}

/* *words: how many more may be there. */
static int line_apply(struct pending *pending, const struct line *line, uint8_t mask, uint32_t cut, uint32_t *words, uint64_t *hash)
{
	uint8_t bytes[LINE_BYTES];
	int error = 0;

	line_at_cut(pending, line, cut, bytes);
	for (unsigned i = 0; i < LINE_WORDS && !error; i++) {
		if (!(line->differs & mask & 1u << i) || *words == 0)
			continue;
		--*words;
		if (memcmp(bytes + 8 * i, line->durable + 8 * i, 8))
			error = word_apply(pending, line->offset + 8 * i, bytes + 8 * i, hash);
	}
	return error;
}

int pending_apply(struct pending *pending, enum level level, uint64_t *hash)
{
	int error = 0;

	pending->count_applied = 0;
	for (size_t i = 0; i < pending->count_units[level] && !error; i++) {
		const struct unit *unit = &pending->units[level][i];
		struct choice choice = pending->choices[i];

		for (uint32_t j = 0; j < unit->count_lines && choice.cut && choice.words && !error; j++)
			error = line_apply(pending, &pending->lines[unit->first_line + j], unit->words ? unit->words : 0xff,
					   choice.cut, &choice.words, hash);
	}
	return error;
}

/* Every applied word lies in a line. */
void pending_undo(struct pending *pending)
{
	size_t line = 0;

	for (size_t i = 0; i < pending->count_applied; i++) {
		devoff_t offset = pending->applied[i], start = round_down_u64(offset, LINE_BYTES);

		while (pending->lines[line].offset != start)
			line = pending->lines[line].offset < start ? line + 1 : 0;
		memcpy(pending->bytes + offset, pending->lines[line].durable + (offset - start), 8);
	}
	pending->count_applied = 0;
}
