/*
 * A file that is worked on in every way at once, and what must be in it: bytes in memory. Each way has an open descriptor of its own (buffered, O_DIRECT, O_APPEND)
 * and a shared mapping, which are all made anew when the file is closed and opened.
 */
#ifndef TESTS_EXERCISE_FILE_H
#define TESTS_EXERCISE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/random.h"

#define PAGE 4096u
#define FILES 2
#define LOG_LINES 40

struct file {
	char path[512];
	char name; /* for messages */
	int fd, direct, append;
	uint8_t *map;	/* `max` bytes, of which only those within the size may be touched */
	uint8_t *model; /* `max` bytes, zeros past the size */
	size_t size;
	bool map_is_dirty; /* stores through the mapping were not followed by msync */
};

struct exercise {
	struct random random;
	struct file files[FILES];
	size_t max;	      /* no file gets larger */
	bool no_space_is_fine; /* ENOSPC is an answer */
	uint8_t *buffer;      /* `max` bytes, aligned to pages */
	unsigned long op;     /* number of the one that is being done */
	unsigned long count[32];
	char log[LOG_LINES][160];
};

/* Remember what is being done; printed when something is wrong. */
void say(struct exercise *x, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Something is wrong: print why and what was done last, exit 1. */
void fail(struct exercise *x, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
/* A call failed: fine if it may be for lack of space, else the end. */
void answer(struct exercise *x, const char *call);

void file_open(struct exercise *x, struct file *f, bool create);
void file_close(struct exercise *x, struct file *f);
/* Is what `bytes` has at [pos, +length) what the model has? */
void file_compare(struct exercise *x, struct file *f, const uint8_t *bytes, size_t pos, size_t length, const char *how);
/* Size and every byte, read in a random way. */
void file_compare_all(struct exercise *x, struct file *f);
void model_resize(struct file *f, size_t size);

/* One random operation. */
void exercise_step(struct exercise *x);
const char *exercise_op_name(unsigned op); /* NULL: no more */

#endif
