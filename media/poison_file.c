#include "media/poison_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid.h>

#define POISON_TITLE "# mendfs poison for "
#define POISON_FILE_BYTES (POISON_FILE_RANGES * 64u)

struct parse {
	const char *file;
	uint64_t size;
	struct iset_range *ranges;
	size_t count;
	size_t capacity;
	unsigned line;
	struct why *why;
};

static int parse_damaged(const struct parse *parse, const char *what)
{
	return why_set(parse->why, -EUCLEAN, "%s: line %u %s; mend or remove that file",
		       parse->file, parse->line, what);
}

static int parse_title(const struct parse *parse, const char *line, struct poison_tie *tie)
{
	const char *name = line + strlen(POISON_TITLE);

	if (strncmp(line, POISON_TITLE, strlen(POISON_TITLE)) != 0)
		return parse_damaged(parse, "does not begin with \"" POISON_TITLE "\"");
	tie->tied = strcmp(name, "none") != 0;
	if (tie->tied && uuid_parse(name, tie->uuid) < 0)
		return parse_damaged(parse, "names no uuid");
	return 0;
}

/* Decimal digits only: strtoull() alone would take signs, blanks and more. Moves *text past the
 * number and blanks. */
static bool parse_number(const char **text, uint64_t *value)
{
	char *end;

	if (!isdigit((unsigned char)**text))
		return false;
	errno = 0;
	*value = strtoull(*text, &end, 10);
	if (errno || (*end && *end != ' ' && *end != '\t'))
		return false;
	*text = end + strspn(end, " \t");
	return true;
}

static int parse_keep(struct parse *parse, struct iset_range range)
{
	if (parse->count == POISON_FILE_RANGES)
		return parse_damaged(parse, "is one range too many");
	if (parse->count == parse->capacity) {
		size_t capacity = parse->capacity ? parse->capacity * 2 : 64;
		struct iset_range *ranges = reallocarray(parse->ranges, capacity, sizeof(*ranges));

		if (!ranges)
			return why_set(parse->why, -ENOMEM, "no memory");
		parse->ranges = ranges;
		parse->capacity = capacity;
	}
	parse->ranges[parse->count++] = range;
	return 0;
}

static int parse_range(struct parse *parse, const char *line)
{
	uint64_t offset, length;
	uint32_t tag = POISON_NOTIFIED;

	if (!parse_number(&line, &offset) || !parse_number(&line, &length))
		return parse_damaged(parse, "is not \"offset length\" in decimal");
	if (strcmp(line, "latent") == 0)
		tag = POISON_LATENT;
	else if (*line)
		return parse_damaged(parse, "has something other than \"latent\" after the length");
	if (length == 0)
		return parse_damaged(parse, "has length 0");
	if (offset >= parse->size || length > parse->size - offset)
		return parse_damaged(parse, "reaches beyond the end of the image");
	return parse_keep(parse, (struct iset_range){offset, offset + length, tag});
}

static int parse_line(struct parse *parse, const char *line, struct poison_tie *tie)
{
	parse->line++;
	if (parse->line == 1)
		return parse_title(parse, line, tie);
	if (line[0] == 0 || line[0] == '#')
		return 0;
	return parse_range(parse, line);
}

static int parse_text(struct parse *parse, char *text, size_t length, struct poison_tie *tie)
{
	char *end = text + length;

	if (length == 0) {
		parse->line = 1;
		return parse_damaged(parse, "is missing");
	}
	while (text < end) {
		char *newline = memchr(text, '\n', (size_t)(end - text));
		char *stop = newline ? newline : end;
		int error;

		*stop = 0; /* there is room for one more at the end */
		if (strlen(text) != (size_t)(stop - text)) {
			parse->line++;
			return parse_damaged(parse, "has a zero byte");
		}
		error = parse_line(parse, text, tie);
		if (error < 0)
			return error;
		text = stop + 1;
	}
	return 0;
}

static int compare_starts(const void *a, const void *b)
{
	const struct iset_range *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

/* Sorted first: in any other order a long list would cost quadratic time. */
static int parse_deliver(struct parse *parse, struct iset *set)
{
	if (parse->count)
		qsort(parse->ranges, parse->count, sizeof(*parse->ranges), compare_starts);
	for (size_t i = 0; i < parse->count; i++) {
		const struct iset_range *range = &parse->ranges[i];

		if (iset_add(set, range->start, range->end, range->tag) < 0)
			return why_set(parse->why, -ENOMEM, "no memory");
	}
	return 0;
}

/* The whole file with room for a zero byte; -ENOENT passes without a word. */
static int slurp(const char *file, char **text, size_t *length, struct why *why)
{
	int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW | O_NOCTTY);
	struct stat st;
	ssize_t n = 0;
	int error = 0;

	if (fd < 0)
		return why_set(why, -errno, "%s: %s", file, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		error = why_set(why, -EUCLEAN, "%s is no regular file; remove it", file);
	else if (st.st_size > POISON_FILE_BYTES)
		error = why_set(why, -EUCLEAN, "%s is too long (%lld bytes); remove it", file,
				(long long)st.st_size);
	*text = error ? NULL : malloc(POISON_FILE_BYTES + 1);
	if (!error && !*text)
		error = why_set(why, -ENOMEM, "no memory");
	for (*length = 0; !error && *length < POISON_FILE_BYTES; *length += (size_t)n) {
		n = read(fd, *text + *length, POISON_FILE_BYTES - *length);
		if (n < 0)
			error = why_set(why, -errno, "%s: %s", file, strerror(errno));
		if (n <= 0)
			break;
	}
	close(fd);
	return error;
}

int poison_file_read(const char *file, uint64_t size, struct iset *set, struct poison_tie *tie,
		     struct why *why)
{
	struct parse parse = {.file = file, .size = size, .why = why};
	char *text = NULL;
	size_t length = 0;
	int error = slurp(file, &text, &length, why);

	*tie = (struct poison_tie){0};
	if (error == 0)
		error = parse_text(&parse, text, length, tie);
	if (error == 0)
		error = parse_deliver(&parse, set);
	free(parse.ranges);
	free(text);
	return error;
}

static int print_all(FILE *stream, const struct iset *set, const struct poison_tie *tie)
{
	char name[37] = "none";

	if (tie->tied)
		uuid_unparse_lower(tie->uuid, name);
	fprintf(stream, POISON_TITLE "%s\n", name);
	for (size_t i = 0; i < set->count; i++) {
		const struct iset_range *range = &set->ranges[i];

		fprintf(stream, "%" PRIu64 " %" PRIu64 "%s\n", range->start,
			range->end - range->start, range->tag == POISON_LATENT ? " latent" : "");
	}
	errno = 0;
	if (fflush(stream) != 0 || ferror(stream))
		return errno ? -errno : -EIO;
	return fsync(fileno(stream)) < 0 ? -errno : 0;
}

/* A daemon of root may write this for a user's image: whoever owns the image reads it at the next
 * mount. */
static void copy_owner(int from_fd, int to_fd)
{
	struct stat st;

	if (fstat(from_fd, &st) < 0)
		return;
	if (fchown(to_fd, st.st_uid, st.st_gid) == 0)
		fchmod(to_fd, st.st_mode & 0666);
}

static int write_new(const char *temporary, int image_fd, const struct iset *set,
		     const struct poison_tie *tie)
{
	FILE *stream;
	int error;
	int fd;

	unlink(temporary); /* what a killed daemon left */
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	copy_owner(image_fd, fd);
	stream = fdopen(fd, "w");
	if (!stream) {
		error = -errno;
		close(fd);
		return error;
	}
	error = print_all(stream, set, tie);
	if (fclose(stream) != 0 && error == 0)
		error = -errno;
	return error;
}

static int sync_directory(const char *file)
{
	char copy[PATH_MAX];
	int error = 0;
	int fd;

	snprintf(copy, sizeof(copy), "%s", file);
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (fsync(fd) < 0 && errno != EINVAL)
		error = -errno;
	close(fd);
	return error;
}

int poison_file_replace(const char *file, int image_fd, const struct iset *set,
			const struct poison_tie *tie)
{
	char temporary[PATH_MAX];
	int error;

	if (set->count == 0)
		return unlink(file) < 0 && errno != ENOENT ? -errno : sync_directory(file);
	if (set->count > POISON_FILE_RANGES)
		return -EFBIG;
	if (snprintf(temporary, sizeof(temporary), "%s.tmp", file) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	error = write_new(temporary, image_fd, set, tie);
	if (error == 0 && rename(temporary, file) < 0)
		error = -errno;
	if (error < 0) {
		unlink(temporary);
		return error;
	}
	return sync_directory(file);
}
