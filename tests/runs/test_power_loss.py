"""What a loss of power may cost: nothing that was said to be written, and never the checkpoint before."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from wavegen.atomic import atomic_write
from wavegen.runs.checkpoints import Checkpoints
from wavegen.runs.weights import write_weights

# Orbax's own notes about the commit; no restore needs them.
NOT_NEEDED = {"_CHECKPOINT_METADATA", "commit_success.txt"}


class Recorder:
    """Replaces the calls that flush, rename and delete by ones that check their order.

    Law: whatever is renamed has been flushed since it was last written, every file of a folder included; and before
    anything is deleted, what was renamed before is on the disk, its parent folder flushed.
    """

    def __init__(self, monkeypatch):
        self.flushed: dict[int, int] = {}
        self.pending: set[Path] = set()
        self.renames = 0
        for name in ("fsync", "rename", "replace", "unlink", "remove", "rmdir"):
            monkeypatch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
        rmtree = shutil.rmtree

        def checked(path, *arguments, **options):
            self._delete(Path(path))
            # What is inside may go in any order.
            pending, self.pending = self.pending, set()
            rmtree(path, *arguments, **options)
            self.pending = pending

        monkeypatch.setattr(shutil, "rmtree", checked)

    def _fsync(self, real):
        def fsync(descriptor):
            real(descriptor)
            status = os.fstat(descriptor)
            self.flushed[status.st_ino] = status.st_mtime_ns
            if stat.S_ISDIR(status.st_mode):
                self.pending -= {folder for folder in self.pending if folder.stat().st_ino == status.st_ino}

        return fsync

    def _rename(self, real):
        def rename(source, target, **options):
            # What is inside a temporary folder is judged when that folder gets its name.
            outermost = not any("-tmp" in folder.name for folder in Path(target).parents)
            if outermost:
                for path in [Path(source), *Path(source).rglob("*")]:
                    if path.name not in NOT_NEEDED:
                        self._expect_flushed(path)
            real(source, target, **options)
            if outermost:
                self.pending.add(Path(target).parent)
                self.renames += 1

        return rename

    _replace = _rename

    def _expect_flushed(self, path: Path) -> None:
        status = path.stat()
        assert status.st_ino in self.flushed, f"{path} was not flushed"
        if not path.is_dir():  # to which orbax adds what is not needed
            assert self.flushed[status.st_ino] == status.st_mtime_ns, (
                f"{path} was written after it was flushed"
            )

    def _unlink(self, real):
        def unlink(path, **options):
            if not isinstance(path, int) and options.get("dir_fd") is None and os.path.exists(path):
                self._delete(Path(path))
            real(path, **options)

        return unlink

    _remove = _rmdir = _unlink

    def _delete(self, path: Path) -> None:
        assert not self.pending, f"{path} is deleted before {self.pending} is on the disk"


def state_of(step: int):
    return {"step": jnp.int32(step), "kernel": jnp.full((4, 4), float(step))}


def save_steps(folder: Path, steps) -> None:
    with Checkpoints(folder, keep_latest=2, keep_best=0) as checkpoints:
        for step in steps:
            checkpoints.save(step, state_of(step), {"name": "x"})


def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_return(tmp_path, monkeypatch):
    recorder = Recorder(monkeypatch)
    with atomic_write(tmp_path / "a.txt") as file:
        file.write(b"1")
    write_weights(tmp_path / "m.safetensors", {"bias": np.ones(2)}, {})
    assert recorder.renames == 2
    assert not recorder.pending


def test_a_checkpoint_is_on_the_disk_before_an_older_one_is_deleted(tmp_path, monkeypatch):
    recorder = Recorder(monkeypatch)
    save_steps(tmp_path / "checkpoints", range(1, 6))
    assert recorder.renames >= 5
    assert not recorder.pending
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["4", "5"]


CUT_OFF = """
import fcntl, os, struct, sys
from pathlib import Path
sys.path[:0] = {path!r}
from runs.test_power_loss import save_steps
save_steps(Path({folder!r}), {steps!r})
descriptor = os.open({folder!r}, os.O_RDONLY)
fcntl.ioctl(descriptor, 0x8004587D, struct.pack("I", 2))  # EXT4_IOC_SHUTDOWN without a flush of the journal
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mkfs.ext4"), reason="needs root and mkfs.ext4")
def test_checkpoints_outlive_a_disk_that_is_cut_off_after_the_last_one(tmp_path):
    image, mount = tmp_path / "disk", tmp_path / "mounted"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    options = ["-o", "loop,commit=300"]
    if subprocess.run(["mount", *options, image, mount], capture_output=True, check=False).returncode:
        pytest.skip("this machine mounts no images")
    try:
        code = CUT_OFF.format(path=sys.path, folder=str(mount / "checkpoints"), steps=[1, 2, 3])
        subprocess.run([sys.executable, "-c", code], check=True, timeout=200)
        subprocess.run(["umount", mount], check=True)
        subprocess.run(["mount", *options, image, mount], check=True)
        with Checkpoints(mount / "checkpoints") as checkpoints:
            restored, step, _ = checkpoints.restore(state_of(0))
            assert step == 3
            np.testing.assert_array_equal(restored["kernel"], state_of(3)["kernel"])
            assert checkpoints.restore(state_of(0), step=2)[1] == 2
    finally:
        subprocess.run(["umount", mount], check=False)
