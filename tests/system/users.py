"""Doing something as another user: in a child process, whose answer comes back."""
import os
import pickle


def as_user(uid, gid, call, *arguments, groups=(), umask=0o022):
    """What call(*arguments) answers, or the OSError it raises, as this user."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read)
            os.setgroups(list(groups))
            os.setgid(gid)
            os.setuid(uid)
            os.umask(umask)
            try:
                answer = (True, call(*arguments))
            except OSError as error:
                answer = (False, error.errno)
            os.write(write, pickle.dumps(answer))
            os._exit(0)
        finally:
            os._exit(99)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        data = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise AssertionError(f"the child that was user {uid} ended with {status}")
    good, answer = pickle.loads(data)
    if not good:
        raise OSError(answer, os.strerror(answer))
    return answer


class UserMixin:
    """For cases with self.mount: files as others see them, refusals by errno."""

    def assert_errno(self, number, call, *arguments, **more):
        with self.assertRaises(OSError) as caught:
            call(*arguments, **more)
        self.assertEqual(caught.exception.errno, number, f"{os.strerror(caught.exception.errno)}, not {os.strerror(number)}")

    def write(self, name, data=b"x", mode=0o644, owner=None):
        path = self.mount.path(name)
        with open(path, "wb") as file:
            file.write(data)
        if owner:
            os.chown(path, *owner)
        os.chmod(path, mode)
        return path

    def mode(self, name):
        return os.lstat(self.mount.path(name)).st_mode & 0o7777
