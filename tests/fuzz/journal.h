/* Inputs of the journal target: a program that builds a log over a small medium, then opens it. */
#ifndef TESTS_FUZZ_JOURNAL_H
#define TESTS_FUZZ_JOURNAL_H

#include "tests/fuzz/program.h"

enum journal_order {
	JOURNAL_RECORD, /* kind (1), flags (1), copies (1), sequence + (1), epoch + (1), place + lines (1), durable + (2), items (1), then each: block (2), lines (8), flags (1), fill (1) */
	JOURNAL_HEAD,	/* flags (1), copies (1), field (1), value (8) */
	JOURNAL_HOME,	/* block (2), flags (1), copies (1), sequence + (1), offset (2), bytes */
	JOURNAL_POISON, /* area (1), offset (4), length (2) */
	JOURNAL_TEAR,	/* copies (1), line (2), lines (1): of the last record, zeros */
	JOURNAL_ENTRY,	/* of the poison log: flags (1), copies (1), sequence (2), offset (8), length (8), state (1), source (1), slot + (1) */
	JOURNAL_PATCH,	/* area (1), offset (4), bytes */
	JOURNAL_USE,	/* once open: opcode (1), block (2), value (1) */
	JOURNAL_ORDERS,
};

enum journal_flag {
	JOURNAL_RAW = 1,	/* the checksum stays broken */
	JOURNAL_OTHER_BOOT = 2,
	JOURNAL_NO_BOOT = 4,
	JOURNAL_SHORT = 8,	/* a record longer or shorter than its items */
	JOURNAL_FOREIGN = 16,	/* another meta_uuid */
	JOURNAL_STAY = 32,	/* the next record goes to the same place */
};

/* The head of an input: mode (1). */
enum journal_mode {
	JOURNAL_READONLY = 1,
	JOURNAL_PAGED = 2,
	JOURNAL_SINGLE = 4, /* one copy of everything */
	JOURNAL_TWICE = 8,
	JOURNAL_POISON_LOG = 16,
};

#define JOURNAL_AREAS 10u

#endif
