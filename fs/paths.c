/* Inode -> paths, by the parents tree alone, and path -> inode. */
#include "fs/inode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PATH_DEPTH_MAX 4096
#define PATHS_PER_BATCH 64
#define SYMLINKS_MAX 40

/* A path that grows towards its front. */
struct path {
	char *
	    text; /* used bytes are the last `length` ones of `capacity`, the terminator included */
	size_t capacity, length;
};

static int path_init(struct path *path)
{
	path->capacity = 256;
	path->length = 1;
	path->text = calloc(1, path->capacity);
	return path->text ? 0 : -ENOMEM;
}

static int path_grow(struct path *path)
{
	char *text = calloc(2, path->capacity);

	if (!text)
		return -ENOMEM;
	memcpy(text + 2 * path->capacity - path->length, path->text + path->capacity - path->length,
	       path->length);
	free(path->text);
	path->text = text;
	path->capacity *= 2;
	return 0;
}

static int path_prepend(struct path *path, const char *name, size_t length)
{
	int error = 0;

	while (!error && path->length + length + 1 > path->capacity)
		error = path_grow(path);
	if (error)
		return error;
	path->length += length;
	memcpy(path->text + path->capacity - path->length, name, length);
	path->length++;
	path->text[path->capacity - path->length] = '/';
	return 0;
}

/* The parents record has the same bytes (since version 2): they serve where the directory's own cannot be read. */
static int path_prepend_entry(struct fs *fs, struct path *path, const struct btree_record *parent)
{
	struct btree_key key = {{parent->key.word[1], parent->key.word[2], 0}};
	struct dirent_record dirent;
	struct btree_record record;
	int error = btree_lookup(&fs->dirents, &key, &record);

	if (!error)
		error = format_dirent_unpack(&dirent, record.value, record.length);
	else if (error != -ENOENT && parent->length)
		error = format_dirent_unpack(&dirent, parent->value, parent->length);
	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	return path_prepend(path, dirent.name, dirent.name_length);
}

/*
 * Prepend the names above, up to the root. -ENOENT: a directory on the way has no name (removed,
 * still open). Under the metadata lock.
 */
static int path_prepend_parents(struct fs *fs, struct path *path, inum_t dir)
{
	struct btree_record record;
	unsigned depth;
	int error;

	for (depth = 0; dir != FS_ROOT_INO; depth++) {
		struct btree_key key = {{dir, 0, 0}};

		if (depth == PATH_DEPTH_MAX)
			return -ELOOP;
		error = btree_lookup_ge(&fs->parents, &key, &record);
		if (error)
			return error;
		if (record.key.word[0] != dir)
			return -ENOENT;
		dir = record.key.word[1];
		error = path_prepend_entry(fs, path, &record);
		if (error)
			return error;
	}
	return 0;
}

static int path_build(struct fs *fs, const struct btree_record *parent, char **out)
{
	struct path path;
	int error = path_init(&path);

	if (error)
		return error;
	error = path_prepend_entry(fs, &path, parent);
	if (!error)
		error = path_prepend_parents(fs, &path, parent->key.word[1]);
	if (!error) {
		*out = strdup(path.text + path.capacity - path.length);
		error = *out ? 0 : -ENOMEM;
	}
	free(path.text);
	return error;
}

struct path_list {
	char **paths;
	size_t count, capacity;
};

static int path_list_add(struct path_list *list, char *path)
{
	size_t capacity = list->capacity ? list->capacity * 2 : 4;
	char **paths;

	if (list->count == list->capacity) {
		paths = realloc(list->paths, capacity * sizeof(*paths));
		if (!paths) {
			free(path);
			return -ENOMEM;
		}
		list->paths = paths;
		list->capacity = capacity;
	}
	list->paths[list->count++] = path;
	return 0;
}

static int path_list_add_entry(struct fs *fs, struct path_list *list, const struct btree_record *parent)
{
	char *path;
	int error = path_build(fs, parent, &path);

	if (error)
		return error == -ENOENT ? 0 : error;
	return path_list_add(list, path);
}

/* Some links of the inode from *key on, until there are `limit`; *key is left at the next one. -ENOENT: there was none left. */
static int path_list_add_batch(struct fs *fs, struct path_list *list, inum_t ino, size_t limit, struct btree_key *key)
{
	struct btree_record record;
	unsigned i;
	int error = 0;

	journal_read_begin(fs->journal);
	for (i = 0; i < PATHS_PER_BATCH && list->count < limit && !error; i++) {
		error = btree_lookup_ge(&fs->parents, key, &record);
		if (!error && record.key.word[0] != ino)
			error = -ENOENT;
		if (!error)
			error = path_list_add_entry(fs, list, &record);
		if (error)
			break;
		*key = record.key;
		key->word[2]++;
	}
	journal_read_end(fs->journal);
	return error;
}

void fs_paths_free(char **paths, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		free(paths[i]);
	free(paths);
}

static int paths_of_root(struct path_list *list)
{
	char *root = strdup("/");

	return root ? path_list_add(list, root) : -ENOMEM;
}

int fs_names(struct fs *fs, inum_t ino, size_t limit, char ***out, size_t *count)
{
	struct path_list list = {0};
	struct btree_key key = {{ino, 0, 0}};
	int error = ino == FS_ROOT_INO ? paths_of_root(&list) : 0;

	while (!error && ino != FS_ROOT_INO && list.count < limit)
		error = path_list_add_batch(fs, &list, ino, limit, &key);
	if (error && error != -ENOENT) {
		fs_paths_free(list.paths, list.count);
		return error;
	}
	*out = list.paths;
	*count = list.count;
	return 0;
}

int fs_paths(struct fs *fs, inum_t ino, uint32_t *generation, char ***out, size_t *count)
{
	struct inode *inode;
	struct fs_attr attr;
	int error = inode_get_anyway(fs, ino, &inode);

	if (error)
		return error;
	inode_attr(inode, &attr);
	inode_put(inode);
	error = fs_names(fs, ino, SIZE_MAX, out, count);
	if (!error && generation)
		*generation = attr.record.generation;
	return error;
}

/* --- path -> inode -------------------------------------------------------------------------- */

struct resolver {
	struct fs *fs;
	inum_t ino;
	char *rest; /* malloc'ed */
	const char *next;
	unsigned symlinks;
};

/* What is left of the path is now the target, then the rest. */
static int resolver_follow(struct resolver *r, inum_t link)
{
	char target[FS_SYMLINK_MAX + 1];
	char *rest;
	size_t length, left = strlen(r->next);
	int error = fs_readlink(r->fs, link, target, sizeof(target));

	if (error < 0)
		return error;
	if (++r->symlinks > SYMLINKS_MAX)
		return -ELOOP;
	length = strlen(target);
	rest = malloc(length + left + 2);
	if (!rest)
		return -ENOMEM;
	memcpy(rest, target, length);
	rest[length] = '/';
	memcpy(rest + length + 1, r->next, left + 1);
	free(r->rest);
	r->rest = rest;
	r->next = rest;
	if (target[0] == '/')
		r->ino = FS_ROOT_INO;
	return 0;
}

static int resolver_step(struct resolver *r)
{
	char name[FS_NAME_MAX + 1];
	size_t length = strcspn(r->next, "/");
	struct fs_attr attr;
	int error;

	if (length > FS_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name, r->next, length);
	name[length] = '\0';
	r->next += length;
	r->next += strspn(r->next, "/");
	error = fs_lookup(r->fs, r->ino, name, &attr);
	if (error)
		return error;
	fs_forget(r->fs, attr.ino, 1);
	if (S_ISLNK(attr.record.mode) && *r->next)
		return resolver_follow(r, attr.ino);
	r->ino = attr.ino;
	return 0;
}

int fs_resolve(struct fs *fs, const char *path, inum_t *out)
{
	struct resolver r = {.fs = fs, .ino = FS_ROOT_INO, .rest = strdup(path)};
	int error = 0;

	if (!r.rest)
		return -ENOMEM;
	r.next = r.rest + strspn(r.rest, "/");
	while (*r.next && !error) {
		error = resolver_step(&r);
		r.next += strspn(r.next, "/");
	}
	free(r.rest);
	if (!error)
		*out = r.ino;
	return error;
}
