/*
 * What may or may not have reached the medium at one moment: the stores since the last drain (sync) that covers them, as units that are there or not
 * independently of each other. The medium's bytes are what is durable while nothing is applied; one choice at a time is applied in place and undone.
 */
#ifndef TESTS_CRASH_PENDING_H
#define TESTS_CRASH_PENDING_H

#include "media/media.h"
#include "util/types.h"

struct store {
	devoff_t offset;
	uint64_t length;
	const uint8_t *bytes;
	uint32_t thread;
};

/* 8 bytes that became durable, as they were. */
struct settled {
	devoff_t offset;
	uint64_t word;
};

#define LINE_WORDS 8

/* 64 aligned bytes that some pending store changes. */
struct line {
	devoff_t offset;
	uint8_t durable[LINE_BYTES], latest[LINE_BYTES];
	uint8_t differs; /* bit i: word i differs from the durable one in some version */
	uint32_t count_touches;
	uint32_t first_touch, last_touch; /* in struct pending's touches */
};

/* One store to one line. */
struct touch {
	uint32_t store, next;
};

/* Which of a unit's words are there. */
struct unit {
	uint32_t first_line, count_lines;
	uint8_t words; /* of a unit of one line: bit i: word i is of it */
	bool is_payload; /* data in a block that nobody owns: none, all, or torn at some word */
	uint32_t versions; /* ways in which it can be there, none included */
};

enum level { LEVEL_LINES, LEVEL_WORDS, LEVEL_COUNT }; /* of units: lines (PAGE: pages), words; payload is a unit of either */

#define CUT_ALL UINT32_MAX

/* How much of one unit is there: the stores before `cut`, of these the first `words` words that differ. */
struct choice {
	uint32_t cut;
	uint32_t words;
};

struct pending {
	uint8_t *bytes; /* of the medium */
	uint64_t size;
	bool paged;
	struct store *stores;
	size_t count_stores, capacity_stores;
	uint32_t *line_at; /* by line of the medium: index of its struct line + 1 */
	struct line *lines;
	size_t count_lines, capacity_lines;
	struct touch *touches;
	size_t count_touches, capacity_touches;
	struct unit *units[LEVEL_COUNT];
	size_t count_units[LEVEL_COUNT], capacity_units[LEVEL_COUNT];
	struct choice *choices; /* of the level that is applied */
	size_t capacity_choices;
	bool keeps_settled; /* what was durable before each settling is kept, for pending_unsettle() */
	struct settled *settled;
	size_t count_settled, capacity_settled;
	uint64_t *applied; /* offsets of words that are not the durable ones now */
	size_t count_applied, capacity_applied;
};

int pending_init(struct pending *pending, uint8_t *bytes, uint64_t size, bool paged);
void pending_fini(struct pending *pending);

/* --- the stores, in order ------------------------------------------------------------------------------------------------- */

int pending_add(struct pending *pending, const struct store *store);
/* A drain of this thread, or a sync of [start, end) (thread 0): it is durable. *hash follows the medium's bytes. */
int pending_settle(struct pending *pending, uint32_t thread, devoff_t start, devoff_t end, uint64_t *hash);

/* The durable bytes as they were before the first pending_settle(). */
void pending_unsettle(struct pending *pending);

/* --- units ------------------------------------------------------------------------------------------------------------------ */

/* The lines that differ, in ascending order. */
int pending_find_lines(struct pending *pending);
/* Units of both levels from the lines. free_map: bit i: nobody owns block i in the durable state; may be NULL. */
int pending_make_units(struct pending *pending, const uint8_t *free_map);
/* The cut at which the unit is in its version 1 .. versions - 1. */
uint32_t pending_cut(const struct pending *pending, const struct unit *unit, uint32_t version);
size_t pending_unit_words(const struct pending *pending, const struct unit *unit);

/* --- an image --------------------------------------------------------------------------------------------------------------- */

/* Make the medium what pending->choices says; the image's hash from the durable one's. 0 or -ENOMEM. */
int pending_apply(struct pending *pending, enum level level, uint64_t *hash);
void pending_undo(struct pending *pending);

uint64_t hash_mix(uint64_t x);
/* Of one word at its place; a medium's hash is the xor over what was changed of old and new. */
uint64_t hash_word(devoff_t offset, uint64_t word);
/* Room for one more element of `size` bytes. */
int grow(void *array, size_t *capacity, size_t count, size_t size);

#endif
