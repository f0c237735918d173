#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/xattr.h"
#include "tests/crash/workloads.h"

#define WORDS_MAX 8
#define USER 1000

struct verb {
	const char *name;
	enum model_kind kind;
	const char *args; /* p path, q second path, m mode, n pos, l length, o pos2, u uid, g gid, s slot, r rdev */
	unsigned flags, mode;
};

static const struct verb verbs[] = {
	{"create", MODEL_CREATE, "p", 0, S_IFREG | 0644},
	{"mkdir", MODEL_CREATE, "p", 0, S_IFDIR | 0755},
	{"node", MODEL_CREATE, "pmr", 0, 0},
	{"tmpfile", MODEL_TMPFILE, "ps", 0, S_IFREG | 0600},
	{"symlink", MODEL_SYMLINK, "pq", 0, 0},
	{"link", MODEL_LINK, "pq", 0, 0},
	{"unlink", MODEL_UNLINK, "p", 0, 0},
	{"rmdir", MODEL_RMDIR, "p", 0, 0},
	{"rename", MODEL_RENAME, "pq", RENAME_NOREPLACE, 0},
	{"replace", MODEL_RENAME, "pq", 0, 0},
	{"whiteout", MODEL_RENAME, "pq", RENAME_WHITEOUT, 0},
	{"exchange", MODEL_RENAME, "pq", RENAME_EXCHANGE, 0},
	{"chmod", MODEL_SETATTR, "pm", FS_SET_MODE, 0},
	{"chown", MODEL_SETATTR, "pug", FS_SET_UID | FS_SET_GID, 0},
	{"truncate", MODEL_SETATTR, "pl", FS_SET_SIZE, 0},
	{"utimes", MODEL_SETATTR, "pn", FS_SET_ATIME | FS_SET_MTIME, 0},
	{"settle", MODEL_SETATTR, "plm", FS_SET_SIZE | FS_SET_MODE | FS_SET_MTIME_NOW, 0},
	{"killpriv", MODEL_SETATTR, "p", FS_SET_KILL_SUIDGID, 0},
	{"write", MODEL_WRITE, "pnl", 0, 0},
	{"append", MODEL_APPEND, "pl", 0, 0},
	{"copy", MODEL_COPY, "pnqol", 0, 0},
	{"clone", MODEL_CLONE, "pq", 0, 0},
	{"dedupe", MODEL_DEDUPE, "pnqol", 0, 0},
	{"alloc", MODEL_FALLOCATE, "pnl", 0, 0},
	{"keep", MODEL_FALLOCATE, "pnl", FALLOC_FL_KEEP_SIZE, 0},
	{"punch", MODEL_FALLOCATE, "pnl", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0},
	{"zero", MODEL_FALLOCATE, "pnl", FALLOC_FL_ZERO_RANGE, 0},
	{"zerokeep", MODEL_FALLOCATE, "pnl", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0},
	{"fsync", MODEL_FSYNC, "p", 0, 0},
	{"trim", MODEL_TRIM, "nl", 0, 0},
	{"syncfs", MODEL_SYNCFS, "", 0, 0},
	{"open", MODEL_OPEN, "ps", 0, 0},
	{"forget", MODEL_FORGET, "s", 0, 0},
	{"label", MODEL_LABEL, "p", 0, 0},
	{"resize", MODEL_RESIZE, "l", 0, 0},
	{"setxattr", MODEL_SETXATTR, "pql", 0, 0},
	{"removexattr", MODEL_REMOVEXATTR, "pq", 0, 0},
	{"setacl", MODEL_SETXATTR, "pm", 0, 0},
	{"setdefault", MODEL_SETXATTR, "pm", 0, 0},
	{"kill", MODEL_KILL, "p", 0, 0},
	{"chattr", MODEL_FLAGS, "pm", FS_SET_FLAGS, 0},
	{"hint", MODEL_FLAGS, "pm", FS_SET_EXTENT_HINT, 0},
	{"project", MODEL_FLAGS, "pm", FS_SET_PROJECT, 0},
	{"spread", MODEL_WRITE, "pl", 0, 0},
	{"fill", MODEL_FALLOCATE, "p", FALLOC_FL_KEEP_SIZE, 0},
};

static int script_add(struct script *script, const struct model_op *op)
{
	size_t capacity = script->capacity ? 2 * script->capacity : 16;
	struct model_op *ops;

	if (script->count == script->capacity) {
		ops = realloc(script->ops, capacity * sizeof(*ops));
		if (!ops)
			return -ENOMEM;
		script->ops = ops;
		script->capacity = capacity;
	}
	script->ops[script->count++] = *op;
	return 0;
}

/* --- words to operations -------------------------------------------------------------------------------------------------- */

static uint64_t number(const char *word)
{
	char *end;
	uint64_t value = strtoull(word, &end, 0);

	if (*end == 'b') {
		value *= BLOCK_BYTES;
		end++;
	}
	if (*end == '+')
		value += strtoull(end + 1, NULL, 0);
	if (*end == '-')
		value -= strtoull(end + 1, NULL, 0);
	return value;
}

/* "@n": a text of n bytes; ".": nothing. */
static const char *text_of(const char *word)
{
	static char longest[FS_SYMLINK_MAX + 1];

	if (word[0] == '.' && !word[1])
		return "";
	if (word[0] != '@')
		return word;
	memset(longest, 'x', FS_SYMLINK_MAX);
	return longest + FS_SYMLINK_MAX - min_u64(number(word + 1), FS_SYMLINK_MAX);
}

static void op_set(struct model_op *op, char what, const char *word)
{
	switch (what) {
	case 'p':
		op->path = text_of(word);
		break;
	case 'q':
		op->path2 = text_of(word);
		break;
	case 'm':
		op->mode = (unsigned)number(word);
		break;
	case 'n':
		op->pos = number(word);
		break;
	case 'l':
		op->length = number(word);
		break;
	case 'o':
		op->pos2 = number(word);
		break;
	case 'u':
		op->uid = (uid_t)number(word);
		break;
	case 'g':
		op->gid = (gid_t)number(word);
		break;
	case 'r':
		op->rdev = (dev_t)number(word);
		break;
	default:
		op->slot = (unsigned)number(word) % MODEL_SLOTS;
	}
}

static const struct verb *find_verb(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(verbs[i].name, name))
			return &verbs[i];
	return NULL;
}

/* Single blocks, each with a hole after it. */
static int add_spread(struct script *script, const struct model_op *op)
{
	struct model_op one = *op;
	int error = 0;

	one.length = BLOCK_BYTES;
	for (uint64_t i = 0; i < op->length && !error; i++) {
		one.pos = 2 * i * BLOCK_BYTES;
		error = script_add(script, &one);
	}
	return error;
}

/* Smaller and smaller pieces beyond the end of file, more of each than there can be. */
static int add_fill(struct script *script, const struct model_op *op)
{
	static const uint64_t pieces[] = {1 << 20, 1 << 16, BLOCK_BYTES};
	struct model_op one = *op;
	int error = 0;

	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
		for (unsigned n = 0; n < 16 && !error; n++) {
			one.length = pieces[i];
			error = script_add(script, &one);
			one.pos += one.length;
		}
	return error;
}

static int add_words(struct script *script, char *words[], size_t count, struct why *why)
{
	const struct verb *verb = find_verb(words[0]);
	struct model_op op = {.uid = USER, .gid = USER};

	if (!verb || count != strlen(verb->args) + 1)
		return why_set(why, -EINVAL, "%s: no such operation, or with other words", words[0]);
	op.kind = verb->kind;
	op.flags = verb->flags;
	op.mode = verb->mode;
	for (size_t i = 1; i < count; i++)
		op_set(&op, verb->args[i - 1], words[i]);
	if (!strcmp(verb->name, "setacl") || !strcmp(verb->name, "setdefault"))
		op.path2 = verb->name[3] == 'a' ? XATTR_NAME_ACCESS : XATTR_NAME_DEFAULT;
	if (!strcmp(verb->name, "spread"))
		return add_spread(script, &op);
	return strcmp(verb->name, "fill") ? script_add(script, &op) : add_fill(script, &op);
}

static int add_sentence(struct script *script, char *sentence, struct why *why)
{
	char *words[WORDS_MAX], *next = NULL, *word;
	size_t count = 0;

	for (word = strtok_r(sentence, " ", &next); word && count < WORDS_MAX; word = strtok_r(NULL, " ", &next))
		words[count++] = word;
	return count ? add_words(script, words, count, why) : 0;
}

int script_parse(struct script *script, const char *text, struct why *why)
{
	char *next = NULL, *sentence;
	int error = 0;

	*script = (struct script){.text = strdup(text)};
	if (!script->text)
		return why_set(why, -ENOMEM, "out of memory");
	for (sentence = strtok_r(script->text, ";", &next); sentence && !error; sentence = strtok_r(NULL, ";", &next))
		error = add_sentence(script, sentence, why);
	if (error)
		script_fini(script);
	return error;
}

void script_fini(struct script *script)
{
	free(script->ops);
	free(script->text);
	*script = (struct script){0};
}
