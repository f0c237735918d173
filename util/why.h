/*
 * The reason of a failure, in words for the person at the terminal. Functions that open, mount or parse something take a
 * `struct why *` (never NULL) and leave one line in it that says what to do; errno tells programs, this tells people.
 */
#ifndef UTIL_WHY_H
#define UTIL_WHY_H

struct why {
	char text[1024];
};

/* Set the line and return `error` (a negative errno), so that `return why_set(why, -EINVAL, "...", ...)` works. */
int why_set(struct why *why, int error, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
