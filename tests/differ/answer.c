/* How answers are compared, and told. */
#include <errno.h>
#include <stdarg.h>
#include <unistd.h>

#include "tests/differ/differ.h"

#define A_YEAR (365 * 86400)

/*
 * What an operation set is compared to the nanosecond; it is never within the last year (pick.c). Everything else is "now", so that it is seen which times an
 * operation moved, not to when.
 */
static int time_print(struct differ *d, const char *name, const struct timespec *at, char *to, size_t room)
{
	time_t now = time(NULL);

	if (at->tv_sec >= d->began - A_YEAR && at->tv_sec <= now + 2)
		return snprintf(to, room, " %s=now", name);
	return snprintf(to, room, " %s=%lld.%09ld", name, (long long)at->tv_sec, at->tv_nsec);
}

void facts_of(struct differ *d, const struct stat *st, char *to, size_t room)
{
	size_t used = (size_t)snprintf(to, room, "mode=%o nlink=%lu uid=%u gid=%u rdev=%lx", st->st_mode, (unsigned long)st->st_nlink, st->st_uid, st->st_gid,
				       S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode) ? (unsigned long)st->st_rdev : 0);

	if (!S_ISDIR(st->st_mode))
		used += (size_t)snprintf(to + used, room - used, " size=%lld", (long long)st->st_size);
	used += (size_t)time_print(d, "atime", &st->st_atim, to + used, room - used);
	if (!S_ISFIFO(st->st_mode))
		used += (size_t)time_print(d, "mtime", &st->st_mtim, to + used, room - used);
	time_print(d, "ctime", &st->st_ctim, to + used, room - used);
}

bool answers_agree(const struct answer *a, const struct answer *b)
{
	return a->value == b->value && a->error == b->error && !strcmp(a->facts, b->facts) && a->count == b->count && !memcmp(a->bytes, b->bytes, a->count);
}

/* Long names are told by their length. */
static void path_print(FILE *to, const char *path)
{
	fputs(" \"", to);
	while (*path) {
		size_t same = strspn(path, (char[]){*path, 0});

		if (same > 8)
			fprintf(to, "[%c*%zu]", *path, same);
		else
			fprintf(to, "%.*s", (int)same, path);
		path += same;
	}
	fputs("\"", to);
}

static void acl_print(FILE *to, const struct op *op)
{
	fprintf(to, " acl");
	for (unsigned i = 1; i + 1 < op->acl[15] / 4 + 1 && i < 15; i += 2)
		fprintf(to, " %x:%x:%d", op->acl[i] & 0xffff, op->acl[i] >> 16, (int)op->acl[i + 1]);
}

static void times_print(FILE *to, const struct op *op)
{
	for (unsigned i = 0; i < 2; i++)
		if (op->times[i].tv_nsec == UTIME_NOW || op->times[i].tv_nsec == UTIME_OMIT)
			fprintf(to, " %s", op->times[i].tv_nsec == UTIME_NOW ? "now" : "omit");
		else
			fprintf(to, " %lld.%09ld", (long long)op->times[i].tv_sec, op->times[i].tv_nsec);
}

static void attributes_print(FILE *to, const struct op *op, unsigned uses)
{
	if (uses & USES_OWNER)
		fprintf(to, " owner %d:%d", (int)op->uid, (int)op->gid);
	if (uses & USES_DEVICE)
		fprintf(to, " device %lx", (unsigned long)op->device);
	if (uses & USES_XATTR)
		fprintf(to, " %s", op->xattr);
	if (uses & USES_TIMES)
		times_print(to, op);
	if (uses & USES_ACL)
		acl_print(to, op);
}

void op_print(FILE *to, const struct op *op)
{
	unsigned uses = op->kind->uses;

	fprintf(to, "%s", op->kind->name);
	if (uses & USES_SLOT)
		fprintf(to, " #%u", op->slot[0]);
	if (uses & USES_SLOT2)
		fprintf(to, " #%u", op->slot[1]);
	if (uses & USES_PATH)
		path_print(to, op->path[0]);
	if (uses & (USES_PATH2 | USES_TARGET))
		path_print(to, op->path[1]);
	if (uses & USES_FLAGS)
		fprintf(to, " flags %#x", op->flags);
	if (uses & USES_MODE)
		fprintf(to, " mode %04o", op->mode);
	if (uses & USES_POS)
		fprintf(to, " at %lld", (long long)op->pos[0]);
	if (uses & USES_POS2)
		fprintf(to, " to %lld", (long long)op->pos[1]);
	if (uses & USES_LENGTH)
		fprintf(to, " length %zu", op->length);
	attributes_print(to, op, uses);
	fprintf(to, " (user %u, umask %03o)", op->user, op->umask);
}

void answer_print(FILE *to, const struct answer *a)
{
	fprintf(to, "%ld", a->value);
	if (a->error)
		fprintf(to, " %s", strerrorname_np(a->error) ? strerrorname_np(a->error) : "?");
	if (a->facts[0])
		fprintf(to, " %s", a->facts);
}

void print_first_difference(FILE *to, const uint8_t *a, const uint8_t *b, size_t count_a, size_t count_b)
{
	size_t least = count_a < count_b ? count_a : count_b, at = 0, wrong = 0;

	while (at < least && a[at] == b[at])
		at++;
	for (size_t i = at; i < least; i++)
		wrong += a[i] != b[i];
	fprintf(to, "%zu and %zu bytes, first difference at %zu, %zu in all\n", count_a, count_b, at, wrong);
	for (unsigned i = 0; i < 2; i++) {
		const uint8_t *bytes = i ? b : a;
		size_t count = i ? count_b : count_a;

		fprintf(to, "  %c:", 'A' + (int)i);
		for (size_t j = at; j < at + 16 && j < count; j++)
			fprintf(to, " %02x", bytes[j]);
		fprintf(to, "  |%.*s|\n", (int)strnlen((const char *)bytes, count < 300 ? count : 0), (const char *)bytes);
	}
}

static void history_print(const struct differ *d)
{
	unsigned long first = d->op > HISTORY ? d->op - HISTORY + 1 : 1;

	for (unsigned long i = first; i <= d->op; i++) {
		printf("  %lu: ", i);
		op_print(stdout, &d->done[i % HISTORY]);
		for (unsigned side = 0; side < SIDES; side++) {
			printf(side ? " | " : " = ");
			answer_print(stdout, &d->answers[i % HISTORY][side]);
		}
		printf("\n");
	}
}

static void fail_begin(const struct differ *d)
{
	printf("last operations, what A answered | what B answered:\n");
	history_print(d);
	printf("differ: seed %llu, operation %lu: ", (unsigned long long)d->seed, d->op);
}

static void fail_end(const struct differ *d)
{
	printf("again: MENDFS_SEED=%llu differ --until %lu --trace\n", (unsigned long long)d->seed, d->op);
	fflush(stdout);
	_exit(1);
}

void fail_op(struct differ *d)
{
	const struct answer *a = &d->side[0].answer, *b = &d->side[1].answer;

	fail_begin(d);
	op_print(stdout, &d->done[d->op % HISTORY]);
	for (unsigned side = 0; side < SIDES; side++) {
		printf("\n  %c: ", d->side[side].name);
		answer_print(stdout, &d->side[side].answer);
	}
	printf("\n");
	if (a->count != b->count || memcmp(a->bytes, b->bytes, a->count))
		print_first_difference(stdout, a->bytes, b->bytes, a->count, b->count);
	fail_end(d);
	abort();
}

void fail_tree(struct differ *d, const char *path, const char *format, ...)
{
	va_list list;

	fail_begin(d);
	printf("the trees differ: %s: ", path);
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
	printf("\n");
	fail_end(d);
	abort();
}
