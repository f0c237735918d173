/* Whose operations these are: root's, and those of two users who share a group. */
#include <grp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/differ/differ.h"

static const struct {
	uid_t uid;
	gid_t gid;
	gid_t groups[2];
	size_t count_groups;
} users[] = {{0, 0, {0}, 0}, {1000, 1000, {1000, 2000}, 2}, {1001, 1001, {1000}, 1}};

unsigned count_users(void)
{
	return sizeof(users) / sizeof(users[0]);
}

/* By system calls: there is one thread. Real and saved ids stay root's, so there is a way back. */
void become(unsigned user)
{
	static unsigned now;

	if (user == now)
		return;
	if (now && (syscall(SYS_setresuid, -1, 0, -1) || syscall(SYS_setresgid, -1, 0, -1)))
		abort();
	if (syscall(SYS_setgroups, users[user].count_groups, users[user].groups))
		abort();
	if (user && (syscall(SYS_setresgid, -1, users[user].gid, -1) || syscall(SYS_setresuid, -1, users[user].uid, -1)))
		abort();
	now = user;
}
